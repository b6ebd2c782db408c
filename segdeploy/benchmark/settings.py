"""The settings of a benchmark: the configuration's, with what the command line changes."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from segdeploy.config.load import read_run_config
from segdeploy.config.schema import Benchmark
from segdeploy.config.yaml12 import dotted
from segdeploy.errors import ConfigError

if TYPE_CHECKING:
    from segdeploy.bundle import Bundle

_NUMBER = re.compile(r"[1-9]\d*")
_SIZE = re.compile(r"[1-9]\d*x[1-9]\d*")


def benchmark_settings(bundle: Bundle, changes: dict[str, Any]) -> Benchmark:
    """The `benchmark` section that the model was trained with, with what is not None in `changes`.

    `batches`, `threads` and `sizes` may be words like "1,4" and "480x352,960x704". Raises ConfigError for a value out
    of bounds.
    """
    kept = bundle.file.benchmark if bundle.file else {}
    if (config := read_run_config(bundle.path)) is not None:
        kept = config.benchmark.model_dump(mode="json")
    given = {k: v for k, v in changes.items() if v is not None}
    for key, form, example in (
        ("batches", _NUMBER, "whole numbers from 1, such as 1,4"),
        ("threads", _NUMBER, "whole numbers from 1, such as 1,2"),
        ("sizes", _SIZE, "WIDTHxHEIGHT in pixels, such as 480x352,960x704"),
    ):
        if key in given:
            words = [word.strip() for word in str(given[key]).split(",")]
            if not all(form.fullmatch(word) for word in words):
                raise ConfigError(f"--{key} {given[key]}: expected {example}")
            given[key] = words if key == "sizes" else [int(word) for word in words]
    try:
        return Benchmark.model_validate_json(json.dumps({**kept, **given}))
    except ValidationError as e:
        first = e.errors(include_url=False)[0]
        asked = bool(given.keys() & first["loc"])
        place = "--" if asked else f"{bundle.path}: benchmark."
        raise ConfigError(f"{place}{dotted(first['loc'])}: {first['msg']}, got {first['input']}") from e
