"""Every rule can be broken, alone; what keeps them all is not called broken."""

import pytest
import twins
import twins_backend
import twins_deploy

from segdeploy.conformance.check import check_part, judge_of
from segdeploy.conformance.table import RULES

GOOD = twins.GOOD | twins_deploy.GOOD | twins_backend.GOOD
TWINS = twins.TWINS + twins_deploy.TWINS + twins_backend.TWINS


def checked(kind, plugin):
    return check_part(judge_of(twins.part(kind, plugin)))


def name_of(value):
    if not hasattr(value, "name"):
        return None
    changed = getattr(value, "build", None) or value.open
    return f"{getattr(changed, '__name__', 'x')}-{getattr(value, 'config', type(value)).__name__}"


@pytest.mark.parametrize("name", GOOD)
def test_good_ones_keep_every_rule(name):
    outcomes = checked(name.split()[0], GOOD[name]).outcomes
    assert [(o.rule.name, o.detail) for o in outcomes if o.state not in ("passed", "skipped")] == []


@pytest.mark.parametrize(("kind", "rule", "twin"), TWINS, ids=name_of)
def test_twin_breaks_its_rule_and_no_other(kind, rule, twin):
    result = checked(kind, twin)
    assert [(o.rule.name, o.detail) for o in result.outcomes if o.state == "failed"] == [
        (rule, next(o.detail for o in result.outcomes if o.rule.name == rule))
    ]
    assert not result.passed
    assert {o.cause for o in result.outcomes if o.state == "blocked"} <= {rule}


def test_every_rule_has_a_twin():
    shown = {(kind, rule) for kind, rule, _ in TWINS}
    assert [rule.name for rule in RULES if not {(kind, rule.name) for kind in rule.kinds} & shown] == []
