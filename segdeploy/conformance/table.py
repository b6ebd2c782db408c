"""All rules, in the order in which they are judged."""

from __future__ import annotations

from typing import TYPE_CHECKING

from segdeploy.conformance import (
    rules_backend,
    rules_build,
    rules_config,
    rules_cost,
    rules_deploy,
    rules_export,
    rules_maps,
    rules_numbers,
    rules_precision,
    rules_runner,
)

if TYPE_CHECKING:
    from segdeploy.conformance.rule import Rule
    from segdeploy.plugin.manager import Kind

_DEFAULTS, _KEYS_USED = rules_config.RULES

RULES: tuple[Rule, ...] = (
    _DEFAULTS,
    *rules_build.RULES,
    *rules_maps.RULES,
    _KEYS_USED,
    *rules_numbers.RULES,
    *rules_export.RULES,
    *rules_deploy.RULES,
    *rules_precision.RULES,
    *rules_cost.RULES,
    *rules_backend.RULES,
    *rules_runner.RULES,
)


def rules_for(kind: Kind) -> tuple[Rule, ...]:
    """The rules of a kind."""
    return tuple(rule for rule in RULES if kind in rule.kinds)
