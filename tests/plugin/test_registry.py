import re

import pytest

from segdeploy.errors import ConfigError, MissingPartError
from segdeploy.plugin import DecoderPlugin, registry

DECODER = """
from segdeploy.plugin import DecoderPlugin, Section, hookimpl

class Config(Section):
    width: int = 3

@hookimpl
def segdeploy_register_decoders(register):
    register(DecoderPlugin(name="{name}", summary="none", config=Config, build=lambda config, features: None))
"""


def added():
    """The names that `install` has added; segdeploy's own are all there, and others may be installed."""
    owners = registry.catalogue("decoder").owners
    assert {"fpn", "segformer", "unet"} <= {n for n, o in owners.items() if o.distribution == "segdeploy"}
    return {n for n, o in owners.items() if registry.decoder(n).build.__module__.startswith("made_up_")}


def failures():
    return {f.owner.distribution: f.reason for f in registry.catalogue("decoder").failures}


def test_decoder_is_found_with_its_owner(install):
    install("good", "decoder.x", DECODER.format(name="thirdway"))
    plugin = registry.decoder("thirdway")
    assert isinstance(plugin, DecoderPlugin)
    assert plugin.config().width == 3
    assert str(registry.catalogue("decoder").owners["thirdway"]) == "good 1.5 (decoder.x)"
    assert registry.catalogue("decoder").owners["unet"].distribution == "segdeploy"
    assert added() == {"thirdway"}


REGISTER = "from segdeploy.plugin import *\n@hookimpl\ndef segdeploy_register_decoders(register):\n    "


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("import no_such_package", "ModuleNotFoundError: No module named 'no_such_package'"),
        (DECODER.format(name="unet"), r"ValueError: the decoder name 'unet' is taken by segdeploy .* \(decoder.unet\)"),
        (DECODER.format(name="mine"), r"ValueError: the decoder name 'mine' is taken by aaa 1.5 \(decoder.aaa\)"),
        (REGISTER + "register('unet2')", "TypeError: expected DecoderPlugin, got str"),
        (REGISTER + "register(DecoderPlugin)", "TypeError: expected DecoderPlugin, got type"),
        (
            REGISTER + "register(EncoderPlugin(name='e', summary='', config=Section, build=None))",
            "TypeError: expected DecoderPlugin, got EncoderPlugin",
        ),
        (REGISTER + "register(DecoderPlugin(name='e'))", "TypeError: .* missing 3 required"),
        (REGISTER + "1 / 0", "ZeroDivisionError: division by zero"),
    ],
)
def test_broken_plugin_is_kept_with_its_reason_and_stops_no_other(install, code, reason):
    install("aaa", "decoder.aaa", DECODER.format(name="mine"))
    install("bad", "decoder.bad", code)
    install("zzz", "decoder.zzz", DECODER.format(name="another"))
    assert added() == {"mine", "another"}
    assert registry.catalogue("decoder").owners["mine"].distribution == "aaa"
    assert list(failures()) == ["bad"]
    assert re.match(reason, failures()["bad"])


def test_what_was_registered_before_the_failure_stays(install):
    install("half", "decoder.half", DECODER.format(name="good") + "    register(1)\n")
    assert "good" in registry.catalogue("decoder").plugins
    assert failures() == {"half": "TypeError: expected DecoderPlugin, got int"}


def test_unknown_name_gives_a_hint_and_mentions_what_failed(install):
    install("bad", "decoder.bad", "import no_such_package")
    with pytest.raises(MissingPartError) as caught:
        registry.decoder("unett")
    assert str(caught.value) == (
        "no decoder is named 'unett'; did you mean 'unet'?; "
        "bad 1.5 (decoder.bad) may hold it, but did not load: ModuleNotFoundError: No module named 'no_such_package'"
    )
    with pytest.raises(MissingPartError, match=r"^no backend is named 'zzz'; known: onnxruntime, [^;]*$"):
        registry.backend("zzz")


@pytest.mark.parametrize("name", ["mine", "decoder.mine", "bad-one", "Bad_One"])
def test_name_of_a_package_that_did_not_load_says_why_and_no_more(install, name):
    install("bad_one", "decoder.mine", "import no_such_package")
    install("worse", "decoder.worse", "1 / 0")
    with pytest.raises(MissingPartError) as caught:
        registry.decoder(name)
    assert str(caught.value) == (
        "bad_one 1.5 (decoder.mine) is installed, but did not load: "
        "ModuleNotFoundError: No module named 'no_such_package'"
    )


def test_keys_of_a_plugin_are_checked_like_our_own(install):
    from segdeploy.config import parse_config

    install("good", "decoder.x", DECODER.format(name="thirdway"))
    text = """
input_features: [{name: i, type: image, preprocessing: {height: 64, width: 64}, encoder: {type: unet}}]
output_features: [{name: m, type: image, preprocessing: {num_classes: 2}, decoder: thirdway}]
"""
    assert parse_config(text).mask.decoder == {"type": "thirdway", "width": 3}
    with pytest.raises(ConfigError, match=r"decoder\.witdh: unknown key; did you mean 'width'\?"):
        parse_config(text, overrides=["decoder.witdh=4"])


@pytest.mark.parametrize(
    "name", ["", "1.5", "_x", "a b", "a/b", "é", "a\n", "..", "null", "True", "a:b", 3, None], ids=repr
)
def test_names_that_do_not_stand_in_yaml_or_file_names_are_refused(install, name):
    install("odd", "decoder.odd", DECODER.replace('"{name}"', repr(name)))
    assert added() == set()
    assert failures()["odd"].startswith(f"ValueError: {name!r} cannot be the name of a decoder: expected a letter, ")


@pytest.mark.parametrize("name", ["a", "Mask2Former", "ddrnet-23.slim", "nullable", "x_y"])
def test_names_that_are_taken(install, name):
    import yaml

    install("good", "decoder.good", DECODER.format(name=name))
    assert added() == {name}
    assert yaml.safe_load(name) == name


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ("summary=1, config=Section, build=print", "TypeError: decoder x: expected a string as summary, got 1"),
        ("summary='', config=Section, build=None", "TypeError: decoder x: expected a function as build, got None"),
        ("summary='', config=int, build=print", "TypeError: decoder x: expected a subclass of Section as config, got"),
        ("summary='', config=Section(), build=print", "TypeError: decoder x: expected a subclass of Section as config"),
        (
            "summary='', config=NoSchema, build=print",
            "TypeError: decoder x: no JSON schema can be made of its config: PydanticInvalidForJsonSchema: ",
        ),
        *(
            (
                f"summary='', config=Section, build=print, keep_fp32={value}",
                f"TypeError: decoder x: expected a tuple of strings as keep_fp32, got {value}",
            )
            for value in ("None", "'*'", "['*']", "(1,)")
        ),
    ],
)
def test_contract_is_checked_when_a_plugin_is_registered(install, fields, reason):
    section = "from collections.abc import Callable\nfrom segdeploy.plugin import *\n"
    section += "class NoSchema(Section):\n    key: Callable[[], int]\n\n"
    install("odd", "decoder.odd", section + REGISTER + f"register(DecoderPlugin(name='x', {fields}))")
    assert added() == set()
    assert failures()["odd"].startswith(reason)


def test_load_pretrained_is_a_function_or_none(install):
    code = REGISTER.replace("decoder", "encoder") + "for value in (None, print, 7):\n        register(EncoderPlugin("
    code += "name='x' + type(value).__name__, summary='', config=Section, build=print, load_pretrained=value))"
    install("odd", "encoder.odd", code)
    known = registry.catalogue("encoder")
    assert {n for n, o in known.owners.items() if o.distribution == "odd"} == {
        "xNoneType",
        "xbuiltin_function_or_method",
    }
    assert [f.reason for f in known.failures] == [
        "TypeError: encoder xint: expected a function or None as load_pretrained, got 7"
    ]


@pytest.mark.parametrize("code", ["x = 1", REGISTER + "pass", REGISTER.replace("decoder", "encoder") + "pass"])
def test_module_that_registers_nothing(install, code):
    install("idle", "decoder.idle", code)
    assert failures() == {
        "idle": "registers no decoder: expected a function segdeploy_register_decoders under @hookimpl "
        "that registers at least one"
    }


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("raise RuntimeError('driver')", "RuntimeError: driver"),
        ("raise SystemExit", "SystemExit"),
        ("return True", "TypeError: expected Availability, got bool"),
    ],
)
def test_backend_that_cannot_say_whether_it_is_available(install, body, reason, tmp_path):
    from segdeploy.runtime.runner import open_runner

    code = "from segdeploy.plugin import *\ndef available():\n    {}\n@hookimpl\n"
    code += "def segdeploy_register_backends(register):\n"
    code += "    register(BackendPlugin(name='odd', summary='', artifact='onnx', available=available, open=print))"
    install("odd", "backend.odd", code.format(body))
    ready = registry.backend("odd").available()
    assert (ready.ok, ready.reason) == (False, f"odd 1.5 (backend.odd) cannot say whether it is available: {reason}")
    assert registry.backend("onnxruntime").available().ok
    with pytest.raises(MissingPartError, match=r"^backend odd: odd 1.5 \(backend.odd\) cannot say"):
        open_runner(None, "odd")


def test_commands_are_collected_one_plugin_at_a_time(install):
    code = "import click\nfrom segdeploy.plugin import hookimpl\n@hookimpl\n"
    code += "def segdeploy_register_commands(cli):\n    assert not cli.commands\n    cli.command('{}')(lambda: None)\n"
    install("aaa", "command.aaa", code.format("hello"))
    install("bbb", "command.bbb", code.format("hello"))
    install("ccc", "command.ccc", code.format("bye") + "    1 / 0\n")
    install("ddd", "command.ddd", code.format("day"))
    known = registry.catalogue("command")
    assert {name: owner.distribution for name, owner in known.owners.items()} == {"hello": "aaa", "day": "ddd"}
    assert {f.owner.distribution: f.reason for f in known.failures} == {
        "bbb": "ValueError: the command name 'hello' is taken by aaa 1.5 (command.aaa)",
        "ccc": "ZeroDivisionError: division by zero",
    }


def test_name_that_was_left_out_says_so(install, monkeypatch):
    install("good", "decoder.x", DECODER.format(name="thirdway"))
    monkeypatch.setenv("SEGDEPLOY_PLUGINS", "")
    with pytest.raises(MissingPartError, match=r"good 1.5 \(decoder.x\) may hold it, .*: left out by SEGDEPLOY_PLUG"):
        registry.decoder("thirdway")
