"""Python classes that answer as a pybind11 module does, made from a listing of its signatures.

Names, arities, argument types, read-only properties, enums and missing constructors come from the listing; what a
method does is a function of `behaviour["Class.method"]`. A name in the listing with no behaviour raises
NotImplementedError when it is called, a name that is not in the listing is an AttributeError.
"""

import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

MISSING = object()


class Pybind11Type(type):
    """Refuses classes without a constructor, and subclasses that forget the base's `__init__`."""

    def __call__(cls, *arguments, **named):
        made = cls.__new__(cls)
        made.__init__(*arguments, **named)
        if made._state is None:
            base = next(c for c in cls.__mro__ if "_listed" in c.__dict__)
            raise TypeError(f"{base.__module__}.{base.__qualname__}.__init__() must be called when overriding __init__")
        return made


class Bound(metaclass=Pybind11Type):
    """Base of every class; `_state` holds what the C++ object would."""

    __slots__ = ("_state",)

    def __new__(cls, *_arguments, **_named):
        made = object.__new__(cls)
        made._state = None
        return made


def make(cls: type, **state: Any) -> Any:
    """An object as the library itself makes it, past the missing constructor."""
    made = cls.__new__(cls)
    made._state = state
    return made


def _split(text: str) -> list[str]:
    """'a: X, b: Y[Z, W] = (1, 2)' at its outer commas."""
    parts, depth, start = [], 0, 0
    for i, char in enumerate(text):
        depth += (char in "[(<") - (char in "])>")
        if char == "," and depth == 0:
            parts.append(text[start:i].strip())
            start = i + 1
    return [p for p in [*parts, text[start:].strip()] if p]


class Module:
    """Builds `name` from `facts`, with `behaviour` for what it does."""

    def __init__(self, name: str, facts: Mapping[str, Any], behaviour: Mapping[str, Callable], ordered: Sequence[str]):
        self.name, self.behaviour, self.ordered = name, behaviour, ordered
        self.module = ModuleType(name)
        self.module.__spec__ = ModuleSpec(name, None)  # importlib.util.find_spec looks here
        self.classes: dict[str, type] = {}
        for label, fact in facts["classes"].items():
            if "enum" in fact:
                self.classes[label] = self._enum(label, fact["enum"])
        waiting = {k: v for k, v in facts["classes"].items() if "enum" not in v}
        while waiting:
            for label in [k for k, v in waiting.items() if not set(v.get("bases", ())) & set(waiting)]:
                self.classes[label] = self._class(label, waiting.pop(label))
        for label, cls in sorted(self.classes.items()):
            owner, _, own = label.rpartition(".")
            setattr(self.classes[owner] if owner else self.module, own, cls)
            for member in getattr(cls, "__members__", {}) if owner else ():
                setattr(self.classes[owner], member, cls.__members__[member])
        for label, text in facts["constants"].items():  # '<DataType.HALF: 1>': equal to the member, not the same object
            enum, value = re.fullmatch(r"<(\w+)\.\w+: (\d+)>", text).groups()
            setattr(self.module, label, self.classes[enum](int(value)))
        self.module.__version__ = facts["version"]

    # Enums

    def _enum(self, label: str, members: Mapping[str, int]) -> type:
        def same(self, other):
            return type(other) is type(self) and other._state == self._state

        def less(self, other):
            if type(other) is not type(self):
                raise TypeError("Expected an enumeration of matching type!")
            return self._state < other._state

        def init(self, value):
            self._state = int(value)

        own = label.rpartition(".")[2]
        names = {v: k for k, v in members.items()}
        body = {
            "__slots__": (), "__module__": f"{self.name}.{self.name}", "__init__": init, "_listed": True,
            "__eq__": same, "__ne__": lambda a, b: not same(a, b), "__hash__": lambda a: a._state,
            "__int__": lambda a: a._state, "__index__": lambda a: a._state,
            "name": property(lambda a: names.get(a._state, "???")), "value": property(lambda a: a._state),
            "__str__": lambda a: f"{own}.{a.name}", "__repr__": lambda a: f"<{own}.{a.name}: {a._state}>",
        }  # fmt: skip
        if label in self.ordered:
            body |= {"__lt__": less, "__gt__": lambda a, b: less(b, a), "__le__": lambda a, b: not less(b, a)}
        if f"{label}.itemsize" in self.behaviour:
            body["itemsize"] = property(self.behaviour[f"{label}.itemsize"])
        cls = Pybind11Type(own, (Bound,), body)
        cls.__members__ = {k: cls(v) for k, v in members.items()}
        for member, value in cls.__members__.items():
            setattr(cls, member, value)
        return cls

    # Classes

    def _class(self, label: str, fact: Mapping[str, Any]) -> type:
        bases = tuple(self.classes[b] for b in fact.get("bases", ()) if b in self.classes) or (Bound,)
        body: dict[str, Any] = {"__slots__": (), "__module__": f"{self.name}.{self.name}", "_listed": True}
        for method, lines in fact.get("methods", {}).items():
            if method in ("__enter__", "__exit__", "__del__"):
                continue
            body[method] = self._method(label, method, lines)
        if "__enter__" in fact.get("methods", {}):
            body |= {"__enter__": _enter, "__exit__": lambda *_: None}
        for key, accessors in fact.get("properties", {}).items():
            body[key] = self._property(label, key, accessors)
        if f"{label}.__repr__" in self.behaviour:
            body["__repr__"] = _bound(self.behaviour[f"{label}.__repr__"])
        return Pybind11Type(label.rpartition(".")[2], bases, body)

    def _method(self, label: str, method: str, lines: Sequence[str]) -> Callable:
        shown = "\n".join(f"    {i}. {line}" for i, line in enumerate(lines, 1))

        def call(self_, *arguments, **named):
            if method == "__init__" and lines and lines[0].startswith("__init__(self, /"):
                raise TypeError(f"{self.name}.{label}: No constructor defined!")
            for line in lines:
                inside = line.removeprefix(method + "(").rpartition(") ->")[0]
                values = self._match([p for p in _split(inside) if not p.startswith("self")], arguments, named)
                if values is not None:
                    break
            else:
                raise TypeError(
                    f"{method}(): incompatible function arguments. The following argument types are supported:\n"
                    f"{shown}\n\nInvoked with: {', '.join(map(repr, (arguments, named)))}"
                )
            does = self.behaviour.get(f"{label}.{method}")
            if method == "__init__":
                self_._state = {}
            if does is not None:
                return does(self_, *values)
            if method == "__init__":
                return None
            raise NotImplementedError(f"the double does not do {label}.{method}; add it to behaviour")

        call.__name__ = call.__qualname__ = method
        call.__doc__ = "\n".join(lines)
        return call

    def _property(self, label: str, key: str, fact: Mapping[str, Any]) -> property:
        does = self.behaviour.get(f"{label}.{key}")

        def get(self_):
            if key in self_._state:
                return self_._state[key]
            if does is None:
                raise NotImplementedError(f"the double does not know {label}.{key}; add it to behaviour")
            return does(self_)

        def put(self_, value):
            kind = fact["set"].rpartition(") ->")[0].rpartition("arg1: ")[2] or fact["set"].rpartition("arg0: ")[2]
            kind = kind.rpartition(") ->")[0] or kind
            found = None if value is None and kind in self.classes else self._convert(kind, value)
            if found is MISSING:
                raise TypeError(
                    f"(): incompatible function arguments. Expected {fact['set']}\n\nInvoked with: {value!r}"
                )
            checks = self.behaviour.get(f"{label}.{key}=")
            if checks is None or checks(self_, found):
                self_._state[key] = found  # a setter that answers False keeps the old value, and Python hears nothing

        def refuse(self_, _value):
            raise AttributeError(f"property of {label!r} object has no setter")

        return property(get, put if fact.get("writable") else refuse)

    # Arguments

    def _match(self, parameters: list[str], arguments: tuple, named: dict) -> list | None:
        if len(arguments) > len(parameters):
            return None
        values, left = [], dict(named)
        for i, text in enumerate(parameters):
            declared, _, default = text.partition(" = ")
            name, _, kind = declared.partition(": ")
            if i < len(arguments):
                value = arguments[i]
            elif name in left:
                value = left.pop(name)
            elif default:
                values.append(self._default(default))
                continue
            else:
                return None
            found = None if value is None and default == "None" else self._convert(kind, value)
            if found is MISSING:
                return None
            values.append(found)
        return None if left else values

    def _default(self, text: str) -> Any:
        member = re.fullmatch(r"<(\w+)\.(\w+): -?\d+>", text)
        if member:
            label = next(k for k in self.classes if k.rpartition(".")[2] == member[1])
            return self.classes[label].__members__[member[2]]
        return {"None": None, "True": True, "False": False}.get(text, MISSING) if not text.isdigit() else int(text)

    def _convert(self, kind: str, value: Any) -> Any:
        """`value` as C++ would take it, or MISSING."""
        kind = re.sub(
            r"^(nvinfer1|nvonnxparser)::(v_\d_\d::)?I?(?=\w)", lambda m: m[0][-1] if m[0][-1] == "I" else "", kind
        )
        if kind == "Dims" and isinstance(value, (tuple, list)) and len(value) <= 8 and all(map(_whole, value)):
            return self.classes["Dims"](value)
        if kind in self.classes:
            return value if isinstance(value, self.classes[kind]) else MISSING
        if kind.startswith("Sequence["):
            inner = [self._convert(kind[9:-1], v) for v in value] if isinstance(value, Sequence) else [MISSING]
            return MISSING if MISSING in inner or isinstance(value, str) else inner
        return _PLAIN.get(kind, lambda _: MISSING)(value)


def _bound(does: Callable) -> Callable:
    return lambda self: does(self)


def _enter(self):
    warnings.warn("Context managers for TensorRT types are deprecated.", DeprecationWarning, stacklevel=2)
    return self


def _whole(value: Any) -> bool:
    return not isinstance(value, (float, str, bytes)) and (hasattr(value, "__index__") or hasattr(value, "__int__"))


def _buffer(value: Any) -> Any:
    try:
        return bytes(memoryview(value))
    except TypeError:
        return MISSING


_PLAIN: dict[str, Callable[[Any], Any]] = {
    "SupportsInt": lambda v: int(v) if _whole(v) else MISSING,
    "SupportsFloat": lambda v: float(v) if isinstance(v, (int, float)) or hasattr(v, "__float__") else MISSING,
    "str": lambda v: v if isinstance(v, str) else MISSING,
    "bool": lambda v: bool(v) if v is None or hasattr(v, "__bool__") else MISSING,
    "tuple": lambda v: v if isinstance(v, tuple) else MISSING,
    "list": lambda v: v if isinstance(v, list) else MISSING,
    "slice": lambda v: v if isinstance(v, slice) else MISSING,
    "object": lambda v: v,
    "typing_extensions.Buffer": _buffer,
}
