"""Will these graphs build with TensorRT? The lint's findings and the real parser's verdict: `segdeploy inspect --trt`.

Either part stands alone: the lint needs onnx and no TensorRT, the parser needs TensorRT and no onnx.
"""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING, Any

from segdeploy.bundle import BUNDLE_FILE, open_model
from segdeploy.errors import MissingPartError, ModelError, first_line
from segdeploy.export.parser_verdict import ask_parser
from segdeploy.run_folder import find_run
from segdeploy.runtime import trt

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from segdeploy.export.lint import Finding
    from segdeploy.runtime.trt import Flavour

TARGETS = ("10", "11", "RTX")
"""What is asked about: the newest TensorRT of each major version, and TensorRT for RTX."""
_SHOWN = 6


def inspect_trt(path: Path, target: str | None = None) -> dict[str, Any]:
    """Ask about an `.onnx` file, segdeploy's or not, or about each graph of a bundle that is not made for a CPU.

    Args:
        path: the file, a bundle, or a run with a bundle in it.
        target: one of `TARGETS`, or a release such as `10.3`; None: all of `TARGETS`.

    Returns:
        JSON-ready: `builds` (for each target), `asked` (libraries asked, or why they were not), and `graphs`, each
        with `file`, `precision`, `builds`, `findings` (None where onnx is not installed), `verdicts`.

    Raises:
        ModelError: no such file, or a file that is not ONNX. MissingPartError: neither onnx nor TensorRT is here.
    """
    graphs = _graphs(path)
    flavours, asked = _installed()
    linted = importlib.util.find_spec("onnx") is not None
    if not linted and not flavours:
        raise MissingPartError("neither onnx nor TensorRT is installed; pip install onnx, or segdeploy[rtx]")
    targets = (target,) if target else TARGETS
    about = [_graph(file, precision, targets, flavours, linted) for file, precision in graphs]
    return {
        "builds": {name: all(graph["builds"][name] for graph in about) for name in targets},
        "asked": asked,
        "graphs": about,
    }


def _graphs(path: Path) -> list[tuple[Path, str]]:
    if path.is_file():
        return [(path, "")]
    run = find_run(path)
    folder = path if run is None or (path / BUNDLE_FILE).is_file() else run / "bundle"
    if not (folder / BUNDLE_FILE).is_file():
        raise ModelError(f"{path}: expected an .onnx file, a bundle, or a run with one; segdeploy export makes it")
    opened = open_model(folder)
    found = [(folder / a.file, a.precision) for a in opened.artifacts if a.kind == "onnx" and a.target != "cpu"]
    if not found:
        raise ModelError(f"{folder}: has no ONNX file that TensorRT could read; export again")
    return found


def _installed() -> tuple[list[Flavour], dict[str, str]]:
    """The flavours that can be asked here, and for each one its version or why it cannot."""
    flavours: list[Flavour] = []
    said: dict[str, str] = {}
    for name in (trt.TENSORRT, trt.RTX):
        try:
            flavour = trt.load(name)
            flavour.builder()
        except MissingPartError as e:
            said[name] = str(e)
        else:
            flavours.append(flavour)
            said[name] = flavour.version
    return flavours, said


def _graph(
    file: Path, precision: str, targets: tuple[str, ...], flavours: list[Flavour], linted: bool
) -> dict[str, Any]:
    from segdeploy.export.lint_row import RTX, concerns

    findings, layers = _lint(file) if linted else (None, {})
    verdicts = [ask_parser(file, flavour, layers) for flavour in flavours]
    builds = {}
    for target in targets:
        errors = [f for f in findings or () if f.severity == "error" and concerns(f.versions, target)]
        spoken = [
            v.accepted
            for v in verdicts
            if (v.flavour == trt.RTX if target == RTX else v.flavour == trt.TENSORRT and _same(v.version, target))
        ]
        builds[target] = not errors and all(spoken)
    shown = (
        None if findings is None else [f.to_dict() for f in findings if any(concerns(f.versions, t) for t in targets)]
    )
    return {
        "file": str(file),
        "precision": precision,
        "builds": builds,
        "findings": shown,
        "verdicts": [v.to_dict() for v in verdicts],
    }


def _same(version: str, target: str) -> bool:
    asked = target.split(".")
    return version.split(".")[: len(asked)] == asked


def _lint(file: Path) -> tuple[list[Finding], dict[str, str]]:
    import onnx
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

    from segdeploy.export.lint import lint
    from segdeploy.export.lint_graph import layers_in

    data = file.read_bytes()
    try:
        model = onnx.load_from_string(data)
        findings = lint(model)
    except (DecodeError, onnx.shape_inference.InferenceError) as e:
        raise ModelError(f"{file}: expected an ONNX file: {first_line(e)}") from e
    if not model.graph.node:
        raise ModelError(f"{file}: expected an ONNX file, found no node in it")
    return findings, layers_in(model)


def trt_text(about: Mapping[str, Any]) -> str:
    """The result of `inspect_trt` for people."""
    said = []
    for graph in about["graphs"]:
        said += [f"{graph['file']} {graph['precision']}".rstrip(), *_findings_text(graph["findings"])]
        for verdict in graph["verdicts"]:
            name = f"{trt.TITLES[verdict['flavour']]} {verdict['version']}"
            if verdict["accepted"]:
                said.append(f"  {name}: its parser takes this graph")
                continue
            said.append(f"  {name}: its parser refuses this graph")
            said += [f"    {_refusal_text(r)}" for r in verdict["refusals"][:_SHOWN]]
            if len(verdict["refusals"]) > _SHOWN:
                said.append(f"    and {len(verdict['refusals']) - _SHOWN} more")
        said.append("")
    missing = [line for name, line in about["asked"].items() if all(v["flavour"] != name for v in _verdicts(about))]
    said += [f"not asked: {line}" for line in missing]
    words = [
        f"{'TensorRT ' if t[0].isdigit() else ''}{t}: {'yes' if ok else 'NO'}" for t, ok in about["builds"].items()
    ]
    return "\n".join([*said, f"will it build? {', '.join(words)}"])


def _verdicts(about: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [verdict for graph in about["graphs"] for verdict in graph["verdicts"]]


def _refusal_text(refusal: Mapping[str, Any]) -> str:
    from segdeploy.export.parser_verdict import Refusal

    return str(Refusal(**refusal))


def _findings_text(findings: list[dict[str, Any]] | None) -> list[str]:
    """A paragraph for each row of the table: what is wrong, the nodes, what to change."""
    if findings is None:
        return ["  not linted: pip install onnx"]
    if not findings:
        return ["  lint: nothing found"]
    said = []
    rows = dict.fromkeys((f["row"], f["reason"]) for f in findings)
    for row, reason in rows:
        same = [f for f in findings if (f["row"], f["reason"]) == (row, reason)]
        first = same[0]
        said.append(f"  {first['severity']} {row}: {reason} [TensorRT {', '.join(first['versions'])}]")
        for one in same[:_SHOWN]:
            layer = f" of {one['layer']}" if one["layer"] else ""
            said.append(f"    {one['node']} ({one['operator']}){layer}")
        if len(same) > _SHOWN:
            said.append(f"    and {len(same) - _SHOWN} more")
        said.append(f"    -> {first['fix']}")
    return said
