"""What will not build with TensorRT, or builds and does badly: one table over an ONNX graph. Needs no TensorRT.

The rows stand in the `lint_*` modules that `_PARTS` names. Where their facts come from:

- `RTX`: what the parser and builder of TensorRT for RTX 1.7.1 said, run on a CPU; tests/export/test_lint.py asks again
- `operators.md`: https://github.com/onnx/onnx-tensorrt/blob/main/docs/operators.md of TensorRT 10.15
- `changelog`: docs/Changelog.md beside it, and the release notes of TensorRT 11.0 to 11.5
- `types`: https://docs.nvidia.com/deeplearning/tensorrt/latest/inference-library/accuracy-considerations.html
- `parser`: source of the ONNX parser of 10.1
"""

from __future__ import annotations

import logging
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from segdeploy.errors import ExportError
from segdeploy.export import lint_attributes, lint_inputs, lint_operators, lint_quantized, lint_types
from segdeploy.export.lint_graph import Graph
from segdeploy.export.lint_row import Row, Severity, concerns

if TYPE_CHECKING:
    import onnx

log = logging.getLogger(__name__)

_PARTS = (lint_operators, lint_quantized, lint_types, lint_attributes, lint_inputs)
TABLE: tuple[Row, ...] = tuple(row for part in _PARTS for row in part.ROWS)
_SHOWN = 3


@dataclass(frozen=True, slots=True)
class Finding:
    """A node that a row of the table is about."""

    row: str
    severity: Severity
    node: str
    operator: str
    layer: str
    """Path of the torch module that the node was traced from; empty where the file does not say."""
    reason: str
    fix: str
    versions: tuple[str, ...]

    def __str__(self) -> str:
        where = f" of {self.layer}" if self.layer else ""
        said = ", ".join(self.versions)
        return f"{self.row}: {self.node} ({self.operator}){where}: {self.reason}; {self.fix} [TensorRT {said}]"

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return asdict(self)


def lint(model: onnx.ModelProto, target: str | None = None) -> list[Finding]:
    """Every node that a row of the table is about, errors first, in the order of the table and of the graph.

    Args:
        model: any ONNX graph; FP16, QDQ, branches and local functions included. External data is not needed.
        target: keep the rows that concern this one: `RTX`, or a version of TensorRT (`10.16`, `11`). None: all.
    """
    graph = Graph(model)
    by_operator: dict[str, list[Row]] = {}
    for row in TABLE:
        if target is None or concerns(row.versions, target):
            for operator in row.operators.split():
                by_operator.setdefault(operator, []).append(row)
    order = {row.name: i for i, row in enumerate(TABLE)}
    found = []
    for node in (*graph.own, *graph.nodes):
        for row in (*by_operator.get(node.operator, ()), *by_operator.get("*", ())):
            detail = row.when(node)
            if detail:
                reason = f"{row.reason} ({detail})" if isinstance(detail, str) else row.reason
                name = node.proto.name or ", ".join(node.proto.output)
                found.append(
                    Finding(row.name, row.severity, name, node.operator, node.layer, reason, row.fix, row.versions)
                )
    return sorted(found, key=lambda f: (f.severity != "error", order[f.row]))


def check_graph(model: onnx.ModelProto, precision: str, target: str | None = None) -> list[Finding]:
    """What an export asks of each graph that it writes.

    A graph with an error makes no engine, so an export that is to end in one (`target` given) stops here, before
    minutes of building. Without, the graph is still good for every other runtime: the same line is a warning.

    Args:
        model: the graph.
        precision: what messages call it: fp32, fp16, int8.
        target: what an engine is to be built with: `RTX`, or a version of TensorRT; None: no engine is asked for.

    Returns:
        The findings.

    Raises:
        ExportError: `target` is given and a row of severity error concerns it.
    """
    found = lint(model, target)
    errors = [f for f in found if f.severity == "error"]
    if errors and target is not None:
        raise ExportError(f"the {precision} graph will not build with TensorRT: {_few(errors)}")
    if errors:
        log.warning("the %s graph will not build with TensorRT: %s", precision, _few(errors))
    weak = [f for f in found if f.severity == "warning"]
    if weak:
        log.warning("the %s graph builds with TensorRT, and does badly there: %s", precision, _few(weak))
    return found


def _few(found: list[Finding]) -> str:
    """The first node of each row, of a few rows."""
    first = {f.row: str(f) for f in reversed(found)}
    shown = list(dict.fromkeys(f.row for f in found))[:_SHOWN]
    more = f"; {len(found)} nodes in all, see segdeploy inspect --trt" if len(found) > len(shown) else ""
    return "; ".join(first[row] for row in shown) + more
