"""Bundle: a folder that holds a model's description, its files with their hashes, and how they were verified.

A run folder, or its model folder, opens as a bundle of one file, its weights; so whoever can run a bundle can run
a run.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from pydantic import ValidationError

from segdeploy.errors import ModelError
from segdeploy.files import sha256, write_text
from segdeploy.frozen import Frozen
from segdeploy.model.spec import ModelSpec, parse_spec
from segdeploy.run_folder import SPEC_FILE, find_model, runs_inside
from segdeploy.run_folder import WEIGHTS_FILE as RUN_WEIGHTS_FILE
from segdeploy.threads import in_order

if TYPE_CHECKING:
    from pathlib import Path

BUNDLE_FILE = "bundle.json"
WEIGHTS_FILE = "weights.safetensors"


class Artifact(Frozen, use_attribute_docstrings=False):
    """One file of a bundle."""

    kind: str
    """weights, onnx, engine; or decisions: which nodes of a graph have which precision, and why."""
    precision: str
    """fp32, fp16 or int8."""
    target: str = ""
    """Who the file is made for, where its form suits one alone: "cpu" or "tensorrt"."""
    file: str
    """Name inside the bundle's folder."""
    sha256: str
    bytes: int
    about: dict[str, Any] = {}
    """Tool versions, shape ranges, opset: what a reader of the file may need."""


class BundleFile(Frozen, use_attribute_docstrings=False):
    """What `bundle.json` holds."""

    schema_version: Literal[1] = 1
    spec: ModelSpec
    artifacts: tuple[Artifact, ...]
    limits: dict[str, Any] = {}
    """The configuration's export section."""
    benchmark: dict[str, Any] = {}
    """The configuration's benchmark section."""
    verification: tuple[dict[str, Any], ...] = ()
    """One record for each comparison with torch."""
    created_with: dict[str, str] = {}
    """Versions of the packages that made it."""


@dataclass(frozen=True, slots=True)
class Bundle:
    """An opened folder (or a single ONNX file, which knows itself)."""

    path: Path
    spec: ModelSpec
    artifacts: tuple[Artifact, ...]
    file: BundleFile | None = field(default=None)

    def find(self, kind: str, precision: str = "fp32", target: str = "cpu") -> Artifact | None:
        """The file of that kind and precision for `target`, one made for it alone first; None where there is none."""
        fits = [a for a in self.artifacts if (a.kind, a.precision) == (kind, precision) and a.target in ("", target)]
        return max(fits, key=lambda a: a.target == target, default=None)


def artifact(
    folder: Path, name: str, kind: str, precision: str, about: dict[str, Any] | None = None, target: str = ""
) -> Artifact:
    """Describe a file that lies in `folder`."""
    path = folder / name
    return Artifact(
        kind=kind,
        precision=precision,
        target=target,
        file=name,
        sha256=sha256(path),
        bytes=path.stat().st_size,
        about=about or {},
    )


def write_bundle(folder: Path, content: BundleFile) -> Bundle:
    """Write `bundle.json`, last of all files, and open what it describes."""
    write_text(folder / BUNDLE_FILE, content.model_dump_json(indent=2) + "\n")
    return Bundle(folder, content.spec, content.artifacts, content)


def read_bundle_file(folder: Path) -> BundleFile | None:
    """What a folder's `bundle.json` says, with nothing checked; None where there is none that can be read."""
    try:
        return BundleFile.model_validate_json((folder / BUNDLE_FILE).read_bytes())
    except (OSError, ValidationError):
        return None


def open_model(path: Path, unchecked: tuple[str, ...] = ()) -> Bundle:
    """Open a run folder, its model folder, a bundle, or an ONNX file that segdeploy wrote. Every hash is checked first.

    Args:
        path: the folder or file.
        unchecked: kinds of files that the caller will make anew, so that they may be missing or changed.

    Raises:
        ModelError: none of these, a file that is missing, or one whose bytes have changed.
    """
    if path.is_file() and path.suffix == ".onnx":
        from segdeploy.runtime.ort_runner import read_metadata

        told = read_metadata(path)
        precision, target = (
            told.get(f"segdeploy.{key}", other) for key, other in (("precision", "fp32"), ("target", ""))
        )
        alone = artifact(path.parent, path.name, "onnx", precision, target=target)
        return Bundle(path.parent, parse_spec(told["segdeploy.spec"], str(path)), (alone,))
    if (path / BUNDLE_FILE).is_file():
        return _open_bundle(path, unchecked)
    if (model := find_model(path)) is not None:
        return _open_run(model)
    raise ModelError(
        f"{path}: expected a run folder (model/{SPEC_FILE}), a bundle ({BUNDLE_FILE}) or an .onnx file, "
        f"found none of them{runs_inside(path)}"
    )


def _open_run(model: Path) -> Bundle:
    if not (model / RUN_WEIGHTS_FILE).is_file():
        raise ModelError(f"{model}: has no {RUN_WEIGHTS_FILE} yet; it is written after the first epoch")
    return Bundle(model, read_spec(model), (artifact(model, RUN_WEIGHTS_FILE, "weights", "fp32"),))


def read_spec(model: Path) -> ModelSpec:
    """The description in a model folder; ModelError where it is not one of this segdeploy."""
    return parse_spec((model / SPEC_FILE).read_bytes(), str(model / SPEC_FILE))


def _open_bundle(path: Path, unchecked: tuple[str, ...]) -> Bundle:
    name = path / BUNDLE_FILE
    try:
        content = BundleFile.model_validate_json(name.read_bytes())
    except ValidationError as e:
        first = e.errors(include_url=False)[0]
        raise ModelError(
            f"{name}: not a bundle of this segdeploy: {'.'.join(map(str, first['loc']))}: {first['msg']}"
        ) from e
    root = path.resolve()
    to_check = []
    for item in content.artifacts:
        file = (root / item.file).resolve()
        if root not in file.parents:
            raise ModelError(f"{name}: the file {item.file!r} lies outside the bundle")
        if item.kind in unchecked:
            continue
        if not file.is_file():
            raise ModelError(f"{path / item.file}: is missing, although {BUNDLE_FILE} lists it; export again")
        to_check.append((item, file))
    hashes = list(in_order(sha256, [file for _, file in to_check]))  # on all cores
    for (item, _), found in zip(to_check, hashes, strict=True):
        if found != item.sha256:
            raise ModelError(
                f"{path / item.file}: its bytes are not those that were verified (SHA-256 differs); export again"
            )
    return Bundle(path, content.spec, content.artifacts, content)


def spec_metadata(spec: ModelSpec) -> dict[str, str]:
    """What goes into an ONNX file's metadata."""
    return {"segdeploy.spec": json.dumps(json.loads(spec.to_json()), separators=(",", ":"))}
