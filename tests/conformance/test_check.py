"""Names, keys, partners, reports, and whose mistake an exception is."""

import json
import math

import pytest
import twins

from segdeploy.cli.main import cli
from segdeploy.conformance.blame import Blame
from segdeploy.conformance.check import check_part, judge_of, parse_values
from segdeploy.conformance.find import parts
from segdeploy.conformance.report import to_dict, to_text
from segdeploy.conformance.rule import BrokenError
from segdeploy.conformance.table import RULES
from segdeploy.errors import ConfigError, MissingPartError

QUICK = ["config-defaults", "build", "levels"]


def test_name_of_a_part_of_several_kinds_and_of_a_distribution():
    assert [str(p) for p in parts("unet")] == ["encoder unet", "decoder unet"]
    assert [str(p) for p in parts("unet", "decoder")] == ["decoder unet"]
    assert {p.kind for p in parts("SegDeploy")} == {"encoder", "decoder", "backend"}
    with pytest.raises(MissingPartError, match=r"no decoder or distribution is named 'unett'; did you mean 'unet'\?"):
        parts("unett", "decoder")


def test_failed_plugin_that_may_hold_the_name_is_named(install):
    install("bad", "decoder.bad", "import no_such_package")
    with pytest.raises(
        MissingPartError, match=r"bad 1.5 \(decoder.bad\) may hold it, but did not load: ModuleNotFound"
    ):
        parts("mine")


def test_error_says_where_the_part_has_raised_it():
    bad = twins.encoder(lambda config: 1 / 0)
    (defaults, build, levels) = check_part(judge_of(twins.part("encoder", bad)), QUICK).outcomes
    assert defaults.state == "passed"
    assert build.state == "failed"
    line = bad.build.__code__.co_firstlineno
    assert build.detail == f"build: ZeroDivisionError: division by zero (test_check.py:{line})"
    assert (levels.state, levels.detail) == ("blocked", "not judged: build failed")


def test_error_of_a_library_is_placed_where_the_part_called_it():
    def call():
        json.loads("{")

    place = rf"JSONDecodeError: .* \(test_check.py:{call.__code__.co_firstlineno + 1}\)"
    with pytest.raises(BrokenError, match=place), Blame(call)("run"):
        call()
    with pytest.raises(KeyError), Blame(call)("run", besides=KeyError):
        raise KeyError


def test_bug_of_the_kit_keeps_its_traceback(monkeypatch):
    judge = judge_of(twins.part("encoder", twins.encoder()))
    monkeypatch.setattr("segdeploy.conformance.rules_maps._text", lambda size: math.sqrt("x"))
    with pytest.raises(TypeError):
        judge.outcome("levels")


def test_keys_and_partner_are_the_users_to_choose():
    part = twins.part("encoder", twins.encoder())
    checked = check_part(judge_of(part, {"width": 12}, "unet"), QUICK)
    assert checked.passed
    assert checked.about["config"] == {"width": 12}
    assert checked.about["partner"]["name"] == "unet"
    with pytest.raises(ConfigError, match=r"encoder twin: width=3: Input should be greater.*; its keys: width"):
        check_part(judge_of(part, {"width": 3}), QUICK)
    with pytest.raises(ConfigError, match=r"encoder twin: widht=3: .*its keys: width"):
        check_part(judge_of(part, {"widht": 3}), QUICK)
    with pytest.raises(ConfigError, match="no rule of a encoder is named 'output'"):
        check_part(judge_of(part), ["output"])
    with pytest.raises(ConfigError, match="a backend has no keys"):
        judge_of(parts("torch")[0], {"a": 1})
    assert parse_values(["width=64", "mode=nearest", "sizes=[1, 2]"]) == {
        "width": 64, "mode": "nearest", "sizes": [1, 2]
    }  # fmt: skip
    with pytest.raises(ConfigError, match="expected KEY=VALUE"):
        parse_values(["width"])


def test_partner_that_does_not_fit_is_bad_input():
    def picky(config, features):
        raise ConfigError("decoder twin: needs a level of stride 64")

    part = twins.part("decoder", twins.decoder(picky))
    (build,) = check_part(judge_of(part), ["build"]).outcomes
    assert "encoder timm: decoder twin: needs a level of stride 64; encoder unet: " in build.detail
    with pytest.raises(ConfigError, match="needs a level of stride 64"):
        judge_of(part, partner="unet").outcome("build")


def test_report_says_what_to_do():
    part = twins.part("encoder", twins.encoder(twins.WrongStride))
    checked = check_part(judge_of(part), [*QUICK, "export"])
    text = to_text(checked)
    assert text.startswith("encoder twin, twins 1.0 (twin)\n  config-defaults  passed   1 keys\n")
    assert "levels           failed   level 1 at 96x64: stride 16 is declared, found 12x8" in text
    assert "    fix:  Declare in features the channels and strides" in text
    assert "export           blocked  not judged: levels failed" in text
    found = json.loads(json.dumps(to_dict([checked]), allow_nan=False))
    assert found["passed"] is False
    assert found["machine"]["packages"]["torch"]
    (entry,) = found["parts"]
    assert (entry["distribution"], entry["version"], entry["config"]) == ("twins", "1.0", {"width": 8})
    assert [o["state"] for o in entry["outcomes"]] == ["passed", "passed", "failed", "blocked"]
    assert entry["outcomes"][2]["fix"]


def test_every_rule_has_a_sentence_and_a_fix():
    assert all(rule.sentence.endswith(".") and rule.fix.endswith(".") for rule in RULES)
    names = [(kind, rule.name) for rule in RULES for kind in rule.kinds]
    assert len(names) == len(set(names))
    assert all(need in {r.name for r in RULES} for rule in RULES for need in rule.needs)


def run(*words):
    return cli.main(["plugins", "check", *words], standalone_mode=False)


def test_command_and_its_exit_codes(install, capsys):
    install("good", "decoder.x", MADE_UP.format(mode=""))
    assert run("mine", "--rule", "output", "--rule", "build") in (0, None)
    assert "decoder mine, good 1.5 (decoder.x)" in capsys.readouterr().out
    assert run("good", "--rule", "build", "--json") in (0, None)
    assert json.loads(capsys.readouterr().out)["passed"] is True
    with pytest.raises(MissingPartError):
        run("nothing-of-that-name")


def test_command_exits_with_3_when_a_rule_fails(install, capsys):
    install("bad", "decoder.x", MADE_UP.format(mode=" + 1"))
    assert run("mine", "--rule", "output") == 3
    assert "17 channels are declared" in capsys.readouterr().out
    assert run("mine", "--rule", "export") == 3  # not judged is not kept
    assert "not judged: output failed" in capsys.readouterr().out


def test_command_lists_the_rules(capsys):
    assert run("--rules") in (0, None)
    said = capsys.readouterr().out
    assert all(f"{rule.name} (" in said for rule in RULES)


MADE_UP = """
from torch import nn
from segdeploy.plugin import DecoderPlugin, FeatureMap, Section, hookimpl

class Mine(nn.Conv2d):
    def __init__(self, config, features):
        super().__init__(features[0].channels, 16, 3, padding=1)
        self.out = FeatureMap(channels=16{mode}, stride=features[0].stride)

    def forward(self, maps):
        return super().forward(maps[0]).relu()

@hookimpl
def segdeploy_register_decoders(register):
    register(DecoderPlugin(name="mine", summary="mine", config=Section, build=Mine))
"""
