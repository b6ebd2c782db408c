"""All rules, in the order in which they are judged."""

from __future__ import annotations

from typing import TYPE_CHECKING

from segdeploy.conformance import rules_build, rules_config, rules_export, rules_maps, rules_numbers

if TYPE_CHECKING:
    from segdeploy.conformance.rule import Rule
    from segdeploy.plugin.manager import Kind

_DEFAULTS, _KEYS_USED = rules_config.RULES

RULES: tuple[Rule, ...] = (
    _DEFAULTS,
    *rules_build.RULES,
    _KEYS_USED,
    *rules_maps.RULES,
    *rules_numbers.RULES,
    *rules_export.RULES,
)


def rules_for(kind: Kind) -> tuple[Rule, ...]:
    """The rules of a kind."""
    return tuple(rule for rule in RULES if kind in rule.kinds)
