"""What a data set's masks hold, over all of them: values or colours, and sizes."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from segdeploy.data.facts import Facts, MaskFacts, masks_of, read_facts
from segdeploy.data.findings import first_lines
from segdeploy.data.masks import unpack
from segdeploy.data.rules_sample import check_sample
from segdeploy.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from pathlib import Path

    from segdeploy.classes import Color
    from segdeploy.data.table import Sample

    Spelling = int | Color

MAX_VALUE = 65535


@dataclass(frozen=True, slots=True, kw_only=True)
class MaskTotals:
    """Counted over `masks` mask files.

    `colors` says whether they are RGB pictures; a spelling is then a colour, otherwise a pixel value. `pixels` counts
    pixels by spelling, and `together` masks by the spellings that they have; `first` is a file that has a spelling.
    `sizes` counts (height, width). `errors` has a line for each sample that can be looked at and not be trained on.
    """

    masks: int
    colors: bool
    pixels: Counter[Spelling]
    together: Counter[frozenset[Spelling]]
    first: dict[Spelling, Path]
    sizes: Counter[tuple[int, int]]
    errors: tuple[str, ...] = ()

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


def look(samples: Sequence[Sample], progress: Callable[[int, int], None] | None = None) -> MaskTotals:
    """Open every image and mask of `samples`, unless they are known from before.

    Raises:
        DataError: one line for each file that cannot be used, up to fifty.
    """
    facts = read_facts(samples, progress)
    faults = list(dict.fromkeys(fault for one in facts for fault in _faults(one)))
    if faults:
        raise DataError(first_lines(f"{len(faults)} file(s) cannot be used:", faults))
    refused = (f for one in facts for f in check_sample(one, None) if f.severity == "error")
    masks = [mask for _, mask in masks_of(facts)]
    colors = any(mask.kind == "colors" for mask in masks)
    if colors and (deep := [f"{s.mask}: found a {m.mode} picture" for s, m in masks_of(facts) if not m.colors()]):
        said = f"other masks are RGB pictures, and {len(deep)} hold(s) wider values; save all masks in one form:"
        raise DataError(first_lines(said, deep))
    pixels: Counter[Spelling] = Counter()
    together: Counter[frozenset[Spelling]] = Counter()
    first: dict[Spelling, Path] = {}
    for sample, mask in masks_of(facts):
        spelled: list[Spelling] = [*map(unpack, mask.colors())] if colors else [*mask.codes]
        together[frozenset(spelled)] += 1
        for spelling, count in zip(spelled, mask.pixels, strict=True):
            pixels[spelling] += count
            if sample.mask is not None:
                first.setdefault(spelling, sample.mask)
    return MaskTotals(
        masks=len(masks),
        colors=colors,
        pixels=pixels,
        together=together,
        first=first,
        sizes=Counter(mask.size for mask in masks),
        errors=tuple(dict.fromkeys(f"{f.file}: {f.message}" for f in refused)),
    )


def _faults(facts: Facts) -> list[str]:
    """Why a sample's files cannot be used, one line each; what is wrong with its labels is for later."""
    lines = [f"{f.file}: {f.message}" for f in check_sample(facts, None) if f.rule in ("unreadable", "jpeg-mask")]
    mask = facts.mask
    if isinstance(mask, MaskFacts) and mask.kind != "colors" and not 0 <= mask.codes[0] <= mask.codes[-1] <= MAX_VALUE:
        found = f"{mask.codes[0]} to {mask.codes[-1]}"
        lines.append(f"{facts.sample.mask}: expected pixel values from 0 to {MAX_VALUE}, found {found}")
    return lines
