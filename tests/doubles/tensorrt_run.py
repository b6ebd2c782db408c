"""What the runtime's side of the TensorRT double does; each function's first argument is the loaded library."""

import threading

from pybind import make
from tensorrt_values import ONNX_TYPES, Plan, doing, host_memory, read_plan

BEHAVIOUR: dict = {}
does = doing(BEHAVIOUR)
WEIGHTS, SCRATCH = 1 << 20, 2 << 20  # device bytes of an engine, and of one of its contexts


class Held:
    """Device memory that goes with the object that it belongs to."""

    def __init__(self, device, size: int) -> None:
        self.device, self.size = device, size

    def __del__(self) -> None:
        self.device.release(self.size)


@does("Runtime.__init__")
def _runtime(lib, self, logger):
    lib.start(logger)
    self._state |= {"logger": lib.logger, "engine_host_code_allowed": False, "max_threads": 1, "DLA_core": -1}


@does("Runtime.deserialize_cuda_engine")
def _deserialize(lib, self, data):
    plan = read_plan(data)
    if refusal := _refusal(lib, self, plan):
        lib.say("ERROR", refusal)
        return None
    if not lib.device.hold(WEIGHTS):
        lib.say("ERROR", "Error Code 2: OutOfMemory (no device memory for the weights)")
        return None
    tensors = _tensors(plan)
    return make(lib.classes["ICudaEngine"], plan=plan, runtime=self, tensors=tensors, held=Held(lib.device, WEIGHTS))


def _refusal(lib, runtime, plan: Plan | None) -> str:
    if plan is None or plan.library != lib.name:
        return "Error Code 1: Serialization (assertion magicTagRead == kMAGIC_TAG failed. Magic tag does not match)"
    mine, theirs = ([int(n) for n in v.split(".")] for v in (lib.full_version, plan.version))
    if mine != theirs:
        if not plan.version_compatible or theirs > mine:
            return f"Error Code 1: Serialization (engine of version {plan.version}, library {lib.full_version})"
        if not runtime._state["engine_host_code_allowed"]:
            return "Error Code 4: API Usage Error (the plan holds host code, engine_host_code_allowed is off)"
    fits = {
        "NONE": plan.capability == lib.device.capability or lib.name == "tensorrt_rtx",
        "SAME_COMPUTE_CAPABILITY": plan.capability == lib.device.capability,
        "AMPERE_PLUS": lib.device.capability >= (8, 0),
    }
    if not fits[plan.hardware]:
        return f"Error Code 6: API Usage Error (engine for compute {plan.capability}, device {lib.device.capability})"
    return ""


def _tensors(plan: Plan) -> dict[str, tuple[bool, str, tuple]]:
    """name -> (whether an input, DataType member, ONNX dims: numbers and names)."""
    import onnx

    graph = onnx.load_from_string(plan.onnx).graph
    found = {}
    for value in (*graph.input, *graph.output):
        kind = value.type.tensor_type
        dims = tuple(d.dim_value if d.HasField("dim_value") else d.dim_param or "?" for d in kind.shape.dim)
        found[value.name] = (value in graph.input, ONNX_TYPES[kind.elem_type], dims)
    return found


# Engine


def known(lib, engine, name):
    found = engine._state["tensors"].get(name)
    if found is None:
        lib.say("ERROR", f"Error Code 3: API Usage Error (no tensor {name!r})")
    return found


BEHAVIOUR["ICudaEngine.num_io_tensors"] = lambda lib, self: len(self._state["tensors"])
BEHAVIOUR["ICudaEngine.num_optimization_profiles"] = lambda lib, self: max(1, len(self._state["plan"].profiles))
BEHAVIOUR["ICudaEngine.num_layers"] = lambda lib, self: 1
BEHAVIOUR["ICudaEngine.name"] = lambda lib, self: "Unnamed Network 0"
BEHAVIOUR["ICudaEngine.device_memory_size_v2"] = lambda lib, self: SCRATCH
BEHAVIOUR["ICudaEngine.device_memory_size"] = lambda lib, self: SCRATCH
BEHAVIOUR["ICudaEngine.is_shape_inference_io"] = lambda lib, self, name: False
BEHAVIOUR["ICudaEngine.streamable_weights_size"] = lambda lib, self: 0
BEHAVIOUR["ICudaEngine.hardware_compatibility_level"] = lambda lib, self: lib.member(
    "HardwareCompatibilityLevel", self._state["plan"].hardware
)


@does("ICudaEngine.get_tensor_name")
def _tensor_name(lib, self, index):
    return list(self._state["tensors"])[index]


@does("ICudaEngine.get_tensor_mode")
def _tensor_mode(lib, self, name):
    found = known(lib, self, name)
    return lib.member("TensorIOMode", "NONE" if found is None else "INPUT" if found[0] else "OUTPUT")


@does("ICudaEngine.get_tensor_dtype")
def _tensor_dtype(lib, self, name):
    found = known(lib, self, name)
    return lib.member("DataType", "FLOAT" if found is None else found[1])


@does("ICudaEngine.get_tensor_shape")
def _tensor_shape(lib, self, name):
    found = known(lib, self, name)
    return lib.classes["Dims"]([d if isinstance(d, int) else -1 for d in found[2]] if found else [])


@does("ICudaEngine.get_tensor_location")
def _tensor_location(lib, self, name):
    return lib.member("TensorLocation", "DEVICE")


@does("ICudaEngine.get_tensor_format")
def _tensor_format(lib, self, name, profile_index=0):
    return lib.member("TensorFormat", "LINEAR")


def limits(engine, name, index):
    """(min, opt, max) of an input under a profile."""
    dims = engine._state["tensors"][name][2]
    profiles = engine._state["plan"].profiles
    return profiles[index].get(name, [dims] * 3) if profiles else [dims] * 3


@does("ICudaEngine.get_tensor_profile_shape")
def _profile_shape(lib, self, name, index):
    found = known(lib, self, name)
    if found is None or not found[0] or index >= max(1, len(self._state["plan"].profiles)):
        return [lib.classes["Dims"]()] * 3
    return [lib.classes["Dims"](s) for s in limits(self, name, index)]


@does("ICudaEngine.serialize")
def _serialize(lib, self):
    return host_memory(lib, self._state["plan"].to_bytes())


@does("ICudaEngine.create_runtime_config")
def _create_runtime_config(lib, self):
    state = {"strategy": lib.member("ExecutionContextAllocationStrategy", "STATIC"), "cache": None}
    if lib.name == "tensorrt_rtx":
        state["cuda_graph_strategy"] = lib.member("CudaGraphStrategy", "DISABLED")
    return make(lib.classes["IRuntimeConfig"], **state)


@does("IRuntimeConfig.set_execution_context_allocation_strategy")
def _set_strategy(lib, self, strategy):
    self._state["strategy"] = strategy


BEHAVIOUR["IRuntimeConfig.get_execution_context_allocation_strategy"] = lambda lib, self: self._state["strategy"]
BEHAVIOUR["IRuntimeConfig.cuda_graph_strategy="] = lambda lib, self, value: not lib.faults.graph_strategy
BEHAVIOUR["IRuntimeConfig.create_runtime_cache"] = lambda lib, self: make(lib.classes["IRuntimeCache"], kernels=set())
BEHAVIOUR["IRuntimeConfig.get_runtime_cache"] = lambda lib, self: self._state["cache"]


@does("IRuntimeConfig.set_runtime_cache")
def _set_runtime_cache(lib, self, cache):
    if lib.faults.runtime_cache:
        return False
    self._state["cache"] = cache
    return True


@does("IRuntimeCache.deserialize")
def _fill_cache(lib, self, data):
    head, *kernels = data.decode(errors="replace").split("\n")
    if head != _kernel_head(lib):
        self._state["kernels"] = {"half of a foreign cache"}
        return False
    self._state["kernels"] = set(kernels)
    return True


@does("IRuntimeCache.reset")
def _reset_cache(lib, self):
    self._state["kernels"] = set()
    return True


@does("IRuntimeCache.serialize")
def _serialize_cache(lib, self):
    return host_memory(lib, "\n".join([_kernel_head(lib), *sorted(self._state["kernels"])]).encode())


def _kernel_head(lib) -> str:
    return f"double-kernels {lib.full_version} {lib.device.name}"


@does("ICudaEngine.create_execution_context")
def _create_context(lib, self, how):
    """`how`: None, an allocation strategy, or a runtime config that holds one."""
    held = None
    config = how if isinstance(how, lib.classes["IRuntimeConfig"]) else None
    strategy = config._state["strategy"] if config is not None else how
    own = strategy is None or strategy.name != "USER_MANAGED"
    if lib.faults.context or (own and not lib.device.hold(SCRATCH)):
        lib.say("ERROR", f"Error Code 2: OutOfMemory (Requested size was {SCRATCH} bytes.)")
        return None
    if own:
        held = Held(lib.device, SCRATCH)
    return make(
        lib.classes["IExecutionContext"],
        engine=self, config=config, shapes={}, addresses={}, active_optimization_profile=0, busy=threading.Lock(),
        held=held, scratch=None, name="", captured=False,
        nvtx_verbosity=lib.member("ProfilingVerbosity", "LAYER_NAMES_ONLY"),
    )  # fmt: skip
