"""What kind of model a folder holds, by its config.json."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from segdeploy.encoders.hub_files import CONFIG_FILE, read_json
from segdeploy.errors import MissingPartError, ModelError
from segdeploy.files import sha256
from segdeploy.importing.smp_config import OTHERWISE

if TYPE_CHECKING:
    from pathlib import Path

Library = Literal["transformers", "segmentation_models_pytorch"]
_READ = (".json", ".safetensors", ".bin")


@dataclass(frozen=True, slots=True)
class Source:
    """A folder, the library that wrote it, and what its config.json says."""

    folder: Path
    library: Library
    content: dict[str, Any]

    def digests(self) -> dict[str, str]:
        """SHA-256 of the files that describe and hold the model, by name."""
        files = sorted(f for f in self.folder.iterdir() if f.is_file() and f.suffix in _READ)
        return {f.name: sha256(f) for f in files}


def open_source(folder: Path) -> Source:
    """Look at `folder`.

    Raises:
        ModelError: it is no folder of a kind that segdeploy can read; the message says what it is.
    """
    file = folder / CONFIG_FILE
    if not file.is_file():
        what = f"no {CONFIG_FILE} in it" if folder.is_dir() else "no such folder"
        raise ModelError(
            f"{folder}: expected a folder of save_pretrained, of transformers or segmentation_models.pytorch; "
            f"found {what}; {OTHERWISE}"
        )
    try:
        content = read_json(file)
    except MissingPartError as e:
        raise ModelError(str(e)) from e
    if not isinstance(content, dict):
        raise ModelError(f"{file}: expected a JSON object, found {type(content).__name__}")
    if isinstance(content.get("_model_class"), str):
        return Source(folder, "segmentation_models_pytorch", content)
    if content.get("model_type") == "segformer":
        return Source(folder, "transformers", content)
    found = f"model_type {content['model_type']!r}" if "model_type" in content else "neither of the two"
    raise ModelError(
        f"{file}: expected model_type 'segformer' (transformers) or a _model_class (segmentation_models.pytorch), "
        f"found {found}; {OTHERWISE}"
    )
