"""What passes over an ONNX graph look up: types, constants, who writes and who reads a tensor, layers, free names."""

from __future__ import annotations

import math
from collections import defaultdict
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper

from segdeploy.environment import available_cores
from segdeploy.errors import ExportError, ModelError, first_line
from segdeploy.export.lint_graph import layer_of
from segdeploy.runtime.ort_runner import import_onnxruntime

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    import onnxruntime as ort
    from numpy.typing import NDArray

FLOAT, HALF = TensorProto.FLOAT, TensorProto.FLOAT16
# Matrix products: the work of a network, and where its weights are.
PRODUCTS = {"Conv", "ConvTranspose", "Einsum", "Gemm", "MatMul"}


_LARGE = 1024  # elements; shapes, sizes, axes and pads have fewer


class GraphView:
    """A copy of a model with its Constant nodes as initializers, and tables of its tensors and nodes.

    Nodes are known by their place in `nodes`, which is topologically sorted; tensors by their names. A constant
    holds its array, a tensor that nothing writes (an input, a constant) has no producer.

    Raises:
        ExportError: a graph inside the graph (If, Loop, Scan) or a local function, or types that do not fit.
    """

    def __init__(self, model: onnx.ModelProto) -> None:
        self.model = onnx.ModelProto()
        self.model.CopyFrom(model)
        graph = self.model.graph
        inner = [n for n in graph.node if any(a.HasField("g") or a.graphs for a in n.attribute)]
        if inner:
            raise ExportError(f"{inner[0].name} ({inner[0].op_type}): holds a graph of its own; write it without")
        if model.functions:
            raise ExportError(f"function {model.functions[0].name}: expected a graph of plain operators; inline it")
        _constants_as_initializers(graph)
        self.nodes = list(graph.node)
        inferred = infer(self.model)
        self.types, self.ranks = _types(inferred), _ranks(inferred)
        self.constants: dict[str, NDArray[Any]] = {c.name: numpy_helper.to_array(c) for c in graph.initializer}
        self.producer = {name: i for i, node in enumerate(self.nodes) for name in node.output if name}
        self.readers: dict[str, list[int]] = defaultdict(list)
        for i, node in enumerate(self.nodes):
            for name in dict.fromkeys(node.input):
                self.readers[name].append(i)
        self.opset = next((o.version for o in model.opset_import if o.domain in ("", "ai.onnx")), 0)

    def layer_of(self, place: int) -> str:
        """The torch module that a node was traced from, where the file says so; else a guess; "" where there is none.

        The guess is the module whose weights the node reads, or those of the last node before it that reads any:
        torch's exporter names a weight by its module, `segmenter.decoder.fuse.weight`.
        """
        if known := layer_of(self.nodes[place]):
            return known
        seen, at = {place}, {place}
        while at:
            here = max(at)
            for name in self.nodes[here].input:
                if name in self.constants and name.endswith((".weight", ".bias")):
                    return str(name).rpartition(".")[0].removeprefix("segmenter.")
            before = {self.producer[name] for name in self.nodes[here].input if name in self.producer} - seen
            seen |= before
            at = (at | before) - {here}
        return ""


def infer(model: onnx.ModelProto) -> onnx.GraphProto:
    """The graph with types and shapes of all tensors, inferred strictly; ExportError where they do not fit."""
    bare = without_weights(model)
    del bare.graph.value_info[:]
    try:
        return onnx.shape_inference.infer_shapes(bare, check_type=True, strict_mode=True).graph
    except onnx.shape_inference.InferenceError as e:
        raise ExportError(f"the graph's types or shapes do not fit: {first_line(e)[:300]}") from e


def without_weights(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy for inferring shapes: large initializers have types and shapes alone, as no shape hangs on their values.

    Handing hundreds of megabytes to onnx's inference and back takes seconds.
    """
    bare = onnx.ModelProto(ir_version=model.ir_version, opset_import=model.opset_import, functions=model.functions)
    for field, value in model.graph.ListFields():
        if field.name == "initializer":
            for held in value:
                large = math.prod(held.dims) > _LARGE
                kept = onnx.TensorProto(name=held.name, data_type=held.data_type, dims=held.dims) if large else held
                bare.graph.initializer.append(kept)
        elif isinstance(value, str):
            setattr(bare.graph, field.name, value)
        else:
            getattr(bare.graph, field.name).extend(value)
    return bare


def _types(graph: onnx.GraphProto) -> dict[str, int]:
    found = {v.name: v.type.tensor_type.elem_type for v in (*graph.value_info, *graph.input, *graph.output)}
    return found | {c.name: c.data_type for c in graph.initializer}


def _ranks(graph: onnx.GraphProto) -> dict[str, int]:
    known = [v for v in (*graph.value_info, *graph.input) if v.type.tensor_type.HasField("shape")]
    return {v.name: len(v.type.tensor_type.shape.dim) for v in known}


class Names:
    """Names that nothing in the model has yet."""

    def __init__(self, model: onnx.ModelProto) -> None:
        graph = model.graph
        self._taken = {v.name for v in (*graph.input, *graph.output, *graph.initializer)}
        for node in graph.node:
            self._taken.update((node.name, *node.input, *node.output))

    def cast(self, source: str, target: str, to: int) -> onnx.NodeProto:
        """A Cast node, named after what it writes."""
        return onnx.helper.make_node("Cast", [source], [target], name=self.new(f"node_{target}"), to=to)

    def new(self, wish: str) -> str:
        """`wish`, or with a number behind it; taken from now on."""
        name, count = wish, 1
        while name in self._taken:
            name, count = f"{wish}.{count}", count + 1
        self._taken.add(name)
        return name


def session_of(
    model: onnx.ModelProto, outputs: Iterable[str] | None = None, *, fast: bool = False
) -> ort.InferenceSession:
    """onnxruntime on one CPU thread, node by node as the graph stands; `outputs` in place of its own.

    `fast`: on all cores, and nodes may be joined, as when the model is used.

    Raises:
        ExportError: onnxruntime cannot load the graph.
        MissingPartError: onnxruntime is not installed.
    """
    ort = import_onnxruntime("the graph has to be run: ")
    if outputs is not None:
        opened = onnx.ModelProto()
        opened.CopyFrom(model)
        del opened.graph.output[:]
        opened.graph.output.extend(onnx.ValueInfoProto(name=name) for name in outputs)
        model = opened
    settings = ort.SessionOptions()
    settings.intra_op_num_threads = settings.inter_op_num_threads = 1
    if fast:
        settings.intra_op_num_threads = available_cores()
        settings.add_session_config_entry("session.intra_op.allow_spinning", "0")
    else:
        settings.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    settings.log_severity_level = 4
    try:
        return ort.InferenceSession(model.SerializeToString(), settings, providers=["CPUExecutionProvider"])
    except Exception as e:  # onnxruntime's errors have no common base of their own
        raise ExportError(f"onnxruntime cannot load the graph: {first_line(e)[:300]}") from e


def load_graph(path: Path) -> onnx.ModelProto:
    """The model of an .onnx file; ModelError where it is none."""
    try:
        return onnx.load(path)
    except FileNotFoundError as e:
        raise ModelError(f"{path}: expected an .onnx file, found nothing") from e
    except Exception as e:  # protobuf's errors differ from version to version
        raise ModelError(f"{path}: not an ONNX file: {first_line(e)[:200]}") from e


def is_float(x: NDArray[Any]) -> bool:
    """Whether an array holds floating-point numbers."""
    return bool(np.issubdtype(x.dtype, np.floating))


def _constants_as_initializers(graph: onnx.GraphProto) -> None:
    for node in [n for n in graph.node if n.op_type == "Constant"]:
        found = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
        if "value" in found:
            tensor = onnx.TensorProto()
            tensor.CopyFrom(found["value"])
        elif word := next((w for w in found if w in _PLAIN), None):
            tensor = numpy_helper.from_array(np.array(found[word], _PLAIN[word]))
        else:
            raise ExportError(f"{node.name} (Constant): expected a tensor or numbers, found {', '.join(found)}")
        tensor.name = node.output[0]
        graph.initializer.append(tensor)
        graph.node.remove(node)


_PLAIN = {"value_float": np.float32, "value_floats": np.float32, "value_int": np.int64, "value_ints": np.int64}
