"""One timm model as segdeploy's encoder: `describe` costs no memory, `measure` runs it. Read by probe_timm.py."""

from __future__ import annotations

import hashlib
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import onnxruntime
import torch
from timm.models import _registry
from torch import Tensor, nn
from torch.export import Dim

from segdeploy.encoders.timm import TimmEncoder
from segdeploy.export.trace import trace

Size = tuple[int, int]
Row = dict[str, Any]

DIVISION = (
    "Constraints violated",
    "divisible",
    "Mod(",
    "cannot be solved",
)  # errors that sides known to be multiples may cure
NO_MEMORY = ("MemoryError", "allocate memory", "bad_alloc", "bad allocation")
LARGE = 700e6  # parameters: what onnxruntime's copies of the weights, laid out for speed, may not double
TOLERANCE = 1e-3  # largest difference between torch and onnxruntime, as a part of the map's largest value


def reason(error: BaseException) -> str:
    """The innermost cause in one line."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0] if lines else ''}"[:240]


def wrong_levels(encoder: TimmEncoder, maps: tuple[Tensor, ...], size: Size) -> str | None:
    """What is not as declared about `maps` of an image of `size`: channels, and sides rounded up or down."""
    for m, declared in zip(maps, encoder.features, strict=True):
        sides = [(side // declared.stride, -(-side // declared.stride)) for side in size]
        if (
            m.ndim != 4
            or m.shape[1] != declared.channels
            or any(found not in allowed for found, allowed in zip(m.shape[2:], sides, strict=True))
        ):
            return (
                f"{tuple(m.shape[1:])} at {size[0]}x{size[1]}, declared {declared.channels} of stride {declared.stride}"
            )
    return None


def takes(encoder: TimmEncoder, size: Size, device: str) -> str | None:
    """None where the encoder takes images of `size` and its levels are as declared, else what goes wrong."""
    try:
        with torch.no_grad(), torch.device(device):
            return wrong_levels(encoder, encoder(torch.zeros(1, 3, *size)), size)
    except Exception as e:  # whatever a model raises
        return reason(e)


def multiple_of(n: int, scale: int) -> Size:
    """A size near 96x64 times `scale` whose sides are multiples of `n` and, for small `n`, not of 2 n."""
    height, width = (n * (side * scale // n | 1) for side in (96, 64))
    return (height, width + (2 * n if n < 64 else n)) if height == width else (height, width)


def find_sizes(encoder: TimmEncoder, device: str) -> Row:
    """Which sizes work: `multiple` and `scale` for `multiple_of`, or one `fixed` size; and in words, `sizes`."""
    why = None
    for scale in (1, 2, 4):
        for n in (1, 2, 4, 8, 16, 32):
            found = takes(encoder, multiple_of(n, scale), device) or takes(encoder, (64 * scale, 96 * scale), device)
            why = why or found
            if found is None:
                what = "any" if n == 1 else f"multiple of {n}"
                words = what if scale == 1 else f"{what} from {96 * scale}x{64 * scale}"
                return {"sizes": words, "multiple": n, "scale": scale, "why_not_any": why}
    native = tuple(encoder.body.pretrained_cfg.get("input_size", (3, 224, 224))[1:])
    for n in sorted({64, 128, 224, 256, *native}):
        if takes(encoder, multiple_of(n, 1), device) is None:
            return {"sizes": f"multiple of {n}", "multiple": n, "scale": 1, "why_not_any": why}
    wrong = takes(encoder, native, device)
    words = "none with levels as declared" if wrong else f"fixed {native[0]}x{native[1]}"
    return {"sizes": words, "fixed": native, "why_not_any": wrong or why}


def build(name: str) -> TimmEncoder:
    """The encoder with random weights, in which every layer has a say.

    Initial values that switch branches off (zero scales, 1e-6 layer scales) would hide what those branches do.
    """
    torch.manual_seed(0)
    encoder = TimmEncoder(name)
    with torch.no_grad():
        for key, p in encoder.named_parameters():
            if p.numel() and p.min() == p.max():
                if p.ndim > 1 or key.endswith("bias"):
                    p.normal_(0, 0.02)
                else:
                    p.uniform_(0.5, 1.5)
    return encoder


def _no(error: BaseException) -> str:
    """What an error says of a model: nothing, where the machine is too small for it."""
    return "?" if any(words in reason(error) for words in NO_MEMORY) else "no"


def train_once(encoder: TimmEncoder, size: Size) -> Row:
    """One step's gradients on two images; the statistics of batch normalisation become nearly those of the two.

    Not quite: a channel without variance would make rounding errors grow some hundred times in every layer.
    """
    encoder.train()
    for m in encoder.modules():
        if isinstance(m, nn.modules.batchnorm._BatchNorm):
            m.momentum = 0.9
    try:
        maps = encoder(torch.randn(2, 3, *size))
        torch.stack([(m * torch.randn_like(m)).mean() for m in maps]).sum().backward()  # type: ignore[no-untyped-call]
    except Exception as e:
        encoder.zero_grad(set_to_none=True)
        return {"trains": _no(e), "trains_note": reason(e)}
    grads = [p.grad for p in encoder.parameters() if p.requires_grad]
    unused = sum(g is None for g in grads)
    bad = sum(g is not None and not bool(g.isfinite().all()) for g in grads)
    encoder.zero_grad(set_to_none=True)
    if bad:
        return {"trains": "no", "trains_note": f"{bad} of {len(grads)} gradients are not finite"}
    return {"trains": "yes", "trains_note": f"{unused} of {len(grads)} parameters unused" if unused else ""}


class Graph:
    """An exported encoder in onnxruntime."""

    def __init__(self, encoder: TimmEncoder, size: Size, free: dict[int, Any]) -> None:
        example = torch.randn(2, 3, *size)
        program = trace(encoder, example, free)
        self.encoder = encoder
        self.worst = 0.0
        sides = list(program.model.graph.inputs[0].shape or ())
        if any(isinstance(sides[axis], int) for axis in free):
            raise RuntimeError(f"the exporter fixed a free dimension without a word: {sides}")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.log_severity_level = 4
        if sum(p.numel() for p in encoder.parameters()) > LARGE:
            options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
            options.add_session_config_entry("session.disable_prepacking", "1")
        with TemporaryDirectory() as folder:  # weights in a file of their own: protobuf ends at 2 GB
            path = Path(folder, "encoder.onnx")
            program.save(path, external_data=True)
            del program
            self.session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])

    def check(self, batch: int, size: Size) -> str | None:
        """None where onnxruntime gives what torch gives, else the difference or the error."""
        where = f"{batch}x{size[0]}x{size[1]}"
        image = torch.randn(batch, 3, *size)
        with torch.no_grad():
            expected = [m.numpy() for m in self.encoder(image)]
        if not all(np.isfinite(m).all() and m.any() for m in expected):
            return f"{where}: torch's own maps are all zero or not finite"
        try:
            found = self.session.run(None, {"image": image.numpy()})
        except Exception as e:  # onnxruntime's errors have no common base
            return f"{where}: {reason(e)}"
        if [m.shape for m in found] != [m.shape for m in expected]:
            return f"{where}: WRONG shapes {[m.shape for m in found]}"
        worst = max(float(np.abs(a - b).max() / np.abs(b).max()) for a, b in zip(found, expected, strict=True))
        self.worst = max(self.worst, worst)
        return None if worst <= TOLERANCE else f"{where}: WRONG by {worst:.2g}"


def export_free(encoder: TimmEncoder, found: Row) -> tuple[Row, str | None]:
    """The result with free height and width, and that at the example's own size (None: right)."""
    n, scale = found["multiple"], found["scale"]
    if n <= 32:
        units = [(32 * scale * h, 32 * scale * w) for h, w in ((4, 5), (2, 3), (5, 7))]
    elif n <= 64:
        units = [(n * h, n * w) for h, w in ((2, 3), (1, 2), (3, 4))]
    else:
        units = [(n * h, n * w) for h, w in ((1, 2), (1, 1), (2, 2))]
    example, small, large = units
    unit = max(n, 32)
    note = ""
    try:
        graph = Graph(encoder, example, {0: "batch", 2: "height", 3: "width"})
    except Exception as e:
        note = reason(e)
        if not any(word in str(e) for word in DIVISION):
            return {"dynamic": "no", "dynamic_note": note}, note
        try:
            graph = Graph(encoder, example, {0: "batch", 2: unit * Dim("h"), 3: unit * Dim("w")})
        except Exception:
            return {"dynamic": "no", "dynamic_note": note}, note
    same = graph.check(1, example) or graph.check(3, example)
    other = [r for r in (graph.check(2, small), graph.check(2, large)) if r]
    row: Row = {"dynamic_error": graph.worst}
    if same or other:
        return row | {
            "dynamic": "no",
            "dynamic_note": "; ".join([note, *other] if note else other or [str(same)]),
        }, same
    if note:
        return row | {"dynamic": f"only as {unit}h x {unit}w", "dynamic_note": note}, same
    if n < 32 and (odd := graph.check(2, multiple_of(n, scale))):
        return row | {"dynamic": "multiples of 32", "dynamic_note": odd}, same
    return row | {"dynamic": "yes", "dynamic_note": ""}, same


def export_fixed(encoder: TimmEncoder, size: Size) -> Row:
    """The result with a free batch alone."""
    try:
        graph = Graph(encoder, size, {0: "batch"})
    except Exception as e:
        return {"exports": _no(e), "exports_note": reason(e)}
    wrong = graph.check(1, size) or graph.check(3, size)
    return {"exports": "no" if wrong else "yes", "exports_note": wrong or "", "exports_error": graph.worst}


def measure_fixed(name: str) -> Row:
    """As `measure`, without a try of free height and width."""
    return measure(name, free_sizes=False)


def measure(name: str, *, free_sizes: bool = True) -> Row:
    """Everything about one model, on real tensors."""
    encoder = build(name).eval()
    found = find_sizes(encoder, "cpu")
    size = found.get("fixed") or (
        (128 * found["scale"], 160 * found["scale"])
        if found["multiple"] <= 32
        else (found["multiple"], (1 + free_sizes) * found["multiple"])
    )
    row = found | train_once(encoder, size)
    encoder.eval()
    if not free_sizes:
        return row | {"dynamic": "?"} | export_fixed(encoder, size)
    if "fixed" in found:
        why = "one size only" if found["sizes"].startswith("fixed") else "levels not as declared"
        return row | {"dynamic": "no", "dynamic_note": why} | export_fixed(encoder, size)
    free, same = export_free(encoder, found)
    row |= free
    if same is None:
        return row | {"exports": "yes", "exports_note": ""}
    return row | export_fixed(encoder, size)


def describe(name: str) -> Row:
    """Levels, parameters, kind and sizes, without memory for weights."""
    module = _registry._model_to_module[name]
    with torch.device("meta"):
        try:
            encoder = TimmEncoder(name).eval()
        except Exception as e:
            return {"module": module, "error": reason(e)}
    layers = sorted({f"{type(m).__module__}.{type(m).__qualname__}" for m in encoder.modules()})
    found = find_sizes(encoder, "meta")
    form = "fixed" if "fixed" in found else min(found["multiple"], 64)
    return {
        "module": module,
        "params": sum(p.numel() for p in encoder.parameters()),
        "strides": [f.stride for f in encoder.features],
        "channels": [f.channels for f in encoder.features],
        "kind": f"{module} {form} {hashlib.sha256(' '.join(layers).encode()).hexdigest()[:12]}",
        **found,
    }
