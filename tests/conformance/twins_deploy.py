"""Encoders and decoders that break a rule on the way to an engine, and good ones beside them."""

import torch
import torch.nn.functional as F
import twins
from torch import nn

# Export


class Branches(twins.Encoder):
    def finest(self, image):
        x = super().finest(image)
        return x * 2 if x.sum() > 0 else x


class OtherWhenExported(twins.Encoder):
    def finest(self, image):
        x = super().finest(image)
        return x.flip(-1) if torch.compiler.is_exporting() else x


class FixedPool(twins.Encoder):
    dynamic_size = True

    def finest(self, image):
        x = super().finest(image)
        pooled = F.adaptive_avg_pool2d(x, 2)
        return x + F.interpolate(pooled, size=x.shape[-2:], mode="nearest")


class Dynamic(twins.Encoder):
    """A good one."""

    dynamic_size = True


# Deploy


class Antialiased(twins.Decoder):
    def up(self, x, finer):
        return F.interpolate(x, size=finer.shape[-2:], mode="bilinear", antialias=True)


class DilatedUp(twins.Encoder):
    """Nothing in the table, and nothing that TensorRT for RTX builds: a strided and dilated transposed convolution."""

    def __init__(self, config):
        super().__init__(config)
        self.up = nn.ConvTranspose2d(config.width, config.width, 3, 2, dilation=2)

    def finest(self, image):
        x = super().finest(image)
        return x + self.up(x)[..., : x.shape[-2], : x.shape[-1]]


class Large(twins.Decoder):
    def forward(self, maps):
        return super().forward(tuple(m * 3e5 for m in maps)) / 3e5


class Lifted(twins.Decoder):
    """In range, and lost to FP16, whose numbers are 4 apart at 4096."""

    def forward(self, maps):
        return super().forward(maps) + 4096.0 - 4096.0


class Spread(twins.Decoder):
    """One channel is a thousand times the others, which then have no integers left; the next layer undoes it."""

    def __init__(self, config, features):
        super().__init__(config, features)
        self.mix = nn.Conv2d(config.width, config.width, 1)
        self.mix.weight.data[:, 0] /= 1e3
        gain = torch.ones(config.width, 1, 1)
        gain[0] = 1e3
        self.register_buffer("gain", gain)

    def forward(self, maps):
        return self.mix(super().forward(maps) * self.gain)


class Hoards(twins.Encoder):
    def __init__(self, config):
        super().__init__(config)
        self.kept = []

    def finest(self, image):
        x = super().finest(image)
        if not torch.compiler.is_exporting():
            self.kept.append(x.detach())
        return x


GOOD = {
    "encoder of any size": twins.encoder(Dynamic),
    "decoder that keeps its large values in FP32": twins.decoder(
        Large, keep_fp32=("node_mul*", "node_c*", "node_upsample*", "node_div*")
    ),
}

# Kind, rule, twin.
TWINS = [
    ("encoder", "export", twins.encoder(Branches)),
    ("encoder", "labels", twins.encoder(OtherWhenExported)),
    ("encoder", "dynamic-size", twins.encoder(FixedPool)),
    ("decoder", "tensorrt-lint", twins.decoder(Antialiased)),
    ("encoder", "tensorrt-build", twins.encoder(DilatedUp)),
    ("decoder", "fp16-range", twins.decoder(Large)),
    ("decoder", "fp16", twins.decoder(Lifted)),
    ("decoder", "int8", twins.decoder(Spread)),
    ("encoder", "cost", twins.encoder(Hoards)),
]
