"""The five hooks. A plugin package implements some of them with `@hookimpl` and names its module in the
entry-point group `segdeploy`; an entry point's name that starts with `encoder.`, `decoder.`, `backend.`, `command.`
or `tracker.` is loaded only when that kind is asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pluggy

if TYPE_CHECKING:
    from collections.abc import Callable

    import click

    from segdeploy.plugin.contract import BackendPlugin, DecoderPlugin, EncoderPlugin, TrackerPlugin

GROUP = "segdeploy"
hookspec = pluggy.HookspecMarker(GROUP)
hookimpl = pluggy.HookimplMarker(GROUP)


@hookspec
def segdeploy_register_encoders(register: Callable[[EncoderPlugin], None]) -> None:
    """Called once per process, when the first encoder is looked up: a configuration is read, a model built or listed.

    Call `register` for each encoder. The module may import torch at the top; on a host without it, the plugin is
    listed as failed and nothing else suffers. Build no model here and read no weights: `build` does the one,
    `load_pretrained` the other.

    `register` raises `TypeError` or `ValueError` for what is no `EncoderPlugin`, for a name that is taken (both owners
    are named) or cannot stand in YAML and file names, and for a `config` without JSON Schema. An error that leaves the
    hook is kept and shown by `segdeploy plugins list`; what was registered before it stays, other packages go on.

        from segdeploy.plugin import EncoderPlugin, hookimpl

        @hookimpl
        def segdeploy_register_encoders(register):
            register(EncoderPlugin(name="small", summary="two convolutions", config=SmallConfig, build=Small))
    """


@hookspec
def segdeploy_register_decoders(register: Callable[[DecoderPlugin], None]) -> None:
    """Called once per process, when the first decoder is looked up.

    Call `register` for each decoder. What the encoders' hook says of torch and of errors is true here.

        from segdeploy.plugin import DecoderPlugin, hookimpl

        @hookimpl
        def segdeploy_register_decoders(register):
            register(DecoderPlugin(name="plain", summary="one convolution", config=PlainConfig, build=Plain))
    """


@hookspec
def segdeploy_register_backends(register: Callable[[BackendPlugin], None]) -> None:
    """Called once per process, when a model is first opened to run, or backends are listed.

    Call `register` for each backend. This happens on deployment hosts: import neither torch nor the engine at the top,
    only inside `available` and `open`. Register also where the engine is missing; `available` then says what to
    install. An error in the hook is treated as in the encoders' hook; one in `available` makes this backend
    unavailable, with the error as reason, and others are still found.

        from segdeploy.plugin import Availability, BackendPlugin, hookimpl

        def available():
            return Availability(ok=False, reason="needs fastengine; pip install fastengine")

        @hookimpl
        def segdeploy_register_backends(register):
            register(BackendPlugin(name="fast", summary="FastEngine", artifact="onnx", available=available, open=Fast))
    """


@hookspec
def segdeploy_register_commands(cli: click.Group) -> None:
    """Called once per process, when the command line has a word that segdeploy has no command for.

    Add commands to `cli`, a group of this plugin's own: segdeploy's commands cannot be replaced, and a name that
    another plugin took is refused with both owners named. Import what a command needs inside it. A `SegdeployError`
    in a command becomes one line and exit code 2. An error in the hook is treated as in the encoders' hook.

        import click
        from segdeploy.plugin import hookimpl

        @hookimpl
        def segdeploy_register_commands(cli):
            @cli.command("hello")
            def hello():
                click.echo("good day")
    """


@hookspec
def segdeploy_register_trackers(register: Callable[[TrackerPlugin], None]) -> None:
    """Called once per process, when a configuration names a tracker under `trainer.trackers`, or trackers are listed.

    Call `register` for each tracker. Nothing is sent anywhere because a package is installed: a training tells only
    those trackers that its configuration names. What the encoders' hook says of errors is true here.

        from segdeploy.plugin import Tracker, TrackerPlugin, hookimpl

        class Lines(Tracker):
            def __init__(self, run, config):
                self.file = run / "lines.txt"

            def epoch(self, row):
                with self.file.open("a") as lines:
                    lines.write(f"{row['epoch']} {row['validation_mean_iou']:.4f}\\n")

        @hookimpl
        def segdeploy_register_trackers(register):
            register(TrackerPlugin(name="lines", summary="one line per epoch", open=Lines))
    """
