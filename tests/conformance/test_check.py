"""Names, keys, partners, reports, and whose mistake an exception is."""

import json
import math

import pytest
import twins

from segdeploy.cli.main import cli
from segdeploy.conformance.blame import Blame
from segdeploy.conformance.check import check_part, judge_of, parse_values, rules_by_part
from segdeploy.conformance.find import parts
from segdeploy.conformance.report import to_dict, to_text
from segdeploy.conformance.rule import BrokenError
from segdeploy.conformance.section import KeysNeededError
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
    with pytest.raises(MissingPartError, match=r"^bad 1.5 \(decoder.bad\) is installed, but did not load: [^;]*$"):
        parts("bad")


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


class PanicError(BaseException):
    """As Rust extensions raise it."""


@pytest.mark.parametrize("error", [SystemExit(0), PanicError("of Rust")])
def test_what_is_no_exception_is_the_parts_failure_too(error):
    with pytest.raises(BrokenError, match=rf"run: {type(error).__name__}: "), Blame(twins.Encoder)("run"):
        raise error
    with pytest.raises(KeyboardInterrupt), Blame(twins.Encoder)("run"):
        raise KeyboardInterrupt


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
    with pytest.raises(ConfigError, match=r"encoder twin: width=3: Input should be greater"):
        check_part(judge_of(part, {"width": 3}), QUICK)
    with pytest.raises(ConfigError, match=r"encoder twin: has no key 'widht'; did you mean 'width'\?$"):
        check_part(judge_of(part, {"widht": 3}), QUICK)
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


def test_numbers_that_are_not_finite_are_null():
    judge = judge_of(twins.part("encoder", twins.encoder(twins.NotANumberAlone)))
    found = json.loads(json.dumps(to_dict([check_part(judge, ["batch-independence"])]), allow_nan=False))
    (outcome,) = found["parts"][0]["outcomes"]
    assert (outcome["state"], outcome["numbers"]) == ("failed", {"difference": None})
    assert "differs by nan" in outcome["detail"]


def test_rules_go_to_the_parts_whose_kind_has_them():
    found = parts("unet")
    assert {str(part): names for part, names in rules_by_part(found, ["levels"]).items()} == {
        "encoder unet": ("levels",)
    }
    chosen = rules_by_part(found, ["output", "build"])
    assert list(chosen.values()) == [("build",), ("output", "build")]
    assert "output" in rules_by_part(found)[found[1]]
    with pytest.raises(ConfigError, match="no rule of kind encoder, decoder is named 'reopen'"):
        rules_by_part(found, ["build", "reopen"])


def test_part_with_required_keys_is_judged_when_they_are_given(monkeypatch):
    required = twins.part("decoder", twins.decoder(config=twins.Required))
    with pytest.raises(KeysNeededError, match=r"^decoder twin: give its keys width with --set$"):
        check_part(judge_of(required), QUICK[:2])
    assert check_part(judge_of(required, {"width": 8}), QUICK[:2]).passed
    for decoder, partner in (("logits", None), ("unet", "factory")):
        with pytest.raises(
            KeysNeededError, match=rf"^decoder {decoder}: its encoder factory has keys without a default"
        ):
            check_part(judge_of(parts(decoder, "decoder")[0], partner=partner), ["build"])
    monkeypatch.setenv("SEGDEPLOY_FACTORIES", "twins:make_network")
    (factory,) = parts("factory")
    values = {"function": "twins:make_network", "channels": 6, "stride": 2}
    assert check_part(judge_of(factory, values, "logits"), QUICK).passed


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


def test_command_skips_a_distributions_part_that_needs_keys(install, capsys):
    needs = MADE_UP.format(mode="").replace("config=Section", "config=Needs")
    needs += "class Needs(Section):\n    width: int\n"
    install("needy", "decoder.x", needs)
    again = '    register(DecoderPlugin(name="other", summary="other", config=Section, build=Mine))\n'
    install("mixed", "decoder.y", needs.replace('"mine"', '"needs"').replace("class Needs", again + "class Needs"))
    for name in ("mine", "needy"):  # that nothing was judged is no pass
        with pytest.raises(KeysNeededError, match="decoder mine: give its keys width with --set"):
            run(name, "--rule", "build")
    capsys.readouterr()
    assert run("mixed", "--rule", "build") in (0, None)
    said = capsys.readouterr().out
    assert "decoder needs, mixed 1.5 (decoder.y)\n  not judged: decoder needs: give its keys width with --set" in said
    assert "build  passed" in said
    assert run("mixed", "--rule", "build", "--json") in (0, None)
    needs, other = json.loads(capsys.readouterr().out)["parts"]
    assert (needs["skipped"], needs["outcomes"]) == ("decoder needs: give its keys width with --set", [])
    assert (other["skipped"], len(other["outcomes"])) == ("", 1)


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


LOUD = """
from segdeploy.plugin import DecoderPlugin, Section, hookimpl
import twins

class Loud(twins.Decoder):
    def forward(self, maps):
        print("hello")
        return super().forward(maps)

@hookimpl
def segdeploy_register_decoders(register):
    register(DecoderPlugin(name="loud", summary="prints", config=twins.Config, build=Loud))
"""


def test_what_a_part_prints_is_no_part_of_the_json(install, capsys):
    install("loud", "decoder.loud", LOUD)
    assert run("loud", "--rule", "output", "--json") in (0, None)
    said = capsys.readouterr()
    assert json.loads(said.out)["passed"]
    assert "hello" in said.err
