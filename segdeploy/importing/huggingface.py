"""A SegFormer of transformers: the folder that `SegformerForSemanticSegmentation.save_pretrained` writes.

Nothing of transformers is needed to read it, and no code in the folder is run.
"""

from __future__ import annotations

import json
import logging
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from segdeploy.classes import ClassMap, default_colors
from segdeploy.encoders.hub_files import CONFIG_FILE, fit, read_json, read_weights
from segdeploy.encoders.mit_table import PER_STAGE, PRESETS, MitConfig
from segdeploy.encoders.mit_weights import name_in_file, read_config, rename
from segdeploy.errors import MissingPartError, ModelError
from segdeploy.importing.imported import Imported
from segdeploy.importing.parts import first_of, part_of
from segdeploy.model.segmenter import IMAGENET_MEAN, IMAGENET_STD, build
from segdeploy.model.spec import ModelSpec, Part, Preprocessing

if TYPE_CHECKING:
    from pathlib import Path

log = logging.getLogger(__name__)

PROCESSOR_FILE = "preprocessor_config.json"
_BILINEAR = 2  # Pillow's number
_LARGEST_SIDE = 16384

_DECODE_HEAD = (
    (r"^decoder\.project\.(\d+)", r"decode_head.linear_c.\1.proj"),
    (r"^decoder\.fuse\.0", "decode_head.linear_fuse"),
    (r"^decoder\.fuse\.1", "decode_head.batch_norm"),
    (r"^head", "decode_head.classifier"),
)


def read_segformer(folder: Path, size: tuple[int, int] | None = None) -> Imported:
    """The network in `folder`, whose logits are those of transformers, upsampled (bilinear) to the image's size.

    The folder holds config.json, model.safetensors or pytorch_model.bin (or their shards), and mostly
    preprocessor_config.json; without it, what transformers then takes: 512x512 and ImageNet's mean and deviation.
    `size` (height, width) stands above the file's.

    Raises:
        ModelError: no such folder, another kind of network, one that segdeploy cannot rebuild, damaged weights, or
            preprocessing that has no fixed size while `size` is None.
    """
    if not (folder / CONFIG_FILE).is_file():
        raise ModelError(f"{folder}: expected a folder of save_pretrained, with {CONFIG_FILE}; there is none")
    try:
        config = read_config(folder / CONFIG_FILE)
        processor = _read_processor(folder / PROCESSOR_FILE)
        tensors = read_weights(folder)
        spec = ModelSpec(
            encoder=_encoder(config, folder / CONFIG_FILE),
            decoder=_decoder(config, folder / CONFIG_FILE),
            classes=_classes(config, processor, folder / CONFIG_FILE),
            preprocessing=_preprocessing(processor, size, folder / PROCESSOR_FILE),
        )
    except MissingPartError as e:
        raise ModelError(str(e)) from e
    try:
        state = fit(tensors, build(spec).state_dict(), _name_in_file)
    except MissingPartError as e:
        raise ModelError(f"{folder}: {e}; expected a SegformerForSemanticSegmentation") from e
    floats = {name: tensor.float() if tensor.is_floating_point() else tensor for name, tensor in state.items()}
    return Imported(spec, floats, _notes(processor, size))


def _notes(processor: dict[str, Any], size: tuple[int, int] | None) -> tuple[str, ...]:
    notes = []
    if size is None and "size" not in processor:
        notes.append(
            f"{PROCESSOR_FILE}: tells no size; pictures are stretched to 512x512, as transformers does, "
            "unless you give --height and --width"
        )
    found = processor.get("resample")
    if found not in (_BILINEAR, None) and processor.get("do_resize", True):
        notes.append(
            f"{PROCESSOR_FILE}: resample is {str(found)[:60]!r}, not bilinear ({_BILINEAR}), as which segdeploy "
            "resizes pictures (with antialiasing): masks may differ a little"
        )
    return tuple(notes)


def _name_in_file(name: str) -> str:
    if name.startswith("encoder."):
        return "segformer." + name_in_file(name.removeprefix("encoder."))
    return rename(name, _DECODE_HEAD)


def _encoder(config: dict[str, Any], file: Path) -> Part:
    """`mit_b0` to `mit_b5` where the numbers are theirs, else `mit` with the numbers."""
    for key, only in (("hidden_act", "gelu"), ("num_channels", 3)):
        if config.get(key, only) != only:
            raise ModelError(f"{file}: {key}: segdeploy can rebuild {only!r} alone, found {config[key]!r}")
    # layer_norm_eps is left out: transformers takes 1e-5, whatever stands there.
    values = {key: config[key] for key in (*PER_STAGE, "drop_path_rate") if key in config}
    part = part_of("encoder", "mit", values, file)
    numbers = MitConfig.model_validate_json(json.dumps(part.config))
    if len(numbers.strides) < 2 or numbers.strides[0] < 4:
        raise ModelError(
            f"{file}: strides: segdeploy can rebuild two or more stages from stride 4 on, found {list(numbers.strides)}"
        )
    for name, preset in PRESETS.items():
        if all(getattr(numbers, key) == getattr(preset, key) for key in PER_STAGE):
            keys = {"use_pretrained": False, "drop_path_rate": numbers.drop_path_rate}
            return part_of("encoder", name, keys, file)
    return part


def _decoder(config: dict[str, Any], file: Path) -> Part:
    named = {"hidden_size": "decoder_hidden_size", "dropout": "classifier_dropout_prob"}
    values = {ours: config[theirs] for ours, theirs in named.items() if theirs in config}
    return part_of("decoder", "segformer", values, file)


def _classes(config: dict[str, Any], processor: dict[str, Any], file: Path) -> ClassMap:
    """Names from id2label; masks hold ids, or ids + 1 with 0 unlabelled (do_reduce_labels, as ADE20K has it)."""
    labels = config.get("id2label") or {str(i): f"LABEL_{i}" for i in range(2)}  # transformers' default is not written
    if not isinstance(labels, dict) or sorted(labels) != sorted(str(i) for i in range(len(labels))):
        raise ModelError(f"{file}: id2label: expected names by id from 0 on, found {str(labels)[:60]}")
    listed = [str(labels[str(i)]) for i in range(len(labels))]
    if len(listed) < 2:
        raise ModelError(f"{file}: id2label: segdeploy needs two classes or more, found {listed}")
    names = tuple(f"{name} ({i})" if listed.count(name) > 1 else name for i, name in enumerate(listed))
    reduced = processor.get("do_reduce_labels", processor.get("reduce_labels", False))
    ignored = config.get("semantic_loss_ignore_index", 255)
    ignored = ignored if isinstance(ignored, int) else 255
    if not reduced and ignored in range(len(names)):
        log.warning(
            "%s: training left class %d (%s) out; segdeploy scores it as any other", file, ignored, names[ignored]
        )
    try:
        return ClassMap(
            names=names,
            colors=default_colors(len(names)),
            values=tuple((i + 1,) for i in range(len(names))) if reduced else None,
            # An ignored value that no 8-bit mask can hold, such as -100, stands for 255.
            ignore_index=(0, 255) if reduced else ignored if ignored in range(len(names), 256) else 255,
            encoding="class_id",
        )
    except ValidationError as e:
        raise ModelError(f"{file}: id2label: {first_of(e)}") from e


def _read_processor(file: Path) -> dict[str, Any]:
    if not file.is_file():
        return {}
    processor = read_json(file)
    if not isinstance(processor, dict):
        raise ModelError(f"{file}: expected keys and values, found {type(processor).__name__}")
    return processor


def _preprocessing(processor: dict[str, Any], size: tuple[int, int] | None, file: Path) -> Preprocessing:
    height, width = size or _size(processor, file)
    rescale = processor.get("rescale_factor", 1 / 255) if processor.get("do_rescale", True) else 1.0
    mean, std = (
        (IMAGENET_MEAN, IMAGENET_STD) if processor.get("do_normalize", True) else ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
    )
    if processor.get("do_normalize", True):
        mean, std = processor.get("image_mean", mean), processor.get("image_std", std)
    try:
        # (image * rescale - mean) / std, with an image of 0..1 in place of 0..255.
        return Preprocessing.model_validate(
            {
                "height": height,
                "width": width,
                "resize": "stretch",
                "mean": tuple(m / (255 * rescale) for m in mean),
                "std": tuple(s / (255 * rescale) for s in std),
            }
        )
    except ValidationError as e:
        raise ModelError(f"{file}: {first_of(e)}") from e
    except (TypeError, ZeroDivisionError, OverflowError) as e:
        raise ModelError(f"{file}: image_mean, image_std or rescale_factor: expected numbers: {e}") from e


def _size(processor: dict[str, Any], file: Path) -> tuple[int, int]:
    """Height and width to which pictures are stretched."""
    size = processor.get("size", 512)
    if isinstance(size, int):
        size = {"height": size, "width": size}
    fixed = isinstance(size, dict) and {"height", "width"} <= size.keys()
    if not fixed or not processor.get("do_resize", True) or processor.get("do_center_crop"):
        found = {key: processor[key] for key in ("do_resize", "size", "do_center_crop") if key in processor}
        raise ModelError(f"{file}: expected one height and width for all pictures, found {found}; give a size")
    for side in ("height", "width"):
        if not isinstance(size[side], int) or not 1 <= size[side] <= _LARGEST_SIDE:
            raise ModelError(
                f"{file}: size.{side}: expected 1 to {_LARGEST_SIDE} pixels, found {str(size[side])[:60]!r}"
            )
    return size["height"], size["width"]
