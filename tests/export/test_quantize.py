"""INT8 graphs of a small network: their form, their numbers against NumPy and onnx's evaluator, who runs them."""

import collections

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto as T
from onnx import helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from segdeploy.errors import DataError, ExportError
from segdeploy.export.graphs import rest_in_fp16
from segdeploy.export.lint import lint
from segdeploy.export.quantize import TARGETS, quantize

LAYERS = {"stem", "depthwise", "se_reduce", "se_expand", "project", "deep", "top", "lateral", "smooth", "head"}


@pytest.fixture(scope="module")
def made(toy, pictures):
    return quantize(toy(), pictures, method="minmax", min_agreement=0)


def nodes_of(model):
    return {node.name: node for node in model.graph.node}


def constants_of(model):
    return {c.name: numpy_helper.to_array(c) for c in model.graph.initializer}


def producers_of(model):
    return {name: node for node in model.graph.node for name in node.output}


def run(model, image, names=None, level=ort.GraphOptimizationLevel.ORT_DISABLE_ALL):
    opened = onnx.ModelProto()
    opened.CopyFrom(model)
    opened.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names or [])
    settings = ort.SessionOptions()
    settings.graph_optimization_level, settings.log_severity_level = level, 4
    session = ort.InferenceSession(opened.SerializeToString(), settings, providers=["CPUExecutionProvider"])
    return session.run(names or ["mask"], {"image": image})


@pytest.mark.parametrize("target", TARGETS)
def test_interface_names_metadata_and_opset_stay(made, toy, target):
    model, source = made[target].model, toy()
    assert list(model.graph.input) == list(source.graph.input)
    assert list(model.graph.output) == list(source.graph.output)
    assert list(model.metadata_props) == list(source.metadata_props)
    assert model.producer_name == "segdeploy"
    assert [(o.domain, o.version) for o in model.opset_import] == [("", 20)]
    assert nodes_of(model).keys() >= LAYERS | {"swish", "residual", "merge", "nearest", "last", "argmax", "to_uint8"}
    assert len(nodes_of(model)) == len(model.graph.node)  # each has a name, and none twice
    read = {name for node in model.graph.node for name in node.input}
    assert set(constants_of(model)) <= read
    onnx.checker.check_model(model, full_check=True)
    onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True)


@pytest.mark.parametrize("target", TARGETS)
def test_weights_are_int8_with_a_scale_for_each_channel(made, toy, target):
    model, source = made[target].model, constants_of(toy())
    constants, producers = constants_of(model), producers_of(model)
    for name in sorted(LAYERS - {"stem"}):  # the stem's hold the normalisation on a CPU
        dequantize = producers[nodes_of(model)[name].input[1]]
        integers, scale, zero = (constants[i] for i in dequantize.input)
        weight = source[f"{name}.weight"].astype(np.float64)
        expected = np.abs(weight).reshape(len(weight), -1).max(axis=1) / 127
        np.testing.assert_allclose(scale, expected, rtol=1e-6)
        shape = (-1, 1, 1, 1)
        np.testing.assert_array_equal(integers, np.rint(weight / expected.reshape(shape)))
        assert integers.dtype == zero.dtype == np.int8
        assert not zero.any()
        np.testing.assert_allclose(integers * scale.reshape(shape), weight, atol=float(expected.max()) / 2 * 1.001)


def test_activations_span_what_the_tensors_hold(made, toy, pictures):
    """minmax, by NumPy over the same tensors: uint8 from the least to the largest value, int8 evenly around 0."""
    names = ["relu_out", "project_out", "residual_out", "merge_out"]
    source = onnx.shape_inference.infer_shapes(toy())
    values = [np.concatenate(v) for v in zip(*(map(np.ravel, run(source, i, names)) for i in pictures), strict=True)]
    for target in TARGETS:
        constants, producers = constants_of(made[target].model), producers_of(made[target].model)
        for name, taken in zip(names, values, strict=True):
            if f"{name}.quantized" not in producers:
                continue
            quantize_node = producers[f"{name}.quantized"]
            scale, zero = (constants[i] for i in quantize_node.input[1:])
            if target == "cpu":
                low, high = min(0, taken.min()), taken.max()
                assert zero.dtype == np.uint8
                assert float(scale) == pytest.approx((high - low) / 255, rel=1e-5)
                assert int(zero) == round(-low / ((high - low) / 255))
            else:
                assert zero.dtype == np.int8
                assert int(zero) == 0
                assert float(scale) == pytest.approx(np.abs(taken).max() / 127, rel=1e-5)
    assert "project_out.quantized" in producers_of(made["cpu"].model)
    assert "project_out.quantized" not in producers_of(made["tensorrt"].model)  # the sum follows in float


def test_onnxruntime_runs_whole_chains_on_integers(made, tmp_path):
    settings = ort.SessionOptions()
    settings.optimized_model_filepath = str(tmp_path / "optimized.onnx")
    settings.graph_optimization_level, settings.log_severity_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL, 4
    ort.InferenceSession(made["cpu"].model.SerializeToString(), settings, providers=["CPUExecutionProvider"])
    kinds = collections.Counter(n.op_type for n in onnx.load(tmp_path / "optimized.onnx").graph.node)
    assert kinds["QLinearConv"] == len(LAYERS)
    assert kinds["QLinearAdd"] == 3 + 2  # sums, and one in each gate
    assert kinds["QLinearMul"] == 2
    assert kinds["QLinearGlobalAveragePool"] == 1
    # Float: the bilinear upsamplings and the last step to labels. Transposes stand at the two ends alone.
    assert not {"Conv", "FusedConv", "Add", "Mul", "Relu", "Clip", "HardSwish", "HardSigmoid", "ReduceMean"} & set(
        kinds
    )
    assert kinds["Resize"] == 2
    assert kinds["QuantizeLinear"] == 1
    assert kinds["DequantizeLinear"] == 2
    assert kinds["Transpose"] <= 3


def test_the_last_upsampling_and_the_choice_of_a_class_have_the_channels_last(made, pictures):
    """As onnxruntime's integer convolutions give them; so no transpose stands between."""
    last = nodes_of(made["cpu"].model)["argmax"]
    assert [a.i for a in last.attribute if a.name == "axis"] == [3]
    head, scores = run(made["cpu"].model, pictures[0], ["head_out.dequantized", "last_out"])
    assert scores.shape == (1, 32, 48, 5)
    np.testing.assert_allclose(scores[0, 0, 0], head[0, :, 0, 0], rtol=1e-5)


@pytest.mark.parametrize("target", TARGETS)
def test_labels_are_those_of_onnxs_own_evaluator_and_nearly_those_of_fp32(made, toy, pictures, target):
    """On a CPU the kernels are integer ones; the evaluator computes the same graph in float."""
    evaluator = ReferenceEvaluator(made[target].model)
    for image in pictures[:2]:
        expected = evaluator.run(None, {"image": image})[0]
        found = run(made[target].model, image, level=ort.GraphOptimizationLevel.ORT_ENABLE_ALL)[0]
        assert (found == expected).mean() > 0.99
    truth = np.concatenate([run(toy(), image)[0] for image in pictures])
    labels = np.concatenate([run(made[target].model, image)[0] for image in pictures])
    agreement = (labels == truth).mean()
    assert 0.9 < agreement < 1
    few = (labels[:4] == truth[:4]).mean()  # what the loss was measured on
    assert made[target].loss.agreement == pytest.approx(few, abs=0.005)


def test_a_batch_has_the_labels_of_its_images(made, pictures):
    for target in TARGETS:
        alone = np.concatenate([run(made[target].model, image)[0] for image in pictures[:3]])
        np.testing.assert_array_equal(run(made[target].model, np.concatenate(pictures[:3]))[0], alone)


def test_the_first_convolution_reads_the_image_and_pads_with_grey(made, toy, pictures):
    expected = run(toy(), pictures[0], ["stem_out"])[0]
    found = run(made["cpu"].model, pictures[0], ["stem_out"])[0]
    assert not {"cast", "scale", "shift"} & set(nodes_of(made["cpu"].model))
    extent = np.abs(expected).max()
    inner = (..., slice(1, -1), slice(1, -1))
    np.testing.assert_allclose(found[inner], expected[inner], atol=0.01 * extent)
    np.testing.assert_allclose(found, expected, atol=0.1 * extent)
    assert "shift_out.quantized" in producers_of(made["tensorrt"].model)


def test_gates_are_hard_sigmoid_and_hard_swish(made, pictures):
    model = made["cpu"].model
    names = ["stem_out.dequantized", "swish_out", "se_expand_out.dequantized", "se_gate_out.dequantized"]
    x, swish, before, gate = run(model, pictures[0], names)
    np.testing.assert_allclose(swish, x * np.clip(x + 3, 0, 6) / 6, atol=np.abs(x).max() * 0.51 / 255)
    np.testing.assert_allclose(gate, np.clip(before / 6 + 0.5, 0, 1), atol=0.51 / 255)
    assert np.ptp(gate) > 0.01


def test_nearest_upsampling_repeats_integers(made, pictures):
    names = ["top_out.quantized", "nearest_out.quantized"]
    small, large = run(made["cpu"].model, pictures[0], names)
    np.testing.assert_array_equal(large, small.repeat(2, axis=2).repeat(2, axis=3))
    assert large.dtype == np.uint8


def test_a_large_bias_of_a_channel_without_weights_is_kept(toy, pictures):
    model = toy()
    constants = {c.name: c for c in model.graph.initializer}
    weight = numpy_helper.to_array(constants["smooth.weight"]).copy()
    weight[2] = 1e-9
    weight[3] = 0
    bias = np.float32([0.1, 0.1, 5, 7, 0, 0, 0, 0])
    constants["smooth.weight"].CopyFrom(numpy_helper.from_array(weight, "smooth.weight"))
    constants["smooth.bias"].CopyFrom(numpy_helper.from_array(bias, "smooth.bias"))
    found = quantize(model, pictures, min_agreement=0, targets=["cpu"])["cpu"].model
    (out,) = run(found, pictures[0], ["smooth_out"])
    np.testing.assert_allclose(out[:, 2], 5, rtol=1e-3)
    np.testing.assert_allclose(out[:, 3], 7, rtol=1e-3)  # the zero weights say nothing of a step


def test_tensorrts_form(made):
    """Symmetric, no integer bias, pairs before weighted nodes and on the shortcut of the sum, and nowhere else."""
    model = made["tensorrt"].model
    constants, producers, nodes = constants_of(model), producers_of(model), nodes_of(model)
    for node in model.graph.node:
        if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
            assert constants[node.input[2]].dtype == np.int8
            assert not constants[node.input[2]].any()
    for name in LAYERS:
        kinds = [producers[i].op_type if i in producers else "constant" for i in nodes[name].input]
        assert kinds == ["DequantizeLinear", "DequantizeLinear", "constant"]
    sides = [producers[i].name for i in nodes["residual"].input]
    assert sides == ["project", "swish_out.dequantize"]
    quantized = {n.input[0] for n in model.graph.node if n.op_type == "QuantizeLinear"}
    read = {nodes_of(model)[name].input[0].removesuffix(".dequantized") for name in LAYERS}
    assert quantized == read | {"swish_out", "nearest_out"}
    assert nodes["swish"].op_type == "HardSwish"
    assert lint(model) == []


def test_tensorrt_for_rtx_builds_it(made):
    pytest.importorskip("tensorrt_rtx_bindings", reason="TensorRT for RTX is not installed")
    build_for_rtx(made["tensorrt"].model)


def build_for_rtx(model):
    """Whether TensorRT for RTX parses the graph and makes an engine of it."""
    from segdeploy.runtime.trt import RTX, load

    flavour = load(RTX)
    trt, builder = flavour.module, flavour.builder()
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, flavour.logger)
    assert parser.parse(model.SerializeToString())
    config, profile = builder.create_builder_config(), builder.create_optimization_profile()
    profile.set_shape("image", (1, 32, 48, 3), (1, 32, 48, 3), (4, 32, 48, 3))
    config.add_optimization_profile(profile)
    assert builder.build_serialized_network(network, config) is not None


def scaled(model, factors):
    """The network with the constants of these names multiplied."""
    for constant in model.graph.initializer:
        if constant.name in factors:
            value = numpy_helper.to_array(constant) * factors[constant.name]
            constant.CopyFrom(numpy_helper.from_array(value.astype(np.float32), constant.name))
    return model


ONE_DEAD = np.where(np.arange(8) == 3, 1e-6, 1)[:, None, None, None]


@pytest.mark.parametrize(
    ("factors", "kept"),
    [
        ({"deep.weight": ONE_DEAD, "smooth.weight": ONE_DEAD}, set()),
        # All of a layer is small, and so are the scores: the same labels, and no step that FP16 could hold.
        ({"head.weight": 1e-5, "head.bias": 1e-5}, {"head"}),
        # The tensor that a layer reads is small, and the layer's weights are large.
        ({"lateral.weight": 1e-5, "lateral.bias": 1e-5, "top.weight": 1e-5, "top.bias": 1e-5, "smooth.weight": 1e5},
         {"smooth", "lateral", "top"}),
    ],
    ids=["dead channel", "small layer", "small tensor"],
)  # fmt: skip
def test_scales_that_fp16_cannot_hold(toy, pictures, factors, kept):
    model = scaled(toy(), factors)
    made = quantize(model, pictures, min_agreement=0, targets=["tensorrt"])["tensorrt"]
    typed, _ = rest_in_fp16(made, pictures, ())
    constants, producers, nodes = constants_of(typed), producers_of(typed), nodes_of(typed)
    scales = [constants[n.input[1]] for n in typed.graph.node if n.op_type in ("QuantizeLinear", "DequantizeLinear")]
    assert {s.dtype for s in scales} == {np.dtype(np.float16), *([np.dtype(np.float32)] if kept else [])}
    assert min(s.min() for s in scales if s.dtype == np.float16) >= 2.0**-14
    assert {name for name in LAYERS if constants[nodes[name].input[2]].dtype == np.float32} == kept
    # No cast between the integers and who multiplies them, but where others read the same integers for FP16.
    for name in LAYERS - ({"lateral"} & kept):
        assert [producers[i].op_type for i in nodes[name].input[:2]] == ["DequantizeLinear"] * 2
    assert lint(typed) == []
    truth, labels = (np.concatenate([run(m, image)[0] for image in pictures]) for m in (model, typed))
    assert (labels == truth).mean() > 0.9
    pytest.importorskip("tensorrt_rtx_bindings", reason="TensorRT for RTX is not installed")
    build_for_rtx(typed)


def test_scales_are_of_the_type_of_the_graph(toy, pictures):
    """An FP16 graph gets FP16 scales, which strong typing asks for."""
    model = quantize(toy(dtype=np.float16), pictures[:2], min_agreement=0, targets=["tensorrt"])["tensorrt"].model
    constants = constants_of(model)
    kinds = {constants[n.input[1]].dtype for n in model.graph.node if n.op_type.endswith("quantizeLinear")}
    kinds |= {constants[n.input[1]].dtype for n in model.graph.node if n.op_type == "QuantizeLinear"}
    assert kinds == {np.dtype(np.float16)}
    assert lint(model) == []


def test_a_matrix_product_is_quantised_and_its_norm_is_not(pictures):
    """Tokens: a product with a weight, a norm, and a product of two activations."""
    random = np.random.default_rng(0)
    constants = {
        "shape": np.int64([0, -1, 3]),
        "weight": random.normal(size=(3, 16)).astype(np.float32),
        "ones": np.ones(16, np.float32),
        "head": random.normal(size=(16, 4)).astype(np.float32),
        "back": np.int64([0, 32, 48]),
    }
    node = helper.make_node
    nodes = [
        node("Cast", ["image"], ["float"], "cast", to=T.FLOAT),
        node("Reshape", ["float", "shape"], ["tokens"], "tokens"),
        node("MatMul", ["tokens", "weight"], ["a"], "embed"),
        node("LayerNormalization", ["a", "ones"], ["b"], "norm"),
        node("Transpose", ["b"], ["bt"], "turn", perm=[0, 2, 1]),
        node("MatMul", ["bt", "b"], ["c"], "attend"),
        node("Softmax", ["c"], ["d"], "softmax"),
        node("MatMul", ["b", "d"], ["e"], "mix"),
        node("MatMul", ["e", "head"], ["f"], "head"),
        node("ArgMax", ["f"], ["g"], "argmax", axis=2, keepdims=0),
        node("Reshape", ["g", "back"], ["h"], "map"),
        node("Cast", ["h"], ["i"], "to_float", to=T.FLOAT),
        node("Cast", ["i"], ["mask"], "to_uint8", to=T.UINT8),
    ]
    graph = helper.make_graph(
        nodes,
        "main_graph",
        [helper.make_tensor_value_info("image", T.UINT8, ["batch", 32, 48, 3])],
        [helper.make_tensor_value_info("mask", T.UINT8, ["batch", 32, 48])],
        [numpy_helper.from_array(v, k) for k, v in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    for target, found in quantize(model, pictures, min_agreement=0).items():
        told = {d.node: (d.precision, d.reason) for d in found.decisions}
        assert {name for name, (precision, _) in told.items() if precision == "int8"} == {"embed", "head"}, target
        assert told["norm"][1] == told["softmax"][1] == "norms and softmax stay in float"
        assert told["attend"][1] == "both sides change with the image"
        scale = constants_of(found.model)["head.scale"]
        np.testing.assert_allclose(scale, np.abs(constants["head"]).max(axis=0) / 127, rtol=1e-6)
        assert found.loss.agreement > 0.95


def test_decisions_name_every_node_that_computes(made, toy):
    for target in TARGETS:
        told = {d.node: d for d in made[target].decisions}
        assert set(told) == {n.name for n in toy().graph.node} - {"argmax", "to_uint8"}
        assert {told[name].precision for name in LAYERS} == {"int8"}
        assert all((d.range is None) or d.range > 0 for d in told.values())
    told = {d.node: d for d in made["cpu"].decisions}
    assert told["residual"].precision == "int8"
    assert told["last"].precision == "fp32"
    assert told["project"].range == pytest.approx(
        float(constants_of(made["cpu"].model)["se_mul_out.scale"]) * 255, rel=1e-4
    )


def test_layers_are_kept_by_name(toy, pictures):
    found = quantize(toy(), pictures, min_agreement=0, keep_fp32=["se_*", "head"])
    for target in TARGETS:
        model = found[target].model
        kept = {n.name for n in model.graph.node if n.op_type == "Conv" and n.input[1].endswith(".weight")}
        assert kept == {"se_reduce", "se_expand", "head"}
        told = {d.node: d for d in found[target].decisions}
        assert (told["head"].precision, told["head"].reason) == ("fp32", "kept by name, or no integer kernel")


def test_both_graphs_come_of_one_pass(toy, pictures):
    read = collections.Counter()

    class Counted(collections.abc.Sequence):
        def __len__(self):
            return len(pictures)

        def __getitem__(self, at):
            if isinstance(at, slice):
                return pictures[at]
            if at < len(pictures):
                read[at] += 1
            return pictures[at]

    told = []
    quantize(toy(), Counted(), min_agreement=0, progress=lambda *step: told.append(step))
    assert told == [(i + 1, len(pictures)) for i in range(len(pictures))]
    assert read == dict.fromkeys(range(len(pictures)), 1)


def test_constant_images_are_no_obstacle(toy):
    black = [np.zeros((1, 32, 48, 3), np.uint8)]
    for found in quantize(toy(), black, min_agreement=0).values():
        assert run(found.model, black[0])[0].shape == (1, 32, 48)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"method": "best"}, "calibration method: expected one of minmax, entropy, percentile, got 'best'"),
        ({"targets": ["gpu"]}, "INT8 target: expected one of cpu, tensorrt, got 'gpu'"),
        ({"keep_fp32": ["*"]}, "INT8 for cpu: the graph has no convolution or matrix product"),
    ],
)
def test_bad_options_are_refused_in_a_line(toy, pictures, options, said):
    with pytest.raises(ExportError, match=said) as error:
        quantize(toy(), pictures, **options)
    assert "\n" not in str(error.value)


def test_no_images_are_refused(toy):
    with pytest.raises(DataError, match="found none"):
        quantize(toy(), [])
