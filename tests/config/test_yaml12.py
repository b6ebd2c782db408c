import re
import time

import pytest

from segdeploy.config import load_config
from segdeploy.config.yaml12 import MAX_BYTES, parse
from segdeploy.errors import ConfigError


def value(text):
    return parse(f"a: {text}", "f.yaml").value["a"]


def refusal(text):
    """The message, which is one line and comes fast."""
    started = time.perf_counter()
    with pytest.raises(ConfigError) as caught:
        parse(text, "f.yaml")
    assert time.perf_counter() - started < 5
    message = str(caught.value)
    assert message.startswith("f.yaml")
    assert "\n" not in message
    assert len(message) < 300
    return message


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1e-3", 0.001),
        ("1E5", 100000.0),
        ("-1.5e+2", -150.0),
        (".5", 0.5),
        ("1.", 1.0),
        ("3", 3),
        ("+3", 3),
        ("-0", 0),
        ("017", 17),
        ("0o17", 15),
        ("0x1F", 31),
        ("true", True),
        ("FALSE", False),
        ("~", None),
        ("Null", None),
        ("", None),
        *((word, word) for word in ("no", "yes", "on", "Off", "y", "n", "nulL", "tRue")),
        *((word, word) for word in ("2024-01-31", "2001-12-14t21:59:43.10-05:00", "1:30", "1_000", "0b1", "=", "<<")),
        *((word, word) for word in (".inf", ".nan", "1e", "e5", "0o8", "1.2.3", "mobilenetv3_large_100")),
        ('"3"', "3"),
        ("'1e-3'", "1e-3"),
        ("'true'", "true"),
        ('""', ""),
        ("|\n  3\n", "3\n"),
        ("!!str 3", "3"),
        ("!!str 1e-3", "1e-3"),
        ("{b: [1, {c: no}]}", {"b": [1, {"c": "no"}]}),
    ],
)
def test_values_are_yaml_1_2(text, expected):
    found = value(text)
    assert found == expected
    assert type(found) is type(expected)


def test_integer_without_end_is_no_number():
    assert value("1" * 5000) == "1" * 5000
    assert value("0x" + "1" * 5000) == "0x" + "1" * 5000


def test_keys_are_words():
    assert parse("1: a\nno: b\n~: c\n2024-01-31: d", "f").value == {"1": "a", "no": "b", "~": "c", "2024-01-31": "d"}


def test_lines():
    source = parse("a:\n  - b: 1\n\n  - {c: 2,\n     d: 3}\n", "f")
    assert source.lines[("a",)] == 1
    assert source.lines[("a", 0, "b")] == 2
    assert source.lines[("a", 1, "d")] == 5
    assert source.where(("a", 1, "d")) == "f:5"
    assert source.where(("a", 1, "unknown", "deeper")) == "f:4"


@pytest.mark.parametrize("text", ["", "# only a comment\n", "---\n"])
def test_empty_text_is_nothing(text):
    assert parse(text, "f").value is None


@pytest.mark.parametrize("text", ["\ufeffa: 1\nb: 2\n", "a: 1\r\nb: 2\r\n"])
def test_windows_files(text):
    assert parse(text, "f").value == {"a": 1, "b": 2}


def test_python_tag_is_refused_and_not_run(tmp_path):
    proof = tmp_path / "proof"
    message = refusal(f"a: 1\nb: !!python/object/apply:os.system ['touch {proof}']\n")
    assert message.startswith("f.yaml:2: the tag !!python/object/apply:os.system is refused")
    assert not proof.exists()


@pytest.mark.parametrize(
    "tag", ["!custom", "!!set", "!!binary", "!!python/name:os.system", "!<tag:example.com,2000:x>", "!!omap"]
)
@pytest.mark.parametrize("what", ["x", "[x]", "{x: 1}"])
def test_other_tags_are_refused(tag, what):
    assert "the tag " in refusal(f"a: {tag} {what}")


def test_anchors_work():
    source = parse("a: &x {k: [1, 2]}\nb: *x\nc: [*x, *x]", "f")
    assert source.value == {"a": {"k": [1, 2]}, "b": {"k": [1, 2]}, "c": [{"k": [1, 2]}] * 2}
    source.value["b"]["k"][0] = 9
    assert source.value["a"]["k"] == [1, 2]  # copies, so that --set changes one place


@pytest.mark.parametrize("seed", ["lol", "[]"])
def test_alias_bomb(seed):
    lines = [f"a: &a [{', '.join([seed] * 9)}]"]
    for here, below in zip("bcdefg", "abcdef", strict=True):
        lines.append(f"{here}: &{here} [{', '.join([f'*{below}'] * 9)}]")
    assert "once its aliases (&, *) are expanded" in refusal("\n".join(lines))


@pytest.mark.parametrize("long", ["&x {}", "&x {{{}: 1}}"])
def test_alias_bomb_of_one_long_word(long):
    # Few values, but megabytes of text; a longer word would make gigabytes.
    text = f"a: {long.format('w' * 1000)}\nb: [{', '.join(['*x'] * 9000)}]"
    assert "once its aliases (&, *) are expanded" in refusal(text)


@pytest.mark.parametrize("text", ["a: &x [*x]", "&x {a: *x}", "a: &x {b: [{c: *x}]}"])
def test_alias_of_itself(text):
    assert "nested too deeply" in refusal(text)


@pytest.mark.parametrize("text", ["[" * 52 + "]" * 52, "[" * 100_000, "- " * 100_000, "{a: " * 100_000])
def test_deep_nesting(text):
    assert "nested too deeply" in refusal(text)


def test_depth_that_is_allowed():
    assert parse("[" * 51 + "]" * 51, "f").value


def test_too_many_values():
    assert "more than 20,000 values" in refusal("[" + "a," * 500_000 + "]")


def test_text_over_1_mib():
    assert "at most 1 MiB" in refusal("# " + "x" * MAX_BYTES)
    assert "at most 1 MiB" in refusal("# " + "é" * (MAX_BYTES // 2))


def test_file_over_1_mib_is_not_read(tmp_path):
    path = tmp_path / "big.yaml"
    with path.open("wb") as handle:
        handle.truncate(1 << 40)
    with pytest.raises(ConfigError, match=r"big\.yaml: expected a configuration of at most 1 MiB"):
        load_config(path)


@pytest.mark.parametrize("text", ["a: 1\nb: 2\na: 3", "x: {b: 1,\n a: 1,\n a: 2}", "\n'a': 1\na: 2"])
def test_doubled_key(text):
    assert refusal(text) == "f.yaml:3: the key 'a' stands twice in the same place"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a:\n\tb: 1", r"f.yaml:2: not valid YAML: .*'\\t' that cannot start any token"),
        ("a: 1\n---\nb: 2", "f.yaml:2: not valid YAML: expected a single document"),
        ("a: *x", "f.yaml:1: not valid YAML: found undefined alias 'x'"),
        ("a: [1, 2", "f.yaml:1: not valid YAML"),
        ("a: 1\n b: 2", "f.yaml:2: not valid YAML"),
        ("a: \0", "f.yaml: not valid YAML: unacceptable character"),
        ('a: "\\UFFFFFFFF"', "f.yaml: not valid YAML"),
        ('a: "\\U00110000"', "f.yaml: not valid YAML: chr"),
        ("[a, b]: c", "f.yaml:1: expected a plain word as key"),
    ],
)
def test_not_yaml(text, message):
    assert re.match(message, refusal(text))


def test_file_that_is_not_utf8(tmp_path):
    path = tmp_path / "latin.yaml"
    path.write_bytes("a: naïve".encode("latin-1"))
    with pytest.raises(ConfigError, match=r"latin\.yaml: expected UTF-8 text$"):
        load_config(path)


@pytest.mark.parametrize(("name", "said"), [("none.yaml", "No such file"), (".", "directory")])
def test_file_that_cannot_be_read(tmp_path, name, said):
    with pytest.raises(ConfigError, match=rf"cannot be read: .*{said}"):
        load_config(tmp_path / name)


def test_empty_file(tmp_path):
    path = tmp_path / "empty.yaml"
    path.touch()
    with pytest.raises(ConfigError, match=r"empty\.yaml: expected keys and values at the top"):
        load_config(path)
