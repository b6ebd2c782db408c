"""Rules about a part's keys."""

from __future__ import annotations

import inspect
from types import CodeType, FunctionType
from typing import TYPE_CHECKING, Any

import torch

from segdeploy.conformance.blame import unwrapped
from segdeploy.conformance.rule import BrokenError, Found, Rule
from segdeploy.conformance.section import require_keys
from segdeploy.plugin import Section

if TYPE_CHECKING:
    from _collections_abc import dict_items, dict_values
    from collections.abc import Callable, Iterator

    from segdeploy.conformance.subject import Subject


def check_defaults(subject: Subject) -> Found:
    """The section's class, its defaults, its descriptions."""
    config = subject.part.plugin.config
    if not (isinstance(config, type) and issubclass(config, Section)):
        raise BrokenError(f"config: expected a subclass of segdeploy.plugin.Section, found {config!r}")
    kept = {key: config.model_config.get(key) for key in ("frozen", "strict")}
    if config.model_config.get("extra") != "forbid" or not all(kept.values()):
        raise BrokenError(f"{config.__name__}.model_config: a Section is frozen, strict and forbids unknown keys")
    with subject.blame("the configuration's schema"):
        config.model_json_schema()
    required = require_keys(subject.part, subject.values)
    with subject.blame("the configuration's defaults"):
        defaults = config(**{key: subject.values[key] for key in required})
        back = config.model_validate_json(defaults.model_dump_json())
    if back != defaults:
        raise BrokenError(f"defaults are {defaults!r}, and {back!r} once they were written to JSON and read back")
    silent = [key for key, field in config.model_fields.items() if not (field.description or "").strip()]
    if silent:
        raise BrokenError(f"no description: {', '.join(silent)}")
    if not (config.__doc__ or "").strip():
        raise BrokenError(f"{config.__name__} has no docstring; plugins show prints its first line")
    return Found(f"{len(config.model_fields)} keys", {"keys": len(config.model_fields)})


def check_keys_used(subject: Subject) -> Found:
    """Build and run with a section that notes which keys are read; then look into `load_pretrained`."""
    section = subject.section
    read: set[str] = set()
    recording = _recording(type(section), read)
    noting = recording.model_validate_json(section.model_dump_json())
    object.__setattr__(noting, "__dict__", _Recording(vars(noting), read))  # for vars(config)
    read.clear()  # what reading the JSON has touched
    model = subject.assemble(section=noting)
    with subject.blame("forward"), torch.no_grad():
        subject.half(model)  # some read a key as late as here
        image = subject.images(2, subject.sizes[0])
        model.train().forward_aux(image)
        model.eval()(image)
    keys = set(type(section).model_fields)
    unread = keys - read
    load = getattr(subject.part.plugin, "load_pretrained", None)
    if unread and load is not None:
        unread -= set(_names(unwrapped(load)))
    if subject.part.kind == "encoder":
        unread.discard("trainable")  # the trainer reads it
    if unread:
        raise BrokenError(f"never read: {', '.join(sorted(unread))}", unread=sorted(unread))
    return Found(f"{len(keys)} keys read")


class _Recording(dict[str, Any]):
    """What `model_dump` and `vars` give: a key is read when it is asked for by name, iterated with its value, or
    handed on as a keyword.
    """

    def __init__(self, values: dict[str, Any], read: set[str]) -> None:
        super().__init__(values)
        self.read = read

    def __getitem__(self, key: str) -> Any:
        self.read.add(key)
        return super().__getitem__(key)

    def get(self, key: str, default: Any = None) -> Any:
        self.read.add(key)
        return super().get(key, default)

    def pop(self, key: str, *default: Any) -> Any:
        self.read.add(key)
        return super().pop(key, *default)

    def items(self) -> dict_items[str, Any]:
        self.read.update(self)
        return super().items()

    def values(self) -> dict_values[str, Any]:
        self.read.update(self)
        return super().values()

    def __iter__(self) -> Iterator[str]:  # overridden, so that f(**dumped) asks for each key
        return super().__iter__()


# They look at every key, and use none by it.
_LOOK_ON = ("__copy__", "__deepcopy__", "__eq__", "__hash__", "__repr_args__", "model_dump", "model_dump_json")


def _recording(section: type[Section], read: set[str]) -> type[Section]:
    """A subclass of `section` that adds the name of each key that is read to `read`."""
    keys = set(section.model_fields)

    def getattribute(self: Any, name: str) -> Any:
        if name in keys:
            read.add(name)
        return section.__getattribute__(self, name)

    def quiet(name: str) -> Callable[..., Any]:
        def call(self: Any, *args: Any, **options: Any) -> Any:
            before = set(read)
            given: Any = getattr(section, name)(self, *args, **options)
            if name == "__repr_args__":  # a generator
                given = list(given)
            read.intersection_update(before)
            return _Recording(given, read) if name == "model_dump" else given

        return call

    namespace: dict[str, Any] = {name: quiet(name) for name in _LOOK_ON}
    namespace |= {"__getattribute__": getattribute, "__module__": section.__module__}
    metaclass: Any = type(section)
    made: type[Section] = metaclass(section.__name__, (section,), namespace)
    return made


def _names(function: Callable[..., Any]) -> Iterator[str]:
    """Every name and string that the function's code, and that of the functions it calls in its package, speaks of."""
    seen: set[CodeType] = set()
    todo: list[Any] = [inspect.unwrap(function)]
    while todo:
        here = todo.pop()
        code = here if isinstance(here, CodeType) else getattr(here, "__code__", None)
        if code is None or code in seen:
            continue
        seen.add(code)
        yield from code.co_names
        yield from (c for c in code.co_consts if isinstance(c, str))
        todo += [c for c in code.co_consts if isinstance(c, CodeType)]
        if isinstance(here, FunctionType):
            called = (here.__globals__.get(name) for name in code.co_names)
            package = here.__module__.split(".")[0]
            todo += [f for f in called if isinstance(f, FunctionType) and f.__module__.split(".")[0] == package]


RULES = (
    Rule(
        name="config-defaults",
        kinds=("encoder", "decoder"),
        sentence="Each key has a description and a default or a value from --set; defaults are valid and survive JSON.",
        fix="Derive the section from segdeploy.plugin.Section, give each field a default within its bounds and a "
        "string under it, and the class a docstring.",
        check=check_defaults,
    ),
    Rule(
        name="config-keys-used",
        kinds=("encoder", "decoder"),
        sentence="Every key of the section is read when the module is built, run or given its trained weights.",
        fix="Use the key, or take it out: a user who sets a key that nothing reads trains something else than he "
        "believes.",
        check=check_keys_used,
        needs=("levels", "output", "auxiliary"),
    ),
)
