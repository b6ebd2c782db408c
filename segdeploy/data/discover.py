"""From what the masks hold to a settled ClassMap: which encoding, and which value or colour is which class."""

from __future__ import annotations

import itertools
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from segdeploy.classes import IGNORE, MAX_CLASSES, ClassMap, default_colors, ignored_values
from segdeploy.data.facts import MANY, masks_of
from segdeploy.data.masks import few, pack, unpack
from segdeploy.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from segdeploy.classes import Color
    from segdeploy.config.schema import MaskPreprocessing
    from segdeploy.data.facts import Facts, MaskFacts

log = logging.getLogger(__name__)

_ONE_BY_ONE = "give each class its `value` under `classes`"
_SMOOTHED = "Smoothed edges and JPEG invent values: save masks as PNG, without antialiasing"


def settle_classes(facts: Iterable[Facts], preprocessing: MaskPreprocessing, name: str) -> ClassMap:
    """What the pixels mean, with nothing left to be guessed: `encoding` is never "auto" afterwards.

    Named classes keep their values and colours. Of `num_classes` alone, the values or colours that all masks
    hold together become the classes, in rising order; an order that shows in no number is said in the log.

    Args:
        facts: of all parts, so that every part is read alike.
        preprocessing: the mask's section of the configuration.
        name: what messages call the masks.

    Raises:
        DataError: the masks can be read in two ways, or in none; the message names the ways out.
    """
    read = [(s.mask, m) for s, m in masks_of(facts) if m.format != "JPEG"]  # the values of a JPEG are nobody's
    masks = [m for _, m in read]
    encoding = preprocessing.encoding
    if encoding == "auto" and any(m.kind == "colors" for m in masks):
        encoding = "color"
    if preprocessing.classes is not None:
        return _named(masks, preprocessing, encoding, name)
    if not masks:
        raise DataError(f"{name}: expected masks to find the classes in, found none that can be read")
    try:
        if encoding == "color":
            return _by_color(masks, preprocessing, name)
        single = [m for m in masks if m.kind != "colors"]
        if not single and encoding == "class_id":
            raise DataError(
                f"{name}: expected one channel of class ids, as `encoding: class_id` says, found RGB pictures alone; "
                "set `encoding: color`"
            )
        return _by_value(single, preprocessing, encoding, name)
    except DataError as e:
        # The mask with the most colours, or with the highest value below 255, is the likeliest to be the odd one.
        def oddness(mask: MaskFacts) -> int:
            return mask.distinct if encoding == "color" else max({*mask.codes} - {IGNORE}, default=0)

        odd, _ = max(read, key=lambda item: oddness(item[1]))
        raise DataError(f"{e}. Look at {odd} first") from e


def void_beside(values: Collection[int]) -> bool:
    """Whether 255 means 'no label' among these pixel values, where nobody says what it means.

    Ids lie close together, and 255 beside them is no id. Among a few values far apart, such as 0, 128, 255, it is
    one like the others.
    """
    rest = set(values) - {IGNORE}
    return IGNORE in values and bool(rest) and max(rest) <= 4 * len(rest)


def _named(masks: list[MaskFacts], preprocessing: MaskPreprocessing, encoding: str, name: str) -> ClassMap:
    classes = preprocessing.class_map()
    if encoding == "auto":
        encoding = "class_id"
        values = _values(masks)
        ignored = () if preprocessing.ignore_index == "auto" else ignored_values(preprocessing.ignore_index)
        if len(classes) == 2 and classes.values is None and IGNORE in values - {*ignored} and values <= {0, IGNORE}:
            encoding = "binary"
    if encoding == "color" and len(set(classes.colors)) != len(classes):
        raise DataError(f"{name}: the masks are RGB pictures, so every class needs a `color` of its own")
    if encoding == "binary" and preprocessing.ignore_index == "auto":
        classes = classes.model_copy(update={"ignore_index": None})  # 255 is the second class
    return classes if classes.encoding == encoding else _made(classes.model_dump(), encoding, name)


def _made(fields: dict[str, Any], encoding: str, name: str) -> ClassMap:
    try:
        return ClassMap.model_validate({**fields, "encoding": encoding})
    except ValidationError as e:
        said = e.errors(include_url=False)[0]["msg"].removeprefix("Value error, ")
        raise DataError(f"{name}: the masks are read as `encoding: {encoding}`, and then {said}") from e


def _values(masks: list[MaskFacts]) -> set[int]:
    """All pixel values together; 1-bit masks hold 0 and 1 in every reading and tell nothing."""
    return {v for m in masks if m.kind != "colors" and m.mode != "1" for v in m.codes}


def _by_color(masks: list[MaskFacts], preprocessing: MaskPreprocessing, name: str) -> ClassMap:
    nothing = ClassMap(names=_names(2), colors=default_colors(2), ignore_color=preprocessing.ignore_color,
                       encoding="class_id")  # fmt: skip
    ignored = {pack(c) for c in nothing.ignore_colors}
    found = sorted({c for m in masks for c in m.colors()} - ignored)
    most = max(len(found), *(m.distinct for m in masks)) if masks else 0
    wanted = preprocessing.num_classes
    limit = wanted if isinstance(wanted, int) else MAX_CLASSES
    if len(found) > limit or most > MANY:
        raise DataError(
            f"{name}: expected the colours of {'at most ' if wanted == 'auto' else ''}{limit} classes, found {most}: "
            f"{few(map(unpack, found), 6)}; set a larger num_classes, or name `ignore_color`. {_SMOOTHED}"
        )
    if wanted == "auto" and len(found) < 2:
        raise DataError(f"{name}: expected colours of at least 2 classes, found {len(found)}; list the `classes`")
    count = wanted if isinstance(wanted, int) else len(found)
    free = (c for c in default_colors(3 * MAX_CLASSES) if pack(c) not in {*found, *ignored})
    spare = list(itertools.islice(dict.fromkeys(free), count - len(found)))
    if spare:
        log.warning(
            "%s: num_classes is %d, but the masks hold %d colours; class_%d to class_%d never occur",
            name, count, len(found), len(found), count - 1,
        )  # fmt: skip
    return ClassMap(
        names=_names(count),
        colors=(*map(unpack, found), *spare),
        ignore_color=preprocessing.ignore_color,
        encoding="color",
    )


def _by_value(masks: list[MaskFacts], preprocessing: MaskPreprocessing, encoding: str, name: str) -> ClassMap:
    found = _values(masks) or ({0, 1} if any(m.mode == "1" for m in masks) else set())
    auto = preprocessing.ignore_index == "auto"
    ignored: Any = None if auto else preprocessing.ignore_index
    kept = found - {*ignored_values(ignored)}
    if encoding == "binary" or (
        encoding == "auto" and preprocessing.num_classes in (2, "auto") and 255 in kept and kept <= {0, 255}
    ):
        if preprocessing.num_classes not in (2, "auto"):
            raise DataError(f"{name}: 0/255 masks have 2 classes, but num_classes is {preprocessing.num_classes}")
        fields = {"names": _names(2), "colors": default_colors(2), "ignore_index": ignored}
        return _made(fields, "binary", name)
    readings = [_Reading(kept, ignored)]
    if auto:
        readings = [_Reading(kept - {255}, 255)] + [_Reading(kept, None)] * (255 in kept)
    most = max((m.distinct for m in masks), default=0)
    count = preprocessing.num_classes
    if not isinstance(count, int):
        readings = readings[:1] if void_beside(kept) else readings[-1:]
        count = _countable(readings[0].values, most, name)
    fitting = [r for r in readings if r.ids(count) or len(r.values) == count]
    if not fitting:
        raise DataError(_misfit(readings[0].values, most, count, name))
    if len(fitting) > 1:
        raise DataError(
            f"{name}: the masks hold the values {few(sorted(found))}, and with num_classes: {count} the value 255 can "
            f"be a class or mean 'no label'. Say which: `ignore_index: 255` with num_classes: {len(kept) - 1}, or "
            f"`ignore_index: null`"
        )
    (reading,) = fitting
    values = tuple(range(count)) if reading.ids(count) else tuple(sorted(reading.values))
    if not reading.ids(count):
        log.warning("%s: the values %s are the classes class_0 to class_%d", name, few(values, 24), count - 1)
    return ClassMap(
        names=_names(count),
        colors=_palette(masks, values) or default_colors(count),
        values=None if reading.ids(count) else tuple((v,) for v in values),
        ignore_index=reading.ignored,
        encoding="class_id",
    )


@dataclass(frozen=True, slots=True)
class _Reading:
    """One way to read the masks: the values that are classes, and those that mean 'no label'."""

    values: set[int]
    ignored: Any

    def ids(self, count: int) -> bool:
        """Whether the values can be the ids themselves."""
        return max(self.values, default=0) < count and not any(v < count for v in ignored_values(self.ignored))


def _countable(values: set[int], most: int, name: str) -> int:
    if not 2 <= len(values) <= MAX_CLASSES:
        hint = _SMOOTHED if len(values) > MAX_CLASSES else "list the `classes`, or set `encoding` and `ignore_index`"
        raise DataError(f"{name}: expected masks of 2 to {MAX_CLASSES} values, found {_those(values, most)}; {hint}")
    return len(values)


def _misfit(values: set[int], most: int, count: int, name: str) -> str:
    expected = f"{name}: expected the values 0 to {count - 1}, or {count} values of any kind"
    if len(values) < count:
        return f"{expected}, found {_those(values, most)}; {_ONE_BY_ONE}"
    return f"{expected}, found {_those(values, most)}; set a larger num_classes, or {_ONE_BY_ONE}. {_SMOOTHED}"


def _those(values: set[int], most: int) -> str:
    """The values with their number; of a mask with more than MANY, which `most` tells, not all are in `values`."""
    if not values:
        return "none that has a label"
    return f"{most if most > MANY else len(values)}: {few(sorted(values))}"


def _palette(masks: list[MaskFacts], values: tuple[int, ...]) -> tuple[Color, ...] | None:
    """The colours that palette masks show the values in, where all masks agree and no two values share one."""
    shown: dict[int, set[int]] = {v: set() for v in values}
    for mask in masks:
        if mask.mode in ("P", "PA"):
            for value, color in zip(mask.codes, mask.shown, strict=True):
                shown.get(value, set()).add(color)
    colors = {next(iter(c)) for c in shown.values() if len(c) == 1}
    return tuple(unpack(next(iter(shown[v]))) for v in values) if len(colors) == len(values) else None


def _names(count: int) -> tuple[str, ...]:
    return tuple(f"class_{i}" for i in range(count))
