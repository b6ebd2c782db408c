"""segdeploy plugins check."""

from __future__ import annotations

import json
import sys
from contextlib import redirect_stdout
from typing import TYPE_CHECKING, Any

import click

from segdeploy.progress import progress, say

if TYPE_CHECKING:
    from segdeploy.plugin.manager import Kind


@click.command(name="check")
@click.argument("name", required=False)
@click.option("--kind", type=click.Choice(["encoder", "decoder", "backend"]), help="Where several kinds hold the name.")
@click.option("--rule", "rules", multiple=True, metavar="RULE", help="Judge this rule alone; may be repeated.")
@click.option("--with", "partner", metavar="NAME", help="The decoder of an encoder, the encoder of a decoder.")
@click.option("--set", "words", multiple=True, metavar="KEY=VALUE", help="A key of its own; may be repeated.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object instead of tables.")
@click.option("--rules", "list_rules", is_flag=True, help="Print every rule with its sentence and its fix.")
def command(
    name: str | None,
    kind: Kind | None,
    rules: tuple[str, ...],
    partner: str | None,
    words: tuple[str, ...],
    as_json: bool,
    list_rules: bool,
) -> int:
    """Judge a plugin, or all plugins of a distribution, by the rules that every part keeps.

    Exit code 3 where a rule is not kept.
    """
    from segdeploy.plugin.extras import require

    require("train")
    from segdeploy.conformance.check import Checked, check_part, judge_of, parse_values, rules_by_part
    from segdeploy.conformance.find import parts
    from segdeploy.conformance.report import rules_text, to_dict, to_text
    from segdeploy.conformance.section import KeysNeededError
    from segdeploy.conformance.table import RULES

    if list_rules:
        say(rules_text([rule for rule in RULES if kind is None or kind in rule.kinds]))
        return 0
    if name is None:
        raise click.UsageError("Missing argument 'NAME'.")
    values: dict[str, Any] = parse_values(words)
    checked = []
    for part, its_rules in rules_by_part(parts(name, kind), rules).items():
        try:
            # What a part prints is not our output.
            with progress(f"checking {part}") as step, redirect_stdout(sys.stderr):
                checked.append(check_part(judge_of(part, values, partner), its_rules, step))
        except KeysNeededError as e:
            if part.name == name:
                raise
            checked.append(Checked(part, (), {"config": None, "partner": None}, skipped=str(e)))
        if not as_json:
            say(to_text(checked[-1]))
    if all(item.skipped for item in checked):
        raise KeysNeededError(checked[0].skipped)  # that nothing was judged is no pass
    if as_json:
        say(json.dumps(to_dict(checked), indent=2, allow_nan=False))
    return 0 if all(item.passed for item in checked) else 3
