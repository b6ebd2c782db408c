"""Plain-text tables for the terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from segdeploy.benchmark.result import BenchmarkResult, Row
    from segdeploy.evaluate import EvalResult
    from segdeploy.model.spec import ModelSpec


def text_table(head: Sequence[str], rows: Sequence[Sequence[str]], left: int = 1) -> str:
    """Columns as wide as their widest cell; the first `left` aligned left, the others right."""
    widths = [max(len(row[i]) for row in (head, *rows)) for i in range(len(head))]

    def line(row: Sequence[str]) -> str:
        cells = [c.ljust(w) if i < left else c.rjust(w) for i, (c, w) in enumerate(zip(row, widths, strict=True))]
        return "  ".join(cells).rstrip()

    return "\n".join([line(head), "  ".join("-" * w for w in widths), *(line(r) for r in rows)])


def percent(value: float | None, digits: int = 2) -> str:
    """0.1234 as "12.34"; None and NaN as "-"."""
    return "-" if value is None or value != value else f"{value * 100:.{digits}f}"


def score_table(result: EvalResult, spec: ModelSpec) -> str:
    """Per class and overall, in percent."""
    scores, boundary = result.scores, result.scores.boundary_iou
    rows = [
        [
            name,
            percent(scores.iou[i]),
            percent(boundary[i]),
            percent(scores.accuracy[i]),
            percent(scores.precision[i]),
            f"{scores.confusion[i].sum():,}",
        ]
        for i, name in enumerate(spec.classes.names)
    ]
    means = (scores.mean_iou, scores.mean_boundary_iou, scores.mean_accuracy)
    rows.append(["mean", *map(percent, means), "", f"{scores.confusion.sum():,}"])
    absent = [n for n, v in zip(spec.classes.names, scores.iou, strict=True) if v != v]
    said = [text_table(["class", "IoU %", "boundary IoU %", "accuracy %", "precision %", "pixels"], rows), ""]
    said.append(f"pixel accuracy {percent(scores.pixel_accuracy)} %, {result.images} images, at the {result.at}'s size")
    if absent:
        said.append(f"not in the data nor predicted, so left out of the mean: {', '.join(absent)}")
    runner = result.runner
    said.append(f"{runner['backend']} on {runner['provider']}, {runner['precision']}, {runner['threads']} threads")
    return "\n".join(said)


def benchmark_table(result: BenchmarkResult) -> str:
    """One line per row of a benchmark, with the threads and the size where they tell rows apart."""
    scores = {a.name: a for a in result.accuracy}
    several = len({(r.threads, r.height, r.width) for r in result.rows}) > 1
    head = ["row", *(["threads", "size"] if several else []), "batch", "p50 ms", "engine ms", "p99 ms", "images/s"]
    head += ["speed-up", "mIoU %", "agree %", "peak MiB"]
    rows = []
    for row in result.rows:
        first = [row.name, *([str(row.threads), f"{row.width}x{row.height}"] if several else []), str(row.batch)]
        if row.latency is None:
            rows.append([*first, *["-"] * (len(head) - len(first) - 1), f"failed: {row.reason}"])
            continue
        score = scores.get(row.name)
        rows.append(
            [
                *first,
                f"{row.latency.p50:.1f}",
                f"{row.engine.p50:.1f}" if row.engine else "-",
                f"{row.latency.p99:.1f}",
                f"{row.images_per_second:.1f}",
                _speedup(row),
                percent(score.mean_iou if score else None),
                percent(score.label_agreement if score else None, 4),
                f"{row.peak_memory_mib:.0f}" if row.peak_memory_mib else "-",
            ]
        )
    versus = f"speed-up: over the fastest torch row of the same batch{', threads and size' if several else ''}"
    return text_table(head, rows) + (f"\n{versus}" if result.baseline else "")


def _speedup(row: Row) -> str:
    known = row.speedup is not None and row.speedup_low is not None and row.speedup_high is not None
    return f"{row.speedup:.2f} [{row.speedup_low:.2f}, {row.speedup_high:.2f}]" if known else "-"
