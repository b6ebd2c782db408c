"""The conformance kit, for runs that were not started with --segdeploy-plugin."""

import pytest

from segdeploy.conformance.check import check_part, judge_of
from segdeploy.conformance.find import parts

NAME = "segdeploy-deeplabv3plus"


@pytest.mark.parametrize("part", parts(NAME), ids=str)
def test_every_rule_is_kept(part, request):
    if NAME in request.config.getoption("segdeploy_plugin"):
        pytest.skip("each rule is a test of its own in this run")
    checked = check_part(judge_of(part))
    assert [f"{o.rule.name}: {o.detail}" for o in checked.outcomes if o.state not in ("passed", "skipped")] == []
