"""A pytest plugin: `pytest --segdeploy-plugin NAME` adds a test for each rule of the conformance kit.

It works in a plugin author's own test run, beside his tests or without any. All else is imported when the option is
given.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from segdeploy.conformance.find import Part
    from segdeploy.conformance.judge import Judge
    from segdeploy.conformance.rule import Outcome, Rule


def pytest_addoption(parser: pytest.Parser) -> None:
    """The options, in a group of their own."""
    group = parser.getgroup("segdeploy", "the rules that segdeploy's plugins keep")
    add = group.addoption
    add("--segdeploy-plugin", action="append", default=[], metavar="NAME",
        help="An encoder, decoder, backend or distribution to judge; may be repeated.")  # fmt: skip
    add("--segdeploy-kind", choices=["encoder", "decoder", "backend"], help="Where several kinds hold the name.")
    add("--segdeploy-set", action="append", default=[], metavar="KEY=VALUE", help="A key of its own; may be repeated.")
    add("--segdeploy-with", metavar="NAME", help="The decoder of an encoder, the encoder of a decoder.")


@pytest.hookimpl(tryfirst=True)  # before -k, -m and xdist look at what there is
def pytest_collection_modifyitems(session: pytest.Session, config: pytest.Config, items: list[pytest.Item]) -> None:
    """One item for each part and rule."""
    names: list[str] = config.getoption("segdeploy_plugin")
    if not names:
        return
    from segdeploy.conformance.find import parts
    from segdeploy.errors import SegdeployError

    try:
        found = [part for name in names for part in parts(name, config.getoption("segdeploy_kind"))]
    except SegdeployError as e:
        raise pytest.UsageError(str(e)) from e
    for part in dict.fromkeys(found):
        node = f"segdeploy::{part.kind}-{part.name}"
        items += PartNode.from_parent(session, name=str(part), nodeid=node, part=part).collect()


class PartNode(pytest.Collector):
    """A part under test; its items share one judge."""

    def __init__(self, *, part: Part, **about: Any) -> None:
        super().__init__(**about)
        self.part = part

    @functools.cached_property
    def judge(self) -> Judge:
        """Made by the first item that runs."""
        from segdeploy.conformance.check import judge_of, parse_values

        values = parse_values(self.config.getoption("segdeploy_set"))
        return judge_of(self.part, values, self.config.getoption("segdeploy_with"))

    def collect(self) -> list[pytest.Item]:
        """One item for each rule of the part's kind."""
        from segdeploy.conformance.table import rules_for

        items: list[pytest.Item] = [
            RuleItem.from_parent(self, name=rule.name, rule=rule) for rule in rules_for(self.part.kind)
        ]
        if self.config.pluginmanager.hasplugin("xdist"):
            for item in items:  # with --dist loadgroup one worker makes and exports the model
                item.add_marker(pytest.mark.xdist_group(self.nodeid))
        return items


class RuleItem(pytest.Item):
    """One rule, judged on one part."""

    def __init__(self, *, rule: Rule, **about: Any) -> None:
        super().__init__(**about)
        self.rule = rule

    def runtest(self) -> None:
        """Fail, skip or pass as the outcome says."""
        from segdeploy.conformance.section import KeysNeededError

        node = self.parent
        assert isinstance(node, PartNode)
        try:
            outcome = node.judge.outcome(self.rule.name)
        except KeysNeededError as e:
            if node.part.name in self.config.getoption("segdeploy_plugin"):
                raise
            pytest.skip(str(e))  # one of a distribution's
        self.user_properties.append(("segdeploy", outcome.to_dict()))
        if outcome.state == "skipped":
            pytest.skip(outcome.detail)
        if outcome.state == "blocked" and self._is_shown(outcome.cause):
            pytest.skip(outcome.detail)
        if outcome.state in ("failed", "blocked"):
            raise _RuleError(outcome)

    def _is_shown(self, cause: str) -> bool:
        """Whether the rule that broke has a test of its own in this run, which fails."""
        return any(i.parent is self.parent and i.name == cause for i in self.session.items)

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException], style: Any = None) -> Any:
        """Detail, sentence and fix of a rule that is not kept; one line for bad input; a traceback for a bug."""
        from segdeploy.errors import SegdeployError

        if isinstance(excinfo.value, (_RuleError, SegdeployError)):
            return str(excinfo.value)
        return super().repr_failure(excinfo, style)

    def reportinfo(self) -> tuple[Any, int | None, str]:
        """The head of a failure."""
        return self.path, None, self.nodeid


class _RuleError(Exception):
    def __init__(self, outcome: Outcome) -> None:
        rule = outcome.rule
        super().__init__(f"{outcome.detail}\n\nrule: {rule.sentence}\nfix:  {rule.fix}")
