"""What changed since an older report, row by row.

Two reports are two runs: their rows did not take turns. So a row is called slower or faster only where

1. the 95 % bootstrap interval of its p50, new / old, lies wholly beyond `NOISE`. Where things happen to lie in memory
   moves a program by about a percent from one run to the next, which no number of rounds in one run can show (Mytkowicz
   et al. 2009, "Producing wrong data without doing anything obviously wrong");
2. its speed-up over torch's row of its own run has changed in the same sense, where torch and the model are the same
   in both: what slows the whole machine slows torch, too. Torch's own rows then only tell how the machine's pace has
   changed, and are neither slower nor faster.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from segdeploy.benchmark.alike import accuracy_differs, other_differences, same_torch, times_differ
from segdeploy.benchmark.bootstrap import p50_ratio_interval, paired_ratios, speedup_ratio_interval
from segdeploy.benchmark.numbers import number_of, row_key, row_label, row_name
from segdeploy.benchmark.outcome import Change, Comparison, RowChange
from segdeploy.config.gate_metrics import METRICS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from segdeploy.benchmark.outcome import Verdict
    from segdeploy.benchmark.result import BenchmarkResult, Row

NOISE = 0.02
"""A smaller change of time than this is not claimed, however narrow its interval."""
MIN_ROUNDS = 5
"""With fewer rounds on a side an interval says nothing."""
DISTURBED = 0.1
"""With a larger share of disturbed rounds than this a row's times are not compared."""

_MOVED = ("slower", "faster")
_TIMES = ("p50_ms", "p99_ms", "engine_p50_ms", "file_p50_ms", "load_s", "cold_s", "first_call_s")
_SCORES = ("miou", "boundary", "agreement")
_COSTS = ("size_mib", "memory_mib", "device_memory_mib")
_WITH_INTERVAL = {"p50_ms": "latency", "engine_p50_ms": "engine", "file_p50_ms": "file_to_file"}


class _Pair(NamedTuple):
    """The same row in both reports."""

    old: Row
    new: Row


def compare(new: BenchmarkResult, old: BenchmarkResult, name: str) -> Comparison:
    """What changed from `old`, whose file is `name`, to `new`."""
    before = {row_key(row): row for row in old.rows}
    kept = {row_key(row) for row in new.rows}
    times, scores = times_differ(new, old), accuracy_differs(new, old)
    rows = [_row(new, old, row, before.get(row_key(row)), times, scores) for row in new.rows]
    rows += [_told(row, "gone", "is not in the newer report") for row in old.rows if row_key(row) not in kept]
    return Comparison(
        against=name,
        created=old.created,
        verdict=_verdict(rows, times, scores),
        times_differ=times,
        accuracy_differs=scores,
        differences=(*other_differences(new, old), *(_drift(rows) if same_torch(new, old) else ())),
        rows=tuple(rows),
    )


def _row(
    new: BenchmarkResult,
    old: BenchmarkResult,
    row: Row,
    before: Row | None,
    times: Sequence[str],
    scores: Sequence[str],
) -> RowChange:
    if before is None:
        return _told(row, "new", "is not in the older report" + ("" if _ran(row) else f"; failed: {row.reason}"))
    if not _ran(row):
        return _told(row, "fails now" if _ran(before) else "failed in both", f"failed: {row.reason}")
    if not _ran(before):
        return _told(row, "works again", f"failed in the older report: {before.reason}")
    pair = _Pair(before, row)
    doubts = [*times, *_doubts(pair)]
    control = _control(new, old, pair) if not doubts else None
    changes = {m: _change(m, old, new, pair, comparable=not doubts) for m in _TIMES}
    changes |= {m: _with_interval(changes[m], pair) for m in _WITH_INTERVAL}
    if control is not None and (against := _against(control, pair)) is not None:
        changes["speedup"] = against
    changes |= {m: _change(m, old, new, pair, comparable=not scores) for m in _SCORES}
    changes |= {m: _change(m, old, new, pair) for m in _COSTS}
    p50, against = changes["p50_ms"], changes.get("speedup")
    known = [c for c in changes.values() if c.old is not None or c.new is not None]
    if doubts:
        return _told(row, "not comparable", "; ".join(doubts), known)
    verdict, why = _judge(p50, against), f"p50 {p50.old:.4g} -> {p50.new:.4g} ms, {_signed(p50)}"
    if row.backend == "torch" and verdict in _MOVED and same_torch(new, old):
        verdict, why = "no measurable change", f"{why}; torch and the model are the same, so this is the machine's pace"
    if against is not None and control is not None:
        why += f"; speed-up over {control.new.name} {against.old:.3g} -> {against.new:.3g}, {_signed(against)}"
        why += "; against torch no change is shown" if verdict != _judge(p50, None) else ""
    return _told(row, verdict, why, known)


def _ran(row: Row) -> bool:
    return row.status == "ok" and row.latency is not None


def _told(row: Row, verdict: Verdict, why: str, changes: Sequence[Change] = ()) -> RowChange:
    key = row.model_dump(include=set(RowChange.model_fields) & set(type(row).model_fields))
    return RowChange(**key, verdict=verdict, why=why, changes=tuple(changes))


def _doubts(pair: _Pair) -> list[str]:
    """Why this row's times cannot be compared."""
    said = []
    if pair.old.provider != pair.new.provider:
        said.append(f"ran on {pair.old.provider or 'something unknown'}, now on {pair.new.provider or '-'}")
    for which, row in zip(("older", "newer"), pair, strict=True):
        if row.disturbed and row.rounds and row.disturbed > DISTURBED * row.rounds:
            said.append(f"other work disturbed {row.disturbed} of {row.rounds} rounds of the {which} report")
    return said


def _control(new: BenchmarkResult, old: BenchmarkResult, pair: _Pair) -> _Pair | None:
    """Torch's row that took turns with this one in both reports: the older baseline, if it is no compiled one."""
    if pair.new.backend == "torch" or not same_torch(new, old):
        return None
    before = {row_key(r): r for r in old.rows if r.backend == "torch" and _ran(r)}
    able = [
        _Pair(before[row_key(r)], r)
        for r in new.rows
        if _ran(r) and row_key(r) in before and row_key(r)[3:] == row_key(pair.new)[3:]
    ]
    able = [p for p in able if not _doubts(p)]
    return min(able, key=lambda p: (p.old.variant.startswith("compile"), p.old.name != pair.old.baseline), default=None)


def _change(metric: str, old: BenchmarkResult, new: BenchmarkResult, pair: _Pair, *, comparable: bool = True) -> Change:
    was, now = number_of(metric, old, pair.old), number_of(metric, new, pair.new)
    change = None
    if comparable and was is not None and now is not None:
        change = now - was if metric in _SCORES else now / was - 1 if was else None
    return Change(
        metric=metric,
        unit=METRICS[metric].unit,
        kind="difference" if metric in _SCORES else "ratio",
        old=was,
        new=now,
        change=change,
    )


def _with_interval(change: Change, pair: _Pair) -> Change:
    sides = [getattr(row, _WITH_INTERVAL[change.metric]) for row in pair]
    if change.change is None or min(len(side.samples) for side in sides) < MIN_ROUNDS:
        return change
    low, high = p50_ratio_interval(*(side.samples for side in sides))
    return change.model_copy(update={"low": low - 1, "high": high - 1})


def _against(control: _Pair, pair: _Pair) -> Change | None:
    """The change of the speed-up over the same row of torch; None without enough rounds that both rows had."""
    ratios = []
    for base, row in zip(control, pair, strict=True):
        assert base.latency is not None
        assert row.latency is not None
        if len(base.latency.samples) != len(row.latency.samples) or len(row.latency.samples) < MIN_ROUNDS:
            return None
        ratios.append(paired_ratios(base.latency.samples, row.latency.samples))
    was, now = (float(np.median(r)) for r in ratios)
    low, high = (end - 1 for end in speedup_ratio_interval(ratios[0], ratios[1]))
    return Change(metric="speedup", unit="x", kind="ratio", old=was, new=now, change=now / was - 1, low=low, high=high)


def _judge(p50: Change, against: Change | None) -> Verdict:
    if p50.low is None or p50.high is None:
        return "too few rounds"
    # A speed-up that falls is a time that rises.
    low, high = (-1.0, 1.0) if against is None else (against.low or 0.0, against.high or 0.0)
    if p50.low > NOISE and (against is None or high < 0):
        return "slower"
    return "faster" if p50.high < -NOISE and (against is None or low > 0) else "no measurable change"


def _signed(change: Change) -> str:
    known = change.low is not None and change.high is not None
    return f"{change.change:+.1%}" + (f" [{change.low:+.1%}, {change.high:+.1%}]" if known else " (no interval)")


def _drift(rows: Sequence[RowChange]) -> list[str]:
    """What torch's rows say of the machine."""
    times = {row_label(r): c for r in rows if r.backend == "torch" for c in r.changes if c.metric == "p50_ms"}
    moved = [f"{name}: {_signed(c)}" for name, c in times.items() if _judge(c, None) in _MOVED]
    head = "torch's own rows moved though torch and the model are the same, so the machine itself has changed pace"
    return [f"{head}: {'; '.join(moved)}"] if moved else []


_WORDS = {
    "slower": "slower",
    "faster": "faster",
    "no measurable change": "without a measurable change of time",
    "too few rounds": f"with fewer than {MIN_ROUNDS} rounds, too few to tell",
    "not comparable": "whose times cannot be compared",
    "new": "new",
    "gone": "gone",
    "fails now": "that failed now and did not before",
    "works again": "that failed before and did not now",
    "failed in both": "that failed in both",
}


_UNNAMED = ("no measurable change", "too few rounds", "not comparable", "failed in both")
_NAMED = 4  # of many rows a reader wants the number; the table has them all


def _verdict(rows: Sequence[RowChange], times: Sequence[str], scores: Sequence[str]) -> str:
    said = [f"Times cannot be compared: {'; '.join(times)}."] if times else []
    for verdict, words in _WORDS.items():
        mine = [row_label(r) for r in rows if r.verdict == verdict]
        if mine and not (times and verdict == "not comparable"):
            more = f" and {len(mine) - _NAMED} more" if len(mine) > _NAMED else ""
            named = "" if verdict in _UNNAMED else f": {'; '.join(mine[:_NAMED])}{more}"
            said.append(f"{len(mine)} row{'s' * (len(mine) > 1)} {words}{named}.")
    said.append(f"Scores cannot be compared: {'; '.join(scores)}." if scores else _scores(rows))
    return " ".join(filter(None, said))


def _scores(rows: Sequence[RowChange]) -> str:
    """What became of the mean IoU, in points, rounded to hundredths."""
    found = {
        row_name(r): c.change * 100 for r in rows for c in r.changes if c.metric == "miou" and c.change is not None
    }
    moved = [f"{name} {points:+.2f}" for name, points in found.items() if round(abs(points), 2) > 0]
    if moved:
        return f"mIoU in points: {', '.join(moved)}."
    return "mIoU is the same." if found else ""
