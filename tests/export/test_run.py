import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from PIL import Image

from segdeploy import bundle
from segdeploy.bundle import Bundle, open_model
from segdeploy.classes import ClassMap, default_colors
from segdeploy.config.export import Export
from segdeploy.data.table import Sample, read_table
from segdeploy.errors import ConfigError, DataError, ExportError, GateError, ModelError
from segdeploy.evaluate import evaluate
from segdeploy.export import onnx_graph, run
from segdeploy.export.build import add_engine
from segdeploy.inspection import inspect_model, model_text
from segdeploy.model.spec import ModelSpec, Part, Preprocessing, parse_spec
from segdeploy.predict import predict
from segdeploy.runtime.runner import Runner, RunnerOptions, open_runner


def test_bundle_holds_graph_weights_and_verification(tiny_bundle, tiny_run):
    content = json.loads((tiny_bundle / "bundle.json").read_text())
    assert {a["kind"] for a in content["artifacts"]} == {"weights", "onnx"}
    assert [v["batch_size"] for v in content["verification"]] == [1, 3]
    for record in content["verification"]:
        assert record["passed"]
        assert record["images"] == 20
        assert record["agreement"] >= 0.999
        assert abs(record["miou_drop"]) <= 0.0005
    assert content["spec"] == json.loads((tiny_run / "model" / "model.json").read_text())
    assert {p.name for p in tiny_bundle.iterdir()} == {
        "bundle.json", "model.onnx", "model_card.md", "weights.safetensors"
    }  # fmt: skip
    assert (tiny_bundle / "model_card.md").read_bytes() == (tiny_run / "model_card.md").read_bytes()


def test_onnx_file_is_self_describing_and_clean(tiny_bundle):
    path = tiny_bundle / "model.onnx"
    model = onnx.load(path)
    onnx.checker.check_model(model, full_check=True)
    assert [(o.domain, o.version) for o in model.opset_import] == [("", 20)]
    metadata = {p.key: p.value for p in model.metadata_props}
    assert parse_spec(metadata["segdeploy.spec"], "metadata") == open_model(tiny_bundle).spec
    raw = path.read_bytes()
    assert b"site-packages" not in raw
    assert b".py" not in raw
    assert not any(n.doc_string for n in model.graph.node)
    assert {p.key for n in model.graph.node for p in n.metadata_props} == {"segdeploy.layer"}
    layers = {p.value for n in model.graph.node for p in n.metadata_props}
    assert "encoder.body.bn1" in layers
    assert all(re.fullmatch(r"[a-z][\w.]*", layer) for layer in layers)
    operators = {n.op_type for n in model.graph.node}
    assert operators & {"Resize", "Conv", "ArgMax"} == {"Resize", "Conv", "ArgMax"}
    for node in model.graph.node:
        attributes = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
        assert not attributes.get("antialias")


def test_uint8_is_cast_as_tensorrt_needs_it(tiny_bundle):
    """UINT8 may only meet casts to and from FLOAT: image -> Cast, and ArgMax -> FLOAT -> UINT8."""
    graph = onnx.load(tiny_bundle / "model.onnx").graph
    readers = [n for n in graph.node if "image" in n.input]
    # Reading the image's shape, to know the batch, touches no pixel.
    assert {n.op_type for n in readers} <= {"Cast", "Shape"}
    casts = [n for n in readers if n.op_type == "Cast"]
    assert [n.attribute[0].i for n in casts] == [onnx.TensorProto.FLOAT]
    writer = {o: n for n in graph.node for o in n.output}
    last = writer["mask"]
    assert (last.op_type, last.attribute[0].i) == ("Cast", onnx.TensorProto.UINT8)
    before = writer[last.input[0]]
    assert (before.op_type, before.attribute[0].i) == ("Cast", onnx.TensorProto.FLOAT)


def test_lost_accuracy_fails_with_exit_code_three_and_is_recorded(tiny_run, tiny_table, tmp_path, monkeypatch):
    def spoiled(segmenter, spec, path, **options):
        with torch.no_grad():
            segmenter.head.bias[1] += 2.0
        return onnx_graph.export_onnx(segmenter, spec, path, **options)

    monkeypatch.setattr(run, "export_onnx", spoiled)
    with pytest.raises(GateError, match="not as accurate as torch") as caught:
        run.export_run(tiny_run, tmp_path / "bundle", verify_table=tiny_table)
    assert caught.value.exit_code == 3
    records = json.loads((tmp_path / "bundle" / "bundle.json").read_text())["verification"]
    assert [r["passed"] for r in records] == [False, False]
    assert all(r["reasons"] for r in records)


def test_export_that_fails_leaves_nothing(tiny_run, tmp_path, monkeypatch):
    def fails(*_, **__):
        raise ExportError("no graph")

    monkeypatch.setattr(run, "export_onnx", fails)
    with pytest.raises(ExportError, match="no graph"):
        run.export_run(tiny_run, tmp_path / "bundle")
    assert list(tmp_path.iterdir()) == []


def test_older_bundle_is_replaced_and_foreign_folder_is_not(tiny_run, tmp_path):
    target = tmp_path / "bundle"
    run.export_run(tiny_run, target)
    (target / "left-over.txt").write_text("old")
    run.export_run(tiny_run, target)
    assert not (target / "left-over.txt").exists()
    assert [p.name for p in tmp_path.iterdir()] == ["bundle"]
    foreign = tmp_path / "photos"
    foreign.mkdir()
    (foreign / "a.jpg").write_text("precious")
    with pytest.raises(ExportError, match="is no bundle"):
        run.export_run(tiny_run, foreign)
    assert (foreign / "a.jpg").read_text() == "precious"


def test_older_bundle_survives_an_export_that_fails_at_the_last_step(tiny_run, tmp_path, monkeypatch):
    target = tmp_path / "bundle"
    run.export_run(tiny_run, target)
    before = (target / "bundle.json").read_bytes()
    rename = Path.rename

    def fails(self, to):
        if (
            to == target
            and self.name.startswith(".bundle.")
            and (self / "bundle.json").exists()
            and self.name != "bundle"
        ):
            raise OSError("disk")
        return rename(self, to)

    monkeypatch.setattr(Path, "rename", fails)
    with pytest.raises(OSError, match="disk"):
        run.export_run(tiny_run, target)
    assert (target / "bundle.json").read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["bundle"]


def test_not_a_run(tmp_path, tiny_bundle):
    with pytest.raises(ModelError, match="expected a run folder"):
        run.export_run(tmp_path, tmp_path / "bundle")
    with pytest.raises(ModelError, match="expected a run folder"):
        run.export_run(tiny_bundle, tmp_path / "bundle")


def test_limits_come_from_run_and_command_line(tiny_run):
    found = run.export_settings(tiny_run, {"max_miou_drop": None, "min_agreement": 0.8, "precisions": ("fp16",)})
    assert found.precisions == ("fp16",)
    assert [found.limits(p).min_agreement for p in ("fp32", "fp16", "int8")] == [0.8] * 3
    kept = [found.limits(p).max_miou_drop for p in ("fp32", "fp16", "int8")]
    assert kept == [Export().max_miou_drop, Export().fp16.max_miou_drop, Export().int8.max_miou_drop]
    with pytest.raises(ConfigError, match="--min-agreement"):
        run.export_settings(tiny_run, {"min_agreement": 1.5})


def test_interface_that_is_not_as_asked_is_refused(tiny_bundle):
    model = onnx.load(tiny_bundle / "model.onnx")
    onnx_graph.check_interface(model, (64, 96))
    with pytest.raises(ExportError, match="expected the graph"):
        onnx_graph.check_interface(model, (64, 100))
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1
    with pytest.raises(ExportError, match="expected the graph"):
        onnx_graph.check_interface(model, (64, 96))


def test_without_tensorrt_the_bundle_stays_whole(tiny_run, tmp_path):
    """In a process where the module cannot be found, --trt says what to install and exits with 2."""
    hide = (
        "import sys; sys.modules['tensorrt_rtx'] = None; sys.modules['tensorrt_rtx_bindings'] = None\n"
        "from segdeploy.cli import main; main(sys.argv[1:])"
    )
    words = ["export", str(tiny_run), "-o", str(tmp_path / "bundle"), "--trt"]
    done = subprocess.run([sys.executable, "-c", hide, *words], capture_output=True, text=True, check=False)
    assert done.returncode == 2, done.stderr
    assert "pip install" in done.stderr
    assert "Traceback" not in done.stderr
    assert open_model(tmp_path / "bundle").find("onnx") is not None


def test_dynamic_batch_runs_in_bare_onnxruntime(tiny_bundle, tiny_table):
    session = ort.InferenceSession(tiny_bundle / "model.onnx", providers=["CPUExecutionProvider"])
    first = sorted((tiny_table.parent / "images").iterdir())[0]
    picture = np.asarray(Image.open(first).convert("RGB").resize((96, 64), Image.Resampling.BILINEAR))
    for batch in (1, 2, 5):
        mask = session.run(None, {"image": np.repeat(picture[None], batch, 0)})[0]
        assert mask.shape == (batch, 64, 96)
        assert (mask == mask[0]).all()


@pytest.fixture(scope="module")
def free(tiny_run, tiny_table, tmp_path_factory):
    """A verified bundle whose graph takes any height and width."""
    folder = tmp_path_factory.mktemp("free") / "bundle"
    return run.export_run(tiny_run, folder, verify_table=tiny_table, dynamic_size=True)


def test_free_height_and_width_are_compared_at_another_size_too(free):
    about = free.bundle.find("onnx").about
    assert about["input"]["shape"] == ["batch", "height", "width", 3]
    assert [*free.elsewhere] == ["model.onnx"]
    other = free.elsewhere["model.onnx"]
    assert about["verified_size"] == other.to_dict()
    assert (other.height, other.width, other.images) == (96, 120, 2)
    assert other.agreement >= 0.999
    assert other.passed
    assert all(p.passed for p in free.parity)
    session = ort.InferenceSession(free.bundle.path / "model.onnx", providers=["CPUExecutionProvider"])
    assert session.run(None, {"image": np.zeros((2, 70, 130, 3), np.uint8)})[0].shape == (2, 70, 130)


def test_graph_that_is_right_at_the_models_size_alone_fails(free, tiny_run, tiny_table, tmp_path, monkeypatch):
    """One that adds to each label by how much the picture is larger than the model's size."""

    def spoiled(segmenter, spec, path, **options):
        model = onnx.load(free.bundle.path / "model.onnx")
        next(n for n in model.graph.node if "mask" in n.output).output[0] = "before"
        model.graph.initializer.append(onnx.numpy_helper.from_array(np.array([64, 96]), "my.model"))
        node = onnx.helper.make_node
        model.graph.node.extend(
            [
                node("Shape", ["before"], ["my.shape"], start=1),
                node("Sub", ["my.shape", "my.model"], ["my.more"]),
                node("ReduceMax", ["my.more"], ["my.most"], keepdims=0),
                node("Cast", ["my.most"], ["my.added"], to=onnx.TensorProto.UINT8),
                node("Add", ["before", "my.added"], ["mask"]),
            ]
        )
        onnx.save(model, path)
        return {}

    monkeypatch.setattr(run, "export_onnx", spoiled)
    with pytest.raises(
        GateError, match=r"as torch: model\.onnx at 120x96: 0\.00000% of the pixels agree, fewer than 99\.900%"
    ):
        run.export_run(tiny_run, tmp_path / "bundle", verify_table=tiny_table, dynamic_size=True)
    opened = open_model(tmp_path / "bundle")
    assert all(v["passed"] for v in opened.file.verification)
    assert not opened.find("onnx").about["verified_size"]["passed"]


class Brightest(Runner):
    """The index of the brightest channel."""

    def run(self, image):
        return image.argmax(-1).astype(np.uint8)

    def describe(self):
        return {"backend": "numpy", "precision": "fp32"}


def brightest(path, height=None):
    """The same as a graph; right at that `height` alone, where one is given."""
    node = onnx.helper.make_node
    nodes = [
        node("Cast", ["image"], ["x"], to=onnx.TensorProto.FLOAT),
        node("ArgMax", ["x"], ["i"], axis=3, keepdims=0),
        node("Shape", ["image"], ["h"], start=1, end=2),
        node("Sub", ["h", "height" if height else "h"], ["more"]),
        node("Add", ["i", "more"], ["sum"]),
        node("Cast", ["sum"], ["mask"], to=onnx.TensorProto.UINT8),
    ]
    value = onnx.helper.make_tensor_value_info
    image = value("image", onnx.TensorProto.UINT8, ["n", "h", "w", 3])
    mask = value("mask", onnx.TensorProto.UINT8, ["n", "h", "w"])
    constants = [onnx.numpy_helper.from_array(np.array([height or 0]), "height")]
    made = onnx.helper.make_graph(nodes, "g", [image], [mask], constants)
    onnx.save(onnx.helper.make_model(made, opset_imports=[onnx.helper.make_opsetid("", 20)], ir_version=10), path)


@pytest.mark.parametrize("spoiled", ["model.onnx", "model.cpu.onnx"])
def test_each_fp32_graph_is_held_to_its_own_result_at_the_other_size(tmp_path, monkeypatch, spoiled):
    part = Part(name="none", config={}, distribution="none", version="0")
    spec = ModelSpec(
        encoder=part,
        decoder=part,
        classes=ClassMap(names=("r", "g", "b"), colors=default_colors(3)),
        preprocessing=Preprocessing(height=16, width=24, resize="stretch", mean=(0, 0, 0), std=(1, 1, 1)),
    )
    picture = np.random.default_rng(0).integers(0, 256, (16, 24, 3), dtype=np.uint8)
    Image.fromarray(picture).save(tmp_path / "image.png")
    Image.fromarray(picture.argmax(-1).astype(np.uint8)).save(tmp_path / "mask.png")
    targets = {"model.onnx": "", "model.cpu.onnx": "cpu"}
    for name in targets:
        brightest(tmp_path / name, 16 if name == spoiled else None)
    made = Bundle(
        tmp_path, spec, tuple(bundle.artifact(tmp_path, n, "onnx", "fp32", {}, t) for n, t in targets.items())
    )
    monkeypatch.setattr(run, "open_runner", lambda *_: Brightest())
    samples = [Sample(tmp_path / "image.png", tmp_path / "mask.png")]
    parity, elsewhere = run._verify(made, samples, Export(), (24, 36), lambda *_: None)
    assert all(p.passed for p in parity)
    assert {name: other.passed for name, other in elsewhere.items()} == {n: n != spoiled for n in targets}
    told = {a.file: run._with_size(a, elsewhere[a.file]).about["verified_size"] for a in made.artifacts}
    assert told == {name: other.to_dict() for name, other in elsewhere.items()}


def test_bundle_of_free_size_predicts_evaluates_and_is_described(free, tiny_bundle, tiny_table, tmp_path):
    """As the bundle of the fixed size does: pictures are resized to the model's size."""
    samples = read_table(tiny_table)
    masks, scores = {}, {}
    for name, path in (("free", free.bundle.path), ("fixed", tiny_bundle)):
        opened = open_model(path)
        for backend in ("torch", "onnxruntime"):
            with open_runner(opened, backend, RunnerOptions(device="cpu", threads=1)) as runner:
                key = name, backend
                scores[key] = evaluate(runner, samples, opened.spec, boundary=False).scores.mean_iou
                written = predict(runner, opened.spec, [samples[0].image], tmp_path / name / backend).written
                masks[key] = np.asarray(Image.open(written[samples[0].image]))
    first, *others = masks.values()
    assert first.shape == (80, 112)
    assert all((mask == first).mean() > 0.999 for mask in others)
    assert list(scores.values()) == pytest.approx([scores["fixed", "torch"]] * 4, abs=5e-4)
    said = model_text(inspect_model(free.bundle))
    assert re.search(r"^onnx +model\.onnx, fp32, .*, any height and width$", said, re.M)
    assert re.search(r"^verified +onnx fp32, at 96 x 120: passed, agreement (100|99\.9)", said, re.M)
    assert "any height" not in model_text(inspect_model(open_model(tiny_bundle)))


def test_engine_of_a_graph_of_free_size_has_the_models(free, tmp_path):
    pytest.importorskip("tensorrt_rtx_bindings", reason="TensorRT for RTX is not installed")
    folder = shutil.copytree(free.bundle.path, tmp_path / "bundle")
    made = add_engine(open_model(folder))
    lock = json.loads((folder / "engine.lock.json").read_text())
    assert lock["profiles"][0]["image"] == {"min": [1, 64, 96, 3], "opt": [1, 64, 96, 3], "max": [8, 64, 96, 3]}
    assert made.find("onnx").about["verified_size"]["passed"]


FIXED = """
from segdeploy.decoders.fpn import FPN
from segdeploy.plugin import DecoderPlugin, hookimpl, registry

class Fixed(FPN):
    dynamic_size = False

@hookimpl
def segdeploy_register_decoders(register):
    import dataclasses
    from segdeploy.decoders import fpn
    found = []
    fpn.segdeploy_register_decoders(found.append)
    register(dataclasses.replace(found[0], name="fixed", build=Fixed))
"""


def test_part_without_the_promise_is_named_and_nothing_is_written(tiny_run, install, tmp_path):
    install("acme", "decoder.fixed", FIXED)
    copy = shutil.copytree(tiny_run, tmp_path / "run")
    about = json.loads((copy / "model" / "model.json").read_text())
    about["decoder"] |= {"name": "fixed", "distribution": "acme", "version": "1.5"}
    (copy / "model" / "model.json").write_text(json.dumps(about))
    with pytest.raises(ExportError, match=r"^decoder fixed \(acme 1\.5\): no promise to work with free height"):
        run.export_run(copy, tmp_path / "bundle", dynamic_size=True)
    assert not (tmp_path / "bundle").exists()


@pytest.fixture(scope="module")
def lighter(tiny_run, tiny_table, tmp_path_factory):
    """A verified bundle of all precisions."""
    folder = tmp_path_factory.mktemp("lighter") / "bundle"
    settings = run.export_settings(tiny_run, {"precisions": ("fp16", "int8"), "calibration_images": 8})
    return run.export_run(tiny_run, folder, settings=settings, verify_table=tiny_table).bundle


def test_bundle_holds_a_graph_of_each_precision_for_its_target(lighter):
    graphs = {(a.precision, a.target): a for a in lighter.artifacts if a.kind == "onnx"}
    assert {key: a.file for key, a in graphs.items()} == {
        ("fp32", ""): "model.onnx",
        ("fp16", ""): "model.fp16.onnx",
        ("int8", "cpu"): "model.int8-cpu.onnx",
        ("int8", "tensorrt"): "model.int8-trt.onnx",
    }
    assert lighter.find("onnx", "int8") is graphs["int8", "cpu"]
    assert lighter.find("onnx", "int8", "tensorrt") is graphs["int8", "tensorrt"]
    assert graphs["int8", "cpu"].about["calibration_images"] == 8
    verified = {(v["precision"], v["target"]): v for v in lighter.file.verification}
    assert verified.keys() == graphs.keys()
    assert all(v["passed"] and v["images"] == 20 for v in verified.values())
    for artifact in graphs.values():
        model = onnx.load(lighter.path / artifact.file)
        onnx.checker.check_model(model, full_check=True)
        onnx.shape_inference.infer_shapes(model, strict_mode=True, check_type=True)
        onnx_graph.check_interface(model, (64, 96))
        assert run.bundle.open_model(lighter.path / artifact.file).spec == lighter.spec
    float16 = sum(
        c.data_type == onnx.TensorProto.FLOAT16 for c in onnx.load(lighter.path / "model.fp16.onnx").graph.initializer
    )
    assert float16 > 20


def test_every_node_has_a_decision(lighter):
    files = [a for a in lighter.artifacts if a.kind == "decisions"]
    assert [(a.precision, a.target) for a in files] == [("fp16", ""), ("int8", "cpu"), ("int8", "tensorrt")]
    for artifact in files:
        table = json.loads((lighter.path / artifact.file).read_text())["decisions"]
        assert {"node", "operator", "precision", "range", "reason"} <= table[0].keys()


def test_lost_accuracy_of_int8_fails_and_whoever_runs_it_is_told(tiny_run, tiny_table, tmp_path, caplog):
    settings = run.export_settings(tiny_run, {"precisions": ("int8",), "min_agreement": 1.0, "calibration_images": 4})
    settings = settings.model_copy(update={"min_agreement": 0.9})
    with pytest.raises(GateError, match=r"int8 for cpu, batch 1: .* of the pixels agree, fewer than 100"):
        run.export_run(tiny_run, tmp_path / "bundle", settings=settings, verify_table=tiny_table)
    opened = open_model(tmp_path / "bundle")
    with open_runner(opened, "onnxruntime", RunnerOptions(device="cpu", threads=1)):
        assert not caplog.records
    with open_runner(opened, "onnxruntime", RunnerOptions(device="cpu", threads=1, precision="int8")):
        assert "model.int8-cpu.onnx: it failed its verification: " in caplog.text


def test_int8_needs_images_and_fp16_does_without(tiny_run, tmp_path, caplog):
    alone = shutil.copytree(tiny_run / "model", tmp_path / "model")
    settings = Export(precisions=("fp16", "int8"))
    with pytest.raises(DataError, match=r"calibration: .*has no training table; give training images with --calibrate"):
        run.export_run(alone, tmp_path / "bundle", settings=settings)
    assert not (tmp_path / "bundle").exists()
    made = run.export_run(alone, tmp_path / "bundle", settings=Export(precisions=("fp16",))).bundle
    assert "FP16's ranges are measured on generated pictures" in caplog.text
    assert made.find("onnx", "fp16") is not None


def without_onnxruntime(*words):
    hide = "import sys; sys.modules['onnxruntime'] = None\nfrom segdeploy.cli import main; main(sys.argv[1:])"
    done = subprocess.run([sys.executable, "-c", hide, *map(str, words)], capture_output=True, text=True, check=False)
    assert "Traceback" not in done.stderr
    return done.returncode, done.stderr


def test_without_onnxruntime_a_plain_export_works_and_what_runs_a_graph_says_what_to_install(
    tiny_run, tiny_table, tmp_path
):
    plain = tmp_path / "plain"
    code, said = without_onnxruntime("export", tiny_run, "-o", plain)
    assert code == 0, said
    assert (plain / "model.onnx").is_file()
    for words in (
        ["export", tiny_run, "-o", tmp_path / "fp16", "--precision", "fp16"],
        ["export", tiny_run, "-o", tmp_path / "verified", "--verify", tiny_table],
        ["debug", "diff", plain, f"{plain}@torch"],
    ):
        code, said = without_onnxruntime(*words)
        assert code == 2, said
        assert "onnxruntime not installed; pip install 'segdeploy[cpu]' or 'segdeploy[gpu]'" in said
    assert [p.name for p in tmp_path.iterdir()] == ["plain"]
