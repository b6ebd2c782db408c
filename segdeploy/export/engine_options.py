"""How an engine shall be built: shapes, limits, targets; and the shapes as TensorRT's profiles want them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, get_args

from segdeploy.errors import ConfigError, ExportError
from segdeploy.runtime.engine_lock import Compatibility, ShapeRange

if TYPE_CHECKING:
    from collections.abc import Sequence

Range = tuple[int, int, int]
"""Least, tuned for, most."""

LEVELS = range(6)
"""Of `builder_optimization_level`: how long to look for faster kernels."""
BATCH: Range = (1, 1, 8)
_SIDES = ("batch", "height", "width")


def parse_range(text: str, name: str) -> Range:
    """`1,4,8` is from 1 to 8, tuned for 4; `1,8` is tuned for its least; `4` is 4 alone. `name` is for the message."""
    try:
        values = [int(part) for part in text.split(",")]
        low, high = values[0], values[-1]
        middle = values[1] if len(values) == 3 else low
        if len(values) > 3 or not 1 <= low <= middle <= high:
            raise ValueError
    except ValueError:
        raise ConfigError(f"{name} {text}: expected MIN,OPT,MAX, at least 1 and rising, such as 1,4,8") from None
    return low, middle, high


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """The shapes that kernels are chosen for; memory is taken for the largest.

    None: the graph's own side, where it is fixed; else 1 to 8 images, and the model's height and width.
    """

    batch: Range | None = None
    height: Range | None = None
    width: Range | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineOptions:
    """How to build.

    `flavour`: "tensorrt" or "rtx", None for what fits this machine. `workspace`: bytes that kernels may use for
    intermediate results, None for all of the device's. `optimization_level`: 0 to 5. `compute_capabilities`: names
    such as "sm86" of the GPUs that an engine of TensorRT for RTX is for; without any it is for all from 8.0 on.
    `version_compatible`: also run on later versions of TensorRT, with code for the CPU in the plan.
    `hardware_compatible`: "ampere_plus" or "same_compute_capability", run on other GPUs too, more slowly.
    """

    profiles: tuple[Profile, ...] = (Profile(),)
    flavour: str | None = None
    workspace: int | None = None
    optimization_level: int = 3
    compute_capabilities: tuple[str, ...] = ()
    version_compatible: bool = False
    hardware_compatible: Compatibility = "none"

    def __post_init__(self) -> None:
        if self.optimization_level not in LEVELS:
            raise ConfigError(f"--optimization-level {self.optimization_level}: expected 0 to {LEVELS[-1]}")
        if self.hardware_compatible not in get_args(Compatibility):
            known = ", ".join(get_args(Compatibility))
            raise ConfigError(f"--hardware-compatible {self.hardware_compatible}: expected one of {known}")


def shape_ranges(
    options: EngineOptions, inputs: dict[str, tuple[int, ...]], size: tuple[int, int], name: str
) -> tuple[dict[str, ShapeRange], ...]:
    """For each profile the shapes of each input.

    Args:
        options: the profiles that are asked for.
        inputs: the network's inputs with their shapes, -1 for what is free; segdeploy's is image (N, H, W, 3).
        size: the model's height and width, for free sides that no profile says.
        name: the graph's, for the message.

    Raises:
        ExportError: a side that is fixed in the graph shall vary, or be of another size; or no profile holds `size`.
    """
    ranges = tuple(
        {key: _shape_range(profile, shape, size, name) for key, shape in inputs.items()} for profile in options.profiles
    )
    if not any(_holds(profile, size) for profile in options.profiles):
        raise ExportError(
            f"{name}: its model takes {size[0]} x {size[1]} (height x width), and no profile holds that size; "
            "let --height and --width include it, or leave them out"
        )
    return ranges


def check_multiple(options: EngineOptions, multiple: int, name: str) -> None:
    """ExportError where a profile's height or width is not one that the model's encoder takes (`size_multiple`)."""
    for side in ("height", "width"):
        for asked in filter(None, (getattr(profile, side) for profile in options.profiles)):
            if any(value % multiple for value in asked):
                near = ",".join(str(max(1, round(value / multiple)) * multiple) for value in asked)
                raise ExportError(
                    f"{name}: --{side} {','.join(map(str, asked))}: its encoder takes multiples of {multiple}; "
                    f"such as {near}"
                )


def _holds(profile: Profile, size: tuple[int, int]) -> bool:
    sides = zip((profile.height, profile.width), size, strict=True)
    return all(asked is None or asked[0] <= side <= asked[-1] for asked, side in sides)


def _shape_range(profile: Profile, shape: Sequence[int], size: tuple[int, int], name: str) -> ShapeRange:
    if len(shape) != 4:
        raise ExportError(f"{name}: expected an input (N, H, W, 3), found {tuple(shape)}")
    asked = (profile.batch, profile.height, profile.width)
    usual = (BATCH, *((side,) * 3 for side in size))
    ranges = [
        wanted or default if given == -1 else (given,) * 3
        for given, wanted, default in zip(shape[:3], asked, usual, strict=True)
    ]
    for side, wanted, found in zip(_SIDES, asked, ranges, strict=True):
        if wanted not in (None, found):
            raise ExportError(
                f"{name}: its {side} is fixed at {found[0]}, and a profile shall have {','.join(map(str, wanted))}; "
                "leave that out, or export with --dynamic batch,height,width"
            )
    batch, height, width = ranges
    low, opt, high = ((batch[i], height[i], width[i], shape[3]) for i in range(3))
    return ShapeRange(min=low, opt=opt, max=high)
