"""The four hooks. A plugin package implements some of them with `@hookimpl` and names its module in the
entry-point group `segdeploy`; an entry point's name that starts with `encoder.`, `decoder.`, `backend.`
or `command.` is loaded only when that kind is asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pluggy

if TYPE_CHECKING:
    from collections.abc import Callable

    import click

    from segdeploy.plugin.contract import BackendPlugin, DecoderPlugin, EncoderPlugin

GROUP = "segdeploy"
hookspec = pluggy.HookspecMarker(GROUP)
hookimpl = pluggy.HookimplMarker(GROUP)


@hookspec
def segdeploy_register_encoders(register: Callable[[EncoderPlugin], None]) -> None:
    """Called once, when an encoder is first asked for: call `register` for each encoder."""


@hookspec
def segdeploy_register_decoders(register: Callable[[DecoderPlugin], None]) -> None:
    """Called once, when a decoder is first asked for: call `register` for each decoder."""


@hookspec
def segdeploy_register_backends(register: Callable[[BackendPlugin], None]) -> None:
    """Called once, when a backend is first asked for: call `register` for each backend."""


@hookspec
def segdeploy_register_commands(cli: click.Group) -> None:
    """Called when the command line starts with a word that is no command of segdeploy: add commands to `cli`."""
