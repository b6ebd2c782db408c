"""Where two graphs part: the first tensors that both have and that differ, with node, layer and range.

Nodes and tensors keep their names from `model.onnx` to the graphs made of it, so tensors are matched by name; casts
and quantisers between them have names of their own. A graph that holds FP16 is run as on a GPU (`export.half`), any
other by onnxruntime on the CPU. What runs without names, a backend, is compared by its masks.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from segdeploy.bundle import open_model
from segdeploy.data.images import read_image
from segdeploy.data.natural import natural_images
from segdeploy.data.resize import resize_image
from segdeploy.errors import ExportError, ModelError, first_line
from segdeploy.export.graph import HALF, GraphView, is_float, load_graph, session_of
from segdeploy.export.half import rounded
from segdeploy.plugin import registry
from segdeploy.runtime.runner import RunnerOptions, open_runner
from segdeploy.tables import percent, text_table

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import onnx
    from numpy.typing import NDArray

TOLERANCE = 0.01
_AT_ONCE = 48


@dataclass(frozen=True, slots=True)
class Parting:
    """A tensor that differs by more than the tolerance.

    `error` is the norm of the difference over the norm of A's values; for integers (class ids), the share that differs;
    None where the shapes differ, where A is 0 all over, or where one side alone is infinite or not a number. The
    ranges are (smallest, largest) of the finite values; `wrong_b` is the share of B's values that are not finite.
    """

    tensor: str
    node: str
    operator: str
    layer: str
    error: float | None
    range_a: tuple[float, float] | None
    range_b: tuple[float, float] | None
    wrong_b: float


@dataclass(frozen=True, slots=True)
class Diff:
    """`partings` in the order of A's nodes; `agreement` is the share of pixels with the same class."""

    compared: int
    partings: tuple[Parting, ...]
    agreement: float
    tolerance: float

    @property
    def equal(self) -> bool:
        """Whether no tensor that was compared differs by more than the tolerance."""
        return not self.partings

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {"equal": self.equal, **asdict(self)}


def split_what(word: str) -> tuple[str, str]:
    """`PATH@WHAT` as its two parts; without `@`, WHAT is ""."""
    path, _, what = word.rpartition("@")
    return (path, what) if path and "/" not in what else (word, "")


def diff(
    a: Path, b: Path, image: NDArray[np.uint8], what_a: str = "", what_b: str = "", tolerance: float = TOLERANCE
) -> Diff:
    """Compare two models on `image` (N, H, W, 3).

    Args:
        a: an .onnx file, a bundle or a run.
        b: the same.
        image: at a size that both take.
        what_a: of a bundle, the precision of its graph ("fp32" if empty), or a backend's name, which gives masks alone.
        what_b: the same.
        tolerance: see `Parting.error`.

    Raises:
        ModelError, MissingPartError: a side cannot be opened.
        ExportError: a graph that onnxruntime cannot run on the image.
    """
    graphs = (_graph(a, what_a), _graph(b, what_b))
    if graphs[0] is not None and graphs[1] is not None:
        return diff_graphs(graphs[0], graphs[1], image, tolerance)
    sides = zip(graphs, (a, b), (what_a, what_b), strict=True)
    x, y = (_mask_of_backend(path, what, image) if g is None else _run(_runnable(g), ["mask"], image)[0]
            for g, path, what in sides)  # fmt: skip
    error = _error(x, y)
    parting = Parting("mask", "", "", "", error, _range(x), _range(y), _wrong(y))
    return Diff(1, (parting,) if _parts(error, tolerance) else (), _agreement(error), tolerance)


def diff_graphs(a: onnx.ModelProto, b: onnx.ModelProto, image: NDArray[np.uint8], tolerance: float = TOLERANCE) -> Diff:
    """Compare each tensor that nodes of both graphs write under one name, some dozens at a time to spare memory.

    Raises:
        ModelError: the graphs' outputs have other names.
        ExportError: a graph that onnxruntime cannot run on the image.
    """
    view = GraphView(a)
    in_b = {name for node in GraphView(b).nodes for name in node.output if name}
    places = {name: i for i, node in enumerate(view.nodes) for name in node.output if name in in_b}
    outputs = [v.name for v in a.graph.output]
    if outputs[0] not in places:
        raise ModelError(f"expected two graphs that both give {outputs[0]!r}, and the second does not")
    partings, agreement = [], 1.0
    for name, x, y in _values((_runnable(a), _runnable(b)), list(places), image):
        error, node = _error(x, y), view.nodes[places[name]]
        if name == outputs[0]:
            agreement = _agreement(error)
        if _parts(error, tolerance):
            layer = view.layer_of(places[name])
            partings.append(Parting(name, node.name, node.op_type, layer, error, _range(x), _range(y), _wrong(y)))
    return Diff(len(places), tuple(partings), agreement, tolerance)


def diff_text(found: Diff, names: tuple[str, str], count: int) -> str:
    """The first `count` tensors that part, in the order in which A computes them."""
    said = [f"A {names[0]}", f"B {names[1]}"]
    if found.equal:
        said.append(f"equal: none of {found.compared} tensors differs by more than {found.tolerance:g}")
    else:
        first = f", the first {count} of them" if len(found.partings) > count else ""
        said.append(
            f"{len(found.partings)} of {found.compared} tensors differ by more than {found.tolerance:g}{first}:"
        )
        head = ["tensor", "node", "operator", "layer", "error", "A from", "to", "B from", "to", "inf or NaN in B %"]
        said.append(text_table(head, [_row(p) for p in found.partings[:count]], left=4))
    said.append(f"pixels of the same class: {percent(found.agreement, 3)} %")
    return "\n".join(said)


def _row(p: Parting) -> list[str]:
    ends = [f"{end:.4g}" for pair in (p.range_a, p.range_b) for end in (pair or (np.nan, np.nan))]
    return [
        p.tensor,
        p.node,
        p.operator,
        p.layer,
        "-" if p.error is None else f"{p.error:.3g}",
        *ends,
        percent(p.wrong_b),
    ]


def input_of(path: Path, file: Path | None) -> NDArray[np.uint8]:
    """(1, H, W, 3) at the model's size: the picture of `file`, or without one a made-up picture like a photograph.

    Raises:
        ModelError, DataError: the model does not say its size, or the picture cannot be read.
    """
    preprocessing = open_model(path).spec.preprocessing
    if file is None:
        return natural_images(2, (preprocessing.height, preprocessing.width))[:1]
    return resize_image(read_image(file), preprocessing)[None]


def _values(
    graphs: tuple[onnx.ModelProto, onnx.ModelProto], names: list[str], image: NDArray[np.uint8]
) -> Iterator[tuple[str, NDArray[Any], NDArray[Any]]]:
    for start in range(0, len(names), _AT_ONCE):
        some = names[start : start + _AT_ONCE]
        yield from zip(some, *(_run(graph, some, image) for graph in graphs), strict=True)


def _run(graph: onnx.ModelProto, names: list[str], image: NDArray[np.uint8]) -> list[NDArray[Any]]:
    session = session_of(graph, names)
    try:
        values: list[NDArray[Any]] = session.run(None, {session.get_inputs()[0].name: image})
    except Exception as e:  # onnxruntime's errors have no common base of their own
        raise ExportError(f"onnxruntime cannot run the graph on the image: {first_line(e)[:300]}") from e
    return values


def _runnable(graph: onnx.ModelProto) -> onnx.ModelProto:
    return rounded(graph) if HALF in GraphView(graph).types.values() else graph


def _error(x: NDArray[Any], y: NDArray[Any]) -> float | None:
    if x.shape != y.shape:
        return None
    if not is_float(x):
        return float((x != y).mean()) if x.size else 0.0
    p, q = x.astype(np.float64), y.astype(np.float64)
    # Infinite on both sides, as in masks of attention, is no difference.
    same = (p == q) | (np.isnan(p) & np.isnan(q))
    p, q = np.where(same & ~np.isfinite(p), 0, p), np.where(same & ~np.isfinite(q), 0, q)
    if not (np.isfinite(p).all() and np.isfinite(q).all()):
        return None
    off, size = float(np.linalg.norm(p - q)), float(np.linalg.norm(p))
    return off / size if size else None if off else 0.0


def _parts(error: float | None, tolerance: float) -> bool:
    return error is None or error > tolerance


def _agreement(error: float | None) -> float:
    return 0.0 if error is None else 1 - error


def _wrong(x: NDArray[Any]) -> float:
    return float((~np.isfinite(x)).mean()) if x.size and is_float(x) else 0.0


def _range(x: NDArray[Any]) -> tuple[float, float] | None:
    finite = x[np.isfinite(x)] if is_float(x) else x
    return (float(finite.min()), float(finite.max())) if finite.size else None


def _graph(path: Path, what: str) -> onnx.ModelProto | None:
    """The ONNX graph of that precision; None where `what` names a backend."""
    if what in registry.catalogue("backend").plugins:
        return None
    if path.suffix == ".onnx":
        if what:
            raise ModelError(f"{path}@{what}: an .onnx file has one precision; expected a backend's name behind @")
        return load_graph(path)
    bundle, precision = open_model(path), what or "fp32"
    # FP32's form for a CPU has other tensors than torch's graph.
    first, second = ("tensorrt", "cpu") if precision == "fp32" else ("cpu", "tensorrt")
    found = bundle.find("onnx", precision, first) or bundle.find("onnx", precision, second)
    if found is None:
        held = ", ".join(sorted({a.precision for a in bundle.artifacts if a.kind == "onnx"})) or "no graph"
        backends = ", ".join(sorted(registry.catalogue("backend").plugins))
        raise ModelError(f"{path}@{precision}: expected a precision that it holds ({held}) or a backend ({backends})")
    return load_graph(bundle.path / found.file)


def _mask_of_backend(path: Path, backend: str, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    # An engine is on a GPU and of a precision of its own; whoever can run on the CPU is compared there.
    engine = registry.backend(backend).artifact == "engine"
    options = RunnerOptions(precision="auto") if engine else RunnerOptions(device="cpu")
    with open_runner(open_model(path), backend, options) as runner:
        return runner.run(image)
