"""From what masks hold, and from names where there are some, to the classes of a configuration."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from segdeploy.classes import IGNORE, MAX_CLASSES, ignored_colors, ignored_values
from segdeploy.config.schema import NamedClass
from segdeploy.data.discover import void_beside
from segdeploy.errors import DataError
from segdeploy.init.names import values_of

if TYPE_CHECKING:
    from pathlib import Path

    from segdeploy.classes import Color
    from segdeploy.data.layouts import Known
    from segdeploy.init.look import MaskTotals, Spelling
    from segdeploy.init.names import Names

SLIP_SHARE = 1e-4
"""A value with fewer of all pixels, in one mask of a hundred or in one alone, looks like a slip."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settled:
    """The `preprocessing` of the mask feature, each part with its reason.

    `spelled` are the values or colours of each class in mask files.
    """

    classes: tuple[NamedClass, ...]
    spelled: tuple[tuple[Spelling, ...], ...]
    encoding: Literal["class_id", "binary", "color"]
    ignored: tuple[Spelling, ...] = ()
    names_why: str
    ignore_why: str
    warnings: tuple[str, ...] = ()
    slips: tuple[int, ...] = ()
    """Classes that are so rare that they look like slips of the pen."""


def settle_known(facts: MaskTotals, known: Known, title: str) -> Settled:
    """The classes of a public data set; what the masks hold besides is a mistake.

    Raises:
        DataError: one line for each value that the data set does not have.
    """
    ignored = ignored_values(known.ignore_index)
    spelled = tuple(values_of(c) or (i,) for i, c in enumerate(known.classes))
    if facts.colors:
        raise DataError(f"expected masks with one channel of class ids as in {title}, found RGB pictures")
    strays = sorted(set(facts.pixels) - set(ignored) - {v for values in spelled for v in values}, key=_order)
    if strays:
        lines = [f"{facts.first[s]}: the value {s} is none of {title}'s" for s in strays]
        raise DataError("\n".join(lines))
    return Settled(
        classes=known.classes,
        spelled=spelled,
        encoding="class_id",
        ignored=ignored,
        names_why=f"Names, values and order are those of {title}.",
        ignore_why=f"Values that {title} has no class for." if ignored else f"{title} labels every pixel.",
    )


def settle(facts: MaskTotals, names: Names | None, name: str) -> Settled:
    """The classes of any other data set; `name` stands for it in messages.

    Raises:
        DataError: fewer than two classes or more than 255, or names that no mask goes with.
    """
    if names is not None:
        return _colors_named(facts, names) if facts.colors else _values_named(facts, names)
    if not facts.colors:
        return _values(facts, name)
    found = sorted(facts.pixels, key=_order)
    _check_count(facts, found, name)
    slips, warnings = _slips(facts, found)
    return Settled(
        classes=tuple(NamedClass(name=f"class_{i}", color=_color(c)) for i, c in enumerate(found)),
        spelled=tuple((c,) for c in found),
        encoding="color",
        names_why=" ".join(["No file of names was found: one class for each colour, darkest red first.", *warnings]),
        ignore_why="If a colour means 'no label', delete its line and put the colour here.",
        warnings=warnings,
        slips=slips,
    )


def _values(facts: MaskTotals, name: str) -> Settled:
    found = sorted(facts.pixels, key=_order)
    if found == [0, IGNORE]:
        return Settled(
            classes=(NamedClass(name="background"), NamedClass(name="foreground")),
            spelled=((0,), (IGNORE,)),
            encoding="binary",
            names_why="The masks hold 0 and 255 alone.",
            ignore_why="255 is the foreground here, so every pixel has a label.",
        )
    ignored: tuple[Spelling, ...] = (IGNORE,) if void_beside([_number(v) for v in found]) else ()
    owned = [v for v in found if v not in ignored]
    _check_count(facts, owned, name)
    slips, warnings = _slips(facts, owned)
    # Where a class may be deleted, the others keep their values.
    in_order = not slips and owned == list(range(len(owned)))
    return Settled(
        classes=tuple(NamedClass(name=f"class_{v}", value=None if in_order else _number(v)) for v in owned),
        spelled=tuple((v,) for v in owned),
        encoding="class_id",
        ignored=ignored,
        names_why=" ".join(
            ["No file of names was found: one class for each value; change the names as you like.", *warnings]
        ),
        ignore_why=_void_why(facts, ignored),
        warnings=warnings,
        slips=slips,
    )


def _values_named(facts: MaskTotals, names: Names) -> Settled:
    classes = names.classes
    found = {_number(v) for v in facts.pixels}
    warnings: list[str] = []
    if classes[0].value is None and found == {0, IGNORE} and len(classes) == 2:
        return Settled(
            classes=classes,
            spelled=((0,), (IGNORE,)),
            encoding="binary",
            names_why=f"Names are from {names.file.name}; the masks hold 0 and 255 alone.",
            ignore_why="255 is a class here, so every pixel has a label.",
        )
    if classes[0].value is None and 0 not in found and found - {IGNORE} == set(range(1, len(classes) + 1)):
        classes = tuple(c.model_copy(update={"value": i}) for i, c in enumerate(classes, start=1))
    spelled = tuple(values_of(c) or (i,) for i, c in enumerate(classes))
    owned = {v for values in spelled for v in values}
    listed = names.ignore_index
    ignored = {*ignored_values(listed)}
    strays = sorted(found - owned - ignored - {IGNORE})
    _check_overlap(facts, found & owned, names.file)
    if strays:
        warnings.append(_stray_line(facts, list(strays), names.file))
    ignored |= set(strays) | ({IGNORE} & found - owned)
    if all(spelling == (i,) for i, spelling in enumerate(spelled)):
        classes = tuple(c.model_copy(update={"value": None}) for c in classes)
    why = f"From {names.file.name}." if listed is not None else _void_why(facts, tuple(ignored & {IGNORE}))
    return Settled(
        classes=classes,
        spelled=spelled,
        encoding="class_id",
        ignored=tuple(sorted(ignored)),
        names_why=f"Names, order and colours are from {names.file.name}.",
        ignore_why=" ".join([why, *warnings]),
        warnings=tuple(warnings),
    )


def _colors_named(facts: MaskTotals, names: Names) -> Settled:
    if any(c.color is None and not c.mask_colors for c in names.classes):
        raise DataError(f"{names.file}: the masks are RGB pictures, so every class needs a color; {_some(facts)}")
    ignored = ignored_colors(names.ignore_color)
    spelled = tuple(c.mask_colors or (_color(c.color),) for c in names.classes)
    owned = {color for colors in spelled for color in colors}
    _check_overlap(facts, owned & set(facts.pixels), names.file)
    strays = sorted(set(facts.pixels) - owned - set(ignored), key=_order)
    warnings = [_stray_line(facts, strays, names.file)] if strays else []
    if len(strays) > MAX_CLASSES:
        raise DataError(f"{names.file}: {len(strays)} colours of the masks have no name; {_resampled(facts, strays)}")
    return Settled(
        classes=tuple(c.model_copy(update={"value": None}) for c in names.classes),
        spelled=spelled,
        encoding="color",
        ignored=(*ignored, *strays),
        names_why=f"Names, order and colours are from {names.file.name}.",
        ignore_why=" ".join([f"From {names.file.name}." if ignored else "", *warnings]).strip()
        or "Every colour in the masks is a class.",
        warnings=tuple(warnings),
    )


def _check_overlap(facts: MaskTotals, shared: set[Any], file: Path) -> None:
    if not shared:
        raise DataError(f"{file}: no mask has any of its classes; {_some(facts)}")


def _check_count(facts: MaskTotals, found: list[Spelling], name: str) -> None:
    what = "colour" if facts.colors else "value"
    if len(found) < 2:
        only = f" ({found[0]})" if found else ""
        if IGNORE in facts.pixels and found != [IGNORE]:
            only += " beside 255, which then means 'no label',"
        raise DataError(f"{name}: expected masks of at least two classes, found one {what}{only} in all of them")
    if len(found) > MAX_CLASSES:
        raise DataError(f"{name}: found {len(found)} {what}s in the masks; {_resampled(facts, found)}")


def _resampled(facts: MaskTotals, found: list[Spelling]) -> str:
    rare = min(found, key=lambda s: (facts.pixels[s], _order(s)))
    return (
        f"at most {MAX_CLASSES} classes can be learnt. Masks that were resized with smoothing, or stored as JPEG, hold "
        f"such in-between ones: {rare} in {facts.first[rare]}"
    )


def _stray_line(facts: MaskTotals, strays: list[Any], file: Path) -> str:
    total = sum(facts.pixels.values())
    share = sum(facts.pixels[s] for s in strays) / total
    shown = ", ".join(map(str, strays[:4])) + (", ..." if len(strays) > 4 else "")
    return (
        f"{shown} {'has' if len(strays) == 1 else 'have'} no name in {file.name} and {share:.2%} of the pixels "
        f"(first in {facts.first[strays[0]].name}): ignored. If it is a class, name it."
    )


def _slips(facts: MaskTotals, found: list[Spelling]) -> tuple[tuple[int, ...], tuple[str, ...]]:
    """Which of the classes to be look like slips, and a line about each of the first few."""
    most = max(1, facts.masks // 100)
    few = SLIP_SHARE * sum(facts.pixels.values())
    rare = [
        i for i, s in enumerate(found) if facts.pixels[s] <= few and facts.masks_with([s]) <= most < facts.masks / 5
    ]
    what = "colour" if facts.colors else "value"
    lines = [
        f"The {what} {s} has {facts.pixels[s]} pixel(s), in {facts.masks_with([s])} of {facts.masks} masks (first in "
        f"{facts.first[s].name}): a slip? Correct the mask, or delete its class and ignore it."
        for s in (found[i] for i in rare[:3])
    ]
    if len(rare) > 3:
        lines.append(f"So it is with {len(rare) - 3} more.")
    return tuple(rare), tuple(lines)


def _void_why(facts: MaskTotals, ignored: tuple[Any, ...]) -> str:
    if not ignored:
        return "Every value in the masks is a class."
    share = facts.pixels[IGNORE] / sum(facts.pixels.values())
    return f"255 has {share:.2%} of the pixels; beside small ids it means 'no label'."


def _some(facts: MaskTotals) -> str:
    shown = sorted(facts.pixels, key=_order)
    return f"the masks hold {', '.join(map(str, shown[:8]))}{', ...' if len(shown) > 8 else ''}"


def _order(spelling: Spelling) -> tuple[int, ...]:
    return (spelling,) if isinstance(spelling, int) else spelling


def _number(spelling: Any) -> int:
    assert isinstance(spelling, int)
    return spelling


def _color(spelling: Any) -> Color:
    assert isinstance(spelling, tuple)
    return spelling
