"""A new plugin package: a copy of `plugins/segdeploy-template` under another name."""

from __future__ import annotations

import importlib.util
import keyword
import re
import shutil
import tempfile
from pathlib import Path

from segdeploy.errors import ConfigError, SegdeployError
from segdeploy.plugin.registry import catalogue

TEMPLATE = "segdeploy-template"
_COPIED = ("pyproject.toml", "README.md", "src/*/*.py", "tests/*.py")


def new_plugin(name: str, parent: Path) -> Path:
    """Write the folder `parent/name`: a distribution `name` with a decoder that trains, exports and passes the kit.

    Args:
        name: lower-case words joined by dashes, such as "my-decoder"; the decoder and the module are `my_decoder`.
        parent: where the folder goes.

    Raises:
        ConfigError: a name that no package can have, or one that is taken here.
        SegdeployError: the folder is there already, or cannot be written.
    """
    module = name.replace("-", "_")
    if not re.fullmatch(r"[a-z][a-z0-9]*(-[a-z0-9]+)*", name) or keyword.iskeyword(module) or module == "segdeploy":
        raise ConfigError(f"{name!r}: expected lower-case words joined by dashes, such as my-decoder")
    if importlib.util.find_spec(module) is not None:
        raise ConfigError(f"{name!r}: a package named {module} is installed here, which yours would replace")
    if module in catalogue("decoder").plugins:
        raise ConfigError(f"{name!r}: there is a decoder named {module}, {catalogue('decoder').owners[module]}")
    target = parent / name
    if target.exists():
        raise SegdeployError(f"{target}: is there already; choose another name, or -o FOLDER")
    spellings = {
        TEMPLATE: name,
        TEMPLATE.replace("-", "_"): module,
        _camel(TEMPLATE): _camel(name),
    }
    try:
        parent.mkdir(parents=True, exist_ok=True)
        part = Path(tempfile.mkdtemp(dir=parent, prefix=f".{name}."))
    except OSError as e:
        raise SegdeployError(f"{target}: cannot be written: {e.strerror or e}") from e
    try:
        source = template_folder()
        for file in sorted(f for pattern in _COPIED for f in source.glob(pattern)):
            path = part / _renamed(file.relative_to(source).as_posix(), spellings)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(_renamed(file.read_text(encoding="utf-8"), spellings), encoding="utf-8")
        part.chmod(0o755)
        part.rename(target)
    finally:
        if part.exists():
            shutil.rmtree(part)
    return target


def template_folder() -> Path:
    """Where the template lies: inside the installed package, or beside it in a checkout."""
    package = Path(__file__).parents[1]
    inside = package / "plugin" / "template"
    return inside if inside.is_dir() else package.parent / "plugins" / TEMPLATE


def _camel(name: str) -> str:
    return "".join(word.capitalize() for word in name.split("-"))


def _renamed(text: str, spellings: dict[str, str]) -> str:
    for old, new in spellings.items():
        text = text.replace(old, new)
    return text
