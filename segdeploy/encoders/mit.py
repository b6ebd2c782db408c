"""Encoders `mit_b0` to `mit_b5`: SegFormer's Mix Transformer (Xie et al. 2021, https://arxiv.org/abs/2105.15203);
and `mit`, the same with every number of its own.

The maps are those of transformers' `SegformerModel`. Between the operations the layout is (N, H, W, C), so that a
change from sequence to map is one transpose; a graph for any height and width needs no more than that.
"""

from __future__ import annotations

import math
from functools import partial
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from timm.layers.drop import DropPath
from torch import Tensor, nn

from segdeploy.encoders.mit_table import PRESETS, MitConfig, MitPresetConfig
from segdeploy.encoders.mit_weights import load_hub, load_local
from segdeploy.plugin import EncoderPlugin, FeatureMap, hookimpl

if TYPE_CHECKING:
    from collections.abc import Callable


class Attention(nn.Module):
    """Self-attention whose keys and values come from a map shrunk by a strided convolution (paper, section 3.1)."""

    def __init__(self, width: int, heads: int, reduction: int) -> None:
        super().__init__()
        self.heads = heads
        self.q_proj = nn.Linear(width, width)
        self.k_proj = nn.Linear(width, width)
        self.v_proj = nn.Linear(width, width)
        self.o_proj = nn.Linear(width, width)
        self.reduce = nn.Conv2d(width, width, reduction, reduction) if reduction > 1 else None
        self.reduce_norm = nn.LayerNorm(width) if reduction > 1 else None

    def forward(self, x: Tensor) -> Tensor:
        """(N, H, W, C) -> (N, H, W, C)."""
        source = x
        if self.reduce is not None and self.reduce_norm is not None:
            source = self.reduce_norm(self.reduce(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1))
        mixed = attend(self._split(self.q_proj(x)), self._split(self.k_proj(source)), self._split(self.v_proj(source)))
        joined: Tensor = self.o_proj(mixed.transpose(1, 2).reshape(x.shape))
        return joined

    def _split(self, x: Tensor) -> Tensor:
        """(N, H, W, C) -> (N, heads, H * W, C / heads)."""
        batch, height, width, channels = x.shape
        return x.reshape(batch, height * width, self.heads, channels // self.heads).transpose(1, 2)


def attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """softmax(query @ key^T / sqrt(d)) @ value over (N, heads, L, d)."""
    if torch.compiler.is_exporting():
        # Two products and a softmax are all of it at opset 20; torch writes a fourth more nodes for its own
        # operator. The keys carry the scale: they are the fewer.
        scores = query @ (key.transpose(-2, -1) * query.shape[-1] ** -0.5)
        mixed: Tensor = scores.softmax(-1) @ value
        return mixed
    return F.scaled_dot_product_attention(query, key, value)


class MixFFN(nn.Module):
    """Feed-forward part with a 3x3 depthwise convolution, which tells positions apart (paper, section 3.1).

    The linear layers are 1x1 convolutions: so the transposes stand where the map is narrow.
    """

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Conv2d(width, hidden, 1)
        self.dwconv = nn.Conv2d(hidden, hidden, 3, padding=1, groups=hidden)
        self.activation = nn.GELU()
        self.fc2 = nn.Conv2d(hidden, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(N, H, W, C) -> (N, H, W, C)."""
        hidden = self.activation(self.dwconv(self.fc1(x.permute(0, 3, 1, 2))))
        out: Tensor = self.fc2(hidden).permute(0, 2, 3, 1)
        return out


class Block(nn.Module):
    """Attention and feed-forward part, each normalised before and added to what came in; (N, H, W, C)."""

    def __init__(self, width: int, heads: int, reduction: int, hidden: int, eps: float, drop_path: float) -> None:
        super().__init__()
        self.layernorm_before = nn.LayerNorm(width, eps)
        self.attention = Attention(width, heads, reduction)
        self.layernorm_after = nn.LayerNorm(width, eps)
        self.mlp = MixFFN(width, hidden)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        """(N, H, W, C) -> (N, H, W, C)."""
        x = x + self.drop_path(self.attention(self.layernorm_before(x)))
        out: Tensor = x + self.drop_path(self.mlp(self.layernorm_after(x)))
        return out


class PatchEmbeddings(nn.Module):
    """Overlapping patches: a strided convolution and a normalisation."""

    def __init__(self, in_channels: int, width: int, size: int, stride: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(in_channels, width, size, stride, size // 2)
        self.layer_norm = nn.LayerNorm(width)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, ceil(H / stride), ceil(W / stride), width)."""
        out: Tensor = self.layer_norm(self.proj(x).permute(0, 2, 3, 1))
        return out


class Stage(nn.Module):
    """Patch embeddings, blocks, a normalisation: one level of the pyramid."""

    def __init__(self, config: MitConfig, index: int, drop_paths: list[float]) -> None:
        super().__init__()
        width, eps = config.hidden_sizes[index], config.layer_norm_eps
        incoming = config.hidden_sizes[index - 1] if index else 3
        heads, reduction = config.num_attention_heads[index], config.sr_ratios[index]
        hidden = int(width * config.mlp_ratios[index])
        self.patch_embeddings = PatchEmbeddings(incoming, width, config.patch_sizes[index], config.strides[index])
        self.blocks = nn.Sequential(*(Block(width, heads, reduction, hidden, eps, rate) for rate in drop_paths))
        self.layer_norm = nn.LayerNorm(width, eps)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, width, H / stride, W / stride), rounded up."""
        out: Tensor = self.layer_norm(self.blocks(self.patch_embeddings(x))).permute(0, 3, 1, 2)
        return out


class MixTransformer(nn.Module):
    """(N, 3, H, W), normalised as for ImageNet -> one map per stage.

    Each stage's map must give one shrunk key at least: sides of 29 pixels or more with the published numbers.
    """

    dynamic_size = True

    def __init__(self, config: MitConfig) -> None:
        super().__init__()
        self.config = config
        total = sum(config.depths)
        rates = iter(config.drop_path_rate * i / max(total - 1, 1) for i in range(total))
        self.stages = nn.ModuleList(
            Stage(config, index, [next(rates) for _ in range(depth)]) for index, depth in enumerate(config.depths)
        )
        self.features = tuple(
            FeatureMap(channels=width, stride=math.prod(config.strides[: i + 1]))
            for i, width in enumerate(config.hidden_sizes)
        )
        self.apply(_init)

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """(N, 3, H, W) -> (N, C_i, ceil(H / s_i), ceil(W / s_i)) per stage."""
        maps = []
        x = image
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        return tuple(maps)


def _init(module: nn.Module) -> None:
    """As Pyramid Vision Transformer v2 (Wang et al. 2021, https://arxiv.org/abs/2106.13797), from which it comes."""
    if isinstance(module, nn.Linear) or (isinstance(module, nn.Conv2d) and module.kernel_size == (1, 1)):
        nn.init.trunc_normal_(module.weight, std=0.02)
    elif isinstance(module, nn.Conv2d):
        fan_out = math.prod(module.kernel_size) * module.out_channels // module.groups
        nn.init.normal_(module.weight, std=math.sqrt(2 / fan_out))
    if isinstance(module, nn.Linear | nn.Conv2d) and module.bias is not None:
        nn.init.zeros_(module.bias)


def build_preset(name: str, config: MitPresetConfig) -> MixTransformer:
    """`mit_b0` to `mit_b5` with random weights."""
    return MixTransformer(PRESETS[name].model_copy(update={"drop_path_rate": config.drop_path_rate}))


def load_preset(name: str, module: nn.Module, config: MitPresetConfig) -> None:
    """Weights from `config.weights`, or NVIDIA's from cache or hub, into the encoder in place; MissingPartError."""
    assert isinstance(module, MixTransformer)
    if config.weights is not None:
        load_local(module, config.weights)
    elif config.use_pretrained:
        load_hub(module, f"nvidia/{name.replace('_', '-')}")


def load_own(module: nn.Module, config: MitConfig) -> None:
    """Weights from `config.weights`, if given, into the encoder in place; MissingPartError."""
    assert isinstance(module, MixTransformer)
    if config.weights is not None:
        load_local(module, config.weights)


@hookimpl
def segdeploy_register_encoders(register: Callable[[EncoderPlugin], None]) -> None:
    """Register `mit` and its presets."""
    summary = "SegFormer's Mix Transformer (Xie et al. 2021)"
    register(
        EncoderPlugin(
            name="mit",
            summary=f"{summary} by its numbers",
            config=MitConfig,
            build=MixTransformer,
            load_pretrained=load_own,
        )
    )
    for name in PRESETS:
        register(
            EncoderPlugin(
                name=name,
                summary=f"{summary}, size {name[-2:].upper()}",
                config=MitPresetConfig,
                build=partial(build_preset, name),
                load_pretrained=partial(load_preset, name),
            )
        )
