"""A picture of what a configuration's augmentation makes of its training samples: `segdeploy inspect --augment`."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont

from segdeploy.classes import IGNORE
from segdeploy.data.augment import Augment
from segdeploy.data.dataset import Dataset
from segdeploy.data.discover import settle_classes
from segdeploy.data.facts import read_part_facts
from segdeploy.data.input_size import settle_input_size
from segdeploy.data.scan import judge
from segdeploy.data.split import configured_tables, read_parts
from segdeploy.data.table import Tables, read_table
from segdeploy.errors import ConfigError
from segdeploy.files import write_bytes
from segdeploy.model.segmenter import from_config
from segdeploy.predict import blend
from segdeploy.progress import progress

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from segdeploy.classes import ClassMap
    from segdeploy.config.schema import RunConfig
    from segdeploy.data.table import Sample
    from segdeploy.model.spec import ModelSpec

    Picture = NDArray[np.uint8]
    Pair = tuple[Picture, Picture]

_WIDTH, _GAP, _LINE = 320, 8, 22
_PAPER, _INK = (255, 255, 255), (40, 40, 40)
_HATCH = ((150, 150, 150), (60, 60, 60))


def write_preview(
    config: RunConfig, table: Path | None, output: Path, *, samples: int = 4, draws: int = 3, seed: int = 42
) -> Path:
    """Write a PNG: for each of some samples the original and what training would see of it, without and with mask.

    The samples are one batch, so that what is pasted comes from one of the others.

    Args:
        config: the configuration; its encoder gives mean and standard deviation.
        table: where the samples are, of which the training rows are taken where rows say their part; None: the
            training part of `config.data`.
        output: the file.
        samples: how many samples, drawn with `seed`.
        draws: how often each is changed.
        seed: the same seed gives the same picture.

    Raises:
        ConfigError: there is no step, or no PNG to write.
        DataError: see `read_table`, `read_parts`, `settle_classes` and `judge`.
    """
    if output.suffix.lower() != ".png":
        raise ConfigError(f"{output}: expected a name that ends in .png")
    if not config.image.augmentation:
        raise ConfigError("the configuration has no `augmentation` to show; add steps under the image feature")
    chosen = _training_samples(config, table)
    with progress("checking images and masks") as step:
        facts = read_part_facts({"training": chosen}, step)
    classes = settle_classes(facts["training"], config.mask.preprocessing, f"output feature {config.mask.name!r}")
    report = judge(facts, classes, config.preprocessing.allow)["training"]
    config = settle_input_size(config, report.sizes)
    spec, _ = from_config(config, classes, pretrained=False)
    generator = torch.Generator().manual_seed(seed)
    shown = [chosen[i] for i in torch.randperm(len(chosen), generator=generator)[:samples].tolist()]
    augment = Augment(config.image.augmentation, spec.preprocessing, report)
    columns = make_columns(shown, spec, augment, draws, generator)
    buffer = io.BytesIO()
    compose(columns, [_caption(s.image) for s in shown], classes).save(buffer, "PNG")
    return write_bytes(output, buffer.getvalue())


def _training_samples(config: RunConfig, table: Path | None) -> list[Sample]:
    if table is None:
        if config.data is None:
            raise ConfigError("expected a table, or `data` in the configuration that names one")
        return read_parts(configured_tables(config.data, Tables()), config)["training"]
    names = (config.image.column or config.image.name, config.mask.column or config.mask.name)
    found = read_table(table, *names)
    return [s for s in found if s.part in (None, "training")] if any(s.part == "training" for s in found) else found


def make_columns(
    samples: Sequence[Sample], spec: ModelSpec, augment: Augment, draws: int, generator: torch.Generator
) -> list[list[Pair]]:
    """The samples at the network's size, and as many draws of them; each a list of (image, labels), uint8."""
    data = Dataset(samples, spec)
    originals = [data[i] for i in range(len(samples))]
    images, masks = (torch.from_numpy(np.stack(part)) for part in zip(*originals, strict=True))
    columns = [originals]
    for _ in range(draws):
        x, y = augment(images, masks, generator)
        seen = (x * augment.std + augment.mean).clamp_(0, 1).mul_(255).round_().byte().permute(0, 2, 3, 1).numpy()
        columns.append(list(zip(seen, y.byte().numpy(), strict=True)))
    return columns


def compose(columns: Sequence[Sequence[Pair]], captions: Sequence[str], classes: ClassMap) -> Image.Image:
    """One sheet: a row of images and a row of the same with their masks for each caption, and a legend below.

    Args:
        columns: the originals and then each draw: (image, labels) for each caption.
        captions: one for each sample.
        classes: for names and colours.
    """
    cells = [[_cell(image, labels, classes) for image, labels in column] for column in columns]
    heights = [max(plain.height for plain, _ in row) for row in zip(*cells, strict=True)]
    width = len(columns) * (_WIDTH + _GAP) + _GAP
    legend = _legend(classes, width - 2 * _GAP)
    height = _LINE + sum(_LINE + 2 * (h + _GAP) for h in heights) + legend.height + _GAP
    sheet = Image.new("RGB", (width, height), _PAPER)
    pen = ImageDraw.Draw(sheet)
    for i in range(len(columns)):
        _write(pen, (_GAP + i * (_WIDTH + _GAP), 3), f"draw {i}" if i else "original", _WIDTH)
    top = _LINE
    for caption, row, tall in zip(captions, zip(*cells, strict=True), heights, strict=True):
        _write(pen, (_GAP, top + 3), caption, width - 2 * _GAP)
        top += _LINE
        for i, (plain, masked) in enumerate(row):
            left = _GAP + i * (_WIDTH + _GAP)
            sheet.paste(plain, (left, top))
            sheet.paste(masked, (left, top + tall + _GAP))
        top += 2 * (tall + _GAP)
    sheet.paste(legend, (_GAP, top))
    return sheet


def _cell(image: Picture, labels: Picture, classes: ClassMap) -> tuple[Image.Image, Image.Image]:
    """The image, and the image under its mask, both at the sheet's width."""
    size = (_WIDTH, max(1, round(_WIDTH * image.shape[0] / image.shape[1])))
    plain = Image.fromarray(image).resize(size, Image.Resampling.BILINEAR)
    shown = np.asarray(Image.fromarray(labels).resize(size, Image.Resampling.NEAREST))
    masked = np.where((shown == IGNORE)[..., None], _hatched(size), blend(np.asarray(plain), shown, classes, 0.6))
    return plain, Image.fromarray(masked)


def _hatched(size: tuple[int, int]) -> Picture:
    """(H, W, 3) diagonal stripes: no class has such a pattern."""
    stripes = (np.arange(size[1])[:, None] + np.arange(size[0])) // 4 % 2
    hatched: Picture = np.array(_HATCH, np.uint8)[stripes]
    return hatched


def _legend(classes: ClassMap, width: int) -> Image.Image:
    """Each class's colour and name, and the stripes of ignored pixels, in as many lines as it takes."""
    font = ImageFont.load_default(13)
    swatches: list[tuple[str, Image.Image]] = [
        (name, Image.new("RGB", (14, 14), color)) for name, color in zip(classes.names, classes.colors, strict=True)
    ]
    swatches.append(("ignored", Image.fromarray(_hatched((14, 14)))))
    places, left, line = [], 0, 0
    for name, _ in swatches:
        wide = 20 + int(font.getlength(name)) + 14
        if left and left + wide > width:
            left, line = 0, line + 1
        places.append((left, line * _LINE))
        left += wide
    picture = Image.new("RGB", (width, (line + 1) * _LINE), _PAPER)
    pen = ImageDraw.Draw(picture)
    for (name, swatch), (x, y) in zip(swatches, places, strict=True):
        picture.paste(swatch, (x, y + 3))
        pen.text((x + 20, y + 2), name, _INK, font)
    return picture


def _write(pen: ImageDraw.ImageDraw, place: tuple[int, int], text: str, width: int) -> None:
    """A line of text, whose beginning is left out where it is too long: the end of a path says more."""
    font = ImageFont.load_default(13)
    short = text
    while len(short) > 1 and font.getlength(short) > width:
        short = "..." + short[4:]
    pen.text(place, short, _INK, font)


def _caption(image: Path) -> str:
    return image.name
