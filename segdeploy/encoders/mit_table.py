"""The numbers of a Mix Transformer: the keys of `mit`, and what `mit_b0` to `mit_b5` mean by them."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field, model_validator

from segdeploy.encoders.pretrained import PretrainedSection
from segdeploy.plugin import Section

# Limits far above any published network: a run or a config.json of a stranger's may not ask for the whole memory.
Width = Annotated[int, Field(ge=1, le=8192)]
Depth = Annotated[int, Field(ge=1, le=200)]
Heads = Annotated[int, Field(ge=1, le=256)]
Patch = Annotated[int, Field(ge=1, le=63)]
Reduction = Annotated[int, Field(ge=1, le=64)]
Stride = Annotated[int, Field(ge=2, le=64)]
Ratio = Annotated[float, Field(gt=0, le=16)]
_MOST_WEIGHTS = 10**9
Rate = Annotated[float, Field(ge=0, lt=1)]


class MitConfig(Section):
    """A Mix Transformer by its numbers, one per stage in each list; the keys are those of transformers' config.json."""

    hidden_sizes: Annotated[tuple[Width, ...], Field(min_length=1, max_length=8)] = (32, 64, 160, 256)
    """Width of each stage."""
    depths: tuple[Depth, ...] = (2, 2, 2, 2)
    """Blocks in each stage."""
    num_attention_heads: tuple[Heads, ...] = (1, 2, 5, 8)
    """Attention heads in each stage; they divide its width."""
    sr_ratios: tuple[Reduction, ...] = (8, 4, 2, 1)
    """By how much keys and values are shrunk at either side in each stage."""
    patch_sizes: tuple[Patch, ...] = (7, 3, 3, 3)
    """Size of the convolution that begins each stage; odd."""
    strides: tuple[Stride, ...] = (4, 2, 2, 2)
    """Stride of the convolution that begins each stage."""
    mlp_ratios: tuple[Ratio, ...] = (4.0, 4.0, 4.0, 4.0)
    """Hidden width of the feed-forward part, as a multiple of the stage's width."""
    layer_norm_eps: Annotated[float, Field(gt=0, le=1)] = 1e-5
    """Epsilon of the normalisations in the blocks and after each stage: 1e-5 in transformers (whatever its
    config.json says), 1e-6 in the authors' code. Those after a convolution have 1e-5 in both."""
    drop_path_rate: Rate = 0.1
    """Share of the last block's residual branches that training drops (stochastic depth); rises from 0 at the first."""
    weights: str | None = None
    """A folder of transformers' save_pretrained (any SegFormer), or its model.safetensors or pytorch_model.bin, to
    start from; relative to the working directory."""
    trainable: bool = True
    """false: the encoder keeps its weights while the decoder learns."""

    @model_validator(mode="after")
    def _stages_agree(self) -> Self:
        stages = len(self.hidden_sizes)
        for key in PER_STAGE:
            if len(getattr(self, key)) != stages:
                raise ValueError(
                    f"{key}: expected one number per stage, {stages} as in hidden_sizes, got {getattr(self, key)}"
                )
        for width, heads in zip(self.hidden_sizes, self.num_attention_heads, strict=True):
            if width % heads:
                raise ValueError(f"num_attention_heads: expected a divisor of the width {width}, got {heads}")
        for width, ratio in zip(self.hidden_sizes, self.mlp_ratios, strict=True):
            if width * ratio < 1:
                raise ValueError(f"mlp_ratios: expected a hidden width of 1 or more, got {ratio} of {width}")
        if not all(size % 2 for size in self.patch_sizes):
            raise ValueError(f"patch_sizes: expected odd numbers, got {self.patch_sizes}")
        if (weights := self._weights()) > _MOST_WEIGHTS:
            raise ValueError(f"hidden_sizes: expected a network of 1e9 weights at most, got one of {weights:.1e}")
        return self

    def _weights(self) -> int:
        """Of all convolutions and linear layers but the depthwise ones."""
        count = 0
        for i, width in enumerate(self.hidden_sizes):
            incoming = self.hidden_sizes[i - 1] if i else 3
            count += incoming * width * self.patch_sizes[i] ** 2
            reduction = self.sr_ratios[i] ** 2 if self.sr_ratios[i] > 1 else 0
            count += self.depths[i] * width * (width * (4 + reduction) + 2 * int(width * self.mlp_ratios[i]))
        return count


PER_STAGE = ("hidden_sizes", "depths", "num_attention_heads", "sr_ratios", "patch_sizes", "strides", "mlp_ratios")
_WIDE = (64, 128, 320, 512)
PRESETS = {  # table 6 of the paper
    "mit_b0": MitConfig(),
    "mit_b1": MitConfig(hidden_sizes=_WIDE),
    "mit_b2": MitConfig(hidden_sizes=_WIDE, depths=(3, 4, 6, 3)),
    "mit_b3": MitConfig(hidden_sizes=_WIDE, depths=(3, 4, 18, 3)),
    "mit_b4": MitConfig(hidden_sizes=_WIDE, depths=(3, 8, 27, 3)),
    "mit_b5": MitConfig(hidden_sizes=_WIDE, depths=(3, 6, 40, 3)),
}


class MitPresetConfig(PretrainedSection):
    """SegFormer's Mix Transformer, for any image size. NVIDIA's weights are for non-commercial use only.

    The licence of `nvidia/mit-b*` is the NVIDIA Source Code License for SegFormer (research or evaluation); with
    `use_pretrained: false` nothing of it is used.
    """

    use_pretrained: bool = True
    """Start from NVIDIA's ImageNet weights (nvidia/mit-b*), from the hub's local cache or the hub. Their licence
    allows research and evaluation only."""
    weights: str | None = None
    """A folder of transformers' save_pretrained (any SegFormer of this size), or its model.safetensors or
    pytorch_model.bin, to start from instead; relative to the working directory."""
    drop_path_rate: Rate = 0.1
    """Share of the last block's residual branches that training drops (stochastic depth); rises from 0 at the first."""
