"""A file, a text or a dict, and `--set` words, to a RunConfig; every mistake in one error, each with its place."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ValidationError

from segdeploy.config.augmentation import GEOMETRIC, lonely
from segdeploy.config.explain import drop_unknown, explain
from segdeploy.config.ludwig import translate
from segdeploy.config.override import SHORT, apply_overrides
from segdeploy.config.refused import REFUSED_ENCODERS
from segdeploy.config.schema import RunConfig
from segdeploy.config.yaml12 import MAX_BYTES, KeyPath, Source, dotted, parse
from segdeploy.errors import ConfigError, MissingPartError, suggest
from segdeploy.plugin import registry
from segdeploy.run_folder import CONFIG_FILE, find_model

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

log = logging.getLogger(__name__)


def load_config(path: Path, overrides: Sequence[str] = (), *, lenient: bool = False) -> RunConfig:
    """Read a YAML file.

    Args:
        path: the file.
        overrides: `KEY=VALUE` words; KEY is a dotted path (`trainer.epochs`, `input_features.0.name`) or
            starts with encoder, decoder, loss or augmentation; VALUE is YAML.
        lenient: drop unknown keys with a warning, as Ludwig does, instead of refusing them.

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
    return _data_beside(path, parse_config(text, str(path), overrides, lenient=lenient))


def _data_beside(path: Path, config: RunConfig) -> RunConfig:
    """`data`'s paths, which are relative to the file, made absolute, so that a run's copy stays true."""
    if config.data is None:
        return config
    given = config.data.model_dump(exclude_none=True)
    data = {key: str((path.parent / table).resolve()) for key, table in given.items()}
    return config.model_copy(update={"data": config.data.model_copy(update=data)})


def parse_config(text: str, name: str = "config", overrides: Sequence[str] = (), *, lenient: bool = False) -> RunConfig:
    """The same from a text; `name` stands for the file in messages."""
    return _check(parse(text, name), overrides, lenient)


def config_from_dict(
    value: Mapping[str, Any], name: str = "config", overrides: Sequence[str] = (), *, lenient: bool = False
) -> RunConfig:
    """The same from plain dicts, lists, strings, numbers, booleans and None, which are not changed."""
    try:
        plain = json.loads(json.dumps(value, allow_nan=False))
    except (TypeError, ValueError, RecursionError) as e:
        raise ConfigError(f"{name}: expected dicts, lists, words, numbers, true, false and null alone: {e}") from e
    return _check(Source(plain, name, {}), overrides, lenient)


def choose_config(
    path: Path | None, text: str | None, model: Path | None, overrides: Sequence[str] = (), *, lenient: bool = False
) -> RunConfig:
    """From the one of file and text that is given, or else from a model folder that training is to start from.

    Raises:
        ConfigError: none of them, or file and text; or see `load_config`.
    """
    if path is not None and text is not None:
        raise ConfigError("expected -c CONFIG or --config-str YAML, got both")
    if path is not None:
        return load_config(path, overrides, lenient=lenient)
    if text is not None:
        return _data_beside(Path("--config-str"), parse_config(text, "--config-str", overrides, lenient=lenient))
    if model is None:
        raise ConfigError("expected -c CONFIG, or --resume RUN")
    kept = read_run_config(model)
    if kept is None:
        raise ConfigError(f"{model}: keeps no configuration to train with; give one with -c")
    return config_from_dict(kept.model_dump(mode="json"), str(model), overrides, lenient=lenient)


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
        raise ConfigError(f"{file}: {dotted(tuple(first['loc']))}: {first['msg']}") from e


def _check(source: Source, overrides: Sequence[str], lenient: bool) -> RunConfig:
    if not isinstance(source.value, dict):
        raise ConfigError(
            f"{source.name}: expected keys and values at the top (input_features, output_features, trainer, ...)"
        )
    apply_overrides(source, overrides)
    translated = translate(source)
    mistakes, dropped = list(translated.mistakes), [source.spelled(p) for p in translated.dropped]
    if dropped:
        log.info("%s: without effect in segdeploy: %s", source.name, ", ".join(dropped))
    unknown: list[KeyPath] = []
    config = _validate(RunConfig, source, (), mistakes, unknown if lenient else None)
    parts = {kind: _plugin(kind, source, mistakes, unknown if lenient else None) for kind in ("encoder", "decoder")}
    if unknown:
        log.warning("%s: unknown keys dropped: %s", source.name, ", ".join(source.spelled(p) for p in unknown))
    if mistakes or not isinstance(config, RunConfig):
        raise ConfigError("\n".join(mistakes))
    image = config.image.model_copy(update={"encoder": parts["encoder"]})
    mask = config.mask.model_copy(update={"decoder": parts["decoder"]})
    _check_weights(config, source)
    _check_augmentation(config, source)
    return config.model_copy(update={"input_features": (image,), "output_features": (mask,)})


def _validate(
    model: type[BaseModel], source: Source, path: KeyPath, mistakes: list[str], unknown: list[KeyPath] | None
) -> BaseModel | None:
    """The part at `path` as a `model`; None, and lines in `mistakes`, where it is wrong.

    With a list for `unknown`, unknown keys are deleted and put there instead.
    """
    while True:
        value: Any = source.value
        for step in path:
            value = value[step]
        given = {k: v for k, v in value.items() if not (path and k == "type")}
        try:
            # JSON's strict mode is the one that takes a list for a tuple and nothing else on trust.
            return model.model_validate_json(json.dumps(given))
        except ValidationError as e:
            dropped = [] if unknown is None else drop_unknown(e, source, path)
            if unknown is None or not dropped:
                mistakes += explain(e, source, model, path)
                return None
            unknown += dropped


def _plugin(kind: str, source: Source, mistakes: list[str], unknown: list[KeyPath] | None) -> dict[str, Any] | None:
    """The plugin's keys with its defaults filled in; None and a line in `mistakes` where they are wrong."""
    path = SHORT[kind]
    raw: Any = source.value
    for step in path:
        try:
            raw = raw[step]
        except (KeyError, IndexError, TypeError):
            return None  # the schema has already said so
    if not isinstance(raw, dict) or not isinstance(raw.get("type"), str):
        return None
    name = raw["type"]
    if kind == "encoder" and name in REFUSED_ENCODERS and name not in registry.catalogue("encoder").plugins:
        head = f"{source.where((*path, 'type'))}: {source.spelled((*path, 'type'))}"
        mistakes.append(f"{head}: {name} cannot segment: {REFUSED_ENCODERS[name]}")
        return None
    try:
        section = registry.encoder(name).config if kind == "encoder" else registry.decoder(name).config
    except MissingPartError as e:
        mistakes.append(f"{source.where((*path, 'type'))}: {source.spelled((*path, 'type'))}: {e}")
        return None
    checked = _validate(section, source, path, mistakes, unknown)
    return None if checked is None else {"type": name, **checked.model_dump(mode="json")}


def _check_weights(config: RunConfig, source: Source) -> None:
    names = config.mask.preprocessing.names
    if names is None:
        return  # the masks say how many classes there are; training checks it then
    for place, loss in enumerate(config.mask.losses):
        among = (place,) if isinstance(config.mask.loss, tuple) else ()
        path: KeyPath = ("output_features", 0, "loss", *among, "class_weights")
        if said := _weights_mistake(loss.class_weights, names):
            raise ConfigError(f"{source.where(path)}: {dotted(path)}: {said}")


def _weights_mistake(weights: Any, names: tuple[str, ...]) -> str:
    if isinstance(weights, tuple) and len(weights) != len(names):
        return f"expected one weight for each of {len(names)} classes, got {len(weights)}"
    if isinstance(weights, dict) and set(weights) != set(names):
        wrong = sorted(set(weights) - set(names))
        said = [f"no class is named {n!r}{suggest(n, names)}" for n in wrong]
        return "; ".join(said + [f"no weight for {n!r}" for n in names if n not in weights])
    return ""


def _check_augmentation(config: RunConfig, source: Source) -> None:
    """What a step's own keys cannot tell: whether there is such a class, and another sample to take pixels from."""
    names, steps = config.mask.preprocessing.names, config.image.augmentation
    for place, step in enumerate(steps):
        path = ("input_features", 0, "augmentation", place)
        # Runs of earlier versions, which took one of them, can still be read.
        if isinstance(step, GEOMETRIC) and step.type in {s.type for s in steps[:place]}:
            said = f"{step.type} may stand once; give it the whole range"
            raise ConfigError(f"{source.where(path)}: {dotted(path)}: {said}")
        if config.trainer.batch_size != "auto" and (said := lonely(step, config.trainer.batch_size)):
            raise ConfigError(f"{source.where(path)}: {dotted(path)}: {said}")
        if step.type != "random_copy_paste" or step.classes == "rare" or names is None:
            continue
        if unknown := [name for name in step.classes if name not in names]:
            said = f"no class is named {unknown[0]!r}{suggest(unknown[0], names)}"
            raise ConfigError(f"{source.where((*path, 'classes'))}: {dotted((*path, 'classes'))}: {said}")
