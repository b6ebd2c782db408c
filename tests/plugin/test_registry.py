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
    """The names that are not segdeploy's own, which are all there."""
    owners = registry.catalogue("decoder").owners
    assert {"fpn", "segformer", "unet"} <= {n for n, o in owners.items() if o.distribution == "segdeploy"}
    return {n for n, o in owners.items() if o.distribution != "segdeploy"}


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


def test_keys_of_a_plugin_are_checked_like_our_own(install):
    from segdeploy.config import parse_config

    install("good", "decoder.x", DECODER.format(name="thirdway"))
    text = """
input_features: [{name: i, type: image, preprocessing: {height: 64, width: 64}, encoder: {type: timm, model_name: a}}]
output_features: [{name: m, type: image, preprocessing: {num_classes: 2}, decoder: thirdway}]
"""
    assert parse_config(text).mask.decoder == {"type": "thirdway", "width": 3}
    with pytest.raises(ConfigError, match=r"decoder\.witdh: unknown key; did you mean 'width'\?"):
        parse_config(text, overrides=["decoder.witdh=4"])
