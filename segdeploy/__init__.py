"""segdeploy: from labelled images to a verified segmentation engine."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from segdeploy.api import SegModel

__version__ = "0.1.0"
__all__ = ["SegModel", "__version__"]


def __getattr__(name: str) -> Any:
    if name == "SegModel":  # imported when it is asked for: the command line starts without it
        from segdeploy.api import SegModel

        return SegModel
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
