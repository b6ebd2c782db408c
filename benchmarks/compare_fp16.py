"""Converters from FP32 to FP16 ONNX side by side: is the graph right, does TensorRT take it, are the labels kept?

    pip install "segdeploy[all-cpu,rtx]" onnxconverter-common "nvidia-modelopt[onnx]"
    python benchmarks/compare_fp16.py [MODEL.onnx...] -o results/fp16_converters

MODEL.onnx is the graph of a bundle. To these come three models with random weights, and the planted graphs of
tests/export/graphs.py, right in FP32 and wrong where FP16 is taken without care. Every converter gets the same graph,
is asked to keep inputs and outputs, and what can calibrate gets the same pictures (`natural_images`). Labels are
compared with those of FP32 on other pictures, both as onnxruntime computes them and with FP16's rounding and range
(`segdeploy.export.half`). Builds are real, on a CPU; nothing is run on a GPU.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import sys
import tempfile
import warnings
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "export"))
import graphs

from segdeploy.data.natural import natural_images
from segdeploy.environment import describe_machine
from segdeploy.export.graph import session_of
from segdeploy.export.half import run_half
from segdeploy.export.precision import to_fp16
from segdeploy.files import write_json, write_text
from segdeploy.runtime.trt import RTX, load

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

PAGE = """# Converters from FP32 to FP16 ONNX, side by side

"Same label, FP16" is the share of pixels whose class is that of the FP32 graph when the FP16 graph is run with FP16's
rounding and range; "onnxruntime" is the same as its CPU kernels compute it, in FP32, where an overflow does not show.
Nodes are counted by the type that they give, casts aside. Nothing was run on a GPU.

## Models

{models}

## Planted: right in FP32, wrong where FP16 is taken without care

{planted}

## How it was measured

- Every converter got the same graph, was asked to keep inputs and outputs, and otherwise has its defaults
- Models but the first named file have random weights, 64 x 96 pixels and 4 classes; scores lie closer together than
  those of a trained model
- Pictures are made up (`natural_images`), three to calibrate with and three others to compare on
- Builds are those of TensorRT for RTX, strongly typed, on a CPU
- {machine}
- {versions}

```sh
python benchmarks/compare_fp16.py MODEL.onnx -o OUTPUT
```
"""
Images = list["NDArray[np.uint8]"]
Record = dict[str, Any]


def segdeploy(model: onnx.ModelProto, images: Images) -> onnx.ModelProto:
    """Ours."""
    return to_fp16(model, images)[0]


def modelopt(model: onnx.ModelProto, images: Images) -> onnx.ModelProto:
    """NVIDIA's AutoCast with its defaults, calibrated; it reads files."""
    from modelopt.onnx.autocast import convert_to_mixed_precision

    with tempfile.TemporaryDirectory() as folder:
        path, data = Path(folder) / "model.onnx", Path(folder) / "data.npz"
        onnx.save(model, path)
        np.savez(data, image=np.concatenate(images))
        made: onnx.ModelProto = convert_to_mixed_precision(
            str(path), low_precision_type="fp16", keep_io_types=True, calibration_data=str(data)
        )
        return made


def onnxconverter_common(model: onnx.ModelProto, images: Images) -> onnx.ModelProto:
    """With its list of operators to leave out."""
    from onnxconverter_common.float16 import convert_float_to_float16

    made: onnx.ModelProto = convert_float_to_float16(model, keep_io_types=True, check_fp16_ready=False)
    return made


def onnxruntime_transformers(model: onnx.ModelProto, images: Images) -> onnx.ModelProto:
    """With its list of operators to leave out."""
    from onnxruntime.transformers.float16 import convert_float_to_float16

    made: onnx.ModelProto = convert_float_to_float16(model, keep_io_types=True)
    return made


ZOO = {
    "mobilenetv3 + fpn": ("type: timm, model_name: mobilenetv3_small_050, use_pretrained: false", "type: fpn"),
    "convnextv2_atto + unet": ("type: timm, model_name: convnextv2_atto, use_pretrained: false", "type: unet"),
    "mit_b0 + segformer": ("type: mit_b0, use_pretrained: false", "type: segformer"),
}
CONVERTERS = (segdeploy, modelopt, onnxconverter_common, onnxruntime_transformers)
PACKAGES = {
    "modelopt": "nvidia-modelopt",
    "onnxconverter_common": "onnxconverter-common",
    "onnxruntime_transformers": "onnxruntime",
}


def said(action: Callable[[], Any]) -> tuple[Any, str]:
    """What an action gives, and the first line of what it raises."""
    try:
        return action(), ""
    except Exception as e:
        return None, (str(e).strip().splitlines() or [type(e).__name__])[0][:200]


def build(model: onnx.ModelProto) -> None:
    """Parse and build with TensorRT for RTX, strongly typed, batch 1."""
    flavour = load(RTX)
    trt, builder = flavour.module, flavour.builder()
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, flavour.logger)
    if not parser.parse(model.SerializeToString()):
        raise ValueError(f"{parser.get_error(0).node_name()}: {parser.get_error(0).desc()}")
    config = builder.create_builder_config()
    profile = builder.create_optimization_profile()
    shape = (1, *size_of(model), 3)
    profile.set_shape("image", shape, shape, shape)
    config.add_optimization_profile(profile)
    if builder.build_serialized_network(network, config) is None:
        raise ValueError("the build fails")


def size_of(model: onnx.ModelProto) -> tuple[int, int]:
    """Height and width of its image."""
    sides = [d.dim_value for d in model.graph.input[0].type.tensor_type.shape.dim]
    return sides[1], sides[2]


def interface(model: onnx.ModelProto) -> list[Any]:
    """Names and types of inputs and outputs."""
    return [(v.name, v.type.tensor_type.elem_type) for v in (*model.graph.input, *model.graph.output)]


def floats(model: onnx.ModelProto) -> dict[str, int]:
    """How many nodes give FP16, FP32 (casts aside), and how many casts there are."""
    bare = onnx.ModelProto()
    bare.CopyFrom(model)
    del bare.graph.value_info[:]
    inferred = onnx.shape_inference.infer_shapes(bare).graph
    types = {v.name: v.type.tensor_type.elem_type for v in (*inferred.value_info, *inferred.output)}
    nodes = [n for n in model.graph.node if n.op_type not in ("Cast", "Constant")]
    return {
        "fp16": sum(types.get(n.output[0]) == onnx.TensorProto.FLOAT16 for n in nodes),
        "fp32": sum(types.get(n.output[0]) == onnx.TensorProto.FLOAT for n in nodes),
        "casts": sum(n.op_type == "Cast" for n in model.graph.node),
    }


def judge(
    name: str, model: onnx.ModelProto, calibration: Images, test: NDArray[np.uint8], engine: bool
) -> list[Record]:
    """One record for each converter."""
    expected = session_of(model).run(None, {"image": test})[0]
    records = []
    for converter in CONVERTERS:
        given = onnx.ModelProto()
        given.CopyFrom(model)
        made, error = said(partial(converter, given, calibration))
        record: Record = {"model": name, "converter": converter.__name__, "error": error}
        records.append(record)
        print(name, converter.__name__, error, flush=True)
        if made is None:
            continue
        record["checker"] = said(partial(onnx.checker.check_model, made, full_check=True))[1]
        record["types"] = said(partial(onnx.shape_inference.infer_shapes, made, check_type=True, strict_mode=True))[1]
        record["interface_kept"] = interface(made) == interface(model)
        record["metadata_kept"] = list(made.metadata_props) == list(model.metadata_props)
        record["opset"] = next(o.version for o in made.opset_import if o.domain in ("", "ai.onnx"))
        record |= floats(made)
        for key, run in (("half", run_half), ("onnxruntime", _run)):
            outputs, failed = said(partial(run, made, test))
            agreement = None if failed else round(float((outputs[0] == expected).mean()), 5)
            record[key] = {"agreement": agreement, "error": failed}
        record["build"] = said(partial(build, made))[1] if engine else None
    return records


def _run(model: onnx.ModelProto, image: NDArray[np.uint8]) -> list[Any]:
    outputs: list[Any] = session_of(model).run(None, {"image": image})
    return outputs


def table(records: list[Record], planted: bool) -> str:
    """Rows in Markdown."""
    head = ["Model", "Converter", "Valid", "Metadata", "Opset", "FP16 / FP32 nodes", "Casts", "Same label, FP16, %"]
    head += ["Same label, onnxruntime, %"] + ([] if planted else ["TensorRT for RTX"])
    rows = ["| " + " | ".join(head) + " |", "|" + " --- |" * len(head)]
    for r in records:
        if r["error"]:
            rows.append(f"| {r['model']} | {r['converter']} | fails: {r['error']} |" + " |" * (len(head) - 3))
            continue
        valid = "yes" if not r["checker"] and not r["types"] and r["interface_kept"] else _why(r)
        cells = [r["model"], r["converter"], valid, "kept" if r["metadata_kept"] else "lost", str(r["opset"])]
        cells += [f"{r['fp16']} / {r['fp32']}", str(r["casts"])]
        cells += [_share(r["half"]), _share(r["onnxruntime"])]
        cells += [] if planted else ["refused: " + r["build"] if r["build"] else "builds"]
        rows.append("| " + " | ".join(c.replace("|", "/") for c in cells) + " |")
    return "\n".join(rows)


def _why(record: Record) -> str:
    other = "" if record["interface_kept"] else "inputs or outputs of other types"
    found = {record[key].rpartition("] ")[2] for key in ("checker", "types")}
    return "no: " + "; ".join(filter(None, [*found, other]))


def _share(side: Record) -> str:
    return "does not run" if side["agreement"] is None else f"{100 * side['agreement']:.3f}"


def main() -> None:
    """See the module's text."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", type=Path, nargs="*")
    parser.add_argument("-o", "--output", type=Path, required=True, help="Without ending: .json and .md are written.")
    given = parser.parse_args()
    warnings.simplefilter("ignore")
    found: dict[str, list[Record]] = {"models": [], "planted": []}
    named = {path.stem: onnx.load(path) for path in given.models}
    with tempfile.TemporaryDirectory() as folder:
        named |= {name: graphs.export(Path(folder) / "model.onnx", *parts) for name, parts in ZOO.items()}
    for name, model in named.items():
        calibration = [x[None] for x in natural_images(3, size_of(model))]
        found["models"] += judge(name, model, calibration, natural_images(3, size_of(model), seed=1), engine=True)
    for name, make in graphs.PLANTED.items():
        found["planted"] += judge(name, make()[0], [graphs.picture()], graphs.picture(), engine=False)
    versions = {name: importlib.metadata.version(package) for name, package in PACKAGES.items()}
    machine = describe_machine()
    write_json(given.output.with_suffix(".json"), {"machine": machine, "versions": versions, **found})
    text = PAGE.format(
        models=table(found["models"], planted=False),
        planted=table(found["planted"], planted=True),
        machine=f"{machine['cpu']}, {machine['cores']} cores, Python {machine['python']}",
        versions=", ".join(f"{k} {v}" for k, v in {**machine["packages"], **versions}.items()),
    )
    write_text(given.output.with_suffix(".md"), text)
    print(text)


if __name__ == "__main__":
    main()
