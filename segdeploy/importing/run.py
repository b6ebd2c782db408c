"""The whole import: a folder of another library, or a function that makes a network, to a run folder."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from segdeploy import files
from segdeploy import run_folder as place
from segdeploy.checkpoint import save_weights
from segdeploy.config.schema import MaskPreprocessing, NamedClass, RunConfig
from segdeploy.environment import describe_machine
from segdeploy.errors import ConfigError, ModelError
from segdeploy.importing.compare import Comparison, compare, package_of
from segdeploy.importing.factory import read_factory
from segdeploy.importing.huggingface import read_segformer
from segdeploy.importing.smp import read_smp
from segdeploy.importing.source import Source, open_source
from segdeploy.inspection import read_classes
from segdeploy.model.segmenter import try_sizes
from segdeploy.model.spec import ModelSpec, Part, Preprocessing

if TYPE_CHECKING:
    from pathlib import Path

    from segdeploy.classes import ClassMap
    from segdeploy.config.bounds import Policy
    from segdeploy.importing.imported import Imported

Triple = tuple[float, float, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Declared:
    """What the user says of a model beside its files; None: as the source has it.

    `height` and `width` of the input in pixels, `mean` and `std` per RGB channel on the scale 0..1, `classes` a
    YAML file with the keys of a mask's preprocessing.
    """

    height: int | None = None
    width: int | None = None
    resize: Policy | None = None
    mean: Triple | None = None
    std: Triple | None = None
    classes: Path | None = None

    @property
    def size(self) -> tuple[int, int] | None:
        """(height, width); ConfigError where one of them is missing."""
        if self.height is None and self.width is None:
            return None
        if self.height is None or self.width is None:
            raise ConfigError("expected --height and --width together, found one of them")
        return self.height, self.width


@dataclass(frozen=True, slots=True)
class ImportResult:
    """The run folder that was written, what there is to know, and how the original compared (None: it did not)."""

    run: Path
    spec: ModelSpec
    notes: tuple[str, ...]
    comparison: Comparison | None


def import_folder(folder: Path, output: Path, declared: Declared) -> ImportResult:
    """A `save_pretrained` folder of transformers (SegFormer) or segmentation_models.pytorch to the run `output`.

    Raises:
        ModelError: a network that segdeploy cannot rebuild, or `output` is taken.
        ConfigError: classes or a size that do not suit it; MissingPartError: a plugin or a file that is missing.
    """
    _check_free(output)
    source = open_source(folder)
    imported = _read(source, declared.size)
    about = {"library": source.library, "folder": folder.resolve().name, "files": source.digests()}
    return _write(imported, declared, output, about, source)


def import_factory(
    function: str, weights: Path | None, output: Path, declared: Declared, *, align_corners: bool = False
) -> ImportResult:
    """The network that `function` makes to the run `output`; see `read_factory`.

    Raises:
        ModelError, ConfigError, MissingPartError: as `import_folder`, and see `read_factory`.
    """
    _check_free(output)
    if declared.size is None or declared.classes is None:
        raise ConfigError("--factory: expected --height, --width and --classes, which no file tells")
    imported = read_factory(function, weights, declared.size, align_corners=align_corners)
    digests = {weights.name: files.sha256(weights)} if weights is not None and weights.is_file() else {}
    return _write(imported, declared, output, {"factory": function, "files": digests}, None)


def _check_free(output: Path) -> None:
    if files.is_filled(output):
        raise ModelError(f"{output}: is there already; choose another -o")
    above = next(place for place in output.absolute().parents if place.exists())
    if not (above.is_dir() and os.access(above, os.W_OK)):
        why = "a folder that cannot be written to" if above.is_dir() else "no folder"
        raise ModelError(f"{output}: cannot be written: {above} is {why}; choose another -o")


def _read(source: Source, size: tuple[int, int] | None) -> Imported:
    if source.library == "transformers":
        return read_segformer(source.folder, size)
    if size is None:
        raise ConfigError(f"{source.folder}: does not tell the size of its images; give --height and --width")
    return read_smp(source.folder, source.content, size)


def _write(
    imported: Imported, declared: Declared, output: Path, about: dict[str, Any], source: Source | None
) -> ImportResult:
    spec, mask = _settled(imported.spec, declared)
    size = (spec.preprocessing.height, spec.preprocessing.width)
    segmenter = imported.segmenter()
    try_sizes(segmenter, {size})
    notes = list(imported.notes)
    comparison = compare(source, segmenter, size) if source else None
    if source is not None and comparison is None:
        notes.append(f"not compared with the original: pip install {package_of(source)}")
    with files.new_folder(output) as folder:
        model = folder / place.MODEL_FOLDER
        files.write_text(model / place.SPEC_FILE, spec.to_json() + "\n")
        files.write_text(model / place.CONFIG_FILE, _config_of(spec, mask).model_dump_json(indent=2) + "\n")
        save_weights(model / place.WEIGHTS_FILE, segmenter, {})
        files.write_json(
            folder / place.DESCRIPTION_FILE,
            {
                "imported": about | {"notes": notes, "compared": asdict(comparison) if comparison else None},
                "parameters": sum(p.numel() for p in segmenter.parameters()),
                "machine": describe_machine(),
            },
        )
    return ImportResult(output, spec, tuple(notes), comparison)


def _settled(spec: ModelSpec, declared: Declared) -> tuple[ModelSpec, MaskPreprocessing]:
    """The description with what the user declared, and the mask's section of a configuration for it."""
    count, classes = len(spec.classes), spec.classes
    mask = _mask_of(classes)
    if declared.classes is not None:
        mask = read_classes(declared.classes)
        if mask.names is None or len(mask.names) != count:
            found = "an unknown number" if mask.names is None else len(mask.names)
            raise ConfigError(f"{declared.classes}: expected {count} classes, as the network has, found {found}")
        classes = mask.class_map()
    given = {key: getattr(declared, key) for key in ("height", "width", "resize", "mean", "std")}
    values = spec.preprocessing.model_dump() | {k: v for k, v in given.items() if v is not None}
    try:
        preprocessing = Preprocessing.model_validate(values)
    except ValidationError as e:
        first = e.errors(include_url=False)[0]
        raise ConfigError(f"--{first['loc'][0]}: {first['msg']}, found {first['input']}") from e
    return spec.model_copy(update={"classes": classes, "preprocessing": preprocessing}), mask


def _mask_of(classes: ClassMap) -> MaskPreprocessing:
    named = tuple(
        NamedClass(
            name=name,
            color=classes.colors[i],
            mask_colors=classes.mask_colors[i] if classes.mask_colors else None,
            value=classes.values[i] if classes.values else None,
        )
        for i, name in enumerate(classes.names)
    )
    spelling = classes.model_dump(include={"ignore_index", "ignore_color", "encoding"})
    return MaskPreprocessing(classes=named, **spelling)


def _config_of(spec: ModelSpec, mask: MaskPreprocessing) -> RunConfig:
    """A configuration that trains this network further; `segdeploy train --start-from` takes it where none is given."""
    size = spec.preprocessing.model_dump(include={"height", "width", "resize", "mean", "std"})
    image = {"name": "image", "type": "image", "column": spec.image_column, "preprocessing": size}
    target = {"name": spec.mask_name, "type": "image", "column": spec.mask_column}
    content = {
        "input_features": [image | {"encoder": _plugin(spec.encoder)}],
        "output_features": [target | {"preprocessing": mask.model_dump(mode="json"), "decoder": _plugin(spec.decoder)}],
    }
    return RunConfig.model_validate_json(json.dumps(content))


def _plugin(part: Part) -> dict[str, Any]:
    return {"type": part.name, **part.config}
