"""A file, a text and `--set` words to a RunConfig; every mistake in one error, each with its place."""

from __future__ import annotations

import difflib
import itertools
import json
import re
from typing import TYPE_CHECKING, Any, get_args

from pydantic import BaseModel, ValidationError

from segdeploy.config.schema import RunConfig
from segdeploy.config.yaml12 import MAX_BYTES, KeyPath, Source, parse
from segdeploy.errors import ConfigError, MissingPartError
from segdeploy.plugin import registry
from segdeploy.run_folder import CONFIG_FILE, find_model

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from pydantic_core import ErrorDetails

_SHORT = {
    "encoder": ("input_features", 0, "encoder"),
    "augmentation": ("input_features", 0, "augmentation"),
    "decoder": ("output_features", 0, "decoder"),
    "loss": ("output_features", 0, "loss"),
}


def load_config(path: Path, overrides: Sequence[str] = ()) -> RunConfig:
    """Read a YAML file.

    Args:
        path: the file.
        overrides: `KEY=VALUE` words; KEY is a dotted path (`trainer.epochs`, `input_features.0.name`) or
            starts with encoder, decoder, loss or augmentation; VALUE is YAML.

    Raises:
        ConfigError: the file cannot be read, or the list of all mistakes in it.
    """
    try:
        if path.stat().st_size > MAX_BYTES:
            raise ConfigError(f"{path}: expected a configuration of at most 1 MiB, got {path.stat().st_size:,} bytes")
        text = path.read_text(encoding="utf-8")
    except OSError as e:
        raise ConfigError(f"{path}: cannot be read: {e.strerror or e}") from e
    except UnicodeDecodeError as e:
        raise ConfigError(f"{path}: expected UTF-8 text") from e
    return parse_config(text, str(path), overrides)


def parse_config(text: str, name: str = "config", overrides: Sequence[str] = ()) -> RunConfig:
    """The same from a text; `name` stands for the file in messages."""
    return _checked(parse(text, name), overrides)


def config_from_dict(value: Mapping[str, Any], name: str = "config", overrides: Sequence[str] = ()) -> RunConfig:
    """The same from a dict of plain values; `value` itself is left as it is."""
    try:
        copied = json.loads(json.dumps(value, allow_nan=False))
    except (TypeError, ValueError, RecursionError) as e:
        raise ConfigError(f"{name}: expected dicts, lists, words, numbers, true, false and null alone: {e}") from e
    return _checked(Source(copied, name, {}), overrides)


def _checked(source: Source, overrides: Sequence[str]) -> RunConfig:
    name = source.name
    if not isinstance(source.value, dict):
        raise ConfigError(
            f"{name}: expected keys and values at the top (input_features, output_features, trainer, ...)"
        )
    for word in overrides:
        _override(source, word)
    mistakes: list[str] = []
    try:
        # JSON's strict mode is the one that takes a list for a tuple and nothing else on trust.
        config = RunConfig.model_validate_json(json.dumps(source.value))
    except ValidationError as e:
        mistakes += _explain(e, source, RunConfig, ())
        config = None
    parts = {kind: _check_plugin(kind, source, mistakes) for kind in ("encoder", "decoder")}
    if mistakes or config is None:
        raise ConfigError("\n".join(mistakes))
    image = config.image.model_copy(update={"encoder": parts["encoder"]})
    mask = config.mask.model_copy(update={"decoder": parts["decoder"]})
    _check_weights(config, source)
    return config.model_copy(update={"input_features": (image,), "output_features": (mask,)})


def choose_config(path: Path | None, text: str | None, model: Path | None, overrides: Sequence[str] = ()) -> RunConfig:
    """From the one of file and text that is given, or else from a model folder that training is to start from.

    Raises:
        ConfigError: none of them, or file and text; or see `load_config`.
    """
    if path is not None and text is not None:
        raise ConfigError("expected -c CONFIG or --config-str YAML, got both")
    if path is not None:
        return load_config(path, overrides)
    if text is not None:
        return parse_config(text, "--config-str", overrides)
    if model is None:
        raise ConfigError("expected -c CONFIG, or --resume RUN")
    kept = read_run_config(model)
    if kept is None:
        raise ConfigError(f"{model}: keeps no configuration to train with; give one with -c")
    return config_from_dict(kept.model_dump(mode="json"), str(model), overrides)


def read_run_config(run: Path) -> RunConfig | None:
    """The configuration that a run folder or its model folder keeps; None where `run` is neither.

    Raises:
        ConfigError: somebody edited it and made a mistake.
    """
    model = find_model(run)
    if model is None or not (file := model / CONFIG_FILE).is_file():
        return None
    try:
        return RunConfig.model_validate_json(file.read_bytes())
    except ValidationError as e:
        first = e.errors(include_url=False)[0]
        raise ConfigError(f"{file}: {_dotted(tuple(first['loc']))}: {first['msg']}") from e


def _override(source: Source, word: str) -> None:
    key, equals, text = word.partition("=")
    if not equals or not key:
        raise ConfigError(f"--set {word}: expected KEY=VALUE, such as trainer.epochs=10")
    path: KeyPath = tuple(int(k) if k.isdecimal() else k for k in re.split(r"[.\[]", key.replace("]", "")))
    if path[0] in _SHORT:
        path = (*_SHORT[str(path[0])], *path[1:])
    value = parse(text, f"--set {key}").value
    here = source.value
    for step, following in itertools.pairwise(path):
        if isinstance(here, list) and isinstance(step, int) and step < len(here):
            here = here[step]
        elif isinstance(here, dict):
            if isinstance(here.get(str(step)), str) and step in ("encoder", "decoder"):
                here[str(step)] = {"type": here[str(step)]}
            if here.get(str(step)) is None:
                here[str(step)] = [] if isinstance(following, int) else {}
            here = here[str(step)]
        else:
            raise ConfigError(f"--set {word}: there is no {_dotted(path)} in {source.name}")
    last = path[-1]
    if isinstance(here, list) and isinstance(last, int) and last < len(here):
        here[last] = value
    elif isinstance(here, dict):
        here[str(last)] = value
    else:
        raise ConfigError(f"--set {word}: there is no {_dotted(path)} in {source.name}")
    for known in [p for p in source.lines if p[: len(path)] == path]:
        del source.lines[known]


def _check_plugin(kind: str, source: Source, mistakes: list[str]) -> dict[str, Any] | None:
    """The plugin's keys with its defaults filled in; None and a line in `mistakes` where they are wrong."""
    path = _SHORT[kind]
    raw: Any = source.value
    for step in path:
        try:
            raw = raw[step]
        except (KeyError, IndexError, TypeError):
            return None  # the schema has already said so
    raw = {"type": raw} if isinstance(raw, str) else raw
    if not isinstance(raw, dict) or not isinstance(raw.get("type"), str):
        return None
    name = raw["type"]
    try:
        section = registry.encoder(name).config if kind == "encoder" else registry.decoder(name).config
    except MissingPartError as e:
        mistakes.append(f"{source.where((*path, 'type'))}: {_dotted((*path, 'type'))}: {e}")
        return None
    given = {k: v for k, v in raw.items() if k != "type"}
    try:
        checked = section.model_validate_json(json.dumps(given))
    except ValidationError as e:
        mistakes += _explain(e, source, section, path)
        return None
    return {"type": name, **checked.model_dump(mode="json")}


def _check_weights(config: RunConfig, source: Source) -> None:
    weights = config.mask.loss.class_weights
    names = config.mask.preprocessing.class_map().names
    path = ("output_features", 0, "loss", "class_weights")
    head = f"{source.where(path)}: {_dotted(path)}"
    if isinstance(weights, tuple) and len(weights) != len(names):
        raise ConfigError(f"{head}: expected one weight for each of {len(names)} classes, got {len(weights)}")
    if isinstance(weights, dict) and set(weights) != set(names):
        wrong = sorted(set(weights) - set(names))
        missing = [n for n in names if n not in weights]
        said = [f"no class is named {n!r}{_suggest(n, names)}" for n in wrong] + [
            f"no weight for {n!r}" for n in missing
        ]
        raise ConfigError(f"{head}: {'; '.join(said)}")


def _explain(error: ValidationError, source: Source, model: type[BaseModel], prefix: KeyPath) -> list[str]:
    found: dict[KeyPath, list[str]] = {}
    got: dict[KeyPath, str] = {}
    unions: set[KeyPath] = set()  # places where each member of a union says that the value is not its kind
    for item in error.errors(include_url=False):
        if item["type"] == "too_short" and len(item["input"]) >= item["ctx"]["min_length"]:
            continue  # the list is long enough; its items are wrong, and each says so itself
        loc = (*prefix, *item["loc"])
        path = _real_path(loc, source.value, whole=item["type"] == "missing")
        if len(path) < len(loc) and (item["type"].endswith("_type") or item["type"] == "literal_error"):
            unions.add(path)
        if item["type"].startswith("union_tag_"):
            path = (*path, "type")
        said, got[path] = _say(item, model)
        found.setdefault(path, []).append(said)
    lines = []
    for path, parts in found.items():
        if path in unions and any(len(p) > len(path) and p[: len(path)] == path for p in found):
            continue  # the value is of one member's kind, and what is wrong inside it has a line of its own
        said = parts[0] + "".join(f" or {part.removeprefix('expected ')}" for part in parts[1:])
        lines.append(f"{source.where(path)}: {_dotted(path) or 'top'}: {said}{got[path]}")
    return lines


def _say(item: ErrorDetails, model: type[BaseModel]) -> tuple[str, str]:
    """What is wrong, and what came instead where that helps."""
    loc, context = item["loc"], item.get("ctx", {})
    if item["type"] == "extra_forbidden":
        return "unknown key" + _suggest(str(loc[-1]), _keys_at(model, loc[:-1])), ""
    if item["type"] == "union_tag_invalid":
        known = re.findall(r"'(\w+)'", context["expected_tags"])
        return f"no type is named {context['tag']!r}{_suggest(context['tag'], known)}", ""
    if item["type"] in ("missing", "union_tag_not_found"):
        return "is required", ""
    said = re.sub(r"^Value error, ", "", item["msg"]).replace(" after validation", "")
    said = re.sub(r"^(Input|Tuple|List|Dictionary|String) should (be|have|match) ", "expected ", said)
    if isinstance(item["input"], (dict, list)):
        return said, ""
    got = repr(item["input"])
    return said, f", got {got if len(got) < 60 else got[:57] + '...'}"


def _real_path(loc: tuple[str | int, ...], value: Any, *, whole: bool) -> KeyPath:
    """pydantic's place without the steps that only it knows, such as the name of a union's member.

    With `whole` the last step stays: it is the key that is missing.
    """
    path: list[str | int] = []
    for i, step in enumerate(loc):
        try:
            value = value[step]
        except (KeyError, IndexError, TypeError):
            if not (whole and i == len(loc) - 1):
                continue
        path.append(step)
    return tuple(path)


def _keys_at(model: type[BaseModel], loc: Sequence[str | int]) -> list[str]:
    models = {model}
    for step in loc:
        fields = [m.model_fields[step] for m in models if step in m.model_fields]
        if fields:
            models = {m for f in fields for m in _models_in(f.annotation)}
        else:  # a list's place, or the name of a union's member
            models = {m for m in models if _tag(m) in (None, step)} if isinstance(step, str) else models
    return sorted({name for m in models for name in m.model_fields})


def _tag(model: type[BaseModel]) -> str | None:
    field = model.model_fields.get("type")
    values = get_args(field.annotation) if field is not None else ()
    return str(values[0]) if values else None


def _models_in(annotation: Any) -> set[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return {annotation}
    return {m for part in get_args(annotation) for m in _models_in(part)}


def _suggest(word: str, known: Iterable[str]) -> str:
    known = list(known)
    near = difflib.get_close_matches(word, known, 1, 0.6)
    return f"; did you mean {near[0]!r}?" if near else f"; known: {', '.join(known)}" if known else ""


def _dotted(path: KeyPath) -> str:
    return "".join(f"[{p}]" if isinstance(p, int) else f".{p}" for p in path).lstrip(".")
