"""What a known data set's folder looks like, and what its files mean."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import PurePath
from typing import TYPE_CHECKING

from segdeploy.data.findings import first_lines
from segdeploy.data.table import Sample
from segdeploy.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from segdeploy.config.schema import NamedClass
    from segdeploy.data.table import Part


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """A data set of a known form.

    `parts` may lack validation or test; `notes` are sentences that its user should read.
    """

    parts: dict[Part, list[Sample]]
    classes: tuple[NamedClass, ...]
    ignore_index: int | tuple[int, ...] | None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """A known form.

    `markers` are paths that its root folder holds; `unmistakable` says whether the markers alone prove that the
    classes are those of the public data set; `read` takes the root folder.
    """

    name: str
    title: str
    looks: str
    markers: tuple[str, ...]
    unmistakable: Callable[[Path], bool]
    read: Callable[[Path], Known]

    def root(self, path: Path) -> Path | None:
        """`path`, or the one folder up to two levels below that holds all markers; None where there is none.

        Raises:
            DataError: several do.
        """
        level = [path]
        for _ in range(3):
            roots = sorted(f for f in level if all((f / marker).exists() for marker in self.markers))
            if len(roots) > 1:
                named = ", ".join(r.relative_to(path).as_posix() for r in roots)
                raise DataError(f"{path}: expected one {self.title} data set, found {named}; give one of them")
            if roots:
                return roots[0]
            level = [p for folder in level for p in folder.iterdir() if p.is_dir() and not p.name.startswith(".")]
        return None


@dataclass(slots=True)
class Faults:
    """Collects what is wrong with a folder, so that all of it is said at once."""

    root: Path
    lines: list[str] = field(default_factory=list)

    def add(self, line: str) -> None:
        """One more fault, in one line."""
        self.lines.append(line)

    def words(self, file: str) -> list[str]:
        """The first word of each line of a list, without comments; a fault where it is missing or empty."""
        return [line.split()[0] for line in self.text_lines(file)]

    def text_lines(self, file: str) -> list[str]:
        """The lines of a text file, without empty ones and comments; a fault where there are none."""
        try:
            text = (self.root / file).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as e:
            self.add(f"{self.root / file}: cannot be read: {getattr(e, 'strerror', None) or e}")
            return []
        lines = [line.strip() for line in text.splitlines() if line.strip() and not line.startswith("#")]
        if not lines:
            self.add(f"{self.root / file}: expected one line for each sample, found none")
        return lines

    def samples(self, pairs: Iterable[tuple[Path, Path]]) -> list[Sample]:
        """The pairs as samples; a fault for each file that does not exist."""
        samples = []
        for image, mask in pairs:
            for file, other in ((image, mask), (mask, image)):
                if not file.is_file():
                    self.add(f"{file}: no such file (the partner of {other.name})")
            samples.append(Sample(image, mask))
        return samples

    def folder_pairs(
        self, images: Path, pattern: str, masks: Path, mask_name: Callable[[PurePath], PurePath]
    ) -> list[Sample]:
        """The images of a folder that match `pattern`, each with its mask; a fault for each that is alone.

        `mask_name` turns an image's path below `images`, or the pattern, into the mask's below `masks`.
        """
        found = sorted(images.glob(pattern))
        if not found:
            self.add(f"{images}: expected files like {pattern}, found none")
        samples = self.samples((image, masks / mask_name(image.relative_to(images))) for image in found)
        known = {s.mask for s in samples}
        for mask in sorted(masks.glob(mask_name(PurePath(pattern)).as_posix())):
            if mask not in known:
                self.add(f"{mask}: has no image")
        return samples

    def raise_if_any(self) -> None:
        """DataError with one line for each fault, up to fifty."""
        if self.lines:
            count = len(self.lines)
            head = f"{self.root}: {count} thing{'s are' if count > 1 else ' is'} missing or empty:"
            raise DataError(first_lines(head, self.lines))
