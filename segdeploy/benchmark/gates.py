"""Gates held against a result. None is ever kept for want of a number.

A gate is not kept where its selector finds no row, where a row that it selects has failed, and where the number was not
measured or cannot be compared.
"""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from segdeploy.benchmark.numbers import at_scored_size, change_of, number_of, row_label, row_name
from segdeploy.benchmark.outcome import GateCheck
from segdeploy.benchmark.plan import plan_groups
from segdeploy.config.gates import NUMBERS
from segdeploy.errors import ConfigError, GateError, suggest
from segdeploy.plugin import registry

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from segdeploy.benchmark.outcome import RowChange
    from segdeploy.benchmark.result import BenchmarkResult, Row
    from segdeploy.bundle import Bundle
    from segdeploy.config.gates import Gate
    from segdeploy.config.schema import Benchmark

ALL_ROWS = "all rows"
_UNTOLD = ("not comparable", "too few rounds", "fails now", "failed in both")
"""Verdicts that leave open whether a row became slower."""


def selectable(bundle: Bundle, settings: Benchmark, backends: Sequence[str] | None) -> dict[str, Collection[str]]:
    """What the rows of a benchmark will have, for `check_selectors`; `backends` are those that were asked for."""
    plugins = registry.catalogue("backend").plugins
    names = list(backends or plugins)
    held = {precision for name in names if name in plugins for precision in plugins[name].precisions}
    groups = plan_groups(bundle, settings)
    known: dict[str, Collection[str]] = {"backend": names, "precision": sorted(held | {"bf16"})}  # torch's AMP
    return known | {key: [str(n) for n in sorted({getattr(g, key) for g in groups})] for key in NUMBERS}


def check_selectors(gates: Iterable[Gate], known: Mapping[str, Collection[str]], *, compares: bool) -> None:
    """Refuse, before anything is measured, a gate that no row could keep.

    Args:
        gates: the gates.
        known: by a selector's key what the rows will have, such as {"batch": ("1", "4")}; keys that are not in it
            are not checked.
        compares: whether there is an older report.

    Raises:
        ConfigError: one line per gate.
    """
    mistakes = []
    for gate in gates:
        for key, value in gate.selector:
            if key in known and not any(_matches(word, key, value) for word in known[key]):
                mistakes.append(f"gate {gate.text}: no row will have {key} {value!r}{suggest(value, known[key])}")
        if gate.metric.source.startswith(("change.", "run.slower", "run.lost")) and not compares:
            mistakes.append(f"gate {gate.text}: needs {gate.metric.needs}")
    if mistakes:
        raise ConfigError("\n".join(mistakes))


def hold(gates: Iterable[Gate], result: BenchmarkResult) -> tuple[GateCheck, ...]:
    """Every gate against every row that it selects, in the order of gates and rows.

    Scores are taken once, at batch 1 and the model's own size, so they are held once for the rows of a name.
    """
    checks: list[GateCheck] = []
    for gate in gates:
        if gate.metric.source.startswith("run."):
            checks.append(_hold_run(gate, result))
            continue
        held: dict[str, list[Row]] = {}
        for row in result.rows:
            if _selects(gate, row):
                held.setdefault(row_name(row) if gate.metric.is_score else row_label(row), []).append(row)
        checks += [_hold_rows(gate, label, rows, result) for label, rows in held.items()]
        checks += [] if held else [_nothing(gate, result.rows)]
    return tuple(checks)


def raise_broken(checks: Sequence[GateCheck]) -> None:
    """GateError with a line for each gate that was not kept, if there is one."""
    broken = [c.message for c in checks if not c.passed]
    if broken:
        of = f"{len(checks)} gate{'s' * (len(checks) > 1)}"
        raise GateError("\n  ".join([f"{len(broken)} of {of} not kept:", *broken]))


def _selects(gate: Gate, row: Row | RowChange) -> bool:
    keys = {key for key, _ in gate.selector}
    if row.backend == "torch" and not keys & {"backend", "name"}:
        return False  # measured to compare with
    return all(_matches(str(getattr(row, key) or ""), key, value) for key, value in gate.selector)


def _matches(word: str, key: str, value: str) -> bool:
    return word == value if key in NUMBERS else fnmatchcase(word.lower(), value.lower())


def _hold_rows(gate: Gate, label: str, rows: Sequence[Row], result: BenchmarkResult) -> GateCheck:
    """One row, or all rows that share a score."""
    found = [None if r.status == "failed" else number_of(gate.metric.name, result, r) for r in rows]
    if None not in found:
        return _check(gate, label, found[0])
    row = rows[found.index(None)]
    where = f"{row_label(row)}: " if len(rows) > 1 else ""
    return _check(gate, label, None, where + _missing(gate, row, result))


def _missing(gate: Gate, row: Row, result: BenchmarkResult) -> str:
    """Why the row has no such number."""
    if row.status == "failed":
        return f"the row failed: {row.reason or 'no reason on record'}"
    if gate.metric.is_score and not at_scored_size(result, row):
        model = result.spec.preprocessing
        return (
            f"the score was taken at {model.width}x{model.height} only; "
            f"[height={model.height},width={model.width}] selects rows of that size"
        )
    if gate.metric.source.startswith("change."):
        change = change_of(result, row)
        if change is None:
            return "there is no older report"
        if change.verdict in ("new", "not comparable", "works again", "too few rounds"):
            return f"{change.verdict}: {change.why}"
        return "it is not known of both reports, or the two cannot be compared"
    return f"it needs {gate.metric.needs}" if gate.metric.needs else "it was not measured"


def _hold_run(gate: Gate, result: BenchmarkResult) -> GateCheck:
    changes = result.comparison.rows if result.comparison else ()
    rows = [r for r in result.rows if _selects(gate, r)]
    compared = [r for r in changes if _selects(gate, r)]
    if gate.metric.name == "failed_rows":
        if not rows:
            return _nothing(gate, result.rows)
        failed = [row_label(r) for r in rows if r.status == "failed"]
        return _check(gate, ALL_ROWS, len(failed), named=failed)
    if not any(r.verdict != "new" for r in compared):
        return _check(gate, ALL_ROWS, None, "it selects no row of the older report")
    if gate.metric.name == "lost_rows":
        lost = [row_label(r) for r in compared if r.verdict in ("gone", "fails now")]
        return _check(gate, ALL_ROWS, len(lost), named=lost)
    if untold := [r for r in compared if r.verdict in _UNTOLD]:
        return _check(gate, ALL_ROWS, None, f"{row_label(untold[0])}: {untold[0].why}")
    slower = [row_label(r) for r in compared if r.verdict == "slower"]
    return _check(gate, ALL_ROWS, len(slower), named=slower)


def _nothing(gate: Gate, rows: Iterable[Row]) -> GateCheck:
    known = "; ".join(row_label(r) for r in rows)
    return _check(gate, ALL_ROWS, None, f"{gate.text} selects no row; there are: {known or 'none'}")


def _check(gate: Gate, row: str, value: float | None, missing: str = "", named: Sequence[str] = ()) -> GateCheck:
    metric = gate.metric
    unit = "" if metric.unit in ("fraction", "x", "rows", "rounds") else f" {metric.unit}"
    if value is None:
        message = f"{row}: {metric.name} is not known: {missing}"
    else:
        which = f" ({'; '.join(named)})" if named else ""
        message = (
            f"{row}: {metric.name} is {_figure(gate, value)}{unit}{which}, expected {gate.operator} {gate.limit:.12g}"
        )
    return GateCheck(
        gate=gate.text,
        row=row,
        metric=metric.name,
        unit=metric.unit,
        operator=gate.operator,
        limit=gate.limit,
        value=value,
        passed=value is not None and gate.kept(value),
        message=message,
    )


def _figure(gate: Gate, value: float) -> str:
    """Few digits, but all of them where few would show a value on the wrong side of its limit."""
    few = f"{value:.1f}" if abs(value) >= 1000 else f"{value:.4g}"
    return few if gate.kept(float(few)) == gate.kept(value) else repr(value)
