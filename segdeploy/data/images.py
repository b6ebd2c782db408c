"""Any image file to RGB uint8, the same way in training, evaluation and on the deployment host."""

from __future__ import annotations

import threading
import warnings
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

# Pillow loads its decoders when the first file needs one, which is not safe in several threads at once.
from PIL import (
    BmpImagePlugin,  # noqa: F401
    ExifTags,
    Image,
    ImageOps,
    JpegImagePlugin,  # noqa: F401
    MpoImagePlugin,  # noqa: F401  (a JPEG with several pictures)
    PngImagePlugin,  # noqa: F401
    TiffImagePlugin,  # noqa: F401
    UnidentifiedImageError,
    WebPImagePlugin,  # noqa: F401
)

from segdeploy.errors import DataError

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

FORMATS = ("JPEG", "PNG", "TIFF", "WEBP", "BMP")


class _PillowWarnings:
    """While any thread decodes, damaged metadata (not pixels) is silent and a decompression bomb an error.

    `warnings.catch_warnings` alone is not for threads: the last to leave would put back what another had set.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._users = 0

    def __enter__(self) -> None:
        with self._lock:
            if self._users == 0:
                self._outside = warnings.catch_warnings()
                self._outside.__enter__()
                warnings.simplefilter("error", Image.DecompressionBombWarning)
                warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")
            self._users += 1

    def __exit__(self, *error: object) -> None:
        with self._lock:
            self._users -= 1
            if self._users == 0:
                self._outside.__exit__(None, None, None)


_pillow_warnings = _PillowWarnings()


def read_image(path: Path) -> NDArray[np.uint8]:
    """Read a picture.

    EXIF orientation is applied. Grey and palette become RGB, alpha is dropped, CMYK is converted, 16-bit
    values are scaled from 0..65535 to 0..255. Of a file with several pages the first counts.

    Returns:
        (H, W, 3) uint8, RGB, C-contiguous.

    Raises:
        DataError: no such file, not one of JPEG, PNG, TIFF, WebP, BMP, broken, or of a pixel type without
            a fixed range (32-bit integers, floats).
    """
    return to_rgb(open_upright(path), path)


def open_rgb(path: Path) -> Image.Image:
    """The same as a picture of mode RGB, for whom Pillow's operations come next."""
    return _rgb_picture(open_upright(path), path)


class Stored(NamedTuple):
    """How a file holds its picture."""

    format: str
    pages: int
    orientation: int
    """EXIF tag, 1 to 8; 1: as it is."""


def open_upright(path: Path, formats: tuple[str, ...] = FORMATS) -> Image.Image:
    """Decode a whole file and turn it as its EXIF tag says; DataError names the file and what is wrong."""
    return open_stored(path, formats)[0]


def open_stored(path: Path, formats: tuple[str, ...] = FORMATS) -> tuple[Image.Image, Stored]:
    """The same, with how the file holds it."""
    try:
        # Not by name: Pillow would map uncompressed TIFFs, and garbles those that are to be turned by 90 degrees.
        with path.open("rb") as handle, _pillow_warnings, Image.open(handle, formats=formats) as picture:
            pages = getattr(picture, "n_frames", 1)  # before load: counting moves a TIFF's place
            picture.load()
            orientation = picture.getexif().get(ExifTags.Base.Orientation, 1)
            upright = ImageOps.exif_transpose(picture) if orientation != 1 else picture  # which copies
            return upright, Stored(picture.format or "", pages, orientation)
    except FileNotFoundError as e:
        raise DataError(f"{path}: no such file") from e
    except IsADirectoryError as e:
        raise DataError(f"{path}: expected an image file, found a folder") from e
    except UnidentifiedImageError as e:
        raise DataError(f"{path}: expected {', '.join(formats)}; the content is none of them") from e
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as e:
        raise DataError(f"{path}: refused: {e}") from e
    except Exception as e:  # Pillow's decoders raise errors of any kind on damaged files
        said = " ".join(str(e).split()) or type(e).__name__
        raise DataError(f"{path}: broken: {said}") from e


def to_rgb(picture: Image.Image, path: Path) -> NDArray[np.uint8]:
    """A decoded picture of any mode to (H, W, 3) uint8 RGB; see `read_image`."""
    return np.ascontiguousarray(np.asarray(_rgb_picture(picture, path)))


def _rgb_picture(picture: Image.Image, path: Path) -> Image.Image:
    if picture.mode.startswith("I;16"):
        wide = np.asarray(picture).astype(np.uint32)  # astype also takes care of big-endian files
        picture = Image.fromarray(((wide * 255 + 32767) // 65535).astype(np.uint8))
    if picture.mode in ("I", "F"):
        raise DataError(
            f"{path}: expected 8 or 16 bits a channel, found 32-bit {'integers' if picture.mode == 'I' else 'floats'}"
        )
    # By way of RGBA, a palette entry that is marked transparent keeps its own colour.
    if picture.mode in ("P", "PA"):
        picture = picture.convert("RGBA")
    return picture if picture.mode == "RGB" else picture.convert("RGB")
