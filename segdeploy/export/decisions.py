"""Which precision each node of a graph got, and why: a table that stands in the bundle. Needs no onnx."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from segdeploy.errors import ModelError
from segdeploy.tables import text_table

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from segdeploy.bundle import Bundle


@dataclass(frozen=True, slots=True)
class Decision:
    """One node. `range`: the largest absolute value of its outputs that was seen; None: it was not looked at."""

    node: str
    operator: str
    precision: str
    range: float | None
    reason: str


def decisions_json(decisions: Sequence[Decision]) -> dict[str, Any]:
    """What `decisions.fp16.json` holds."""
    return {"schema_version": 1, "decisions": [asdict(d) for d in decisions]}


def read_decisions(opened: Bundle) -> dict[str, Any]:
    """The contents of a bundle's decision files by the name of the file.

    Raises:
        ModelError: it has none, as its graphs are FP32.
    """
    if opened.file is None:
        raise ModelError(f"{opened.path}: expected a bundle, which holds these tables; a run and a lone file do not")
    files = [a.file for a in opened.artifacts if a.kind == "decisions"]
    if not files:
        raise ModelError(
            f"{opened.path}: its graphs are FP32 throughout; segdeploy export --precision fp16,int8 makes others"
        )
    return {name: json.loads((opened.path / name).read_text(encoding="utf-8")) for name in files}


def decisions_text(content: Mapping[str, Any]) -> str:
    """The table of such a file for the terminal: first what stays in FP32 and why, then how many nodes of each kind."""
    rows = [Decision(**row) for row in content["decisions"]]
    kept = [d for d in rows if d.precision == "fp32"]
    said = [f"FP32: {len(kept)} of {len(rows)} nodes"]
    if kept:
        cells = [[d.node, d.operator, d.reason, "-" if d.range is None else f"{d.range:.3g}"] for d in kept]
        said.append(text_table(["node", "operator", "why in FP32", "largest value"], cells, left=3))
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for d in rows:
        counts[d.precision][d.operator] += 1
    for precision, operators in sorted(counts.items()):
        each = ", ".join(f"{operator} {count}" for operator, count in operators.most_common())
        said.append(f"{precision}: {sum(operators.values())} nodes ({each})")
    return "\n".join(said)
