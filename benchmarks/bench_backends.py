"""A bundle on onnxruntime against what a user would pick instead, end to end, side by side in one run.

    pip install "segdeploy[all-cpu]" segdeploy-openvino
    python benchmarks/bench_backends.py -o benchmarks/results/backends_<hardware>_<yyyymmdd>
    python benchmarks/bench_backends.py --quick                   # a minute or two: does it work?

Three networks with random weights (`models.py`) are exported; then `segdeploy.benchmark` measures, from a uint8 image
in memory to a uint8 class map in memory, every row in a process of its own, rows taking turns round by round, disturbed
rounds repeated:

    torch eager, channels_last, compile    the weights, with the fast argmax (`max(1).indices`), in inference mode
    onnxruntime                            the bundle
    openvino                               the bundle, with segdeploy-openvino: float32
    openvino-default, by-hand              see `rivals.py`

A ratio is the median over the rounds of one row's time by another's of the same round, with its 95 % bootstrap
interval. It counts only where the labels agree: a row whose labels differ from torch's on more than one pixel in a
thousand, on the pictures that are timed, has its time shown and no ratio. Beside the best torch row there is the best
that computes in float32, as the bundle does: where the CPU knows bfloat16, AMP is fast and changes some labels.
"""

from __future__ import annotations

import argparse
import shlex
import subprocess
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from models import MODELS, make_run
from rivals import BY_HAND, OPENVINO_DEFAULT, PLAIN_FILE, installed, write_plain

from segdeploy.benchmark.run import run_benchmark
from segdeploy.benchmark.timing import paired_ratio
from segdeploy.bundle import open_model
from segdeploy.config.schema import Benchmark
from segdeploy.data.demo import generate
from segdeploy.environment import describe_machine
from segdeploy.files import write_json, write_text
from segdeploy.progress import progress

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from segdeploy.benchmark.result import BenchmarkResult, Row

EAGER, OURS = "torch eager", "onnxruntime"
BACKENDS = ("torch", "onnxruntime", "openvino", OPENVINO_DEFAULT, BY_HAND)
AGREEMENT = 0.999
PICTURES = 16


def measure(name: str, size: tuple[int, int], settings: Benchmark, folder: Path, *, compiled: bool) -> BenchmarkResult:
    """Export one of `MODELS` by the command line, and measure all rows; `folder` holds the pictures' table."""
    run = make_run(name, size, folder / name)
    bundle = folder / f"{name} bundle"
    command = [sys.executable, "-m", "segdeploy", "export", str(run), "-o", str(bundle)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    write_plain(run, bundle / PLAIN_FILE)
    with progress(name) as step:
        return run_benchmark(
            open_model(bundle),
            folder / "data" / "dataset.csv",
            settings=settings,
            backends=BACKENDS,
            compile=compiled,
            device="cpu",
            pictures=0,
            progress=lambda what, done, total: step(done, total),
        )


def rounds_of(row: Row) -> Sequence[Sequence[float]]:
    """Milliseconds of a row's calls, round by round; empty where it failed."""
    return row.latency.samples if row.latency else ()


def ratio(over: Row, row: Row) -> tuple[float, float, float] | None:
    """How many times as fast `row` is as `over`: median, low, high; None where one of them failed."""
    both = rounds_of(over), rounds_of(row)
    return paired_ratio(*both) if both[0] and len(both[0]) == len(both[1]) else None


def mean_ratio(pairs: Sequence[tuple[Row, Row]], draws: int = 2000) -> tuple[float, float, float]:
    """Geometric mean over networks of the median ratios, with the 95 % interval of bootstraps over the rounds."""
    draw = np.random.default_rng(0)
    logs = np.zeros(draws)
    middle = 0.0
    for over, row in pairs:
        each = [np.median(a) / np.median(b) for a, b in zip(rounds_of(over), rounds_of(row), strict=True)]
        logs += np.log(np.median(draw.choice(each, (draws, len(each))), axis=1)) / len(pairs)
        middle += float(np.log(np.median(each))) / len(pairs)
    low, high = np.exp(np.percentile(logs, (2.5, 97.5)))
    return float(np.exp(middle)), float(low), float(high)


def summarise(result: BenchmarkResult, threads: int) -> dict[str, Any]:
    """Of one network at one number of threads: each row's time, agreement and ratios."""
    rows = {row.name: row for row in result.rows if row.threads == threads}
    agreement = {a.name: a.label_agreement for a in result.accuracy}
    best, alike = best_torch(rows.values()), best_torch(r for r in rows.values() if r.precision == "fp32")
    found: dict[str, Any] = {
        "best_torch": best.name if best else None,
        "best_torch_fp32": alike.name if alike else None,
        "rows": {},
    }
    for name, row in rows.items():
        same = agreement.get(name)
        counts = row.latency is not None and same is not None and same >= AGREEMENT
        found["rows"][name] = {
            "ms_p50": row.latency.p50 if row.latency else None,
            "ms_min": row.latency.min if row.latency else None,
            "agreement": same,
            "over_eager": ratio(rows[EAGER], row) if counts else None,
            "over_best_torch_fp32": ratio(alike, row) if counts and alike else None,
            "over_best_torch": ratio(best, row) if counts and best else None,
            "first_call_seconds": row.first_call_seconds,
            "steady": row.steady,
            "disturbed_rounds": row.disturbed,
            "repeated_rounds": row.repeated,
            "reason": row.reason,
        }
    return found


def best_torch(rows: Iterable[Row]) -> Row | None:
    """The fastest of torch's rows, compiled ones included."""
    able = [row for row in rows if row.backend == "torch" and row.latency]
    return min(able, key=lambda row: row.latency.p50 if row.latency else np.inf, default=None)


def summary(results: dict[str, BenchmarkResult], threads: int) -> dict[str, Any]:
    """All networks at one number of threads, and the geometric means of our row over torch's."""
    by_model = {name: summarise(result, threads) for name, result in results.items()}
    able = [name for name, one in by_model.items() if one["rows"].get(OURS, {}).get("over_eager")]
    rows = {name: {r.name: r for r in results[name].rows if r.threads == threads} for name in able}
    over: dict[str, Any] = {}
    if len(able) == len(results):
        over["eager"] = mean_ratio([(rows[n][EAGER], rows[n][OURS]) for n in able])
        for best in ("best_torch_fp32", "best_torch"):
            over[best] = mean_ratio([(rows[n][by_model[n][best]], rows[n][OURS]) for n in able])
    return {"models": by_model, "geometric_mean": over}


_OVER = {
    "eager": "torch eager",
    "best_torch_fp32": "the best torch row in float32 of each network",
    "best_torch": "the best torch row of each network, AMP among them",
}


def _said(value: tuple[float, float, float] | None) -> str:
    return f"{value[0]:.2f} ({value[1]:.2f} to {value[2]:.2f})" if value else "-"


def page(content: dict[str, Any]) -> str:
    """The result for people."""
    machine = content["machine"]
    packages = ", ".join(f"{name} {version}" for name, version in machine["packages"].items())
    lines = [
        f"# Backends side by side, {content['created'][:10]}",
        "",
        f"{machine['cpu']}, {machine['cores']} cores, {machine['memory_gib']} GiB, Python {machine['python']}.",
        f"{packages}.",
        f"Load average before the run: {machine['load_average']}.",
        f"Batch 1, {content['size'][1]}x{content['size'][0]}, {content['rounds']} rounds or more.",
        "From a uint8 image in memory to a uint8 class map in memory.",
        "Ratios are medians of paired rounds with 95 % bootstrap intervals: how many times as fast a row is.",
        "",
        "```",
        content["command"],
        "```",
    ]
    for threads, found in content["summary"].items():
        lines += ["", f"## {threads} thread{'s' * (threads != '1')}", ""]
        for name, value in found["geometric_mean"].items():
            lines.append(f"- onnxruntime over {_OVER[name]}, geometric mean: {_said(value)}")
        for model, one in found["models"].items():
            lines += [
                "",
                f"### {model}",
                "",
                "| row | p50, ms | labels as torch's | over torch eager | over the best in float32 | over the best |",
                "|---|--:|--:|--:|--:|--:|",
            ]
            for name, row in one["rows"].items():
                if row["ms_p50"] is None:
                    lines.append(f"| {name} | {row['reason']} | | | | |")
                    continue
                same = "-" if row["agreement"] is None else f"{row['agreement']:.4%}"
                best = {one["best_torch_fp32"]: " (torch's best in float32)", one["best_torch"]: " (torch's best)"}.get(
                    name, ""
                )
                over = " | ".join(_said(row[key]) for key in ("over_eager", "over_best_torch_fp32", "over_best_torch"))
                lines.append(f"| {name}{best} | {row['ms_p50']:.1f} | {same} | {over} |")
            first = one["rows"].get("torch compile", {}).get("first_call_seconds")
            if first:
                lines += ["", f"torch.compile's first call, its compilation, took {first:.0f} s."]
    return "\n".join(lines) + "\n"


def main(arguments: list[str] | None = None) -> None:
    """See the module's text."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--size", type=int, nargs=2, default=(352, 480), metavar=("HEIGHT", "WIDTH"))
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--seconds", type=float, default=10.0, help="rounds go on at least for so long")
    parser.add_argument("--no-compile", action="store_true", help="leave torch.compile out")
    parser.add_argument("--quick", action="store_true", help="small images, few rounds: not a measurement")
    parser.add_argument("-o", "--output", type=Path, help="write OUTPUT.json and OUTPUT.md")
    said = sys.argv[1:] if arguments is None else arguments
    given = parser.parse_args(said)
    if given.quick:
        given.size, given.rounds, given.seconds = (64, 96), 4, 0.0
    settings = Benchmark(
        batches=(1,),
        threads=tuple(given.threads),
        rounds=given.rounds,
        seconds=given.seconds,
        warmup_seconds=0 if given.quick else 20,
        cold_starts=0,
    )
    machine = describe_machine()  # with the load before our own begins
    results: dict[str, BenchmarkResult] = {}
    with tempfile.TemporaryDirectory() as folder, installed(Path(folder) / "rivals"):
        generate(Path(folder) / "data", count=PICTURES, size=tuple(given.size))
        for name in given.models:
            results[name] = measure(name, tuple(given.size), settings, Path(folder), compiled=not given.no_compile)
    content = {
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": shlex.join(
            ["python", "benchmarks/bench_backends.py", *(sys.argv[1:] if arguments is None else arguments)]
        ),
        "machine": machine,
        "size": given.size,
        "rounds": given.rounds,
        "summary": {str(t): summary(results, t) for t in given.threads},
        "results": {name: result.model_dump(mode="json") for name, result in results.items()},
    }
    print(page(content))
    if given.output is not None:
        write_json(given.output.with_suffix(".json"), content)
        write_text(given.output.with_suffix(".md"), page(content))


if __name__ == "__main__":
    main()
