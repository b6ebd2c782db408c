"""Lines of Python that meet a TensorRT module, and what comes of them.

    python tests/doubles/probes.py MODULE FILE.json

Run as a program, because the real library takes one logger for the life of a process.
"""

import importlib
import json
import sys
import warnings
from pathlib import Path


def outcome(code: str, trt) -> str:
    """What the code gives on a module: the value's type and text, or the error's type."""
    names = {"t": trt}
    try:
        exec("\n".join(code.split("\n")[:-1]), names)
        found = eval(code.split("\n")[-1], names)
    except Exception as e:
        return type(e).__name__
    text = repr(found)
    return f"{type(found).__name__} {text.split(' object at ')[0].replace('tensorrt_rtx_bindings.tensorrt_rtx', '')}"


BUILDER = "b = t.Builder(t.Logger())\n"
CONFIG = BUILDER + "c = b.create_builder_config()\n"
PROFILE = CONFIG + "p = b.create_optimization_profile()\n"
# The two differ in what they build, not in how Python meets them.
SHARED = [
    "t.Dims((1, 2)) == t.Dims((1, 2))",
    "t.Dims((1, 2)) == (1, 2)",
    "t.Dims((1, 2)) != [1, 2]",
    "t.Dims((1, 2)) == 5",
    "t.Dims(range(9))",
    "t.Dims((1, 2))[5]",
    "t.Dims((1, 2))[-1]",
    "t.Dims((1, 2))[0:1]",
    "hash(t.Dims((1, 2)))",
    "list(t.Dims((1, 2)))",
    "tuple(t.Dims())",
    "t.Dims((1.5, 2))",
    "isinstance(t.Dims((1,)), (tuple, list))",
    "repr(t.Dims((1, 2)))",
    "1 << t.BuilderFlag.TF32",
    "1 << int(t.BuilderFlag.TF32)",
    "t.BuilderFlag.TF32 | t.BuilderFlag.TF32",
    "t.BuilderFlag.TF32 == int(t.BuilderFlag.TF32)",
    "t.BuilderFlag.TF32 == t.BuilderFlag.REFIT",
    "t.BuilderFlag.TF32 == t.DataType.UINT8",
    "t.BuilderFlag.TF32 in {t.BuilderFlag.TF32: 1}",
    "t.BuilderFlag.TF32 < t.BuilderFlag.TF32",
    "t.BuilderFlag.TF32 < 7",
    "t.DataType.FLOAT < t.DataType.HALF",
    "t.BuilderFlag.TF32.name, t.BuilderFlag.TF32.value == int(t.BuilderFlag.TF32)",
    "t.BuilderFlag.NO_SUCH",
    "t.BuilderFlag(99)",
    "t.float16 is t.DataType.HALF",
    "t.float16 == t.DataType.HALF",
    "t.DataType.FLOAT",
    "t.DataType.HALF.itemsize, t.DataType.INT64.itemsize, t.DataType.UINT8.itemsize",
    "t.nptype(t.DataType.BF16)",
    "t.nptype(t.uint8)",
    "t.volume((2, 3))",
    "t.no_such_name",
    "t.INetworkDefinition()",
    "t.ICudaEngine()",
    "t.IOptimizationProfile()",
    "t.Logger().min_severity",
    "t.Logger(3)",
    "t.Logger.ERROR < t.Logger.WARNING < t.Logger.VERBOSE",
    "t.ILogger().log(1)",
    "class L(t.ILogger):\n    def __init__(self): pass\nL()",
    "class L(t.ILogger):\n    def __init__(self): t.ILogger.__init__(self); self.mine = 3\nL().mine",
    "class M(t.IProgressMonitor):\n    def __init__(self): pass\nM()",
    "class M(t.IProgressMonitor):\n    def __init__(self): t.IProgressMonitor.__init__(self)\ntype(M()).__name__",
    "t.Builder()",
    "t.Builder(3)",
    "t.Builder(None)",
    BUILDER + "b.no_such_name",
    BUILDER + "setattr(b, 'no_such_name', 1)",
    BUILDER + "setattr(b, 'num_DLA_cores', 1)",
    BUILDER + "b.create_network(1, 2)",
    BUILDER + "b.create_network('x')",
    BUILDER + "b.create_network(1.0)",
    BUILDER + "b.create_network(nonsense=1)",
    BUILDER + "b.create_network(1 << 30)",
    BUILDER + "type(b.create_network(flags=1 << int(t.NetworkDefinitionCreationFlag.STRONGLY_TYPED))).__name__",
    BUILDER + "b.create_network(0).get_input(0)",
    BUILDER + "b.max_threads, b.num_DLA_cores",
    CONFIG + "c.get_flag(t.BuilderFlag.TF32)",
    CONFIG + "c.clear_flag(t.BuilderFlag.TF32)\nc.get_flag(t.BuilderFlag.TF32)",
    CONFIG + "c.set_flag(1)",
    CONFIG + "c.set_flag()",
    CONFIG + "setattr(c, 'builder_optimization_level', '3')",
    CONFIG + "setattr(c, 'profiling_verbosity', 1)",
    CONFIG + "c.profiling_verbosity = t.ProfilingVerbosity.DETAILED\nc.profiling_verbosity",
    CONFIG + "c.builder_optimization_level, c.progress_monitor, c.hardware_compatibility_level",
    CONFIG + "c.set_memory_pool_limit(t.MemoryPoolType.WORKSPACE, 1.5)",
    CONFIG + "c.create_timing_cache('x')",
    CONFIG + "c.set_timing_cache(None, False)",
    CONFIG + "len(c.create_timing_cache(b'').serialize())",
    CONFIG + "type(c.create_timing_cache(b'').serialize().nbytes).__name__",
    CONFIG + "type(bytes(c.create_timing_cache(b'').serialize())).__name__",
    CONFIG + "c.create_timing_cache(b'').serialize()[0:3]",
    CONFIG + "c.num_optimization_profiles",
    PROFILE + "bool(p)",
    PROFILE
    + "p.set_shape('a', (1, 2), (1, 2), (4, 2))\np.get_shape('a')[2] == (4, 2), bool(p), c.add_optimization_profile(p)",
    PROFILE + "p.set_shape('a', (2, 2), (1, 2), (4, 2))\nbool(p), c.add_optimization_profile(p)",
    PROFILE + "p.set_shape('a', (1, 2), (1, 2, 3), (4, 2))",
    PROFILE + "p.set_shape('a', (1, 2), (1, 2))",
    PROFILE + "p.set_shape('a', (1, 'x'), (1, 2), (1, 2))",
    PROFILE + "p.set_shape('a', tuple(range(9)), (1, 2), (1, 2))",
    PROFILE + "p.get_shape('none')",
    BUILDER + "t.OnnxParser(b.create_network(0), t.Logger()).parse_from_file('/no/such')",
    BUILDER
    + "q = t.OnnxParser(b.create_network(0), t.Logger())\nq.parse_from_file('/no/such')\nq.num_errors, q.get_error(5)",
    BUILDER + "t.OnnxParser(b.create_network(0), t.Logger()).parse_from_file(3)",
    BUILDER + "q = t.OnnxParser(b.create_network(0), t.Logger())\nq.parse_from_file('/no')\nq.get_error(0).node_name()",
    CONFIG + "b.build_serialized_network(b.create_network(0), c)",
    "t.Runtime(t.Logger()).deserialize_cuda_engine('x')",
    "t.Runtime(t.Logger()).deserialize_cuda_engine(b'x')",
    "r = t.Runtime(t.Logger())\nr.engine_host_code_allowed = 1\nr.engine_host_code_allowed",
]


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    module = importlib.import_module(sys.argv[1])
    Path(sys.argv[2]).write_text(json.dumps({code: outcome(code, module) for code in SHARED}))
