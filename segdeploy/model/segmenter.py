"""Segmenter: encoder -> decoder -> class layer -> upsampling; and Deployed, the same from uint8 to uint8."""

from __future__ import annotations

import copy
import json
import logging
from contextlib import suppress
from functools import cache
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from pydantic import ValidationError
from torch import Tensor, nn

from segdeploy.errors import ConfigError, ModelError, SegdeployError, first_line
from segdeploy.model.spec import Head, ModelSpec, Part, Preprocessing
from segdeploy.plugin import Auxiliary, FeatureMap, registry
from segdeploy.plugin.distributions import canonical

if TYPE_CHECKING:
    from segdeploy.classes import ClassMap
    from segdeploy.config.schema import RunConfig
    from segdeploy.plugin import Section
    from segdeploy.plugin.manager import Kind

log = logging.getLogger(__name__)

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


class Segmenter(nn.Module):
    """(N, 3, H, W) float, normalised -> logits (N, C, H, W)."""

    def __init__(self, encoder: nn.Module, decoder: nn.Module, num_classes: int, head: Head | None = None) -> None:
        super().__init__()
        form = head or Head()
        if form.kind == "none" and out_of(decoder).channels != num_classes:
            raise ConfigError(f"the network tells {out_of(decoder).channels} classes apart, expected {num_classes}")
        self.encoder = encoder
        self.decoder = decoder
        self.head = nn.Identity() if form.kind == "none" else _classes_of(out_of(decoder), num_classes, form)
        auxiliary = (*aux_of(encoder), *aux_of(decoder))
        self.aux_weights = tuple(a.weight for a in auxiliary)
        self.aux_heads = nn.ModuleList(nn.Conv2d(a.channels, num_classes, 1) for a in auxiliary)
        self.align_corners = form.align_corners

    def forward(self, image: Tensor) -> Tensor:
        """Encoder, decoder, one logit per class, bilinear to the image's size."""
        return self._upsample(self.head(self.decoder(self.encoder(image))), image)

    def forward_aux(self, image: Tensor, *, upsample: bool = True) -> tuple[Tensor, tuple[tuple[float, Tensor], ...]]:
        """What `forward` gives, and for each auxiliary map the weight of its loss and its logits (N, C, H, W).

        Without `upsample` each map's logits stay at its own stride.
        """
        maps, first = _run_aux(self.encoder, image)
        decoded, second = _run_aux(self.decoder, maps)
        # The convolution comes before the upsampling here too: it is cheap at the map's size alone.
        found = [self.head(decoded), *(h(x) for h, x in zip(self.aux_heads, (*first, *second), strict=True))]
        main, *more = (self._upsample(x, image) for x in found) if upsample else found
        return main, tuple(zip(self.aux_weights, more, strict=True))

    def _upsample(self, logits: Tensor, image: Tensor) -> Tensor:
        # By size and not by factor, so that odd sizes fit.
        return F.interpolate(logits, size=image.shape[-2:], mode="bilinear", align_corners=self.align_corners)


def _classes_of(out: FeatureMap, num_classes: int, head: Head) -> nn.Conv2d:
    return nn.Conv2d(out.channels, num_classes, head.kernel_size, padding=head.kernel_size // 2)


def _run_aux(module: nn.Module, x: Any) -> tuple[Any, tuple[Tensor, ...]]:
    return module.forward_aux(x) if aux_of(module) else (module(x), ())  # type: ignore[operator]


def features_of(encoder: nn.Module) -> tuple[FeatureMap, ...]:
    """The levels that an encoder declares; TypeError where its author forgot them."""
    features = getattr(encoder, "features", None)
    if not isinstance(features, tuple) or not all(isinstance(f, FeatureMap) for f in features):
        raise TypeError(f"{type(encoder).__name__}.features: expected a tuple of FeatureMap, found {features!r}")
    return features


def backbone_of(encoder: nn.Module) -> nn.Module:
    """What `trainable: false` freezes: the part that an encoder names as its backbone, or all of it."""
    backbone: nn.Module = getattr(encoder, "backbone", encoder)
    return backbone


def aux_of(module: nn.Module) -> tuple[Auxiliary, ...]:
    """The maps that an encoder or decoder gives to training alone; TypeError where they are no Auxiliary."""
    aux = getattr(module, "aux", ())
    if not isinstance(aux, tuple) or not all(isinstance(a, Auxiliary) for a in aux):
        raise TypeError(f"{type(module).__name__}.aux: expected a tuple of Auxiliary, found {aux!r}")
    return aux


def of_fixed_size(segmenter: Segmenter) -> tuple[Kind, ...]:
    """Which of encoder and decoder do not promise to work with free height and width in a graph."""
    halves: tuple[tuple[Kind, nn.Module], ...] = (("encoder", segmenter.encoder), ("decoder", segmenter.decoder))
    return tuple(kind for kind, half in halves if not getattr(half, "dynamic_size", False))


def out_of(decoder: nn.Module) -> FeatureMap:
    """The map that a decoder declares; TypeError where its author forgot it."""
    out = getattr(decoder, "out", None)
    if not isinstance(out, FeatureMap):
        raise TypeError(f"{type(decoder).__name__}.out: expected a FeatureMap, found {out!r}")
    return out


class Deployed(nn.Module):
    """The graph that ships: image uint8 (N, H, W, 3) RGB -> mask uint8 (N, H, W) of class ids."""

    scale: Tensor
    shift: Tensor

    def __init__(self, segmenter: nn.Module, preprocessing: Preprocessing) -> None:
        super().__init__()
        self.segmenter = segmenter
        std = torch.tensor(preprocessing.std).view(1, 3, 1, 1)
        # (image / 255 - mean) / std as one multiplication and one addition.
        self.register_buffer("scale", 1 / (255 * std), persistent=False)
        self.register_buffer("shift", -torch.tensor(preprocessing.mean).view(1, 3, 1, 1) / std, persistent=False)

    def forward(self, image: Tensor) -> Tensor:
        """Normalise, segment, take the best class."""
        # float before permute: TensorRT has no transpose of uint8.
        x = image.float().permute(0, 3, 1, 2) * self.scale + self.shift
        logits: Tensor = self.segmenter(x)
        if torch.compiler.is_exporting():
            # Through float: TensorRT casts to uint8 from float and half only.
            return logits.argmax(1).float().to(torch.uint8)
        # Several times faster than argmax(1) on a CPU, with the same result.
        return logits.max(1).indices.to(torch.uint8)


def from_config(
    config: RunConfig, classes: ClassMap, *, pretrained: bool = True, head: Head | None = None
) -> tuple[ModelSpec, Segmenter]:
    """A new model, with the pretrained weights that the configuration asks for; without any if not `pretrained`.

    `head` is the form of the class layer; None: the plain one.

    Raises:
        ConfigError: an encoder without a pyramid, or a decoder that cannot work with it.
        MissingPartError: pretrained weights that are not to be had.
    """
    encoder_part, encoder_config = _part("encoder", config.image.encoder)
    decoder_part, decoder_config = _part("decoder", config.mask.decoder)
    plugin = registry.encoder(encoder_part.name)
    encoder = plugin.build(encoder_config)
    if pretrained and plugin.load_pretrained is not None:
        plugin.load_pretrained(encoder, encoder_config)
    decoder = registry.decoder(decoder_part.name).build(decoder_config, features_of(encoder))
    wanted = config.image.preprocessing
    if wanted.height is None or wanted.width is None:
        raise ValueError("the input size is not settled; see data.input_size")
    spec = ModelSpec(
        encoder=encoder_part,
        decoder=decoder_part,
        head=head or Head(),
        classes=classes,
        preprocessing=Preprocessing(
            height=wanted.height,
            width=wanted.width,
            resize=wanted.resize,
            mean=wanted.mean or tuple(getattr(encoder, "mean", IMAGENET_MEAN)),
            std=wanted.std or tuple(getattr(encoder, "std", IMAGENET_STD)),
        ),
        image_column=config.image.column or config.image.name,
        mask_column=config.mask.column or config.mask.name,
        mask_name=config.mask.name,
    )
    segmenter = Segmenter(encoder, decoder, len(classes), spec.head)
    try_sizes(segmenter, {(wanted.height, wanted.width), config.image.training_size})
    return spec, segmenter


_REFUSALS = (RuntimeError, AssertionError, ValueError, IndexError)
"""What torch and networks raise at images that they cannot take."""
_USUAL = (128, 160, 192, 224, 240, 256, 288, 320, 336, 384, 448, 512, 518, 640, 1024)
"""Sides of the square images that networks of one size are made for."""


def try_sizes(segmenter: Segmenter, sizes: set[tuple[int, int]]) -> None:
    """One forward pass at each size, so that a network that cannot take it is refused before anything is written.

    Raises:
        ConfigError: it takes images of another size, or checks their size itself.
        Exception: it fails at any size; the mistake is the network's.
    """
    training = segmenter.training
    segmenter.eval()
    for height, width in sorted(sizes):
        try:
            _try_size(segmenter, height, width)
        except _REFUSALS as e:
            if not isinstance(e, AssertionError) and not _takes_usual_sizes(segmenter):
                raise
            said = f"the model cannot take {width}x{height} images; choose another size: {first_line(e)}"
            raise ConfigError(said) from e
    segmenter.train(training)


def _try_size(segmenter: Segmenter, height: int, width: int) -> None:
    with torch.no_grad():
        segmenter(torch.zeros(1, 3, height, width))


def _takes_usual_sizes(segmenter: Segmenter) -> bool:
    for side in _USUAL:
        with suppress(*_REFUSALS):
            _try_size(segmenter, side, side)
            return True
    return False


def try_training(segmenter: Segmenter, batch_size: int, size: tuple[int, int], *, frozen: bool = False) -> None:
    """One forward pass as in training, on a copy: ConfigError where the batch is too small for the network.

    A normalisation over the batch has nothing to compare where one image is pooled to one cell.

    Args:
        segmenter: on the CPU; stays as it is.
        batch_size: of training; two images stand for more.
        size: height and width of the images.
        frozen: whether the encoder's backbone keeps its statistics.
    """
    learner = copy.deepcopy(segmenter).train()
    if frozen:
        backbone_of(learner.encoder).eval()
    images = min(batch_size, 2)
    try:
        with torch.no_grad():
            learner.forward_aux(torch.zeros(images, 3, *size))
    except _REFUSALS as e:
        few = "; set trainer.batch_size to 2 or more, with as many samples" if images == 1 else ""
        said = f"the model cannot train on {size[1]}x{size[0]} images, {batch_size} at a time: {first_line(e)}{few}"
        raise ConfigError(said) from e


def _part(kind: Kind, raw: dict[str, Any]) -> tuple[Part, Section]:
    values = {k: v for k, v in raw.items() if k != "type"}
    known = registry.catalogue(kind)
    form = known.plugins[raw["type"]].config
    section = form.model_validate_json(json.dumps(values))
    owner = known.owners[raw["type"]]
    if "weights" in values and not form.model_fields["weights"].is_required():
        # A path of this machine, and the model carries its own weights from here on; left out it has its default.
        del values["weights"]
    return Part(name=raw["type"], config=values, distribution=owner.distribution, version=owner.version), section


def build(spec: ModelSpec) -> Segmenter:
    """The model that `spec` describes, with random weights.

    Raises:
        ModelError: an encoder or decoder that is not installed here, is another distribution's of that name, or
            no longer takes its configuration; the message names the package.
        ConfigError: a decoder that cannot work with the encoder's levels.
    """
    try:
        encoder_plugin = registry.encoder(spec.encoder.name)
        decoder_plugin = registry.decoder(spec.decoder.name)
    except SegdeployError as e:
        raise ModelError(
            f"{e}; the model was made with {_made_with(spec.encoder)} and {_made_with(spec.decoder)}"
        ) from e
    encoder = encoder_plugin.build(_section("encoder", encoder_plugin.config, spec.encoder))
    decoder = decoder_plugin.build(_section("decoder", decoder_plugin.config, spec.decoder), features_of(encoder))
    return Segmenter(encoder, decoder, len(spec.classes), spec.head)


def _made_with(part: Part) -> str:
    return f"{part.name} of {part.distribution} {part.version}"


def _section(kind: Kind, form: type[Section], part: Part) -> Section:
    """The part's configuration, read by the plugin that is installed here."""
    owner = registry.catalogue(kind).owners[part.name]
    here = f"{owner.distribution} {owner.version}"
    if canonical(owner.distribution) != canonical(part.distribution):
        raise ModelError(
            f"the model was made with the {kind} {_made_with(part)}, but here {part.name} is of {here}; "
            f"install {part.distribution}, or leave {owner.distribution} out by SEGDEPLOY_PLUGINS"
        )
    if owner.version != part.version:
        _warn_of_version(kind, _made_with(part), here)
    try:
        return form.model_validate_json(json.dumps(part.config))
    except ValidationError as e:
        first = e.errors(include_url=False)[0]
        key = ".".join(map(str, first["loc"]))
        raise ModelError(
            f"the model was made with the {kind} {_made_with(part)}, whose configuration {here} refuses: "
            f"{key}: {first['msg']}, found {first['input']!r}"
        ) from e


@cache  # once, not each time that a command builds the model
def _warn_of_version(kind: Kind, made_with: str, here: str) -> None:
    log.warning("the model was made with the %s %s, here is %s", kind, made_with, here)
