"""What each file of a data set holds, independent of any class map.

Facts are kept between runs: to learn them, a file is decoded once, and again when it has changed.
"""

from __future__ import annotations

import hashlib
import itertools
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from pydantic import TypeAdapter, ValidationError

from segdeploy.classes import IGNORE, ClassMap
from segdeploy.data.facts_cache import FactsCache
from segdeploy.data.images import FORMATS, open_stored, to_rgb
from segdeploy.data.masks import Kind, color_table, is_grey, labels_of_colors, labels_of_values, mask_codes
from segdeploy.environment import available_cores
from segdeploy.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray
    from PIL import Image

    from segdeploy.data.table import Sample

MANY = 512
"""At most this many distinct values or colours of a mask are kept, the most frequent ones.

More than all classes and ignored values need, and few enough that thousands of photographs in the place of masks fit
into memory."""
FEW_COLORS = 256
"""Up to here the colours of an image are counted; hardly a photograph has so few."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _FileFacts:
    """What images and masks have in common. `size` is (height, width), upright; `digest` is equal for equal pixels."""

    size: tuple[int, int]
    format: str
    mode: str
    pages: int
    orientation: int
    """EXIF tag, 1 to 8; 1: as it is."""
    digest: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PictureFacts(_FileFacts):
    """An image file."""

    colors: int
    """Distinct colours; FEW_COLORS + 1 stands for more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MaskFacts(_FileFacts):
    """A mask file: its distinct pixel values or colours 0xRRGGBB in rising order, and where each is."""

    kind: Kind
    codes: tuple[int, ...]
    """Pixel values; for the kind "colors" 0xRRGGBB."""
    pixels: tuple[int, ...]
    """How many pixels each of `codes` has."""
    first: tuple[int, ...]
    """The first pixel of each, counted along the rows."""
    distinct: int
    """Number of distinct values, of which `codes` keeps at most MANY."""
    shown: tuple[int, ...]
    """The colour 0xRRGGBB that each value has by the palette or as grey; empty where it has none (16 bits)."""
    hidden: int
    """Pixels that an alpha channel makes transparent."""

    def colors(self) -> tuple[int, ...]:
        """`codes` as colours 0xRRGGBB; empty where values are too wide for that."""
        return self.codes if self.kind == "colors" else self.shown

    def labels(self, classes: ClassMap) -> NDArray[np.int16]:
        """The class id of each of `codes`; 255 = ignore, -1 where no class owns it or can."""
        if classes.encoding == "color":
            codes = self.colors()
            return labels_of_colors(np.array(codes), classes) if codes else np.full(len(self.codes), -1, np.int16)
        if self.kind == "colors":
            return np.full(len(self.codes), -1, np.int16)
        return labels_of_values(np.array(self.codes), classes, one_bit=self.mode == "1")

    def class_pixels(self, classes: ClassMap) -> NDArray[np.int64]:
        """Pixels of each label, (256,): the last are those without a label; pixels of nobody are left out."""
        labels = self.labels(classes)
        owned = labels >= 0
        counts = np.bincount(labels[owned], weights=np.array(self.pixels)[owned], minlength=IGNORE + 1)
        return counts.astype(np.int64)


@dataclass(frozen=True, slots=True)
class Facts:
    """One sample. A file that cannot be read is a sentence that says why; `mask` is None where there is none."""

    sample: Sample
    image: PictureFacts | str
    mask: MaskFacts | str | None


_T = TypeVar("_T", PictureFacts, MaskFacts)
_BATCH = 1024  # files whose facts are saved together
_TASK = 16


def read_facts(
    samples: Sequence[Sample], progress: Callable[[int, int], None] | None = None, cache: FactsCache | None = None
) -> list[Facts]:
    """The facts of each sample, in order. Files whose path, size and time are known are not opened again.

    Args:
        samples: with or without masks.
        progress: called with (files done, files in all).
        cache: where facts are kept; None: in the user's cache folder.
    """
    images = list(dict.fromkeys(s.image for s in samples))
    masks = list(dict.fromkeys(s.mask for s in samples if s.mask is not None))
    total = len(images) + len(masks)
    count = itertools.count(1)

    def step() -> None:
        if progress is not None:
            progress(next(count), total)

    with cache or FactsCache() as kept:
        image_facts = _read_files(images, PictureFacts, read_image_facts, kept, step)
        mask_facts = _read_files(masks, MaskFacts, read_mask_facts, kept, step)
    return [Facts(s, image_facts[s.image], None if s.mask is None else mask_facts[s.mask]) for s in samples]


def read_part_facts(
    parts: Mapping[Any, Sequence[Sample]], progress: Callable[[int, int], None] | None = None
) -> dict[Any, list[Facts]]:
    """`read_facts` of several parts at once: a file that several parts use is decoded once."""
    facts = iter(read_facts([s for samples in parts.values() for s in samples], progress))
    return {name: list(itertools.islice(facts, len(samples))) for name, samples in parts.items()}


def _read_files(
    paths: list[Path], kind: type[_T], read: Callable[[Path], _T], cache: FactsCache, step: Callable[[], None]
) -> dict[Path, _T | str]:
    found: dict[Path, _T | str] = {}
    stamps = {path: cache.stamp(path) for path in paths}
    form = TypeAdapter(kind)
    for path, text in cache.load(kind.__name__, stamps):
        with suppress(ValidationError):  # written by something else
            found[path] = form.validate_json(text)
            step()
    # Threads, not processes: Pillow's decoders and hashlib release the interpreter lock, and nothing is copied.
    with ThreadPoolExecutor(min(16, available_cores() * 2)) as pool:
        for batch in _runs([p for p in paths if p not in found], _BATCH):
            fresh: dict[Path, str] = {}
            # Several files to a task: threads that meet less often wait less for each other.
            for some in pool.map(lambda run: [(p, _read(p, read)) for p in run], _runs(batch, _TASK)):
                for path, facts in some:
                    found[path] = facts
                    if not isinstance(facts, str):
                        fresh[path] = form.dump_json(facts).decode()
                    step()
            cache.save(kind.__name__, stamps, fresh)
    return found


def _runs(paths: list[Path], size: int) -> Iterator[list[Path]]:
    return (paths[i : i + size] for i in range(0, len(paths), size))


def _read(path: Path, read: Callable[[Path], _T]) -> _T | str:
    try:
        if path.is_file() and path.stat().st_size == 0:
            return "the file is empty (0 bytes)"
        return read(path)
    except DataError as e:
        return str(e).removeprefix(f"{path}: ")
    except OSError as e:
        return f"cannot be read: {e.strerror or e}"


def read_image_facts(path: Path) -> PictureFacts:
    """Decode an image; DataError as `read_image`."""
    picture, stored = open_stored(path)
    rgb = to_rgb(picture, path)
    return PictureFacts(
        size=(rgb.shape[0], rgb.shape[1]),
        format=stored.format,
        mode=picture.mode,
        pages=stored.pages,
        orientation=stored.orientation,
        digest=_digest(rgb),
        colors=_count_colors(picture, rgb),
    )


def _count_colors(picture: Image.Image, rgb: NDArray[np.uint8]) -> int:
    if picture.mode not in ("RGB", "L"):
        from PIL import Image

        picture = Image.fromarray(rgb)
    found = picture.getcolors(FEW_COLORS)  # gives up at one more, which in a photograph is early
    return FEW_COLORS + 1 if found is None else len(found)


def read_mask_facts(path: Path) -> MaskFacts:
    """Decode a mask of any format, JPEG too; DataError where its pixels are neither ids nor colours."""
    picture, stored = open_stored(path, FORMATS)
    kind, codes = mask_codes(picture, path)
    values, pixels, first = distinct(codes)
    count = len(values)
    if count > MANY:
        keep = np.sort(np.argsort(-pixels, kind="stable")[:MANY])
        values, pixels, first = values[keep], pixels[keep], first[keep]
    shown: list[int] = []
    if kind != "colors" and not picture.mode.startswith("I"):
        shown = color_table(picture, path)[values].tolist()
    return MaskFacts(
        size=(codes.shape[0], codes.shape[1]),
        format=stored.format,
        mode=picture.mode,
        pages=stored.pages,
        orientation=stored.orientation,
        digest=_digest(to_rgb(picture, path) if kind == "colors" else codes),
        kind=kind,
        codes=tuple(values.tolist()),
        pixels=tuple(pixels.tolist()),
        first=tuple(first.tolist()),
        distinct=count,
        shown=tuple(shown),
        hidden=_count_hidden(picture),
    )


def _count_hidden(picture: Image.Image) -> int:
    if picture.mode not in ("LA", "PA", "RGBA"):
        return 0
    return int((np.asarray(picture.getchannel("A")) < 255).sum())


def distinct(codes: NDArray[np.integer[Any]]) -> tuple[NDArray[Any], NDArray[np.int64], NDArray[np.int64]]:
    """The distinct values of (H, W) in rising order, how often each occurs, and the first place along the rows.

    Masks hold long runs, so sorting the runs is many times faster than sorting the pixels.
    """
    flat = codes.ravel()
    starts = np.flatnonzero(np.concatenate(([True], flat[1:] != flat[:-1])))
    lengths = np.diff(starts, append=flat.size)
    values, first, owner = np.unique(flat[starts], return_index=True, return_inverse=True)
    return values, np.bincount(owner, weights=lengths).astype(np.int64), starts[first]


def _digest(array: NDArray[Any]) -> str:
    """A hash of shape and pixels; a grey picture has the same one with one channel and with three."""
    if array.ndim == 3 and is_grey(array):
        array = array[..., 0]
    shape = ",".join(map(str, array.shape)).encode()
    return hashlib.blake2b(np.ascontiguousarray(array).data, digest_size=16, salt=shape[:16]).hexdigest()


def masks_of(facts: Iterable[Facts]) -> Iterator[tuple[Sample, MaskFacts]]:
    """The masks that could be read."""
    return ((f.sample, f.mask) for f in facts if isinstance(f.mask, MaskFacts))
