"""A good encoder and decoder, and broken twins of them: each differs by one change, and breaks one rule."""

import contextlib
import socket
import urllib.request

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import nn

from segdeploy.conformance.find import Part
from segdeploy.plugin import Auxiliary, DecoderPlugin, EncoderPlugin, FeatureMap, Section
from segdeploy.plugin.distributions import Owner

OWNER = Owner(entry_point="twin", distribution="twins", version="1.0")


# Good ones


def make_network():
    """A whole network: what an import's factory makes."""
    return nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 6, 1))


class Config(Section):
    """A small part."""

    width: int = Field(default=8, ge=4, le=64)
    """Channels of the finest level."""


class Encoder(nn.Module):
    """Two levels, at strides 4 and 8."""

    def __init__(self, config):
        super().__init__()
        width = config.width
        self.stem = nn.Sequential(nn.Conv2d(3, width, 4, 4, 1), nn.BatchNorm2d(width))
        self.down = nn.Sequential(nn.Conv2d(width, 2 * width, 3, 2, 1), nn.BatchNorm2d(2 * width))
        self.features = (FeatureMap(channels=width, stride=4), FeatureMap(channels=2 * width, stride=8))

    def finest(self, image):
        return self.stem(image).relu()

    def forward(self, image):
        x = self.finest(image)
        return x, self.down(x).relu()


class Decoder(nn.Module):
    """The levels of strides 4 and 8, joined at the finer."""

    def __init__(self, config, features):
        super().__init__()
        self.levels = [i for i, f in enumerate(features) if f.stride in (4, 8)]
        self.join = nn.Conv2d(sum(features[i].channels for i in self.levels), config.width, 3, 1, 1)
        self.out = FeatureMap(channels=config.width, stride=4)

    def up(self, x, finer):
        return F.interpolate(x, size=finer.shape[-2:], mode="bilinear", align_corners=False)

    def forward(self, maps):
        finer, coarser = (maps[i] for i in self.levels)
        return self.join(torch.cat([finer, self.up(coarser, finer)], 1))


def encoder(build=Encoder, config=Config, **more):
    return EncoderPlugin(name="twin", summary="a twin", config=config, build=build, **more)


def decoder(build=Decoder, config=Config, **more):
    return DecoderPlugin(name="twin", summary="a twin", config=config, build=build, **more)


# Keys


class Silent(Section):
    """A key without a sentence."""

    width: int = 8


class Invalid(Section):
    """A default that its own bounds refuse."""

    width: int = Field(default=2, ge=4)
    """Channels of the finest level."""


class Loose(Section):
    """Takes keys that it does not know."""

    model_config = {"extra": "allow"}
    width: int = 8
    """Channels of the finest level."""


class Required(Section):
    """No default."""

    width: int
    """Channels of the finest level."""


class Unused(Config):
    """A key that nothing reads."""

    dropout: float = 0.1
    """Share of the channels that training drops."""


def build_and_log(config):
    # Looks at every key, and uses none by it.
    "".join(map(repr, (config, config.model_dump(), vars(config), config.model_dump_json(), hash(config))))
    assert config == config.model_copy()
    return Encoder(config)


class ByKeyword(Encoder):
    """Its keys are the arguments of its constructor."""

    def __init__(self, *, width, **others):
        super().__init__(Config(width=width))


# Build


class ListOfFeatures(Encoder):
    def __init__(self, config):
        super().__init__(config)
        self.features = list(self.features)


class NoForwardAux(Encoder):
    aux = (Auxiliary(channels=8, stride=4, weight=0.4),)


def refuses(config, features):
    raise ValueError("of this decoder's own")


class FixedWeights(Encoder):
    def __init__(self, config):
        super().__init__(config)
        generator = torch.Generator().manual_seed(0)
        with torch.no_grad():
            for p in self.parameters():
                p.copy_(torch.randn(p.shape, generator=generator) / p[0].numel() ** 0.5)


class Downloads(Encoder):
    def __init__(self, config):
        super().__init__(config)
        with contextlib.suppress(OSError):  # where there is no DNS, nothing is connected to
            urllib.request.urlopen("http://weights.example.org/x.pth", timeout=1)


class Connects(Encoder):
    def __init__(self, config):
        super().__init__(config)
        with socket.socket() as to, contextlib.suppress(OSError):
            self.connect(to, ("127.0.0.1", 9))

    def connect(self, to, address):
        to.connect(address)


class ConnectsWithoutError(Connects):
    def connect(self, to, address):
        to.connect_ex(address)


class Reseeds(Encoder):
    def __init__(self, config):
        super().__init__(config)
        torch.manual_seed(0)


def leaves(config):
    raise SystemExit(0)


# Maps


class WrongStride(Encoder):
    def __init__(self, config):
        super().__init__(config)
        self.features = (self.features[0], FeatureMap(channels=2 * config.width, stride=16))


class ForgetsALevel(Encoder):
    def forward(self, image):
        return (self.finest(image),)


class ByFactor(Decoder):
    def up(self, x, finer):
        return F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)


class AtTheCoarser(Decoder):
    def forward(self, maps):
        return F.avg_pool2d(super().forward(maps), 2)


class WithAuxiliary(Encoder):
    """A good one."""

    aux = (Auxiliary(channels=8, stride=4, weight=0.4),)

    def forward_aux(self, image):
        maps = self(image)
        return maps, (maps[0],)


class OtherFirst(WithAuxiliary):
    def forward_aux(self, image):
        maps = self(image)
        return (maps[0] * 2, maps[1]), (maps[0],)


class WrongAuxiliary(WithAuxiliary):
    aux = (Auxiliary(channels=16, stride=4, weight=0.4),)


class AuxiliaryAlone(WithAuxiliary):
    def forward_aux(self, image):
        maps, (first,) = super().forward_aux(image)
        return maps, first


class InPlace(Encoder):
    def finest(self, image):
        return super().finest(image.mul_(0.5))


class InPlaceDecoder(Decoder):
    def forward(self, maps):
        if not self.training:
            maps[self.levels[0]].mul_(0.5)
        return super().forward(maps)


# Numbers


class Drops(Encoder):
    def finest(self, image):
        return F.dropout(super().finest(image), 0.1, training=True)


class OverTheBatch(Encoder):
    def finest(self, image):
        x = super().finest(image)
        return x - 0.5 * x.mean(0, keepdim=True)


class Spare(Encoder):
    def __init__(self, config):
        super().__init__(config)
        self.spare = nn.Conv2d(3, 3, 1)


class Misspelt(Decoder):
    def __init__(self, config, features):
        super().__init__(config, features)
        self.outt = self.out
        del self.out


class ReluInPlace(Decoder):
    def forward(self, maps):
        for level in self.levels:
            maps[level].relu_()
        return super().forward(maps)


class Detached(Encoder):
    def finest(self, image):
        return super().finest(image).detach()


class Hidden(Encoder):
    def __init__(self, config):
        super().__init__(config)
        self.gain = 0.5 + torch.rand(()).item()

    def finest(self, image):
        return super().finest(image) * self.gain


class Tied(Encoder):
    def __init__(self, config):
        super().__init__(config)
        self.again = self.stem


class NotANumberAlone(Encoder):
    """The deviation over a batch of one is not a number."""

    def finest(self, image):
        x = super().finest(image)
        squares = (x - x.mean(0, keepdim=True)).square().sum(0, keepdim=True)
        return x / (1 + (squares / (x.shape[0] - 1)).sqrt())


GOOD = {
    "encoder": encoder(),
    "encoder with a map for training": encoder(WithAuxiliary),
    "decoder": decoder(),
}

# Kind, rule, twin.
TWINS = [
    ("encoder", "config-defaults", encoder(config=Silent)),
    ("encoder", "config-defaults", encoder(config=Invalid)),
    ("encoder", "config-defaults", encoder(config=Loose)),
    ("decoder", "config-defaults", decoder(config=dict)),
    ("encoder", "build", encoder(ListOfFeatures)),
    ("encoder", "build", encoder(leaves)),
    ("encoder", "build", encoder(NoForwardAux)),
    ("decoder", "build", decoder(refuses)),
    ("decoder", "build", decoder(Misspelt)),
    ("decoder", "build", decoder(lambda features: None)),
    ("encoder", "build-reads-no-weights", encoder(FixedWeights)),
    ("encoder", "build-reads-no-weights", encoder(Reseeds)),
    ("encoder", "build-reads-no-weights", encoder(Downloads)),
    ("encoder", "build-reads-no-weights", encoder(Connects)),
    ("encoder", "build-reads-no-weights", encoder(ConnectsWithoutError)),
    ("encoder", "levels", encoder(WrongStride)),
    ("encoder", "levels", encoder(ForgetsALevel)),
    ("decoder", "output", decoder(ByFactor)),
    ("decoder", "output", decoder(AtTheCoarser)),
    ("encoder", "auxiliary", encoder(OtherFirst)),
    ("encoder", "auxiliary", encoder(WrongAuxiliary)),
    ("encoder", "auxiliary", encoder(AuxiliaryAlone)),
    ("encoder", "config-keys-used", encoder(config=Unused)),
    ("encoder", "config-keys-used", encoder(build_and_log, config=Unused)),
    ("encoder", "input-kept", encoder(InPlace)),
    ("decoder", "input-kept", decoder(InPlaceDecoder)),
    ("decoder", "input-kept", decoder(ReluInPlace)),
    ("encoder", "deterministic", encoder(Drops)),
    ("encoder", "batch-independence", encoder(OverTheBatch)),
    ("encoder", "gradient", encoder(Spare)),
    ("encoder", "gradient", encoder(Detached)),
    ("encoder", "state-round-trip", encoder(Hidden)),
    ("encoder", "state-round-trip", encoder(Tied)),
]


def part(kind, plugin):
    return Part(kind=kind, name=plugin.name, plugin=plugin, owner=OWNER)
