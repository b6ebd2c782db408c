"""The configuration's text: YAML with a comment for each choice."""

from __future__ import annotations

import json
import re
import textwrap
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from segdeploy.config.schema import NamedClass
    from segdeploy.init.choose import Plan
    from segdeploy.init.find import Found
    from segdeploy.init.look import MaskTotals
    from segdeploy.init.settle import Settled

_WIDTH = 110
_PLAIN = re.compile(r"(\.{0,2}/)*[A-Za-z_][A-Za-z0-9_./-]*( [A-Za-z0-9_./-]+)*")
_WORDS = frozenset({"true", "false", "null", "yes", "no", "on", "off"})  # some YAML readers take these for values


def config_text(
    found: Found, facts: MaskTotals, settled: Settled, plan: Plan, *, tables: Mapping[str, str], command: str
) -> str:
    """The whole file.

    Args:
        found, facts, settled, plan: what was found and chosen.
        tables: the keys of `data` and their paths, relative to the file.
        command: what trains with the file.
    """
    return "\n".join(
        [
            f"# {found.title or 'A data set'} as segdeploy init found it. This trains on it:",
            f"#   {command}",
            *_comment("", "Any key can be changed here, or for one run with --set, such as --set trainer.epochs=10."),
            *(line for note in found.notes for line in _comment("", note)),
            "",
            *_data(found, plan, tables),
            *_image(found, plan),
            *_mask(found, facts, settled, plan),
            *_trainer(plan),
            "",
        ]
    )


def _comment(head: str, text: str, indent: int = 0) -> list[str]:
    start = " " * indent + "# "
    return textwrap.wrap(
        head + (text if head else text[:1].upper() + text[1:]),
        _WIDTH,
        initial_indent=start,
        subsequent_indent=start,
        break_on_hyphens=False,
        break_long_words=False,
    )


def _data(found: Found, plan: Plan, tables: Mapping[str, str]) -> list[str]:
    counts = [f"{len(samples)} {'in all' if name == 'dataset' else name}" for name, samples in found.samples.items()]
    lines = _comment("", f"Image and mask pairs: {', '.join(counts)}. Paths are relative to this file; options of the "
                     "command line win.")  # fmt: skip
    if found.split_note:
        lines += _comment("", found.split_note)
    lines += ["data:", *(f"  {key}: {scalar(path)}" for key, path in tables.items())]
    if "dataset" in found.samples and not found.split_column:
        shares = ", ".join(f"{p:g}" for p in plan.probabilities)
        lines += [
            *_comment("", "No split was found, so it is drawn at random, the same each time. Frames of one video, or "
                      "pictures of one place, should not be in two parts: give a split column if they would be."),
            "preprocessing:",
            f"  split: {{type: random, probabilities: [{shares}]}}  # training, validation, test",
        ]  # fmt: skip
    elif found.split_column:
        lines += ["preprocessing:", f"  split: {{type: fixed, column: {scalar(found.split_column)}}}"]
    return [*lines, ""]


def _image(found: Found, plan: Plan) -> list[str]:
    lines = ["input_features:", "  - name: image", "    type: image"]
    if found.image_column != "image":
        lines.append(f"    column: {scalar(found.image_column)}")
    pretrained = "true" if plan.pretrained else "false"
    return [
        *lines,
        *_comment("", plan.size_why, 4),
        f"    preprocessing: {{height: {plan.size[0]}, width: {plan.size[1]}}}",
        *_comment("", "Where up and down mean nothing, as from the air or through a microscope, add "
                  "random_vertical_flip.", 4),
        "    augmentation:",
        "      - {type: random_horizontal_flip}  # delete it where a class tells left from right",
        "      - {type: random_scale, min: 0.5, max: 2.0}  # things are near and far",
        *_crop(plan),
        "      - {type: random_color, brightness: 0.3, contrast: 0.5, saturation: 0.5, hue: 0.05}  # light changes",
        *_comment("", plan.network_why, 4),
        *_comment("use_pretrained: ", plan.pretrained_why + ".", 4),
        f"    encoder: {{type: timm, model_name: {plan.network.model_name}, use_pretrained: {pretrained}}}",
        "",
    ]  # fmt: skip


def _crop(plan: Plan) -> list[str]:
    if plan.crop is None:
        return []
    (height, width), (full_height, full_width) = plan.crop, plan.size
    share = f"{height / full_height:.0%} x {width / full_width:.0%}"
    why = (
        f"{share}: faster, and each epoch sees other windows; half of them about a pixel of a rare class, the others "
        "not of one class alone."
    )
    crop = f"{{type: random_crop, height: {height}, width: {width}, rare_class_probability: 0.5, cat_max_ratio: 0.75}}"
    return [*_comment("", why, 6), f"      - {crop}"]


def _mask(found: Found, facts: MaskTotals, settled: Settled, plan: Plan) -> list[str]:
    lines = ["output_features:", "  - name: mask", "    type: image"]
    if found.mask_column != "mask":
        lines.append(f"    column: {scalar(found.mask_column)}")
    kinds = {
        "class_id": "Masks hold one value per class.",
        "binary": "Masks hold 0 and 255.",
        "color": "Masks are RGB pictures, one colour per class.",
    }
    lines += ["    preprocessing:", *_comment("", kinds[settled.encoding], 6), f"      encoding: {settled.encoding}"]
    lines += _comment("", settled.ignore_why, 6)
    if settled.encoding == "color":
        lines.append(f"      ignore_color: {_ignored([list(c) for c in settled.ignored if not isinstance(c, int)])}")
    else:
        lines.append(f"      ignore_index: {_ignored(list(settled.ignored))}")
    labelled = sum(facts.pixels_of(mine) for mine in settled.spelled)
    lines += _comment("", f"{settled.names_why} Behind each class: its share of the labelled pixels, and in how many "
                      f"of the {facts.masks:,} masks looked at it is.", 6)  # fmt: skip
    lines.append("      classes:")
    for named, mine in zip(settled.classes, settled.spelled, strict=True):
        share, masks = facts.pixels_of(mine) / max(1, labelled), facts.masks_with(mine)
        lines.append(f"        - {_class(named)}  # {share:.2%}, {masks:,}")
    lines += [
        *_comment("", "A feature pyramid: light, and good on classes of very different size.", 4),
        f"    decoder: {{type: fpn, num_channels: {plan.network.channels}, merge_channels: 128}}",
        *_comment(
            "", "Dice counts each class of a picture alike, however few pixels it has: thin and rare ones gain.", 4
        ),
        *_comment("class_weights: " if plan.weighted else "", plan.weights_why, 4),
        "    loss:",
        f"      - {{type: softmax_cross_entropy{', class_weights: auto' if plan.weighted else ''}}}",
        "      - {type: dice}",
        "",
    ]
    return lines


def _trainer(plan: Plan) -> list[str]:
    return [
        "trainer:",
        *_comment("", plan.epochs_why, 2),
        f"  epochs: {plan.epochs}",
        *_comment("", plan.batch_why, 2),
        f"  batch_size: {plan.batch_size}",
        *_comment("", plan.learning_rate_why, 2),
        f"  learning_rate: {plan.learning_rate}",
        *_comment("", "Validate and keep a moving average of the weights: smoother than the last step's.", 2),
        "  ema_decay: 0.99",
        *(
            [*_comment("", "FP16 where it is safe: faster on a GPU.", 2), "  use_mixed_precision: true"]
            if plan.mixed_precision
            else []
        ),
    ]


def _class(named: NamedClass) -> str:
    words = [f"name: {scalar(named.name)}"]
    if named.value is not None:
        words.append(f"value: {named.value if isinstance(named.value, int) else list(named.value)}")
    if named.color is not None:
        words.append(f"color: {list(named.color)}")
    if named.mask_colors is not None:
        words.append(f"mask_colors: {[list(c) for c in named.mask_colors]}")
    return "{" + ", ".join(words) + "}"


def _ignored(values: list[Any]) -> str:
    return "null" if not values else str(values[0] if len(values) == 1 else values)


def scalar(text: str) -> str:
    """A string as YAML: plain where every reader takes it for a string, else in double quotes."""
    plain = _PLAIN.fullmatch(text) is not None and text.lower() not in _WORDS
    return text if plain else json.dumps(text, ensure_ascii=False)
