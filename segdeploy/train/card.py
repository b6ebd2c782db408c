"""`model_card.md`: what the model is for, what it saw, how good it is; Hugging Face's front matter on top."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import yaml

from segdeploy.pages.formats import markdown, percent, plural
from segdeploy.pages.render import templates

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from segdeploy.config.schema import RunConfig
    from segdeploy.data.scan import ScanReport
    from segdeploy.model.spec import ModelSpec

_POOR = 0.5
"""Classes with an IoU below this are named among the limits."""
_METRICS = {"mean_iou": "mean IoU", "pixel_accuracy": "pixel accuracy", "mean_class_accuracy": "mean class accuracy"}


def model_card(
    spec: ModelSpec,
    config: RunConfig,
    report: ScanReport,
    samples: Mapping[str, int],
    best: Mapping[str, Any],
    history: Sequence[Mapping[str, Any]],
) -> str:
    """Markdown under YAML front matter (https://huggingface.co/docs/hub/model-cards).

    What only the author can know - licence, origin of the data, people - is marked "to be filled in".

    Args:
        spec: of the model.
        config: that it was trained with, resolved.
        report: what the training part holds.
        samples: in each part.
        best: `epoch`, `validation` and maybe `test`, as in best_epoch.json.
        history: the lines of metrics.jsonl.
    """
    title = f"{spec.mask_name}: {spec.encoder.name} + {spec.decoder.name}"
    scores = {part: best[part] for part in ("validation", "test") if part in best}
    card = (
        templates("segdeploy.train")
        .get_template("card.md.j2")
        .render(
            front=_front_matter(spec, title, scores),
            title=title,
            spec=spec,
            trainer=config.trainer,
            image=config.image,
            loss=" + ".join(loss.type for loss in config.mask.losses),
            classes=_classes(spec, report, scores),
            samples=", ".join(f"{count:,} {part}" for part, count in samples.items()),
            sizes=report.sizes.most_common(3),
            epoch=best["epoch"],
            epochs=plural(len(history), "epoch"),
            metrics=[(said, [percent(s[key]) for s in scores.values()]) for key, said in _METRICS.items()],
            parts=list(scores),
            poor=_poor(scores),
        )
    )
    return card + "\n"


def _front_matter(spec: ModelSpec, title: str, scores: Mapping[str, Mapping[str, Any]]) -> str:
    results = [
        {
            "task": {"type": "image-segmentation", "name": "Semantic segmentation"},
            "dataset": {"name": "to be filled in", "type": "to-be-filled-in", "split": part},
            "metrics": [
                {"type": key, "value": round(found[key], 6), "name": said}
                for key, said in _METRICS.items()
                if found[key] is not None
            ],
        }
        for part, found in scores.items()
    ]
    about = {
        "license": "unknown",
        "library_name": "segdeploy",
        "pipeline_tag": "image-segmentation",
        "tags": list(dict.fromkeys(["semantic-segmentation", spec.encoder.name, spec.decoder.name])),
        "metrics": ["mean_iou"],
        "model-index": [{"name": title, "results": [result for result in results if result["metrics"]]}],
    }
    text: str = yaml.safe_dump(about, sort_keys=False, allow_unicode=True)
    return text.replace(
        "license: unknown\n",
        "license: unknown  # to be filled in: https://huggingface.co/docs/hub/repositories-licenses\n",
        1,
    )


def _classes(spec: ModelSpec, report: ScanReport, scores: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    total = max(1, int(report.pixels.sum()))
    return [
        {
            "id": i,
            "name": markdown(name),
            "color": f"#{bytes(color).hex()}",
            "share": percent(pixels / total),
            "scores": [
                percent(found["per_class_stats"].get(name, {}).get(key))
                for found in scores.values()
                for key in ("iou", "recall", "precision")
            ],
        }
        for i, (name, color, pixels) in enumerate(
            zip(spec.classes.names, spec.classes.colors, report.pixels.tolist(), strict=True)
        )
    ]


def _poor(scores: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """The classes that the model finds badly, by the last part that was scored."""
    if not scores:
        return []
    part, found = list(scores.items())[-1]
    each = {name: stats["iou"] for name, stats in found["per_class_stats"].items() if stats["iou"] is not None}
    low = sorted((iou, name) for name, iou in each.items() if iou < _POOR)
    return [f"{markdown(name)} ({part} IoU {percent(iou)} %)" for iou, name in low]
