"""Every key of a configuration, once: name, type, default, bounds and meaning.

The shape is Ludwig's (https://ludwig.ai/latest/configuration). The keys of an encoder or a decoder
stand in the plugin's own file; `encoder` and `decoder` are checked against them by `load.py`.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, PositiveFloat, PositiveInt, model_validator

from segdeploy.classes import ClassMap, Color, Colors, Encoding, PixelValue, Values, default_colors
from segdeploy.config.augmentation import Augmentations
from segdeploy.config.bounds import Counts, Fraction, Policy, Side
from segdeploy.config.export import Export
from segdeploy.config.gates import parse_gate
from segdeploy.config.loss import CrossEntropy, Loss, Losses
from segdeploy.config.preprocessing import Preprocessing
from segdeploy.config.trainer import Trainer
from segdeploy.frozen import Frozen

RESERVED = frozenset({"combined", "images", "measured_at", "runner", "seconds"})
"""Words that stand beside the features' names in statistics."""


def _needs_type(value: Any) -> Any:
    value = {"type": value} if isinstance(value, str) else value  # Ludwig's shorthand, `encoder: unet`
    if isinstance(value, dict) and not isinstance(value.get("type"), str):
        raise ValueError("needs a `type`")
    return value


Plugin = Annotated[dict[str, Any], BeforeValidator(_needs_type)]
"""`{type: NAME, ...}`: the plugin of that name and its own keys."""


class ImagePreprocessing(Frozen):
    """How an image becomes the network's input."""

    height: Side | None = None
    """Height of the network's input, pixels; null, together with width: the training images' own, on average."""
    width: Side | None = None
    """Width of the network's input, pixels."""
    infer_image_max_height: Side = 256
    """Largest height that is taken from the images."""
    infer_image_max_width: Side = 256
    """Largest width that is taken from the images."""
    resize: Policy = "stretch"
    """stretch: to height x width. letterbox: keep the proportions and fill the rest with `mean`."""
    mean: tuple[Fraction, Fraction, Fraction] | None = None
    """Mean per RGB channel on the scale 0..1; null: the encoder's own."""
    std: tuple[PositiveFloat, PositiveFloat, PositiveFloat] | None = None
    """Standard deviation per RGB channel on the scale 0..1; null: the encoder's own."""

    @model_validator(mode="after")
    def _both_sides(self) -> ImagePreprocessing:
        if (self.height is None) != (self.width is None):
            missing, given = ("height", "width") if self.height is None else ("width", "height")
            raise ValueError(f"needs `{missing}` beside `{given}`; leave out both to take the images' own size")
        return self


def _free_name(name: str) -> str:
    if name in RESERVED:
        raise ValueError(f"{name!r} is taken by the statistics; choose another name, and give the `column`")
    return name


Name = Annotated[str, Field(pattern=r"^\w{1,64}$"), AfterValidator(_free_name)]
"""Of a feature: names become files and keys of the statistics."""


class ImageFeature(Frozen):
    """The input: a column of image files and the encoder that reads them."""

    name: Name
    """Column of the table, unless `column` says otherwise; letters, digits and _."""
    type: Literal["image"]
    column: str | None = None
    """Column of the table; null: the feature's name."""
    preprocessing: ImagePreprocessing = ImagePreprocessing()
    """Size and normalisation."""
    augmentation: Augmentations = ()
    """Random changes of the training samples, image and mask alike; true: random_horizontal_flip, random_rotate."""
    encoder: Plugin
    """The network that turns the image into a pyramid of feature maps."""

    @property
    def training_size(self) -> tuple[int, int]:
        """Height and width of the images that the network is trained on: the window's where there is a crop.

        Only once the network's own size is settled, see `segdeploy.data.input_size`.
        """
        crop = next((step for step in self.augmentation if step.type == "random_crop"), None)
        height, width = (crop or self.preprocessing).height, (crop or self.preprocessing).width
        assert height is not None
        assert width is not None
        return height, width


class NamedClass(Frozen):
    """A class of the mask."""

    name: str
    """Name in reports."""
    color: Color | None = None
    """RGB in colour masks and pictures; null: one is chosen."""
    mask_colors: Colors | None = None
    """A list of RGB colours that all mean this class in colour masks; null: `color` alone."""
    value: PixelValue | Values | None = None
    """Pixel value in mask files, or a list of values that all mean this class; null: its place in the list."""
    id: Annotated[int, Field(ge=0, le=254)] | None = None
    """Optional; must be the place in the list, from 0."""


class MaskPreprocessing(Frozen):
    """What the pixels of a mask file mean."""

    classes: Annotated[tuple[str | NamedClass, ...], Field(min_length=2, max_length=255)] | None = None
    """The classes in order of their ids."""
    num_classes: Annotated[int, Field(ge=2, le=255)] | Literal["auto"] | None = None
    """Instead of `classes`: that many, named class_0, class_1, ... in the order of the values or colours in the
    masks; auto: as many as the masks hold."""
    ignore_index: PixelValue | Values | Literal["auto"] | None = "auto"
    """Pixel value, or values, that mean 'no label'; left out of loss and scores. null: there is none. auto: 255,
    where the masks do not show that it is a class."""
    ignore_color: Color | Colors | None = None
    """The same for colour masks: a colour, or a list of colours."""
    encoding: Encoding = "auto"
    """How the files spell classes: class_id (also palette PNG), binary (0 and 255), color (RGB), or auto."""

    @model_validator(mode="after")
    def _classes(self) -> MaskPreprocessing:
        if self.classes is None and self.num_classes is None:
            raise ValueError("needs `classes` (a list of names) or `num_classes`")
        if self.classes is not None and self.num_classes not in (None, "auto", len(self.classes)):
            raise ValueError(f"num_classes is {self.num_classes}, but {len(self.classes)} classes are listed")
        for place, item in enumerate(self.classes or ()):
            if isinstance(item, NamedClass) and item.id not in (None, place):
                raise ValueError(f"class {item.name!r} has id {item.id}, but stands at place {place}; order them by id")
        valued = [i.name for i in self.named if i.value is not None]
        if self.named and valued and len(valued) < len(self.named):
            without = next(i.name for i in self.named if i.value is None)
            raise ValueError(
                f"class {valued[0]!r} has a `value` and class {without!r} has none; give one to every class"
            )
        if self.classes is not None:  # a bare number is settled by looking at the masks
            self.class_map()
        return self

    @property
    def named(self) -> tuple[NamedClass, ...]:
        """`classes` in their long form; empty where only their number is known."""
        return tuple(NamedClass(name=i) if isinstance(i, str) else i for i in self.classes or ())

    @property
    def names(self) -> tuple[str, ...] | None:
        """The classes' names; None where their number depends on the masks."""
        if self.classes is not None:
            return tuple(i.name for i in self.named)
        return None if self.num_classes == "auto" else tuple(f"class_{i}" for i in range(self.num_classes or 0))

    def class_map(self) -> ClassMap:
        """The classes as the configuration alone has them; `data.discover` settles what only the masks can say.

        Raises:
            ValueError: their number depends on the masks.
        """
        if self.names is None:
            raise ValueError("num_classes: auto is settled by looking at the masks")
        named = self.named or tuple(NamedClass(name=name) for name in self.names)
        colors = tuple(
            i.color or (i.mask_colors[0] if i.mask_colors else chosen)
            for i, chosen in zip(named, default_colors(len(named)), strict=True)
        )
        owned = tuple(i.mask_colors or (c,) for i, c in zip(named, colors, strict=True))
        values = tuple((i.value,) if isinstance(i.value, int) else i.value or () for i in named)
        return ClassMap(
            names=self.names,
            colors=colors,
            values=values if any(values) else None,
            mask_colors=owned if any(i.mask_colors for i in named) else None,
            ignore_index=self._ignored(values),
            ignore_color=self.ignore_color,
            encoding=self.encoding,
        )

    def _ignored(self, values: tuple[tuple[int, ...], ...]) -> Any:
        if self.ignore_index != "auto":
            return self.ignore_index
        return None if any(255 in mine for mine in values) else 255


class MaskFeature(Frozen):
    """The output: a column of mask files and the decoder that predicts them."""

    name: Name
    """Column of the table, unless `column` says otherwise; letters, digits and _."""
    type: Literal["image"]
    column: str | None = None
    """Column of the table; null: the feature's name."""
    preprocessing: MaskPreprocessing
    """Classes and their spelling in the files."""
    decoder: Plugin
    """The network that turns feature maps into a map at the classes' resolution."""
    loss: Losses = CrossEntropy()
    """What training minimises: one loss, or a list whose weighted sum is."""

    @property
    def losses(self) -> tuple[Loss, ...]:
        """`loss` as a list."""
        return self.loss if isinstance(self.loss, tuple) else (self.loss,)


class Data(Frozen):
    """The tables to train on; paths are relative to the configuration's file, and the command line wins."""

    dataset: str | None = None
    """One table, cut into parts as `preprocessing.split` says."""
    training_set: str | None = None
    """Table to train on."""
    validation_set: str | None = None
    """Table that picks the best epoch."""
    test_set: str | None = None
    """Table that is checked now and scored later."""

    @model_validator(mode="after")
    def _either(self) -> Data:
        parts = (self.training_set, self.validation_set, self.test_set)
        if self.dataset is not None and any(parts):
            raise ValueError("expected either `dataset` or `training_set` and `validation_set`, got both")
        if self.dataset is None and not (self.training_set and self.validation_set):
            raise ValueError("needs `dataset`, or both `training_set` and `validation_set`")
        return self


def _is_gate(text: str) -> str:
    return parse_gate(text).text


GateText = Annotated[str, AfterValidator(_is_gate)]
"""A limit, see segdeploy.config.gates."""


class Benchmark(Frozen):
    """How `segdeploy benchmark` measures."""

    batches: Annotated[tuple[PositiveInt, ...], Field(min_length=1)] = (1, 4)
    """Batch sizes."""
    threads: Counts | None = None
    """CPU threads; each count is measured for itself, and one may stand without a list. null: the cores this process
    may use."""
    sizes: tuple[Annotated[str, Field(pattern=r"^[1-9]\d*x[1-9]\d*$")], ...] = ()
    """Sizes of the images, WIDTHxHEIGHT in pixels, for models that leave theirs free; empty: the model's own."""
    rounds: PositiveInt = 30
    """Rounds, at least, in which every row takes its turn."""
    seconds: Annotated[float, Field(ge=0)] = 10.0
    """The rounds go on for this long, however fast they are."""
    warmup: Annotated[int, Field(ge=0)] = 5
    """Untimed calls, at least, before the first round."""
    warmup_seconds: Annotated[float, Field(ge=0)] = 20.0
    """How long to wait for a row's time to become steady; 0: not at all."""
    cold_starts: Annotated[int, Field(ge=0)] = 3
    """New processes in which the time to the first mask is measured, of which the best counts; 0: none."""
    timeout: PositiveFloat = 900.0
    """Seconds after which a row that does not answer has failed; a compilation must fit in."""
    gates: tuple[GateText, ...] = ()
    """Limits that a benchmark must keep, such as miou_drop<=0.003 or p99_ms[backend=onnxruntime]<=25; else it ends
    with exit code 3. `segdeploy gate --metrics` lists what can be limited."""


class RunConfig(Frozen):
    """A whole configuration."""

    input_features: Annotated[tuple[ImageFeature, ...], Field(min_length=1, max_length=1)]
    """Exactly one image."""
    output_features: Annotated[tuple[MaskFeature, ...], Field(min_length=1, max_length=1)]
    """Exactly one mask."""
    data: Data | None = None
    """The tables to train on; null: the command line names them."""
    preprocessing: Preprocessing = Preprocessing()
    """The table as a whole."""
    trainer: Trainer = Trainer()
    """How to train."""
    export: Export = Export()
    """Limits of the export."""
    benchmark: Benchmark = Benchmark()
    """How to measure."""

    @model_validator(mode="after")
    def _two_names(self) -> RunConfig:
        if self.image.name == self.mask.name:
            raise ValueError(f"input and output feature are both called {self.image.name!r}; give them two names")
        return self

    @property
    def image(self) -> ImageFeature:
        """The one input feature."""
        return self.input_features[0]

    @property
    def mask(self) -> MaskFeature:
        """The one output feature."""
        return self.output_features[0]
