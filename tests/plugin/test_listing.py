"""`segdeploy plugins list` and `show`, with made-up distributions beside our own."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from segdeploy.cli.main import cli
from segdeploy.errors import MissingPartError, SegdeployError
from segdeploy.plugin import attempt, listing
from segdeploy.plugin.contract import BackendPlugin

HOOK = "from segdeploy.plugin import *\n@hookimpl\ndef segdeploy_register_{}(register):\n    "
SECTION = "from segdeploy.plugin import Section\nclass Config(Section):\n    '''Few keys.'''\n    width: int = 3\n\n"
BUILT = "name='thirdway', summary='in between', config=Config, build=print"
BACKEND = HOOK.format("backends") + "register(BackendPlugin(name='{}', summary='runs it', artifact='onnx', "
BACKEND += "available=lambda: {}, open=print))"


def run(*words):
    done = CliRunner().invoke(cli, ["plugins", *words], catch_exceptions=False)
    assert done.exit_code == 0
    return done.stdout


@pytest.fixture
def many(install):
    install("ways", "ways", SECTION + HOOK.format("encoders") + f"register(EncoderPlugin({BUILT}))")
    install("way", "decoder.way", SECTION + HOOK.format("decoders") + f"register(DecoderPlugin({BUILT}))")
    install("engine", "backend.engine", BACKEND.format("engine", "Availability(ok=False, reason='needs an engine')"))
    install("ready", "backend.ready", BACKEND.format("thirdway", "Availability(ok=True, version='7.1')"))
    install("raises", "backend.raises", BACKEND.format("raises", "1 / 0"))
    install("bad", "decoder.bad", "raise ValueError('one\\ntwo')")
    install("worse", "worse", "1 / 0")
    install("idle", "idle", "print('on standard output')")
    install("newer", "encoder.newer", "", requires=["segdeploy>=9"])
    word = "import click\nfrom segdeploy.plugin import hookimpl\n@hookimpl\ndef segdeploy_register_commands(cli):\n"
    word += "    cli.command('thirdway', help='Greets.')(lambda: None)\n    cli.command('train')(lambda: None)\n"
    install("words", "command.words", word)


def test_list_has_one_row_for_each_plugin_and_failure(many):
    rows = {(r["name"], r["kind"]): r for r in json.loads(run("list", "--json"))}
    strangers = {k: (r["distribution"], r["state"]) for k, r in rows.items() if r["distribution"] != "segdeploy"}
    assert strangers == {
        ("thirdway", "encoder"): ("ways", "ok"),
        ("encoder.newer", "encoder"): ("newer", "failed"),
        ("thirdway", "decoder"): ("way", "ok"),
        ("decoder.bad", "decoder"): ("bad", "failed"),
        ("engine", "backend"): ("engine", "unavailable"),
        ("thirdway", "backend"): ("ready", "ok"),
        ("raises", "backend"): ("raises", "unavailable"),
        ("thirdway", "command"): ("words", "ok"),
        ("train", "command"): ("words", "failed"),
        ("worse", "?"): ("worse", "failed"),
        ("idle", "?"): ("idle", "failed"),
    }
    assert {"unet", "fpn", "segformer"} <= {name for name, kind in rows if kind == "decoder"}
    bad = rows["decoder.bad", "decoder"]
    assert bad["reason"] == "ValueError: one"
    assert bad["detail"].endswith("ValueError: one\ntwo\n")
    assert (bad["version"], bad["entry_point"]) == ("1.5", "decoder.bad")
    assert rows["thirdway", "backend"]["engine"] == "7.1"
    assert rows["train", "command"]["reason"] == "never called: segdeploy has a command of that name"
    order = [(["encoder", "decoder", "backend", "command", "tracker", "?"].index(kind), name) for name, kind in rows]
    assert order == sorted(order)


def test_list_as_a_table(many, monkeypatch):
    lines = {tuple(line.split()[:2]): line.split(None, 4) for line in run("list").splitlines()}
    assert lines["name", "kind"] == ["name", "kind", "distribution", "version", "state"]
    assert lines["thirdway", "encoder"] == ["thirdway", "encoder", "ways", "1.5", "ok"]
    assert lines["thirdway", "backend"][4] == "ok 7.1"
    assert lines["engine", "backend"][4] == "needs an engine"
    assert lines["raises", "backend"][4].endswith("ZeroDivisionError: division by zero")
    assert lines["decoder.bad", "decoder"][1:] == ["decoder", "bad", "1.5", "ValueError: one"]
    assert lines["worse", "?"][4] == "ZeroDivisionError: division by zero"
    assert lines["idle", "?"][4].startswith("registers nothing: ")
    assert lines["encoder.newer", "encoder"][4].startswith("needs segdeploy>=9, ")
    monkeypatch.setattr(attempt, "SLOW_SECONDS", -1.0)
    said = run("list")
    assert len(re.findall(r"ok, \d+\.\d s to load", said)) == 3  # third parties' alone
    assert re.search(r"ok 7\.1, \d+\.\d s to load", said)


def test_failure_of_one_kind_has_that_kind(install):
    install("mixed", "mixed", HOOK.format("decoders") + "1 / 0")
    (row,) = [r for r in listing.rows() if r.owner.distribution == "mixed"]
    assert (row.kind, row.reason) == ("decoder", "ZeroDivisionError: division by zero")


def test_show_says_all_that_has_the_name(many):
    assert run("show", "thirdway").startswith("encoder thirdway: in between\nfrom ways 1.5 (ways)\nFew keys.\n")
    said = run("show", "thirdway")
    assert said.count("  width: integer, default 3\n") == 2
    assert "\ndecoder thirdway: in between\nfrom way 1.5 (decoder.way)\nFew keys.\n" in said
    assert "\nbackend thirdway: runs it\nfrom ready 1.5 (backend.ready)\nruns: onnx\nhere: available 7.1\n" in said
    assert said.endswith("\ncommand thirdway: Greets.\nfrom words 1.5 (command.words)\n")
    assert run("show", "engine").endswith("\nhere: needs an engine\n")


def test_show_as_json(many):
    found = json.loads(run("show", "thirdway", "--json"))
    assert [f["kind"] for f in found] == ["encoder", "decoder", "backend", "command"]
    assert found[1]["schema"]["properties"]["width"] == {"default": 3, "title": "Width", "type": "integer"}
    assert (found[1]["distribution"], found[1]["version"], found[1]["summary"]) == ("way", "1.5", "in between")
    assert (found[2]["artifact"], found[2]["state"], found[2]["engine"]) == ("onnx", "ok", "7.1")


def test_show_of_a_name_that_nothing_has(many):
    with pytest.raises(MissingPartError) as caught:
        run("show", "thirdwya")
    said = str(caught.value)
    assert said.startswith(
        "no encoder, decoder, backend, command or tracker is named 'thirdwya'; did you mean 'thirdway'?; "
    )
    assert "; bad 1.5 (decoder.bad) may hold it, but did not load: ValueError: one" in said
    assert said.count("worse 1.5 (worse) may hold it") == 1


def test_unknown_word_names_the_command_plugins_that_failed(install):
    install("bad", "command.bad", "raise RuntimeError('no')")
    done = CliRunner().invoke(cli, ["helo"])
    assert done.exit_code == 2
    assert (
        "No such command 'helo'; bad 1.5 (command.bad) may hold it, but did not load: RuntimeError: no" in done.output
    )


def test_backend_that_raises_leaves_the_choice_to_the_others(install):
    from segdeploy.bundle import Artifact, Bundle
    from segdeploy.runtime.runner import RunnerOptions, choose_backend

    file = Artifact(kind="made-up", precision="fp32", file="model.x", sha256="", bytes=0)
    bundle = Bundle(Path("bundle"), None, (file,))
    raises = BACKEND.replace("'onnx'", "'made-up'")
    install("aaa", "backend.aaa", raises.format("aaa", "1 / 0"))
    with pytest.raises(SegdeployError, match=r"no backend can run it here; aaa: aaa 1.5 .* ZeroDivisionError"):
        choose_backend(bundle, RunnerOptions())
    install("bbb", "backend.bbb", raises.format("bbb", "Availability(ok=True)"))
    listing.registry.catalogue.cache_clear()
    listing.load.cache_clear()
    assert choose_backend(bundle, RunnerOptions()) == "bbb"
    assert isinstance(listing.registry.backend("aaa"), BackendPlugin)


def test_host_without_torch():
    code = "import sys\nfor name in ('torch', 'torchvision', 'timm', 'onnx'): sys.modules[name] = None\n"
    code += "from segdeploy.cli import main\nmain(['plugins', 'list'])"
    env = os.environ | {"SEGDEPLOY_PLUGINS": ""}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    lines = [line.split(None, 4) for line in done.stdout.splitlines()]
    failed = {line[0]: line[4] for line in lines if line[1] in ("encoder", "decoder") and line[2] == "segdeploy"}
    assert {"encoder.unet", "encoder.families", "decoder.fpn"} <= set(failed)
    for said in failed.values():
        assert said.startswith("needs segdeploy[train], ")
        assert said.endswith(" is not installed; pip install 'segdeploy[train]'")
    assert any(line[:2] == ["onnxruntime", "backend"] and line[4].startswith("ok ") for line in lines)


def test_tracker_is_listed_and_shown(install):
    code = "from segdeploy.plugin import Tracker, TrackerPlugin, hookimpl\n\n@hookimpl\n"
    code += "def segdeploy_register_trackers(register):\n"
    plugin = "TrackerPlugin(name={!r}, summary='writes lines', open={})"
    install("lines", "tracker.lines", f"{code}    register({plugin.format('lines', 'lambda run, config: Tracker()')})")
    install("broken", "tracker.broken", f"{code}    register({plugin.format('broken', None)})")
    found = {row["name"]: row for row in json.loads(run("list", "--json")) if row["kind"] == "tracker"}
    assert (found["lines"]["state"], found["tracker.broken"]["state"]) == ("ok", "failed")
    assert "tracker broken: expected a function as open, got None" in found["tracker.broken"]["reason"]
    assert run("show", "lines") == "tracker lines: writes lines\nfrom lines 1.5 (tracker.lines)\n"
    (shown,) = json.loads(run("show", "lines", "--json"))
    assert (shown["kind"], shown["summary"]) == ("tracker", "writes lines")
