"""An encoder or decoder under test: configured, wired to a partner, made once and exported once."""

from __future__ import annotations

import functools
import json
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from segdeploy.classes import ClassMap, default_colors
from segdeploy.conformance.blame import Blame
from segdeploy.conformance.find import Part, all_parts, parts
from segdeploy.conformance.rule import BrokenError, finite
from segdeploy.conformance.section import KeysNeededError, required_keys, section_of
from segdeploy.errors import ConfigError
from segdeploy.export.onnx_graph import export_onnx
from segdeploy.model import spec as description
from segdeploy.model.segmenter import IMAGENET_MEAN, IMAGENET_STD, Segmenter, features_of, of_fixed_size

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from segdeploy.plugin import Section
    from segdeploy.plugin.manager import Kind

NUM_CLASSES = 5
SIZES = ((64, 96), (65, 97), (99, 70))

# In the order in which they are tried, and small. U-Net's encoder has every stride from 1 to 32.
_PARTNERS: dict[str, dict[str, dict[str, Any]]] = {
    "encoder": {"timm": {"model_name": "mobilenetv3_small_050"}, "unet": {"base_channels": 8, "num_stages": 5}},
    "decoder": {
        "fpn": {"num_channels": 32, "merge_channels": 16},
        "unet": {"channels": [16]},
        "segformer": {"hidden_size": 32},
    },
}


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Inside, torch's random numbers start at `seed`; outside, nothing has changed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


def _normalised_bytes(count: int, size: tuple[int, int]) -> Tensor:
    """(count, 3, H, W) float: what a deployed model makes of random bytes."""
    pixels = torch.randint(0, 256, (count, 3, *size), generator=torch.Generator().manual_seed(0)) / 255
    return (pixels - torch.tensor(IMAGENET_MEAN).view(3, 1, 1)) / torch.tensor(IMAGENET_STD).view(3, 1, 1)


class Subject:
    """`values` are keys of the part's own; `partner` names the other half, by default one of ours that fits."""

    def __init__(self, part: Part, values: Mapping[str, Any] | None = None, partner: str | None = None) -> None:
        self.part = part
        self.values = dict(values or {})
        self.blame = Blame(part.plugin.build)
        self.asked_partner = partner

    @functools.cached_property
    def section(self) -> Section:
        """The part's configuration.

        Raises:
            ConfigError: a key or value that was asked for and that the part refuses.
        """
        with self.blame("the configuration's defaults", besides=ConfigError):
            return section_of(self.part, self.values)

    # The two halves

    @functools.cached_property
    def partner(self) -> tuple[Part, Section]:
        """The other half, the first that this one can work with.

        Raises:
            KeysNeededError: it can only be made from keys of its own.
            ConfigError: the partner that was asked for does not fit.
        """
        other: Kind = "decoder" if self.part.kind == "encoder" else "encoder"
        own = self.section  # a key that it refuses is no reason to look for another partner
        if self.asked_partner is not None:
            chosen = parts(self.asked_partner, other)[0]
            if required_keys(chosen):
                raise self._judged_beside(chosen)
            section = section_of(chosen, _PARTNERS[other].get(chosen.name, {}))
            self.join(chosen, section, own)
            return chosen, section
        reasons = []
        fitting = []
        for candidate, values in self._candidates(other):
            section = section_of(candidate, values)
            try:
                encoder, decoder = self.join(candidate, section, own)
            except ConfigError as e:
                reasons.append(f"{candidate}: {e}")
                continue
            mine, its = (encoder, decoder) if self.part.kind == "encoder" else (decoder, encoder)
            fitting.append((candidate, section))
            # One that promises no less lets every promise be judged.
            if getattr(its, "dynamic_size", False) or not getattr(mine, "dynamic_size", False):
                return candidate, section
        if fitting:
            return fitting[0]
        if needy := [part for part in self._kin(other) if required_keys(part)]:
            raise self._judged_beside(needy[0])
        raise BrokenError(f"no {other} here fits; {'; '.join(reasons)}; name one that does with --with")

    def _candidates(self, kind: Kind) -> Iterator[tuple[Part, dict[str, Any]]]:
        known = {part.name: part for part in all_parts((kind,))}
        for name, values in _PARTNERS[kind].items():
            if name in known:
                yield known[name], values
        for part in self._kin(kind):
            if part.owner.distribution != "segdeploy" and not required_keys(part):
                yield part, {}

    def _kin(self, kind: Kind) -> list[Part]:
        """The parts of a kind that come with this one."""
        return [part for part in all_parts((kind,)) if part.owner.distribution == self.part.owner.distribution]

    def _judged_beside(self, other: Part) -> KeysNeededError:
        return KeysNeededError(
            f"{self.part}: its {other} has keys without a default; judge both: segdeploy plugins check {other.name} "
            f"--kind {other.kind} --set KEY=VALUE --with {self.part.name}"
        )

    def join(self, partner: Part, section: Section, own: Section) -> tuple[nn.Module, nn.Module]:
        """(encoder, decoder); ConfigError where the decoder refuses the levels."""
        if self.part.kind == "encoder":
            encoder = self.build_encoder(own)
            with self.blame("build"):
                features = features_of(encoder)
            return encoder, partner.plugin.build(section, features)
        encoder = partner.plugin.build(section)
        with self.blame("build", besides=ConfigError):
            return encoder, self.part.plugin.build(own, features_of(encoder))

    def build_encoder(self, section: Section) -> nn.Module:
        """The encoder under test, from `section`."""
        # Refusing its own defaults is the part's mistake, refusing what was asked for is not.
        with self.blame("build", besides=ConfigError if self.values else ()):
            module: nn.Module = self.part.plugin.build(section)
        return module

    # Whole models

    def assemble(self, seed: int = 0, section: Section | None = None) -> Segmenter:
        """A new model, never trained; `section` stands in for the part's own configuration."""
        partner, its = self.partner
        with seeded(seed):
            encoder, decoder = self.join(partner, its, section or self.section)
            return Segmenter(encoder, decoder, NUM_CLASSES)

    def half(self, model: Segmenter) -> nn.Module:
        """The part under test inside `model`."""
        return model.encoder if self.part.kind == "encoder" else model.decoder

    @functools.cached_property
    def sizes(self) -> tuple[tuple[int, int], ...]:
        """Three (height, width) that the encoder takes, odd ones among them where it takes any."""
        encoder = self.assemble().encoder
        m = int(getattr(encoder, "size_multiple", 1))
        rounded = tuple((-(-h // m) * m, -(-w // m) * m) for h, w in SIZES)
        return rounded if len(set(rounded)) == len(SIZES) else ((m, 2 * m), (2 * m, m), (m, m))

    def images(self, count: int, size: tuple[int, int], seed: int = 0) -> Tensor:
        """(count, 3, H, W) float, as if normalised."""
        return torch.randn(count, 3, *size, generator=torch.Generator().manual_seed(seed))

    def train_steps(self, model: Segmenter, steps: int, rate: float = 0.0) -> None:
        """Forward and backward passes in training mode, auxiliary maps too; the gradients are those of the last."""
        model.train()
        optimizer = torch.optim.SGD((p for p in model.parameters() if p.requires_grad), lr=rate)
        for step in range(steps):
            optimizer.zero_grad()
            logits, auxiliary = model.forward_aux(self.images(4, min(self.sizes), seed=step))
            loss = logits.square().mean() + sum(x.square().mean() for _, x in auxiliary)
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()

    @functools.cached_property
    def model(self) -> Segmenter:
        """A model in eval mode whose class layer tells classes apart; rules read it and leave it as it is."""
        model = self.assemble()
        size = self.sizes[-1]
        with seeded(0), torch.no_grad(), self.blame("forward"):
            model.train()
            for step in range(3):  # statistics of normalisation layers
                model(self.images(4, min(self.sizes), seed=step))
            # Random weights give one class everywhere, or near-ties; centred and spread logits give real regions.
            logits = model.eval()(_normalised_bytes(4, size))
            spread = logits.std((0, 2, 3)).clamp_min(1e-12)
            head: Any = model.head
            head.weight.div_(spread.view(-1, 1, 1, 1))
            head.bias.sub_(logits.mean((0, 2, 3))).div_(spread)
        return model

    def outputs(self, model: Segmenter, image: Tensor) -> tuple[Tensor, ...]:
        """The maps of the part under test in eval mode, without gradients."""
        with torch.no_grad(), self.blame("forward"):
            maps: Any = model.encoder(image)
            if self.part.kind == "decoder":
                maps = (model.decoder(maps),)
        return tuple(maps)

    # Its graphs

    def spec(self, size: tuple[int, int]) -> description.ModelSpec:
        """The model's description at (height, width)."""
        partner, its = self.partner
        halves = {self.part.kind: (self.part, self.section), partner.kind: (partner, its)}

        def described(kind: Kind) -> description.Part:
            part, section = halves[kind]
            return description.Part(
                name=part.name,
                config=json.loads(section.model_dump_json()),
                distribution=part.owner.distribution,
                version=part.owner.version,
            )

        names = tuple(f"class {i}" for i in range(NUM_CLASSES))
        return description.ModelSpec(
            encoder=described("encoder"),
            decoder=described("decoder"),
            classes=ClassMap(names=names, colors=default_colors(NUM_CLASSES)),
            preprocessing=description.Preprocessing(
                height=size[0], width=size[1], resize="stretch", mean=IMAGENET_MEAN, std=IMAGENET_STD
            ),
        )

    def export(self, size: tuple[int, int], *, dynamic_size: bool = False) -> bytes:
        """The ONNX file of the model at (height, width)."""
        with tempfile.TemporaryDirectory() as folder, self.blame("export"):
            path = Path(folder) / "model.onnx"
            export_onnx(self.model, self.spec(size), path, dynamic_size=dynamic_size)
            return path.read_bytes()

    @functools.cached_property
    def graph(self) -> bytes:
        """The ONNX file at the last of `sizes`, its batch dynamic."""
        return self.export(self.sizes[-1])

    @functools.cached_property
    def free_graph(self) -> bytes | None:
        """The ONNX file with free height and width too; None where one of the two parts does not promise them."""
        return None if of_fixed_size(self.model) else self.export(self.sizes[0], dynamic_size=True)

    def about(self) -> dict[str, Any]:
        """Its configuration and its partner, JSON-ready, as far as they could be made."""
        try:
            partner, its = self.partner
            return {
                "config": json.loads(self.section.model_dump_json()),
                "partner": {"name": partner.name, "config": json.loads(its.model_dump_json())},
            }
        except BrokenError:
            return {"config": finite(self.values), "partner": None}
