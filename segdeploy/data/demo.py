"""A generated data set for semantic segmentation: machine parts on a cluttered workbench.

Every picture is drawn from signed distance fields (negative inside, in pixels), which give the anti-aliased image,
the exact mask, the bevel and the soft shadow from one array. Colours and surface patterns are shared by all classes,
by the bench and by clutter that belongs to no class, so that a model has to learn shape and structure.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

if TYPE_CHECKING:
    from pathlib import Path

Field = NDArray[np.floating[Any]]  # float32 throughout
Rng = np.random.Generator
# A shape gets coordinates (u, v) turned about its centre and its radius, and returns its distance field.
Shape = Callable[[Rng, Field, Field, float], Field]

# Okabe-Ito colours: distinct under the common forms of colour blindness.
_CLASSES = {
    "background": (0, 0, 0),
    "disc": (230, 159, 0),
    "box": (86, 180, 233),
    "gear": (0, 158, 115),
    "wrench": (240, 228, 66),
    "sponge": (204, 121, 167),
    "cable": (213, 94, 0),
}
CLASS_NAMES: tuple[str, ...] = tuple(_CLASSES)
CLASS_COLORS: tuple[tuple[int, int, int], ...] = tuple(_CLASSES.values())
IGNORE_VALUE = 255

_REFERENCE_SIDE = 160  # the radii in _PARTS and _CLUTTER are pixels in a picture whose shorter side is this
_MARGIN = 12  # the canvas is larger than the picture by this much, so that shadows and blur need no border case
# Of 20 samples 14 train, 3 validate and 3 test, interleaved: a larger set never moves a sample to another split.
_HELD_OUT = {3: "validation", 9: "validation", 16: "validation", 6: "test", 13: "test", 19: "test"}

# Metal, rubber, wood, card and paint: one palette for bench, parts and clutter.
_MATERIALS: Field = np.frombuffer(
    bytes.fromhex("b2b6bc 70767e 34363a a87e52 785234 ceb68e 467056 3e5c8e b03e34 d4a638 e2ded4 608c98"), np.uint8
).reshape(-1, 3) / np.float32(255)


def _union(*fields: Field) -> Field:
    return reduce(np.minimum, fields)


def _cut(body: Field, *holes: Field) -> Field:
    return -_union(-body, *holes)


def _slab(u: Field, v: Field, half_u: float, half_v: float, corner: float = 0) -> Field:
    """Rectangle about the origin, its corners rounded."""
    du, dv = np.abs(u) - (half_u - corner), np.abs(v) - (half_v - corner)
    return np.hypot(np.maximum(du, 0), np.maximum(dv, 0)) + np.minimum(np.maximum(du, dv), 0) - corner


def _gear(rng: Rng, u: Field, v: Field, radius: float) -> Field:
    teeth = np.clip(2.5 * np.cos(np.arctan2(v, u) * int(rng.integers(8, 12))), -1, 1)
    return _cut(np.hypot(u, v) - radius * (0.87 + 0.13 * teeth), np.hypot(u, v) - radius * rng.uniform(0.28, 0.42))


def _wrench(rng: Rng, u: Field, v: Field, radius: float) -> Field:
    """Combination wrench: an open jaw and a ring at the ends of a thin handle."""
    head = radius * rng.uniform(0.27, 0.33)
    reach = radius - head
    jaw, ring = np.hypot(u - reach, v) - head, np.hypot(u + reach, v) - head * 0.9
    body = _union(jaw, ring, _slab(u, v, reach, head * 0.42))
    return _cut(body, _slab(u - radius, v, head * 1.1, head * 0.45), ring + head * 0.45)


def _blob(rng: Rng, u: Field, v: Field, radius: float) -> Field:
    theta = np.arctan2(v, u)
    waves = [rng.uniform(0.04, 0.13) * np.cos(lobes * theta + rng.uniform(0, 6.28)) for lobes in (2, 3, 4)]
    distance: Field = np.hypot(u, v) - radius * (np.sum(waves, axis=0) + 0.8)
    return distance


def _cable(rng: Rng, u: Field, v: Field, radius: float) -> Field:
    """A smooth curve v = f(u) with round ends, 2 to 4 px wide at every picture size."""
    curve, slope = np.zeros_like(u), np.zeros_like(u)
    for swing, waves in ((0.22, rng.uniform(1.5, 3.5)), (0.08, rng.uniform(4, 7))):
        amplitude, frequency, phase = radius * swing * rng.uniform(0.4, 1), waves / radius, rng.uniform(0, 6.28)
        curve += amplitude * np.sin(frequency * u + phase)
        slope += amplitude * frequency * np.cos(frequency * u + phase)
    across: Field = (v - curve) / np.sqrt(1 + slope * slope)  # the distance to the curve, to first order
    return np.hypot(across, np.maximum(np.abs(u) - radius, 0)) - rng.uniform(2.2, 4.0) / 2


def _shard(rng: Rng, u: Field, v: Field, radius: float) -> Field:
    """Triangle: everything but three half-planes, near enough to regular that no corner is further than 1.4 radii."""
    angles = np.array([0.0, 2.1, 4.2]) + rng.uniform(-0.15, 0.15, 3)
    sides = [radius * rng.uniform(0.3, 0.5) - u * float(np.cos(a)) - v * float(np.sin(a)) for a in angles]
    return -_union(*sides)


class _Kind(NamedTuple):
    """What can lie on the bench. A mark is flat and translucent: no shadow, and the label below stays."""

    class_id: int
    shape: Shape
    radius: tuple[float, float]
    pores: bool = False
    mark: bool = False


_PARTS = (
    _Kind(1, lambda rng, u, v, r: np.hypot(u, v) - r, (9, 23)),
    _Kind(2, lambda rng, u, v, r: _slab(u, v, r, r * rng.uniform(0.45, 0.95), corner=r * 0.12), (11, 28)),
    _Kind(3, _gear, (12, 27)),
    _Kind(4, _wrench, (24, 48)),
    _Kind(5, _blob, (12, 28), pores=True),
    _Kind(6, _cable, (45, 110)),
)
_CLUTTER = (
    _Kind(0, _shard, (10, 30)),
    _Kind(0, _blob, (8, 28), mark=True),
    _Kind(0, lambda rng, u, v, r: _slab(u, v, r, rng.uniform(0.5, 1.2)), (8, 35), mark=True),
)


def _noise(rng: Rng, shape: tuple[int, ...], cell: tuple[float, float]) -> Field:
    """Value noise in about [-1, 1], of shape (H, W); a feature is about cell = (height, width) px."""
    height, width = shape
    grid = rng.random((int(height / cell[0]) + 2, int(width / cell[1]) + 2), dtype=np.float32) * 2 - 1
    return np.asarray(Image.fromarray(grid).resize((width, height), Image.Resampling.BICUBIC))


def _pattern(rng: Rng, u: Field) -> Field:
    """Draw a surface pattern in about [-1, 1] of u's shape; if it has a direction, that is u's or the picture's."""
    kind = rng.integers(4)
    if kind == 0:  # stripes
        wave: Field = np.sin(u * (6.28 / rng.uniform(4, 11)) + rng.uniform(0, 6.28))
        return np.clip(3 * wave, -1, 1)
    if kind == 1:  # speckle
        return rng.random(u.shape, dtype=np.float32) * 2 - 1
    if kind == 2:  # brushed metal or wood grain
        return _noise(rng, u.shape, (1.5, 16) if rng.random() < 0.5 else (16, 1.5))
    return _noise(rng, u.shape, (7, 7)) * 0.7 + _noise(rng, u.shape, (3, 3)) * 0.3


def _color(rng: Rng) -> Field:
    color: Field = _MATERIALS[rng.integers(len(_MATERIALS))] * rng.uniform(0.8, 1.2) + rng.uniform(-0.04, 0.04, 3)
    return color.astype(np.float32)


def _turned(rng: Rng, y: Field, x: Field) -> tuple[Field, Field]:
    """Coordinates along and across a random direction."""
    angle = rng.uniform(0, 6.28)
    cos, sin = float(np.cos(angle)), float(np.sin(angle))
    return x * cos + y * sin, y * cos - x * sin


def _shifted(field: NDArray[Any], down: int, right: int) -> NDArray[Any]:
    """Move a field by whole pixels; the row or column at the edge is repeated."""
    y, x = (np.clip(np.arange(side) - step, 0, side - 1) for side, step in zip(field.shape, (down, right), strict=True))
    return field[np.ix_(y, x)]


def _label(mask: NDArray[np.uint8], inside: NDArray[np.bool_], class_id: int) -> None:
    """Write a part into the mask, its ignore border just outside so that thin parts keep every pixel."""
    near = inside | _shifted(inside, 1, 0) | _shifted(inside, -1, 0) | _shifted(inside, 0, 1) | _shifted(inside, 0, -1)
    if class_id == 0:  # clutter has a border only where it covers a part
        near &= mask != 0
    mask[near] = IGNORE_VALUE
    mask[inside] = class_id


class _Scene:
    """A bench being filled: image float32 (H, W, 3) in about [0, 1], and mask uint8 (H, W)."""

    def __init__(self, rng: Rng, height: int, width: int) -> None:
        self.rng = rng
        self.mask = np.zeros((height, width), np.uint8)
        self.image = np.empty((height, width, 3), np.float32)
        for layer in range(rng.integers(1, 4)):  # the table top, then up to two sheets, each from a straight edge on
            y, x = np.mgrid[0:height, 0:width].astype(np.float32)
            along, _ = _turned(rng, y - height * rng.random(), x - width * rng.random())
            shade = 1 + _pattern(rng, along) * rng.uniform(0.05, 0.18)
            shade += _noise(rng, shade.shape, (24, 24)) * rng.uniform(0.05, 0.2)
            covered = (along > 0) | (layer == 0)
            self.image[covered] = _color(rng) * shade[covered, None]
        self.shadow_offset = tuple(rng.integers(-4, 5, 2).tolist())
        self.shadow_softness, self.shadow_strength = rng.uniform(3, 10), rng.uniform(0.35, 0.65)

    def add(self, kind: _Kind, center: tuple[float, float], radius: float) -> None:
        """Draw one thing on top of everything drawn so far."""
        rng, reach = self.rng, int(radius * 1.4) + _MARGIN  # boxes and shards have the furthest corners
        window = tuple(slice(max(int(c) - reach, 0), int(c) + reach) for c in center)
        image, mask = self.image[window], self.mask[window]  # views: drawn in place
        y, x = np.mgrid[: mask.shape[0], : mask.shape[1]].astype(np.float32) + np.float32(0.5)
        u, v = _turned(rng, y + window[0].start - center[0], x + window[1].start - center[1])
        distance = kind.shape(rng, u, v, radius)

        # Of two colours take the one further from what lies below, or too many thin parts could not be seen.
        below = image.mean((0, 1))
        color = max(_color(rng), _color(rng), key=lambda c: float(np.abs(c - below).sum()))
        shade = 1 + _pattern(rng, u) * rng.uniform(0.05, 0.2)
        if kind.pores:
            shade *= np.where(_noise(rng, mask.shape, (2.5, 2.5)) > 0.2, rng.uniform(0.5, 0.7), 1.05)
        alpha = np.clip(0.5 - distance, 0, 1)
        if kind.mark:
            alpha *= rng.uniform(0.3, 0.6)
        else:
            shade *= 0.65 + 0.4 * np.clip(-distance / 3, 0, 1)  # a bevel
            caster = _shifted(distance, *self.shadow_offset)
            image *= 1 - self.shadow_strength * np.clip(0.5 - caster / self.shadow_softness, 0, 1)[..., None]
            _label(mask, distance < 0, kind.class_id)
        image += alpha[..., None] * (color * shade[..., None] - image)

    def photograph(self) -> Field:
        """Show the bench in uneven light through a modest camera, as float32 (H, W, 3) in about [0, 1]."""
        rng, shape = self.rng, self.mask.shape
        y, x = (np.linspace(-1, 1, side, dtype=np.float32) for side in shape)
        light = 1 + y[:, None] * rng.uniform(-0.25, 0.25) + x * rng.uniform(-0.25, 0.25)
        shaded = np.clip(_noise(rng, shape, (60, 60)) * 2.5 + rng.uniform(0, 1), 0, 1)
        light *= 1 - rng.uniform(0.1, 0.4) * shaded
        image = self.image * light[..., None] * rng.uniform(0.85, 1.15, 3).astype(np.float32)  # white balance
        image = (image - 0.45) * rng.uniform(0.75, 1.2) + 0.45 + rng.uniform(-0.08, 0.08)
        blur = rng.uniform(0, 0.25)
        for axis in (0, 1):
            image = image * (1 - 2 * blur) + (np.roll(image, 1, axis) + np.roll(image, -1, axis)) * blur
        return image + rng.standard_normal(image.shape, dtype=np.float32) * rng.uniform(0.005, 0.03)


def render(
    index: int, *, size: tuple[int, int] = (160, 224), seed: int = 0
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Draw sample number index: a pure function of its arguments.

    size is (height, width), both at least 32; index and seed are not negative. Returns the image, uint8 (H, W, 3) RGB,
    and the mask, uint8 (H, W) of class ids with IGNORE_VALUE in a 1 px border around the parts.
    """
    height, width = size
    if min(size) < 32:
        raise ValueError(f"size must be at least 32 x 32, or the parts cannot be told apart; got {height} x {width}")
    rng = np.random.Generator(np.random.PCG64([seed, index]))
    scene = _Scene(rng, height + 2 * _MARGIN, width + 2 * _MARGIN)

    kinds = [kind for kind in _PARTS for _ in range(rng.choice(3, p=(0.15, 0.5, 0.35)))]
    kinds += [_CLUTTER[i] for i in rng.integers(len(_CLUTTER), size=rng.integers(6, 15))]
    centers = np.empty((0, 2))
    for i in rng.permutation(len(kinds)):
        # Of four places take the loneliest: parts overlap, but are seldom buried.
        places = rng.random((4, 2)) * size + _MARGIN
        gaps = np.linalg.norm(places[:, None] - centers, axis=2).min(axis=1, initial=np.inf)
        center = places[gaps.argmax()]
        centers = np.vstack([centers, center])
        radius = rng.uniform(*kinds[i].radius) * min(size) / _REFERENCE_SIDE
        scene.add(kinds[i], (float(center[0]), float(center[1])), radius)

    inner = slice(_MARGIN, -_MARGIN)
    image = np.clip(scene.photograph()[inner, inner] * 255 + 0.5, 0, 255).astype(np.uint8)
    return image, scene.mask[inner, inner].copy()


def generate(
    folder: Path,
    *,
    count: int = 200,
    size: tuple[int, int] = (160, 224),
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Write the data set below folder and return the path of its dataset.csv.

    Files are images/NNNN.png (RGB), masks/NNNN.png (palette PNG: pixel value = class id, palette = CLASS_COLORS) and
    dataset.csv with columns image, mask (paths relative to the CSV, with forward slashes) and split (train, validation
    or test, about 70/15/15). Sample i is render(i, size=size, seed=seed). progress(done, total) follows each sample.
    """
    if count < 1:
        raise ValueError(f"count must be at least 1, got {count}")
    palette = np.zeros((256, 3), np.uint8)  # all 256 entries: with fewer Pillow packs pixels into 4 bits and loses 255
    palette[: len(CLASS_COLORS)], palette[IGNORE_VALUE] = CLASS_COLORS, 255
    for name in ("images", "masks"):
        (folder / name).mkdir(parents=True, exist_ok=True)

    lines = ["image,mask,split"]
    for index in range(count):
        image, mask = render(index, size=size, seed=seed)
        image_name, mask_name = f"images/{index:04d}.png", f"masks/{index:04d}.png"
        Image.fromarray(image).save(folder / image_name, compress_level=1)  # noise hardly compresses: prefer speed
        indexed = Image.fromarray(mask)
        indexed.putpalette(palette.tobytes())
        indexed.save(folder / mask_name)
        lines.append(f"{image_name},{mask_name},{_HELD_OUT.get(index % 20, 'train')}")
        if progress is not None:
            progress(index + 1, count)
    table = folder / "dataset.csv"  # written last: where it exists, its files do
    table.write_text("\n".join(lines) + "\n", encoding="utf-8", newline="\n")
    return table
