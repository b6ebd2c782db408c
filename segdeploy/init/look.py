"""What a data set's masks hold: values or colours, and sizes."""

from __future__ import annotations

import os
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from segdeploy.data.masks import auto_encoding, open_mask
from segdeploy.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from pathlib import Path

    from numpy.typing import NDArray
    from PIL import Image

    from segdeploy.classes import Color
    from segdeploy.data.table import Sample

    Spelling = int | Color

_SHOWN = 50
MAX_VALUE = 65535


@dataclass(frozen=True, slots=True, kw_only=True)
class MaskFacts:
    """Counted over `masks` mask files.

    `colors` says whether they are RGB pictures; a spelling is then a colour, otherwise a pixel value. `pixels` counts
    pixels by spelling, and `together` masks by the spellings that they have; `first` is a file that has a spelling.
    `sizes` counts (height, width).
    """

    masks: int
    colors: bool
    pixels: Counter[Spelling]
    together: Counter[frozenset[Spelling]]
    first: dict[Spelling, Path]
    sizes: Counter[tuple[int, int]]

    def pixels_of(self, spelled: Iterable[Spelling]) -> int:
        """Pixels that have one of these spellings."""
        return sum(self.pixels[spelling] for spelling in spelled)

    def masks_with(self, spelled: Iterable[Spelling]) -> int:
        """Masks in which one of these spellings occurs."""
        wanted = set(spelled)
        return sum(count for found, count in self.together.items() if found & wanted)

    @property
    def median_size(self) -> tuple[int, int]:
        """(height, width) of the mask that is in the middle by area."""
        by_area = sorted(self.sizes.elements(), key=lambda size: (size[0] * size[1], size))
        return by_area[len(by_area) // 2]


def look(samples: Sequence[Sample], progress: Callable[[int, int], None] | None = None) -> MaskFacts:
    """Open every mask of `samples`.

    Raises:
        DataError: one line for each mask that cannot be read, up to fifty.
    """
    paths = [sample.mask for sample in samples if sample.mask is not None]
    counted: list[_Counted] = []
    faults: list[str] = []
    with ThreadPoolExecutor(min(8, (os.cpu_count() or 1) * 2)) as pool:
        for done, result in enumerate(pool.map(_count, paths), start=1):
            if isinstance(result, str):
                faults.append(result)
            else:
                counted.append(result)
            if progress is not None:
                progress(done, len(paths))
    if faults:
        more = [f"... and {len(faults) - _SHOWN} more"] if len(faults) > _SHOWN else []
        raise DataError("\n".join([f"{len(faults)} mask(s) cannot be read:", *faults[:_SHOWN], *more]))
    colors = any(c.colors for c in counted)
    pixels: Counter[Spelling] = Counter()
    together: Counter[frozenset[Spelling]] = Counter()
    first: dict[Spelling, Path] = {}
    for each in counted:
        spelled = [_spelling(code, each.rgb, colors) for code in each.codes.tolist()]
        together[frozenset(spelled)] += 1
        for spelling, count in zip(spelled, each.counts.tolist(), strict=True):
            pixels[spelling] += count
            first.setdefault(spelling, each.path)
    return MaskFacts(
        masks=len(counted),
        colors=colors,
        pixels=pixels,
        together=together,
        first=first,
        sizes=Counter(each.size for each in counted),
    )


@dataclass(frozen=True, slots=True)
class _Counted:
    """One mask: pixels by code, where a code is a pixel value, or with `rgb` red << 16 | green << 8 | blue."""

    path: Path
    size: tuple[int, int]
    rgb: bool
    colors: bool
    codes: NDArray[np.int64]
    counts: NDArray[np.int64]


def _count(path: Path) -> _Counted | str:
    try:
        picture = open_mask(path)
    except DataError as e:
        return str(e)
    rgb = picture.mode in ("LA", "RGB", "RGBA")
    codes, counts = np.unique(_codes(picture, rgb), return_counts=True)
    if not rgb and (codes.dtype.kind == "f" or codes[0] < 0 or codes[-1] > MAX_VALUE):
        return f"{path}: expected pixel values from 0 to {MAX_VALUE}, found {codes[0]} to {codes[-1]}"
    colors = rgb and auto_encoding(picture) == "color"
    return _Counted(path, (picture.height, picture.width), rgb, colors, codes.astype(np.int64), counts)


def _codes(picture: Image.Image, rgb: bool) -> NDArray[np.integer]:
    if not rgb:
        return np.asarray(picture).astype(np.uint8) if picture.mode == "1" else np.asarray(picture)
    channels = np.asarray(picture.convert("RGBA").convert("RGB")).astype(np.uint32)
    return channels @ np.array([1 << 16, 1 << 8, 1], np.uint32)


def _spelling(code: int, rgb: bool, colors: bool) -> Spelling:
    if not colors:
        return code >> 16 if rgb else code
    return (code >> 16, code >> 8 & 255, code & 255) if rgb else (code, code, code)
