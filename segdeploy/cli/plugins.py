"""segdeploy plugins list|show|check|new."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from segdeploy.cli import options, plugins_check
from segdeploy.progress import say

if TYPE_CHECKING:
    from pathlib import Path


@click.group(name="plugins")
def command() -> None:
    """Encoders, decoders, backends and trackers, ours and third parties'."""


@command.command(name="list")
@click.option("--json", "as_json", is_flag=True, help="A JSON list of objects, with tracebacks, instead of a table.")
def list_(as_json: bool) -> None:
    """Every plugin with its kind, owner and state, and what failed to load."""
    from segdeploy.cli.main import COMMANDS
    from segdeploy.plugin import listing
    from segdeploy.tables import text_table

    rows = listing.rows(reserved=COMMANDS)
    if as_json:
        say(json.dumps([row.as_json() for row in rows], indent=2))
        return
    head = ["name", "kind", "distribution", "version", "state"]
    say(text_table(head, [[r.name, r.kind, r.owner.distribution, r.owner.version, r.said()] for r in rows], left=5))


@command.command(name="show")
@click.argument("name")
@click.option("--json", "as_json", is_flag=True, help="A JSON list with one object per kind; `schema` is JSON Schema.")
def show(name: str, as_json: bool) -> None:
    """The keys of an encoder or decoder, with defaults and bounds; what a backend runs and whether it can."""
    from segdeploy.plugin import listing

    found = listing.holders(name)
    say(json.dumps(found, indent=2) if as_json else "\n\n".join(map(_text, found)))


def _text(about: dict[str, Any]) -> str:
    from segdeploy.plugin import registry
    from segdeploy.plugin.describe import describe_section

    kind = about["kind"]
    said = [
        f"{kind} {about['name']}: {about['summary']}",
        f"from {about['distribution']} {about['version']} ({about['entry_point']})",
    ]
    if kind == "backend":
        state = f"available {about['engine']}".strip() if about["state"] == "ok" else about["reason"]
        said += [f"runs: {about['artifact']}", f"here: {state}"]
    elif kind in ("encoder", "decoder"):
        said.append(describe_section(registry.catalogue(kind).plugins[about["name"]].config))
    return "\n".join(said)


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
