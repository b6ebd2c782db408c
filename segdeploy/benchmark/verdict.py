"""What the numbers say, in plain words and no more than that."""

from __future__ import annotations

from textwrap import shorten
from typing import TYPE_CHECKING, NamedTuple

from segdeploy.benchmark import outline
from segdeploy.benchmark.compare import DISTURBED
from segdeploy.benchmark.numbers import at_scored_size
from segdeploy.pages.formats import TIMES, differs, figure, interval, percent, plural, points, share, times

if TYPE_CHECKING:
    from collections.abc import Iterator

    from segdeploy.benchmark.outline import Group
    from segdeploy.benchmark.result import Accuracy, BenchmarkResult, Row

FEW_ROUNDS = 5
"""With fewer rounds than this an interval says little."""
APART = 0.1
"""More than this between the ratio of the medians and that of the fastest calls, and neither is to be believed."""
_MANY = 3
"""More settings than this are told as a range."""


class Verdict(NamedTuple):
    """The first thing that a reader sees."""

    headline: str
    findings: tuple[str, ...]
    """What else was found, each a sentence or two."""
    cautions: tuple[str, ...]
    """What to know before one quotes a number."""

    def __str__(self) -> str:
        return " ".join((self.headline, *self.findings, *self.cautions))


def verdict(result: BenchmarkResult) -> Verdict:
    """Headline, findings and cautions; the headline is about the first group of rows."""
    return Verdict(_headline(result), tuple(_findings(result)), tuple(_cautions(result)))


def judge(row: Row, rounds: int) -> str:
    """ "faster", "slower" or "equal" than the baseline; "unsure", "unknown" or "failed" where that cannot be said."""
    if row.status == "failed" or row.speedup is None:
        return "failed" if row.status == "failed" else "unknown"
    if row.speedup_low is None or row.speedup_high is None or _doubt(row, rounds):
        return "unsure"
    # By the digits that a reader sees: [1.00, 1.05] is no proof of anything.
    low, high = float(times(row.speedup_low)), float(times(row.speedup_high))
    return "faster" if low > 1 else "slower" if high < 1 else "equal"


def _doubt(row: Row, rounds: int) -> str | None:
    """Why the speed-up is not to be believed, in words. What disturbs a round disturbs it for all rows of a group."""
    rounds = row.rounds or rounds
    if row.speedup_low is None:
        return "there is no interval"
    if rounds < FEW_ROUNDS:
        return f"{plural(rounds, 'round')} are too few"
    if row.disturbed and row.disturbed > DISTURBED * rounds:
        return f"other work took the cores during {row.disturbed} of {plural(rounds, 'round')}"
    fastest = row.speedup_of_fastest
    if row.speedup is not None and fastest is not None and abs(fastest / row.speedup - 1) > APART:
        return f"{times(fastest)}x by the fastest calls: measure again on a quieter machine"
    return None


_TOLD = {
    "faster": "{label} is {times} as fast as {base}",
    "slower": "{label} is slower than {base}, {times} as fast",
    "equal": "{label} is neither measurably faster nor slower than {base}, {times} as fast: the interval includes 1.0",
    "unsure": "{label} is {times} as fast as {base} by the median, but {doubt}",
    "unknown": "{label} takes {p50} ms a call, and has no speed-up on record",
    "failed": "{label} failed",
}


def _headline(result: BenchmarkResult) -> str:
    group, best = _subject(result)
    if group is None:
        return "Nothing was measured."
    if best is None:
        return f"Nothing ran at {outline.setting(group)}: every row failed."
    base = group.baseline
    if best is base:
        return f"Only torch ran at {outline.setting(group)}; its fastest row is {outline.label(result, best)}."
    said = [_TOLD[judge(best, result.rounds)].format(**_facts(result, best, base))]
    found = outline.accuracy_of(result, best)
    if best.backend != "torch":
        said.append(_labels(result, best, found[1] if found else None))
    device = "" if outline.on_cpu(best) else f" on {best.provider}"
    return f"{''.join(said)}. That is at {outline.setting(group)}, {group.size}{device}."


def _subject(result: BenchmarkResult) -> tuple[Group | None, Row | None]:
    """The first group, and its fastest row that is not torch; one that keeps torch's labels goes before others."""
    group = next(iter(outline.groups(result)), None)
    if group is None:
        return None, None
    able = sorted((r for _, r in group.rows if r.latency), key=lambda r: r.latency.p50 if r.latency else 0)
    others = [r for r in able if r.backend != "torch"]
    keeping = [r for r in others if (found := outline.accuracy_of(result, r)) and outline.kept(found[1])]
    return group, next(iter([*keeping, *others, *able]), None)


def _facts(result: BenchmarkResult, row: Row, base: Row | None) -> dict[str, str]:
    elsewhere = base is not None and outline.on_cpu(base) != outline.on_cpu(row)
    name = (outline.label(result, base) if base else row.baseline) or "torch"
    on = f" on {base.provider or 'the CPU'}" if elsewhere and base else ""
    return {
        "label": outline.label(result, row),
        "times": interval(row.speedup, row.speedup_low, row.speedup_high),
        "base": f"{name}{on} (the fastest way that was found to run the model in torch)",
        "p50": figure(row.latency.p50 if row.latency else None),
        "doubt": _doubt(row, result.rounds) or "",
    }  # fmt: skip


def _labels(result: BenchmarkResult, row: Row, found: Accuracy | None) -> str:
    truth, model = outline.reference(result), result.spec.preprocessing
    if not at_scored_size(result, row):
        return f"; its accuracy was not measured at this size, only at {model.width} {TIMES} {model.height}"
    if found is None:
        return "; its accuracy was not measured"
    if truth is None or found.label_agreement is None:
        return f"; it was not compared with torch's labels (mIoU {percent(found.mean_iou)} %)"
    delta = f", {points(found.miou_delta)} points" if differs(found.miou_delta) else ""
    scores = f"(mIoU {percent(found.mean_iou)} vs {percent(truth.mean_iou)} %{delta})"
    if found.label_agreement >= 1:
        return f", and gives the same class on every pixel {scores}"
    if outline.kept(found):
        return f", and gives the same class on {share(found.label_agreement)} % of the pixels {scores}"
    return f", but does not keep torch's labels: {share(found.label_agreement)} % of the pixels agree {scores}"


def _findings(result: BenchmarkResult) -> Iterator[str]:
    truth, (group, best) = outline.reference(result), _subject(result)
    if truth is None:
        yield "There is no score of torch, so nothing here says whether accuracy was kept."
    else:
        yield (
            f"On the {plural(result.images, 'image')} of {result.table}, {outline.label(result, truth)} reaches a mean "
            f"IoU of {percent(truth.mean_iou)} %."
        )
    if group is None or best is None:
        yield from _failures(result)
        return
    behind = [
        _short(result, r)
        for _, r in group.rows
        if r is not best and r.backend != "torch" and judge(r, result.rounds) in ("slower", "equal")
    ]
    if behind:
        yield f"Not faster than the baseline in this setting: {', '.join(behind)}."
    yield from _elsewhere(result, group, best)
    lost = [
        f"{outline.label(result, a)} ({share(a.label_agreement)} % of the pixels agree"
        + (f", mIoU {points(a.miou_delta)} points)" if a.miou_delta is not None else ")")
        for _, a in outline.scored(result)
        if a.backend != "torch" and a.label_agreement is not None and not outline.kept(a)
    ]
    if lost:
        yield f"Not the labels of torch: {', '.join(lost)}."
    fastest = min((r for _, r in group.rows if r.latency), key=lambda r: r.latency.p50 if r.latency else 0)
    if fastest is not best and fastest.latency:
        name = outline.label(result, fastest)
        yield f"The lowest median time in this setting is that of {name}: {figure(fastest.latency.p50)} ms."
    yield from _failures(result)


def _elsewhere(result: BenchmarkResult, group: Group, best: Row) -> Iterator[str]:
    found = [
        (g, r)
        for g in outline.groups(result)[1:]
        for _, r in g.rows
        if (r.name, r.precision) == (best.name, best.precision)
    ]
    name, speedups = outline.label(result, best), [r.speedup for _, r in found if r.speedup is not None]
    if not found or best is group.baseline:
        return
    if len(found) <= _MANY or not speedups:
        told = [f"{_short(result, r, named=False)} at {outline.title(result, g)}" for g, r in found[:_MANY]]
        yield f"{name} elsewhere: {', '.join(told)}."
        return
    lost = len(found) - len(speedups)
    yield (
        f"{name} in the {len(found)} other settings: {times(min(speedups))}x to {times(max(speedups))}x as fast as "
        f"each one's baseline{f', {lost} without a speed-up' if lost else ''}."
    )


def _short(result: BenchmarkResult, row: Row, *, named: bool = True) -> str:
    ending = {"equal": " (no measurable difference)", "slower": " (slower)", "unsure": " (not certain)"}
    word = judge(row, result.rounds)
    said = interval(row.speedup, row.speedup_low, row.speedup_high) if word not in ("failed", "unknown") else word
    return f"{outline.label(result, row)} {said}{ending.get(word, '')}" if named else f"{said}{ending.get(word, '')}"


def _failures(result: BenchmarkResult) -> Iterator[str]:
    for name, reason, settings in failures(result):
        where = "everywhere" if len(settings) > 1 and len(settings) == len(outline.groups(result)) else settings[0]
        where = where if where == "everywhere" or len(settings) == 1 else f"{len(settings)} settings"
        yield f"Failed: {name} at {where} ({shorten(reason, 160).rstrip('.')}).".replace("at everywhere", "everywhere")


def failures(result: BenchmarkResult) -> list[tuple[str, str, list[str]]]:
    """Name, reason, and the settings in which it failed for this reason."""
    found: dict[tuple[str, str], list[str]] = {}
    for group in outline.groups(result):
        for _, row in group.rows:
            if row.status == "failed":
                key = (outline.label(result, row), row.reason or "no reason on record")
                found.setdefault(key, []).append(outline.title(result, group))
    return [(*key, settings) for key, settings in found.items()]


def _cautions(result: BenchmarkResult) -> Iterator[str]:
    missed = sum(not g.passed for g in result.gates)
    if missed:
        yield f"{missed} of {plural(len(result.gates), 'check')} against gates not kept, see Gates."
    if any(record.get("passed") is False for record in result.verification):
        yield "The bundle's own comparison with torch was not passed, see Verification."
    timed = [r for r in result.rows if r.latency]
    # A round is disturbed or repeated for all rows of its group at once.
    rounds, disturbed, repeated = (
        sum(max((getattr(r, key) or 0 for _, r in group.rows), default=0) for group in outline.groups(result))
        for key in ("rounds", "disturbed", "repeated")
    )
    if disturbed:
        yield f"Other work took the cores during {disturbed:,} of the {plural(rounds, 'round')} that count."
    if repeated:
        yield f"{plural(repeated, 'disturbed round')} {'was' if repeated == 1 else 'were'} measured again."
    unsteady = sum(r.steady is False for r in timed)
    if unsteady:
        yield f"{plural(unsteady, 'row')} of {len(timed)} had not become steady when the warm-up ended."
    if timed and min(r.rounds or result.rounds for r in timed) < FEW_ROUNDS:
        yield "There are too few rounds for the intervals to mean much."
    yield from result.notes
