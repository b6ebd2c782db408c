import numpy as np
import onnxruntime
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from segdeploy.encoders.timm import TimmEncoder
from segdeploy.export.trace import OPSET, reason, trace


class Windowed(nn.Module):
    """Attention inside windows, (N, windows, heads, tokens, channels), as timm's Hiera and Twins write it."""

    fused_attn: bool

    def __init__(self):
        super().__init__()
        self.qkv = nn.Linear(8, 24)

    def forward(self, image):
        q, k, v = self.qkv(image).view(len(image), 4, 5, 2, 3, 4).permute(4, 0, 1, 3, 2, 5).unbind(0)
        if getattr(self, "fused_attn", True):
            return F.scaled_dot_product_attention(q, k, v)
        return (q * 4**-0.5 @ k.transpose(-2, -1)).softmax(dim=-1) @ v


def same(module, program, image):
    session = onnxruntime.InferenceSession(program.model_proto.SerializeToString(), providers=["CPUExecutionProvider"])
    with torch.no_grad():
        expected = module(image)
    expected = [expected] if isinstance(expected, torch.Tensor) else expected
    found = session.run(None, {"image": image.numpy()})
    return all(np.allclose(a, b, atol=1e-4) for a, b in zip(found, expected, strict=True))


def test_attention_of_five_dimensions_is_written_out():
    module = Windowed().eval()
    module.fused_attn = True
    program = trace(module, torch.randn(2, 4, 5, 8), {0: "batch"}, ["maps"])
    assert module.fused_attn
    assert same(module, program, torch.randn(3, 4, 5, 8))
    assert [o.name for o in program.model_proto.graph.output] == ["maps"]
    assert [o.version for o in program.model_proto.opset_import if not o.domain] == [OPSET]


def test_attention_that_cannot_be_written_out_stays_an_error():
    with pytest.raises(torch.onnx.OnnxExporterError) as caught:
        trace(Windowed().eval(), torch.randn(2, 4, 5, 8), {0: "batch"})
    assert reason(caught.value) == "only 4D query, key, and value are supported"


def test_the_error_is_that_of_the_second_try(monkeypatch):
    """Where writing attention out does not help either; the flag comes back all the same."""

    class Stubborn(Windowed):
        def forward(self, image):
            if not self.fused_attn:
                raise ValueError("nor this")
            return super().forward(image)

    module = Stubborn().eval()
    module.fused_attn = True
    with pytest.raises(torch.onnx.OnnxExporterError) as caught:
        trace(module, torch.randn(2, 4, 5, 8), {0: "batch"})
    assert reason(caught.value) == "nor this"
    assert module.fused_attn


class Branches(nn.Module):
    def forward(self, image):
        return image * 2 if image.max() > 3 else image


def test_an_error_is_all_that_is_said(capfd):
    with pytest.raises(Exception, match="data-dependent"):
        trace(Branches(), torch.randn(2, 3, 8, 8), {0: "batch"})
    assert "".join(capfd.readouterr()) == ""


class Small(nn.Module):
    """Numbers that are nearly nothing, as authors write them against a division by zero."""

    def __init__(self):
        super().__init__()
        self.gain = nn.Parameter(torch.tensor(1 + 1e-6))
        self.register_buffer("precise", torch.tensor([1e-12, 1.0], dtype=torch.float64))

    def forward(self, image):
        length = image.pow(2).sum(1, keepdim=True).sqrt()
        tiny = image * 1e-9
        return (
            image / (length + 1e-12),
            image / (length + torch.tensor(1e-6) * 1e-6),
            image / (length + self.precise[0]),
            image / torch.cond(length.sum() > 0, lambda x: x + 1e-12, lambda x: x + 2e-12, (length,)),
            (tiny + 1e-9) * 1e9,
            (tiny - 1e-9) * 1e9,
            (1 - image * (1 + 1e-6) + image) * 1e6,
            (image * self.gain - image) * 1e6,
        )


def test_small_numbers_stay():
    """Found by an author: onnxscript dropped `+ 1e-12`, and what had been zeros were no numbers any more."""
    module, image = Small().eval(), torch.zeros(2, 3, 8, 8)
    program = trace(module, image, {0: "batch"})
    assert same(module, program, image)
    assert same(module, program, torch.randn(3, 3, 8, 8))
    assert len(program.model_proto.graph.input) == 1


def test_maxvit_with_a_free_batch():
    encoder = TimmEncoder("test_maxvit").eval()
    assert same(encoder, trace(encoder, torch.randn(2, 3, 160, 160), {0: "batch"}), torch.randn(3, 3, 160, 160))
