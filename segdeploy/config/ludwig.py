"""Ludwig's spellings to segdeploy's. Aliases only: each key and default is defined in `schema.py` or by a plugin.

Both Ludwig's published page (https://ludwig.ai/latest/examples/semantic_segmentation) and its source are taken;
where they disagree the page's meaning holds. A key that means nothing here is dropped and named in one note; a key
whose loss would change the result is refused.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from segdeploy.config.scheduler import KEYS_OF, OWN_WARMUP, Scheduler
from segdeploy.config.schema import ImageFeature, MaskFeature
from segdeploy.config.tree import NOTHING, Tree
from segdeploy.plugin import registry

if TYPE_CHECKING:
    from segdeploy.config.yaml12 import KeyPath, Source

IMAGE: KeyPath = ("input_features", 0)
MASK: KeyPath = ("output_features", 0)
TRAINER: KeyPath = ("trainer",)
SCHEDULE: KeyPath = (*TRAINER, "learning_rate_scheduler")
DEFAULTS: KeyPath = ("defaults", "image")


# Old path -> path of the same meaning. First whole sections, then, once `defaults` are filled in, single keys.
_SECTIONS: tuple[tuple[KeyPath, KeyPath], ...] = (
    (("training",), TRAINER),
    (("preprocessing", "image"), (*DEFAULTS, "preprocessing")),
    ((*DEFAULTS, "preprocessing", "num_classes"), (*MASK, "preprocessing", "num_classes")),
)
_KEYS: tuple[tuple[KeyPath, KeyPath], ...] = (
    ((*MASK, "decoder", "num_classes"), (*MASK, "preprocessing", "num_classes")),
    ((*MASK, "preprocessing", "height"), (*IMAGE, "preprocessing", "height")),
    ((*MASK, "preprocessing", "width"), (*IMAGE, "preprocessing", "width")),
    ((*TRAINER, "optimizer", "lr"), (*TRAINER, "learning_rate")),
    ((*SCHEDULE, "type"), (*SCHEDULE, "decay")),
)

# Keys of Ludwig that `defaults` holds for every image feature; a feature's own keys come first.
_DEFAULTED: tuple[tuple[KeyPath, KeyPath], ...] = (
    ((*DEFAULTS, "preprocessing"), (*IMAGE, "preprocessing")),
    ((*DEFAULTS, "augmentation"), (*IMAGE, "augmentation")),
    ((*DEFAULTS, "encoder"), (*IMAGE, "encoder")),
    ((*DEFAULTS, "decoder"), (*MASK, "decoder")),
    ((*DEFAULTS, "loss"), (*MASK, "loss")),
)

# How files are read or work is spread, or a part of Ludwig that segmentation has no use for: the result is the same.
_READING = (
    "missing_value_strategy", "fill_value", "computed_fill_value", "infer_image_dimensions",
    "infer_image_sample_size", "infer_image_num_channels", "in_memory", "num_processes", "mode",
    "prefetch_size", "lazy_cache_dir",
)  # fmt: skip
_FULLY_CONNECTED = (
    "num_fc_layers", "fc_layers", "fc_output_size", "fc_use_bias", "fc_weights_initializer",
    "fc_bias_initializer", "fc_norm", "fc_norm_params", "fc_activation", "fc_dropout",
)  # fmt: skip
_WITHOUT_EFFECT: dict[KeyPath, tuple[str, ...]] = {
    (): ("combiner", "hyperopt", "backend", "ludwig_version", "defaults"),
    (*IMAGE, "preprocessing"): (*_READING, "num_classes", "infer_image_num_classes"),
    (*IMAGE, "encoder"): ("saved_weights_in_checkpoint", "model_cache_dir"),
    MASK: ("reduce_input", "reduce_dependencies", "default_validation_metric"),
    (*MASK, "preprocessing"): (
        *_READING, "num_channels", "resize_method", "standardize_image", "infer_image_max_height",
        "infer_image_max_width", "requires_equal_dimensions",
    ),
    (*MASK, "decoder"): ("input_size", *_FULLY_CONNECTED),
    ("preprocessing",): (
        "audio", "bag", "binary", "category", "date", "h3", "number", "sequence", "set", "text", "timeseries",
        "vector",
    ),
    TRAINER: (
        "learning_rate_scaling", "regularization_type", "validation_field", "evaluate_training_set",
        "enable_gradient_checkpointing", "bucketing_field", "enable_profiling", "profiler",
        "increase_batch_size_on_plateau_patience", "increase_batch_size_on_plateau_rate",
        "increase_batch_size_on_plateau_eval_metric", "increase_batch_size_on_plateau_eval_split", "model_soup_top_k",
    ),
}  # fmt: skip

# Keys that are taken with these values alone, which change nothing; and what to do with any other.
_ONLY: dict[KeyPath, tuple[tuple[Any, ...], str]] = {
    ("model_type",): (("ecd",), "segdeploy trains one image encoder and one mask decoder; remove it"),
    ("preset",): ((None,), "write the keys that the preset stands for"),
    (*IMAGE, "tied"): ((None,), "there is one input feature; remove it"),
    (*IMAGE, "preprocessing", "num_channels"): (
        (3, None), "every encoder is fed 3 channels, and grey pictures are repeated; remove it"),
    (*MASK, "dependencies"): (([], None), "there is one output feature; remove it"),
    ("preprocessing", "sample_ratio"): ((1, None), "give a smaller table"),
    ("preprocessing", "sample_size"): ((None,), "give a smaller table"),
    ("preprocessing", "oversample_minority"): ((None,), "use loss.class_weights"),
    ("preprocessing", "undersample_majority"): ((None,), "use loss.class_weights"),
    (*TRAINER, "train_steps"): ((None,), "use trainer.epochs"),
    (*TRAINER, "regularization_lambda"): ((0, None), "use trainer.optimizer.weight_decay"),
    (*TRAINER, "validation_metric"): (("mean_iou", None), "the best epoch is that of the highest mean_iou"),
    (*TRAINER, "eval_steps"): ((None,), "the whole validation part is scored; give a smaller one"),
    (*TRAINER, "skip_all_evaluation"): ((False,), "without validation no epoch could be the best; remove it"),
    (*TRAINER, "should_shuffle"): ((True,), "training samples are always shuffled; remove it"),
    (*TRAINER, "increase_batch_size_on_plateau"): ((0,), "the batch size is constant; remove it"),
    (*TRAINER, "loss_balancing"): (("none", None), "there is one loss; remove it"),
    (*TRAINER, "model_soup"): ((None,), "use trainer.ema_decay"),
    (*TRAINER, "contrastive_pretrain_epochs"): ((0,), "start from trained weights with encoder.use_pretrained"),
    (*TRAINER, "modality_dropout"): ((0,), "there is one input feature; remove it"),
    (*TRAINER, "optimizer", "relative_step"): ((False,), "the rate is learning_rate, as the schedule has it"),
    (*TRAINER, "optimizer", "scale_parameter"): ((False,), "the rate is learning_rate, as the schedule has it"),
    (*TRAINER, "optimizer", "warmup_init"): ((False,), "use learning_rate_scheduler.warmup_fraction"),
    (*SCHEDULE, "warmup_evaluations"): ((0,), "use warmup_fraction"),
}  # fmt: skip

# The same for each loss.
_ONLY_IN_LOSS: dict[str, tuple[tuple[Any, ...], str]] = {
    "robust_lambda": ((0,), "Ludwig does not use it for masks either; remove it"),
    "confidence_penalty": ((0,), "use label_smoothing of softmax_cross_entropy"),
    "class_similarities": ((None,), "Ludwig does not use it for masks either; remove it"),
}

# Values that leave the choice to the program: segdeploy's default is its choice.
_CHOSEN: dict[KeyPath, tuple[Any, ...]] = {
    (*TRAINER, "batch_size"): (None,),
    (*TRAINER, "eval_batch_size"): ("auto", None),
    (*TRAINER, "effective_batch_size"): (None,),
    (*TRAINER, "gradient_accumulation_steps"): (None,),
    (*TRAINER, "learning_rate"): (None,),
    (*IMAGE, "preprocessing", "infer_image_max_height"): (None,),
    (*IMAGE, "preprocessing", "infer_image_max_width"): (None,),
}


def translate(source: Source) -> Tree:
    """Rewrite `source.value`, a dict, in place.

    Returns:
        The tree, with the keys that were dropped and a line for each key that cannot be taken.
    """
    tree = Tree(source)
    for old, new in _SECTIONS:
        tree.move(old, new)
    _long_forms(tree)
    for old, new in _DEFAULTED:
        tree.default(old, new)
    tree.prune(DEFAULTS)
    tree.prune(DEFAULTS[:1])
    _long_forms(tree)  # of what came from `defaults`
    _flat_parts(tree)
    for path, values in _CHOSEN.items():
        if tree.get(path) in values:
            tree.take(path)
    if tree.get((*TRAINER, "learning_rate")) == "auto" and not tree.missing((*TRAINER, "optimizer", "lr")):
        tree.take((*TRAINER, "learning_rate"))  # a number that is given wins
    for old, new in _KEYS:
        tree.move(old, new)
    _decoder(tree)
    _image_preprocessing(tree)
    _mask_preprocessing(tree)
    _split(tree)
    _switched_off(tree)
    _losses(tree)
    _schedule(tree)
    _names(tree)
    for path, (allowed, advice) in _ONLY.items():
        tree.only(path, allowed, advice)
    for path, keys in _WITHOUT_EFFECT.items():
        for key in keys:
            tree.drop((*path, key))
    return tree


def _long_forms(tree: Tree) -> None:
    """`encoder: unet` is `encoder: {type: unet}`, and so on; Ludwig's decoder is `unet` unless it is named."""
    decoder: KeyPath = (*MASK, "decoder")
    for path in ((*IMAGE, "encoder"), decoder, (*MASK, "loss"), (*TRAINER, "optimizer")):
        value = tree.get(path)
        if isinstance(value, str):
            tree.put(path, {"type": value})
    losses = tree.get((*MASK, "loss"))
    if isinstance(losses, list):
        losses[:] = [{"type": loss} if isinstance(loss, str) else loss for loss in losses]
    named = not (tree.missing((*DEFAULTS, "decoder")) and tree.missing((*decoder, "type")))
    if not named and (tree.missing(decoder) or isinstance(tree.get(decoder), dict)):
        tree.put((*decoder, "type"), "unet")


def _names(tree: Tree) -> None:
    """Other characters than letters, digits and _ become _; the column keeps the name that was given."""
    for feature in (IMAGE, MASK):
        name = tree.get((*feature, "name"))
        plain = re.sub(r"\W", "_", name) if isinstance(name, str) else name
        if plain != name:
            tree.put((*feature, "name"), plain)
            if tree.missing((*feature, "column")):
                tree.put((*feature, "column"), name)


def _plugin_keys(tree: Tree, path: KeyPath) -> set[str]:
    """The keys of the encoder or decoder that is configured at `path`; none where it is not known."""
    name = tree.get((*path, "type"))
    known = registry.catalogue("encoder" if path[-1] == "encoder" else "decoder").plugins
    return set(known[name].config.model_fields) if isinstance(name, str) and name in known else set()


def _flat_parts(tree: Tree) -> None:
    """Keys of an encoder or decoder that stand on the feature itself, as in older versions of Ludwig."""
    for feature, kind, model in ((IMAGE, "encoder", ImageFeature), (MASK, "decoder", MaskFeature)):
        part: KeyPath = (*feature, kind)
        belongs = {*_plugin_keys(tree, part), *_WITHOUT_EFFECT[part], *(k for (*p, k), _ in _KEYS if tuple(p) == part)}
        value = tree.get(feature)
        for key in list(value) if isinstance(value, dict) else ():
            if key not in model.model_fields and key in belongs:
                tree.move((*feature, key), (*part, key))


def _decoder(tree: Tree) -> None:
    """The page's `hidden_dim`; sizes that Ludwig's parts carry along; one depth for both halves of a U-Net."""
    encoder, decoder = (*IMAGE, "encoder"), (*MASK, "decoder")
    known = _plugin_keys(tree, decoder)
    if "hidden_size" in known and "hidden_dim" not in known:
        tree.move((*decoder, "hidden_dim"), (*decoder, "hidden_size"))
    for half in (encoder, decoder):
        known = _plugin_keys(tree, half)
        for key in {"height", "width", "num_channels"} - known if known else ():
            tree.drop((*half, key))
    stages: KeyPath = (*decoder, "num_stages")
    if tree.get((*encoder, "type")) == "unet" and not tree.missing(stages) and tree.missing((*encoder, "num_stages")):
        tree.put((*encoder, "num_stages"), tree.get(stages))


def _image_preprocessing(tree: Tree) -> None:
    """How Ludwig names resizing and normalisation."""
    path = (*IMAGE, "preprocessing")
    if tree.get((*path, "resize_method")) == "interpolate":
        tree.take((*path, "resize_method"))
    tree.only((*path, "resize_method"), (None,), "what is cut off would get no class; use resize: letterbox or stretch")
    standard = (*path, "standardize_image")
    if tree.get(standard) == "imagenet1k":
        tree.take(standard)
        for key, value in (("mean", [0.485, 0.456, 0.406]), ("std", [0.229, 0.224, 0.225])):
            if tree.missing((*path, key)):
                tree.put((*path, key), value)
    tree.only(standard, (None,), "give `mean` and `std`")
    sides = {side: tree.get((*path, side)) for side in ("height", "width")}
    equal = (*path, "requires_equal_dimensions")
    if tree.get(equal) is True and all(isinstance(side, int) for side in sides.values()):
        tree.take(equal)
        for side in sides:
            tree.put((*path, side), min(sides.values()))
    tree.only(equal, (False, None), "give the `height` and the `width`")


def _mask_preprocessing(tree: Tree) -> None:
    """`infer_image_num_classes` counts the classes in the masks, unless their number is given."""
    path = (*MASK, "preprocessing")
    counted = tree.take((*path, "infer_image_num_classes")) is True
    if counted and tree.missing((*path, "num_classes")) and tree.missing((*path, "classes")):
        tree.put((*path, "num_classes"), "auto")


def _split(tree: Tree) -> None:
    """The split as it was spelled before Ludwig 0.5."""
    path: KeyPath = ("preprocessing", "split")
    tree.move(("preprocessing", "split_probabilities"), (*path, "probabilities"))
    if tree.take(("preprocessing", "force_split")) is True and tree.missing((*path, "type")):
        tree.put((*path, "type"), "random")
    column = tree.take(("preprocessing", "stratify"))
    if column not in (NOTHING, None):
        tree.put((*path, "type"), "stratify")
        tree.put((*path, "column"), column)


def _switched_off(tree: Tree) -> None:
    """A section that is null in Ludwig is one that does nothing."""
    for section, off in (
        ("learning_rate_scheduler", {"decay": None, "warmup_fraction": 0.0}),
        ("gradient_clipping", {"clipglobalnorm": None}),
    ):
        if tree.get((*TRAINER, section)) is None:
            tree.put((*TRAINER, section), off)


def _losses(tree: Tree) -> None:
    """Keys of a loss that Ludwig has and does not use for masks."""
    whole: KeyPath = (*MASK, "loss")
    listed = tree.get(whole)
    for path in [(*whole, place) for place in range(len(listed))] if isinstance(listed, list) else [whole]:
        for key, (allowed, advice) in _ONLY_IN_LOSS.items():
            tree.only((*path, key), allowed, advice)
        for key in ("class_similarities_temperature", *(("alpha",) if tree.get((*path, "type")) == "focal" else ())):
            tree.drop((*path, key))


def _schedule(tree: Tree) -> None:
    """In Ludwig one section holds the keys of all schedules; those of another than the chosen one do nothing."""
    fields = Scheduler.model_fields
    decay = tree.get((*SCHEDULE, "decay"))
    decay = fields["decay"].default if decay is NOTHING else decay
    if decay is not None and (not isinstance(decay, str) or decay not in KEYS_OF):
        return  # the schema says so
    idle = {key for keys in KEYS_OF.values() for key in keys} - set(KEYS_OF[decay])
    if decay in OWN_WARMUP:
        idle.add("warmup_fraction")
    if tree.get((*SCHEDULE, "reduce_on_plateau")) in (NOTHING, 0):
        idle |= {key for key in fields if key.startswith("reduce_") and key != "reduce_on_plateau"}
    for key in fields:
        if key in idle and tree.get((*SCHEDULE, key)) == fields[key].default:
            tree.take((*SCHEDULE, key))  # as good as not said
        elif key in idle:
            tree.drop((*SCHEDULE, key))
