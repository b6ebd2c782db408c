"""Moves on a parsed configuration: what an alias is made of."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from segdeploy.config.yaml12 import KeyPath, Source

NOTHING = object()
"""What `get` gives where no key is."""


class Tree:
    """A configuration's value, changed in place.

    `dropped` collects keys that were left out on purpose, `mistakes` lines about keys that cannot be taken.
    What came from `--set` wins over what the file says.
    """

    def __init__(self, source: Source) -> None:
        self.source = source
        self.dropped: list[KeyPath] = []
        self.mistakes: list[str] = []

    def get(self, path: KeyPath) -> Any:
        """The value there; NOTHING where there is none."""
        here = self.source.value
        for step in path:
            try:
                here = here[step]
            except (KeyError, IndexError, TypeError):
                return NOTHING
        return here

    def missing(self, path: KeyPath) -> bool:
        """Whether the key is not there, or null."""
        return self.get(path) in (NOTHING, None)

    def put(self, path: KeyPath, value: Any) -> bool:
        """Set a value, making sections on the way, but no entries of lists; False where that cannot be."""
        here = self.source.value
        for step, following in itertools.pairwise(path):
            if isinstance(here, dict) and here.get(step) is None and isinstance(following, str):
                here[step] = {}
            here = self._step(here, step)
        if isinstance(here, dict):
            here[path[-1]] = value
        return isinstance(here, dict)

    @staticmethod
    def _step(here: Any, step: str | int) -> Any:
        try:
            return here[step]
        except (KeyError, IndexError, TypeError):
            return None

    def take(self, path: KeyPath) -> Any:
        """The value there, which is deleted."""
        value = self.get(path)
        if value is not NOTHING:
            del self.get(path[:-1])[path[-1]]
        return value

    def drop(self, path: KeyPath) -> None:
        """Delete a key and remember it."""
        if self.take(path) is not NOTHING:
            self.dropped.append(path)

    def prune(self, path: KeyPath) -> None:
        """Delete a section that is empty."""
        if self.get(path) in ({}, None):
            self.take(path)

    def refuse(self, path: KeyPath, said: str) -> None:
        """A line about a key, which is deleted."""
        self.mistakes.append(f"{self.source.where(path)}: {self.source.spelled(path)}: {said}")
        self.take(path)

    def only(self, path: KeyPath, allowed: tuple[Any, ...], advice: str) -> None:
        """Delete a key that has one of the allowed values; refuse any other."""
        value = self.get(path)
        if value in allowed:
            self.take(path)
        elif value is not NOTHING:
            self.refuse(path, f"{value!r} has no counterpart in segdeploy: {advice}")

    def move(self, old: KeyPath, new: KeyPath) -> None:
        """Two spellings of one key become the new one; two different values are a mistake."""
        value, there = self.get(old), self.get(new)
        if value is NOTHING:
            return
        if value is None or self._wins(new, old):
            self.take(old)
        elif self.missing(new) or value == there or self._wins(old, new):
            self._carry(old, new)
        elif isinstance(value, dict) and isinstance(there, dict):
            for key in list(value):
                self.move((*old, key), (*new, key))
            self.prune(old)
        else:
            other = self.source.spelled(new)
            self.refuse(old, f"is {value!r}, but {other} is {there!r}; they mean the same, so keep one of them")

    def default(self, old: KeyPath, new: KeyPath) -> None:
        """Fill in from `old` what `new` does not have itself."""
        value, there = self.get(old), self.get(new)
        if value is NOTHING:
            return
        if isinstance(value, dict) and isinstance(there, dict):
            for key in list(value):
                self.default((*old, key), (*new, key))
            self.prune(old)
        elif self._wins(old, new) or (self.missing(new) and not self._wins(new, old)):
            self._carry(old, new)
        else:
            self.take(old)

    def _wins(self, one: KeyPath, other: KeyPath) -> bool:
        return one in self.source.overridden and other not in self.source.overridden

    def _carry(self, old: KeyPath, new: KeyPath) -> None:
        """Take a value over with its lines and the user's spelling."""
        if not self.put(new, self.get(old)):
            return
        self.take(old)
        self.source.written[new] = self.source.written.get(old, old)
        for path in [p for p in self.source.lines if p[: len(old)] == old]:
            self.source.lines[(*new, *path[len(old) :])] = self.source.lines[path]
        if old in self.source.overridden:
            self.source.overridden[new] = self.source.overridden[old]
