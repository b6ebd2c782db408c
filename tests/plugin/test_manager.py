import os
import subprocess
import sys

import pytest

from segdeploy.plugin.manager import Failure, Owner, load

EMPTY = "x = 1\n"


def added(loaded):
    """The entry points that are not segdeploy's own, which are all there."""
    assert {"decoder.fpn", "decoder.unet"} <= {n for n, o in loaded.owners.items() if o.distribution == "segdeploy"}
    return {n for n, o in loaded.owners.items() if o.distribution != "segdeploy"}


def failures(kind="decoder"):
    return {f.owner.distribution: f.reason for f in load(kind).failures}


def test_owner_says_where_a_plugin_comes_from(install):
    install("good", "decoder.x", EMPTY)
    loaded = load("decoder")
    assert loaded.owners["decoder.x"] == Owner(entry_point="decoder.x", distribution="good", version="1.5")
    assert str(loaded.owners["decoder.x"]) == "good 1.5 (decoder.x)"
    assert added(loaded) == {"decoder.x"}
    assert loaded.failures == ()


HOOK = "from segdeploy.plugin import hookimpl\n@hookimpl\n"


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("import no_such_package", "ModuleNotFoundError: No module named 'no_such_package'"),
        ("import torch.no_such_part", "ModuleNotFoundError: No module named 'torch.no_such_part'"),
        ("1 / 0", "ZeroDivisionError: division by zero"),
        ("def broken(:", "SyntaxError: "),
        ("raise RuntimeError('one\\ntwo')", "RuntimeError: one"),
        ("import sys; sys.exit('no licence')", "SystemExit: no licence"),
        ("class Panic(BaseException): ...\nraise Panic('from Rust')", "Panic: from Rust"),
        ("class Mute(Exception):\n    def __str__(self): 1 / 0\nraise Mute", "Mute: (its message cannot be printed)"),
        ("raise ValueError", "ValueError"),
        (HOOK + "def segdeploy_register_decodres(register): ...", "PluginValidationError: unknown hook 'segdeploy_reg"),
        (
            HOOK + "def segdeploy_register_decoders(registre): ...",
            (
                "PluginValidationError: Plugin 'decoder.bad' for hook 'segdeploy_register_decoders': "
                "Argument(s) {'registre'}"
            ),
        ),
    ],
)
def test_broken_plugin_is_kept_with_its_reason_and_stops_no_other(install, code, reason):
    install("aaa", "decoder.aaa", EMPTY)
    install("bad", "decoder.bad", code)
    install("zzz", "decoder.zzz", EMPTY)
    loaded = load("decoder")
    assert added(loaded) == {"decoder.aaa", "decoder.zzz"}
    (failure,) = loaded.failures
    assert failure == Failure(
        owner=Owner(entry_point="decoder.bad", distribution="bad", version="1.5"), reason=failure.reason
    )
    assert failure.reason.startswith(reason)
    assert "\n" not in failure.reason
    assert {name for name, _ in loaded.manager.list_name_plugin()} == set(loaded.owners)


def test_entry_point_without_its_object(install):
    install("bad", "decoder.bad", EMPTY, target="made_up_bad:plugin")
    assert failures()["bad"].startswith("AttributeError")


def test_taken_entry_point_names_the_owner(install):
    install("newcomer", "decoder.unet", EMPTY)
    assert load("decoder").owners["decoder.unet"].distribution == "segdeploy"
    assert failures()["newcomer"].startswith("the entry point 'decoder.unet' is taken by segdeploy ")


def test_interrupt_is_no_failure_of_a_plugin(install):
    install("bad", "decoder.bad", "raise KeyboardInterrupt")
    with pytest.raises(KeyboardInterrupt):
        load("decoder")


def test_other_kinds_are_not_imported(install):
    others = [install(kind, f"{kind}.x", "raise RuntimeError") for kind in ("encoder", "backend", "command")]
    mine = install("mine", "decoder.x", EMPTY)
    any_kind = install("any", "x", EMPTY)
    assert load("decoder").failures == ()
    assert {mine, any_kind} <= set(sys.modules)
    assert not set(others) & set(sys.modules)
    assert set(failures("backend")) == {"backend"}


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("", set()),
        ("decoder.a", {"decoder.a"}),
        ("decoder.b, decoder.a", {"decoder.a", "decoder.b"}),
        ("decoder.none", set()),
    ],
)
def test_variable_limits_third_parties(install, monkeypatch, value, expected):
    modules = {f"decoder.{name}": install(name, f"decoder.{name}", EMPTY) for name in "ab"}
    monkeypatch.setenv("SEGDEPLOY_PLUGINS", value)
    assert added(load("decoder")) == expected
    assert {point for point, module in modules.items() if module in sys.modules} == expected


def test_hook_calls_can_be_traced(install, monkeypatch, capsys):
    monkeypatch.setenv("SEGDEPLOY_TRACE_PLUGINS", "1")
    install("good", "decoder.x", HOOK + "def segdeploy_register_decoders(register): ...")
    load("decoder").manager.hook.segdeploy_register_decoders(register=lambda plugin: None)
    assert "segdeploy_register_decoders [hook]" in capsys.readouterr().err


def test_command_plugin_adds_a_word_to_the_command_line(install, tmp_path):
    code = "import click\n" + HOOK + "def segdeploy_register_commands(cli):\n"
    install("greeter", "command.hello", code + "    cli.command('hello')(lambda: click.echo('good day'))\n")
    install("bad", "command.bad", "raise RuntimeError")
    done = subprocess.run(
        [sys.executable, "-m", "segdeploy", "hello"],
        env=os.environ | {"PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "good day\n")
