"""What builder, network and parser of the TensorRT double do; each function's first argument is the loaded library."""

from pathlib import Path

from pybind import make
from tensorrt_values import ONNX_TYPES, Plan, doing, host_memory

BEHAVIOUR: dict = {}
does = doing(BEHAVIOUR)
PRECISION_FLAGS = {"FP16", "BF16", "INT8", "FP8", "INT4", "FP4"}
STEPS = 3


# Builder


@does("Builder.__init__")
def _builder(lib, self, logger):
    lib.start(logger)
    self._state |= {"logger": lib.logger, "max_threads": 1, "num_DLA_cores": 0, "max_DLA_batch_size": 1}


@does("Builder.platform_has_fast_fp16", "Builder.platform_has_fast_int8", "Builder.platform_has_tf32")
def _fast(lib, self):
    return True


@does("Builder.create_network")
def _create_network(lib, self, flags):
    known = {1 << int(m) for m in lib.classes["NetworkDefinitionCreationFlag"].__members__.values()}
    if flags & ~sum(known):
        lib.say("ERROR", "IBuilder::createNetworkV2: Error Code 3: API Usage Error (flags)")
        return None
    typed = lib.always_typed or bool(flags & 1 << int(lib.member("NetworkDefinitionCreationFlag", "STRONGLY_TYPED")))
    return make(
        lib.classes["INetworkDefinition"],
        builder=self,
        flags=flags,
        name="Unnamed Network 0",
        model=None,
        typed=typed,
        has_implicit_batch_dimension=False,
    )


@does("Builder.create_builder_config")
def _create_config(lib, self):
    flag = lib.classes["BuilderFlag"]
    return make(
        lib.classes["IBuilderConfig"],
        flags=1 << int(flag.TF32),
        profiles=[],
        pools={},
        cache=None,
        builder_optimization_level=3,
        profiling_verbosity=lib.member("ProfilingVerbosity", "LAYER_NAMES_ONLY"),
        hardware_compatibility_level=lib.member("HardwareCompatibilityLevel", "NONE"),
        engine_capability=lib.member("EngineCapability", "STANDARD"),
        runtime_platform=lib.member("RuntimePlatform", "SAME_AS_BUILD"),
        tiling_optimization_level=lib.member("TilingOptimizationLevel", "NONE"),
        progress_monitor=None,
        max_aux_streams=-1,
        avg_timing_iterations=1,
        profile_stream=0,
        plugins_to_serialize=[],
    )


@does("Builder.create_optimization_profile")
def _create_profile(lib, self):
    return make(lib.classes["IOptimizationProfile"], shapes={})


@does("Builder.is_network_supported")
def _supported(lib, self, network, config):
    return True


@does("Builder.build_serialized_network")
def _build(lib, self, network, config, kernel_text=None):
    flags = {m for m, v in lib.classes["BuilderFlag"].__members__.items() if config._state["flags"] >> int(v) & 1}
    if refusal := _refusal(lib, network, config, flags):
        lib.say("ERROR", refusal)
        return None
    if not _progress(config._state["progress_monitor"]):
        lib.say("ERROR", "Build was cancelled by progress monitor")
        return None
    if config._state["cache"] is not None:
        config._state["cache"]._state["entries"].add(str(len(network._state["model"])))
    plan = Plan(
        library=lib.name,
        version=lib.full_version,
        capability=lib.device.capability,
        gpu=lib.device.name,
        profiles=[{k: [list(s) for s in v] for k, v in p._state["shapes"].items()} for p in config._state["profiles"]],
        onnx=network._state["model"],
        version_compatible="VERSION_COMPATIBLE" in flags,
        hardware=config._state["hardware_compatibility_level"].name,
    )
    return host_memory(lib, plan.to_bytes())


def _refusal(lib, network, config, flags):
    if lib.faults.build:
        return lib.faults.build
    if network._state["model"] is None:
        return "IBuilder::buildSerializedNetwork: Error Code 4: API Usage Error (network without an output)"
    if network._state["typed"] and (wrong := PRECISION_FLAGS & flags):
        return f"Error Code 4: API Usage Error (precision flags {sorted(wrong)} set on a strongly typed network)"
    for tensor in network._state["inputs"]:
        shape = tuple(tensor._state["shape"])
        if -1 not in shape:
            continue
        if not config._state["profiles"]:
            return "Error Code 4: API Usage Error (Network has dynamic inputs, but no optimization profile is defined.)"
        for profile in config._state["profiles"]:
            found = profile._state["shapes"].get(tensor._state["name"])
            if found is None or len(found[0]) != len(shape):
                return (
                    f"Error Code 4: API Usage Error ({tensor._state['name']}: optimization profile is missing values)"
                )
            if any(s not in (-1, d) for given in found for s, d in zip(shape, given, strict=True)):
                return (
                    f"Error Code 4: API Usage Error ({tensor._state['name']}: profile does not match static dimension)"
                )
    return ""


def _progress(monitor) -> bool:
    """Callbacks' exceptions are printed and swallowed; in `step_complete` they count as False, which cancels."""
    if monitor is None:
        return True
    try:
        monitor.phase_start("Building Engine", None, STEPS)
        going = all(monitor.step_complete("Building Engine", i) for i in range(STEPS))
        monitor.phase_finish("Building Engine")
    except Exception as e:
        print(f"[ERROR] Exception caught in step_complete(): {e}")
        return False
    return going


# Network and parser


@does("OnnxParser.__init__")
def _parser(lib, self, network, logger):
    self._state |= {"network": network, "errors": [], "flags": 0}


@does("OnnxParser.parse_from_file")
def _parse_file(lib, self, path):
    if not Path(path).is_file():
        return _fail(lib, self, "", "", f"Input file cannot be found, or is not a regular file: {path}")
    return _parse_bytes(lib, self, Path(path).read_bytes(), path)


@does("OnnxParser.parse")
def _parse_bytes(lib, self, data, path):
    import onnx

    if lib.faults.parse:
        return _fail(lib, self, *lib.faults.parse)
    try:
        model = onnx.load_from_string(data)
        if path is not None:
            onnx.external_data_helper.load_external_data_for_model(model, str(Path(path).parent))
        onnx.checker.check_model(model)
    except Exception as e:
        return _fail(lib, self, "", "", f"Failed to parse the ONNX model: {str(e).splitlines()[0]}")
    state = self._state["network"]._state
    state["model"] = model.SerializeToString()
    state["layers"] = [(node.name, node.op_type) for node in model.graph.node]
    for key, values in (("inputs", model.graph.input), ("outputs", model.graph.output)):
        state[key] = [_tensor(lib, v) for v in values]
    return True


@does("OnnxParser.supports_model_v2")
def _supports(lib, self, data, path):
    return _parse_bytes(lib, self, data, path)


BEHAVIOUR["OnnxParser.num_subgraphs"] = lambda lib, self: len(self._state["errors"])
BEHAVIOUR["OnnxParser.is_subgraph_supported"] = lambda lib, self, i: False
BEHAVIOUR["OnnxParser.get_subgraph_nodes"] = lambda lib, self, i: [i]


def _fail(lib, parser, node, operator, reason) -> bool:
    parser._state["errors"].append((node, operator, reason))
    lib.say("ERROR", f"In node -1 with name: {node} and operator: {operator} (parse): INVALID_NODE: {reason}")
    return False


def _tensor(lib, value):
    kind = value.type.tensor_type
    dims = [d.dim_value if d.HasField("dim_value") else -1 for d in kind.shape.dim]
    return make(
        lib.classes["ITensor"],
        name=value.name, shape=lib.classes["Dims"](dims), dtype=lib.member("DataType", ONNX_TYPES[kind.elem_type]),
        is_shape_tensor=False, is_execution_tensor=True,
    )  # fmt: skip


BEHAVIOUR["OnnxParser.num_errors"] = lambda lib, self: len(self._state["errors"])
BEHAVIOUR["OnnxParser.clear_errors"] = lambda lib, self: self._state["errors"].clear()
BEHAVIOUR["INetworkDefinition.num_inputs"] = lambda lib, self: len(self._state.get("inputs", ()))
BEHAVIOUR["INetworkDefinition.num_outputs"] = lambda lib, self: len(self._state.get("outputs", ()))
BEHAVIOUR["INetworkDefinition.num_layers"] = lambda lib, self: len(self._state.get("layers", ()))
BEHAVIOUR["INetworkDefinition.get_input"] = lambda lib, self, i: _at(lib, self, "inputs", i)
BEHAVIOUR["INetworkDefinition.get_output"] = lambda lib, self, i: _at(lib, self, "outputs", i)


def _at(lib, network, key, i):
    held = network._state.get(key, ())
    if 0 <= i < len(held):
        return held[i]
    lib.say("ERROR", f"INetworkDefinition: Error Code 3: API Usage Error (index {i} of {len(held)} {key})")
    return None


@does("OnnxParser.get_error")
def _get_error(lib, self, i):
    if not 0 <= i < len(self._state["errors"]):
        return None
    node, operator, reason = self._state["errors"][i]
    return make(lib.classes["ParserError"], node_name=node, node_operator=operator, desc=reason)


for _word in ("node_name", "node_operator", "desc"):
    BEHAVIOUR[f"ParserError.{_word}"] = lambda lib, self, word=_word: self._state[word]
BEHAVIOUR["ParserError.node"] = lambda lib, self: -1
BEHAVIOUR["ParserError.line"] = lambda lib, self: 0
BEHAVIOUR["ParserError.file"] = BEHAVIOUR["ParserError.func"] = lambda lib, self: ""
BEHAVIOUR["ParserError.code"] = lambda lib, self: lib.member("ErrorCode", "INVALID_NODE")
BEHAVIOUR["ParserError.local_function_stack"] = lambda lib, self: []
