import sys
import warnings
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image

from segdeploy.data import images
from segdeploy.data.images import open_rgb, read_image
from segdeploy.errors import DataError

RNG = np.random.default_rng(0)
# Smooth, so that lossy formats stay close.
ROWS, COLUMNS = np.mgrid[0:24, 0:35]
RGB = np.stack([ROWS * 10, COLUMNS * 7, 250 - ROWS * 5 - COLUMNS * 3], 2).astype(np.uint8)
GREY = RGB[..., 0]
WIDE = (ROWS * 2700 + COLUMNS * 77).astype(np.uint16)  # 0 to 64718
BITS = (ROWS + COLUMNS) % 3 == 0
ALPHA = (COLUMNS * 7).astype(np.uint8)
PALETTE = RNG.integers(0, 256, (256, 3), dtype=np.uint8)
INDICES = RNG.integers(0, 256, GREY.shape, dtype=np.uint8)


def thrice(grey):
    return np.repeat(grey[..., None], 3, axis=2)


def palette_image():
    picture = Image.frombytes("P", (35, 24), INDICES.tobytes())
    picture.putpalette(PALETTE.ravel().tolist())
    return picture


# Mode: the picture, the RGB values that it must become.
PICTURES = {
    "grey": (Image.fromarray(GREY), thrice(GREY)),
    "rgb": (Image.fromarray(RGB), RGB),
    "rgba": (Image.fromarray(np.dstack([RGB, ALPHA])), RGB),
    "la": (Image.fromarray(np.dstack([GREY, ALPHA]), "LA"), thrice(GREY)),
    "palette": (palette_image(), PALETTE[INDICES]),
    "1-bit": (Image.fromarray(BITS), thrice(BITS * np.uint8(255))),
    "16-bit": (Image.fromarray(WIDE), thrice(np.round(WIDE / 257).astype(np.uint8))),
}
LOSSLESS = {".png": {*PICTURES}, ".tif": {*PICTURES}, ".bmp": {"grey", "rgb", "rgba", "palette", "1-bit"}}
SMOOTH = {".jpg": {"grey", "rgb"}, ".webp": {"grey", "rgb"}}


def check(path, expected, tolerance=0):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = read_image(path)
        picture = open_rgb(path)
    assert picture.mode == "RGB"
    np.testing.assert_array_equal(np.asarray(picture), found)
    assert found.dtype == np.uint8
    assert found.flags.c_contiguous
    assert found.shape == expected.shape
    assert np.abs(found.astype(int) - expected).max() <= tolerance


@pytest.mark.parametrize(("suffix", "mode"), [(s, m) for s, modes in LOSSLESS.items() for m in sorted(modes)])
def test_lossless(tmp_path, suffix, mode):
    picture, expected = PICTURES[mode]
    picture.save(tmp_path / f"x{suffix}")
    check(tmp_path / f"x{suffix}", expected)


@pytest.mark.parametrize("mode", ["rgb", "rgba"])
def test_lossless_webp(tmp_path, mode):
    PICTURES[mode][0].save(tmp_path / "x.webp", lossless=True, exact=True)
    check(tmp_path / "x.webp", RGB)


@pytest.mark.parametrize(("suffix", "mode"), [(s, m) for s, modes in SMOOTH.items() for m in sorted(modes)])
def test_lossy(tmp_path, suffix, mode):
    picture, expected = PICTURES[mode]
    picture.save(tmp_path / f"x{suffix}", quality=100, **({"subsampling": 0} if suffix == ".jpg" else {}))
    check(tmp_path / f"x{suffix}", expected, 3 if suffix == ".jpg" else 12)


def test_content_counts_not_the_suffix(tmp_path):
    PICTURES["rgb"][0].save(tmp_path / "x.JPG", "PNG")
    check(tmp_path / "x.JPG", RGB)


@pytest.mark.parametrize("transparency", [5, bytes(range(256))], ids=["one entry", "all entries"])
def test_transparent_palette_keeps_its_colours(tmp_path, transparency):
    palette_image().save(tmp_path / "x.png", transparency=transparency)
    check(tmp_path / "x.png", PALETTE[INDICES])


@pytest.mark.parametrize("mode", ["L", "RGB", "1"])
def test_transparent_colour_keeps_its_colour(tmp_path, mode):
    picture = Image.fromarray(RGB).convert(mode)
    picture.save(tmp_path / "x.png", transparency=(0, 0, 250) if mode == "RGB" else 0)
    check(tmp_path / "x.png", np.asarray(picture.convert("RGB")))


def test_16_bit_ends(tmp_path):
    wide = np.array([[0, 128, 129, 65406, 65407, 65535]], np.uint16)
    Image.fromarray(wide).save(tmp_path / "x.png")
    assert read_image(tmp_path / "x.png")[0, :, 0].tolist() == [0, 0, 1, 254, 255, 255]


def test_big_endian_16_bit_tiff(tmp_path):
    Image.frombytes("I;16B", (35, 24), WIDE.astype(">u2").tobytes()).save(tmp_path / "x.tif")
    assert (tmp_path / "x.tif").read_bytes()[:2] == b"MM"
    check(tmp_path / "x.tif", PICTURES["16-bit"][1])


@pytest.mark.parametrize("suffix", [".jpg", ".tif"])
def test_cmyk(tmp_path, suffix):
    cmyk = Image.fromarray(RGB).convert("CMYK")
    cmyk.save(tmp_path / f"x{suffix}", **({"quality": 100, "subsampling": 0} if suffix == ".jpg" else {}))
    check(tmp_path / f"x{suffix}", RGB, 4)


# EXIF 2.32, tag 0x0112: where row 0 and column 0 of the stored picture lie, as operations on an array.
UPRIGHT = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
    8: lambda a: np.rot90(a, 1),
}


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tif", ".webp"])
@pytest.mark.parametrize("orientation", UPRIGHT)
def test_exif_orientation(tmp_path, orientation, suffix):
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / f"x{suffix}"
    settings = {".jpg": {"quality": 100, "subsampling": 0}, ".webp": {"lossless": True}}.get(suffix, {})
    Image.fromarray(RGB).save(path, exif=exif, **settings)
    check(path, UPRIGHT[orientation](RGB), 3 if suffix == ".jpg" else 0)


@pytest.mark.parametrize("mode", sorted(PICTURES))
@pytest.mark.parametrize("orientation", [3, 6, 7])
def test_orientation_of_tiff(tmp_path, orientation, mode):
    picture, expected = PICTURES[mode]
    picture.save(tmp_path / "x.tif", tiffinfo={0x0112: orientation})
    check(tmp_path / "x.tif", UPRIGHT[orientation](expected))


def test_first_page_counts(tmp_path):
    pages = [Image.fromarray(a) for a in (RGB, RGB[:5], RGB[:7])]
    for name in ("x.tif", "x.png"):
        pages[0].save(tmp_path / name, save_all=True, append_images=pages[1:])
        check(tmp_path / name, RGB)
    pages[0].save(tmp_path / "x.jpg", "MPO", save_all=True, append_images=pages[1:], quality=100, subsampling=0)
    check(tmp_path / "x.jpg", RGB, 3)


def refusal(path):
    """The message, which names the file in one line and comes without a warning."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(DataError) as caught:
            read_image(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert "\n" not in message
    return message.removeprefix(f"{path}: ")


@pytest.mark.parametrize(
    ("values", "said"), [(RGB[..., 0].astype(np.int32), "32-bit integers"), (GREY.astype(np.float32), "32-bit floats")]
)
def test_values_without_a_range_are_refused(tmp_path, values, said):
    Image.fromarray(values).save(tmp_path / "x.tif")
    assert said in refusal(tmp_path / "x.tif")


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".tif", ".webp", ".bmp"])
@pytest.mark.parametrize("share", [0.3, 0.9])
def test_truncated(tmp_path, suffix, share):
    path = tmp_path / f"x{suffix}"
    Image.fromarray(RNG.integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(path)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    refusal(path)


@pytest.mark.parametrize("content", [b"", b"not a picture\n", b"GIF89a" + bytes(100), bytes(1000)])
def test_no_picture(tmp_path, content):
    (tmp_path / "x.png").write_bytes(content)
    assert refusal(tmp_path / "x.png").startswith("expected JPEG, PNG, TIFF, WEBP, BMP")


def test_nothing_there(tmp_path):
    assert refusal(tmp_path / "none.png") == "no such file"
    assert refusal(tmp_path) == "expected an image file, found a folder"
    (tmp_path / "file").touch()
    refusal(tmp_path / "file" / "x.png")


@pytest.mark.parametrize("factor", [1.5, 3], ids=["Pillow warns", "Pillow refuses"])
def test_decompression_bomb(tmp_path, monkeypatch, factor):
    Image.fromarray(RGB).save(tmp_path / "x.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", int(GREY.size / factor))
    assert refusal(tmp_path / "x.png").startswith("refused: Image size")


def test_decompression_bomb_while_other_threads_come_and_go(tmp_path, monkeypatch):
    Image.fromarray(RGB[:9]).save(tmp_path / "small.png")
    Image.fromarray(RGB).save(tmp_path / "x.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", int(GREY.size / 1.5))
    with images._pillow_warnings:  # a thread that is still decoding
        read_image(tmp_path / "small.png")
        with pytest.raises(DataError, match="refused"):
            read_image(tmp_path / "x.png")


def test_damaged_metadata_is_silent(tmp_path):
    exif = Image.Exif()
    exif[0x010E] = "description" * 20
    Image.fromarray(RGB).save(tmp_path / "x.jpg", exif=exif, quality=100, subsampling=0)
    content = (tmp_path / "x.jpg").read_bytes()
    place = content.index(b"\x01\x0e\x00\x02") + 8  # where the text lies
    (tmp_path / "x.jpg").write_bytes(content[:place] + b"\0\1\0\0" + content[place + 4 :])
    with pytest.warns(UserWarning, match="Truncated"), Image.open(tmp_path / "x.jpg") as picture:
        picture.getexif()
    check(tmp_path / "x.jpg", RGB, 3)


def test_decoder_that_fails_in_its_own_way(tmp_path, monkeypatch):
    Image.fromarray(RGB).save(tmp_path / "x.png")

    def fail(*_):
        raise OverflowError("two\nlines")

    monkeypatch.setattr(Image.Image, "getexif", fail)
    assert refusal(tmp_path / "x.png") == "broken: two lines"


def test_threads_leave_the_warning_filters_as_they_were(tmp_path):
    for i in range(16):
        Image.fromarray(RGB.repeat(4 + i, axis=0)).save(tmp_path / f"{i}.jpg")
    before, interval = list(warnings.filters), sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(read_image, sorted(tmp_path.iterdir()) * 10))
    finally:
        sys.setswitchinterval(interval)
    assert warnings.filters == before
