from typing import Annotated, Literal

import pytest
from pydantic import Field

from segdeploy.plugin import Section
from segdeploy.plugin.describe import describe_section

Odd = Annotated[int, Field(multiple_of=2, gt=0, lt=9)]


class Inner(Section):
    """Keys of their own."""

    depth: int = Field(2, ge=1)
    """How deep."""


class Everything(Section):
    """One of each.

    More words.
    """

    needed: float
    flag: bool = True
    word: str = Field("a", min_length=1, max_length=8, pattern="^[a-z]+$")
    longer: str = Field("abc", min_length=3)
    choice: Literal["a", "b"] = "b"
    only: Literal["x"] | None = None
    even: Odd = 4
    widths: tuple[int, ...] = Field((3, 5), min_length=1)
    three: list[float] = Field([1.0, 2.0, 3.0], min_length=3, max_length=3)
    some: list[str] = Field(["ä"], max_length=4)
    pair: tuple[int, str] = (1, "b")
    scales: dict[str, float] = {}
    inner: Inner = Inner()
    """What stands below."""
    made: list[int] = Field(default_factory=lambda: [7])


EXPECTED = """One of each.

  needed: number, required
  flag: boolean, default true
  word: string of 1 to 8 characters that matches ^[a-z]+$, default "a"
  longer: string of at least 3 characters, default "abc"
  choice: one of a, b, default "b"
  only: "x" or null, default null
  even: integer > 0 < 9 a multiple of 2, default 4
  widths: list of integer, at least 1 long, default [3, 5]
  three: list of number, 3 long, default [1.0, 2.0, 3.0]
  some: list of string, at most 4 long, default ["ä"]
  pair: list of (integer, string), default [1, "b"]
  scales: mapping of names to number, default {}
  inner: mapping, default {"depth": 2}
      What stands below.
      depth: integer >= 1, default 2
          How deep.
  made: list of integer, default [7]"""


class Bare(Section):
    key: int = 1


class Recursive(Section):
    inner: "Recursive | None" = None
    list: tuple[Inner, ...] = ()


@pytest.mark.parametrize(
    ("section", "expected"),
    [
        (Everything, EXPECTED),
        (Bare, "\n  key: integer, default 1"),
        (type("Nothing", (Section,), {}), "\n  (no keys)"),
    ],
)
def test_every_form_of_a_key(section, expected):
    assert describe_section(section) == expected


def test_section_that_holds_itself():
    said = describe_section(Recursive).splitlines()
    assert said[1:4] == [
        "  inner: mapping or null, default null",
        "      inner: mapping or null, default null",
        "      list: list of mapping, default []",
    ]
    assert said[-3:] == [
        "  list: list of mapping, default []",
        "      depth: integer >= 1, default 2",
        "          How deep.",
    ]
