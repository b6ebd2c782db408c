"""Encoder `factory`: a whole network that a Python function makes; its logits are the one level.

`segdeploy import --factory` writes it. A run comes from strangers, too, so the function that it names is called only
where the environment variable SEGDEPLOY_FACTORIES names it as well.
"""

from __future__ import annotations

import importlib
import os
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field, PositiveInt
from torch import Tensor, nn

from segdeploy.errors import ConfigError, MissingPartError, suggest
from segdeploy.plugin import EncoderPlugin, FeatureMap, Section, hookimpl

if TYPE_CHECKING:
    from collections.abc import Callable

TRUSTED = "SEGDEPLOY_FACTORIES"
_KEYS = ("out", "logits")


class FactoryConfig(Section):
    """Any network, made by a function without arguments; for the decoder `logits` alone."""

    function: Annotated[str, Field(pattern=r"^[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*$")]
    """`package.module:function`. It is called only where SEGDEPLOY_FACTORIES, names with commas between, has it."""
    channels: PositiveInt
    """Channels of what the network gives: one per class."""
    stride: PositiveInt = 1
    """How many input pixels one cell of it spans."""


class FactoryNetwork(nn.Module):
    """(N, 3, H, W) -> one map (N, channels, H / stride, W / stride): what `network` gives.

    That is a tensor, the entry `out` or `logits` of a dict, or the first of a tuple or list.
    """

    def __init__(self, network: nn.Module, channels: int, stride: int) -> None:
        super().__init__()
        self.network = network
        self.features = (FeatureMap(channels=channels, stride=stride),)

    def forward(self, image: Tensor) -> tuple[Tensor]:
        """One map in a tuple; ConfigError where the network gives something else than logits."""
        return (logits_in(self.network(image)),)


def logits_in(found: Any) -> Tensor:
    """The logits in what a network gives: itself, the entry `out` or `logits`, or the first item."""
    inner = found
    if isinstance(found, dict):
        inner = next((found[key] for key in _KEYS if key in found), None)
    elif isinstance(found, tuple | list) and found:
        inner = found[0]
    if not isinstance(inner, Tensor) or inner.ndim != 4:
        said = f"a dict of {', '.join(map(str, found))}" if isinstance(found, dict) else type(found).__name__
        raise ConfigError(
            f"the network gives {said}; expected logits (N, C, H, W), alone, as `out` or `logits` of a dict, or first"
        )
    return inner


def call(function: str) -> nn.Module:
    """The network that `package.module:function` makes.

    Raises:
        MissingPartError: the module or the function is not there.
        ConfigError: it fails, or makes something else.
    """
    module, _, name = function.partition(":")
    try:
        imported = importlib.import_module(module)
        maker = getattr(imported, name, None)
    except ImportError as e:
        raise MissingPartError(
            f"factory {function}: {e}; install its package, or name the folder of {module.split('.')[0]} in PYTHONPATH"
        ) from e
    except Exception as e:
        raise ConfigError(f"factory {function}: its module cannot be imported: {_said(e)}") from e
    if maker is None:
        public = {n: f for n, f in vars(imported).items() if callable(f) and not n.startswith("_")}
        own = [n for n, f in public.items() if getattr(f, "__module__", None) == module]
        raise MissingPartError(f"factory {function}: {module} has no {name!r}{suggest(name, own or public)}")
    try:
        made = maker()
    except Exception as e:
        raise ConfigError(f"factory {function}: the call without arguments fails: {_said(e)}") from e
    if not isinstance(made, nn.Module):
        raise ConfigError(f"factory {function}: expected it to make a torch.nn.Module, found {type(made).__name__}")
    return made


def trust(function: str) -> None:
    """Let this process, and those that it starts, call the function."""
    if function not in (known := _trusted()):
        os.environ[TRUSTED] = ",".join([*known, function])


def _trusted() -> list[str]:
    return [name for name in os.environ.get(TRUSTED, "").split(",") if name]


def _said(error: Exception) -> str:
    return f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"


def build(config: FactoryConfig) -> FactoryNetwork:
    """The network with whatever weights its function gives it.

    Raises:
        MissingPartError: the function is not trusted here, or not there; ConfigError: see `call`.
    """
    if config.function not in (known := _trusted()):
        raise MissingPartError(
            f"the network is made by the Python function {config.function}, which is no part of segdeploy; "
            f"if you trust it: export {TRUSTED}={','.join([*known, config.function])}"
        )
    return FactoryNetwork(call(config.function), config.channels, config.stride)


@hookimpl
def segdeploy_register_encoders(register: Callable[[EncoderPlugin], None]) -> None:
    """Register `factory`."""
    register(
        EncoderPlugin(
            name="factory", summary="any network that a Python function makes", config=FactoryConfig, build=build
        )
    )
