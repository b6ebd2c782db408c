"""segdeploy plugins list|show|check|new."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from segdeploy.cli import options, plugins_check
from segdeploy.progress import say

if TYPE_CHECKING:
    from pathlib import Path


@click.group(name="plugins")
def command() -> None:
    """Encoders, decoders and backends, ours and third parties'."""


@command.command(name="list")
def list_() -> None:
    """Every plugin with its kind, owner and state."""
    from segdeploy.plugin import registry
    from segdeploy.plugin.manager import KINDS
    from segdeploy.tables import text_table

    rows = []
    failures = {}
    for kind in KINDS[:3]:
        known = registry.catalogue(kind)
        for name, plugin in known.plugins.items():
            state = "ok"
            if kind == "backend":
                ready = plugin.available()
                state = f"ok {ready.version}".strip() if ready.ok else ready.reason
            rows.append([name, kind, str(known.owners[name]), state])
        failures.update({f.owner: f.reason for f in known.failures})
    rows += [["?", "?", str(owner), reason] for owner, reason in failures.items()]
    say(text_table(["name", "kind", "owner", "state"], rows))


@command.command(name="show")
@click.argument("name")
def show(name: str) -> None:
    """The keys of an encoder or decoder, with defaults and bounds."""
    from segdeploy.errors import MissingPartError
    from segdeploy.plugin import registry
    from segdeploy.plugin.describe import describe_section

    found = False
    for kind in ("encoder", "decoder"):
        plugin = registry.catalogue(kind).plugins.get(name)
        if plugin is not None:
            found = True
            say(f"{kind} {name}: {plugin.summary}\n{describe_section(plugin.config)}")
    if not found:
        raise MissingPartError(f"no encoder or decoder is named {name!r}; see segdeploy plugins list")


@command.command(name="new")
@click.argument("name")
@options.output(".", "Folder in which the package's folder is made; default: here.")
def new(name: str, output: Path) -> None:
    """Write a package with a decoder of your own: NAME is its name, such as my-decoder."""
    from segdeploy.plugin.new import new_plugin

    folder = new_plugin(name, output)
    decoder = name.replace("-", "_")
    say(f"{folder}: pip install -e '{folder}[test]', then segdeploy plugins check {decoder}")


command.add_command(plugins_check.command)
