from pathlib import Path

from segdeploy.conformance.report import rules_markdown, rules_text
from segdeploy.conformance.table import RULES
from segdeploy.plugin.describe import with_block

GUIDE = Path(__file__).parents[2] / "plugins" / "README.md"


def test_guide_has_the_rules_as_they_are():
    text = GUIDE.read_text(encoding="utf-8")
    new = with_block(text, "rules", rules_markdown(RULES))
    assert new == text, "python -m segdeploy.conformance.report plugins/README.md rewrites them"


def test_every_rule_has_a_sentence_and_a_fix():
    said = " ".join(rules_text(RULES).split())
    for rule in RULES:
        assert rule.sentence.endswith(".")
        assert f"rule: {rule.sentence} fix: {rule.fix}" in said
        assert "|" not in rule.sentence
