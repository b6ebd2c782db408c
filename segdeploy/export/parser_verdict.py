"""What the installed TensorRT's own ONNX parser says about a graph, node by node. Neither GPU nor onnx is needed."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from segdeploy.errors import ModelError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from segdeploy.runtime.trt import Flavour


@dataclass(frozen=True, slots=True)
class Refusal:
    """A node that the parser refuses."""

    node: str
    """Its name; empty where the graph itself is refused."""
    operator: str
    reason: str
    """One line."""
    code: str
    """The parser's own word for the kind: UNSUPPORTED_NODE_ATTR and so on."""
    layer: str = ""
    """Path of the torch module that the node was traced from; empty where that is not known."""
    functions: tuple[str, ...] = ()
    """The local functions that it stands in, outermost last."""

    def __str__(self) -> str:
        where = f" of {self.layer}" if self.layer else ""
        inside = f" in {' in '.join(self.functions)}" if self.functions else ""
        name = f"{self.node or 'the graph'} ({self.operator})" if self.operator else self.node or "the graph"
        return f"{name}{where}{inside}: {self.reason}"


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether the parser takes a graph."""

    flavour: str
    """`tensorrt` or `tensorrt_rtx`."""
    version: str
    accepted: bool
    refusals: tuple[Refusal, ...]
    nodes_refused: int
    """Nodes that stand in no part of the graph that the parser supports; 0 where it does not say."""

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return asdict(self)


def ask_parser(path: Path, flavour: Flavour, layers: Mapping[str, str] | None = None) -> Verdict:
    """Have the parser of `flavour` read an ONNX file, as the first step of a build would.

    It names every node whose operator or attributes it refuses; of those that fail while they are added, the first.

    Args:
        path: the file; external data are found beside it.
        flavour: a loaded library, see `segdeploy.runtime.trt.load`.
        layers: the torch module of each node by the node's name, for the refusals.

    Raises:
        MissingPartError: the library cannot start here.
        ModelError: the file cannot be read, or is no ONNX file.
    """
    try:
        data = path.read_bytes()
    except OSError as e:
        raise ModelError(f"{path}: cannot be read: {e.strerror}") from e
    builder = flavour.builder()
    with flavour.listening() as heard:
        parser, network = _parser(flavour, builder)
        accepted = bool(parser.parse(data, str(path)))
        found = refusals_of(flavour, parser, layers)
        del parser, network
        refused = 0
        if not accepted:
            parser, network = _parser(flavour, builder)
            refused = _unsupported(parser, data, str(path))
            del parser, network
    if any(refusal.code == "MODEL_DESERIALIZE_FAILED" for refusal in found):
        raise ModelError(f"{path}: expected an ONNX file, the parser cannot read it")
    if not accepted and not found:
        found = [Refusal("", "", heard.reason or "the parser does not say why", "")]
    return Verdict(flavour.name, flavour.version, accepted, tuple(found), refused)


def _parser(flavour: Flavour, builder: Any) -> tuple[Any, Any]:
    trt = flavour.module
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    return trt.OnnxParser(network, flavour.logger), network


def _unsupported(parser: Any, data: bytes, path: str) -> int:
    parser.supports_model_v2(data, path)
    parts = range(parser.num_subgraphs)
    return sum(len(parser.get_subgraph_nodes(i)) for i in parts if not parser.is_subgraph_supported(i))


def refusals_of(flavour: Flavour, parser: Any, layers: Mapping[str, str] | None = None) -> list[Refusal]:
    """What a parser that has read a graph says against it; `layers` as in `ask_parser`."""
    layers = layers or {}
    codes = {int(value): name for name, value in flavour.module.ErrorCode.__members__.items()}
    found = []
    for error in (parser.get_error(i) for i in range(parser.num_errors)):
        functions = tuple(error.local_function_stack())
        code, node = codes.get(int(error.code()), ""), error.node_name()
        layer = layers.get(node, "")
        found.append(Refusal(node, error.node_operator(), _said(error.desc()), code, layer, functions))
    return found


def _said(description: str) -> str:
    """The words of a parser's error, without the C++ condition before them."""
    text = " ".join(description.split())
    if text == "false":  # what it says of an operator that it knows and has no importer for
        return "TensorRT does not have this operator"
    condition = re.fullmatch(r'.* && "(.*)"', text) or re.fullmatch(r"Assertion failed: .*?[^:]: ([A-Z\d].*)", text)
    return condition[1] if condition else text
