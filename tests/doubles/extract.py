"""Copies out of a listing of TensorRT's Python API the classes that a builder and a runner meet.

    python tests/doubles/extract.py LISTING.json tensorrt_11.4.json

A listing is read from NVIDIA's own bindings (the wheels `tensorrt-cu13-bindings` on PyPI): every class with its bases,
enum members, signatures and properties. Facts alone are copied, no code and no text of the documentation.
"""

import json
import sys
from pathlib import Path

CLASSES = (
    "Builder", "IBuilderConfig", "INetworkDefinition", "ITensor", "ILayer", "OnnxParser", "ParserError", "ErrorCode",
    "IOptimizationProfile", "IHostMemory", "ITimingCache", "IProgressMonitor", "Runtime", "ICudaEngine",
    "IExecutionContext", "IRuntimeConfig", "ISerializationConfig", "IErrorRecorder", "IOutputAllocator",
    "IGpuAllocator", "IProfiler", "EngineInspector", "Dims", "ILogger", "Logger", "ILogger.Severity", "BuilderFlag",
    "NetworkDefinitionCreationFlag", "OnnxParserFlag", "DataType", "TensorIOMode", "TensorLocation", "TensorFormat",
    "MemoryPoolType", "ProfilingVerbosity", "HardwareCompatibilityLevel", "RuntimePlatform", "EngineCapability",
    "TacticSource", "PreviewFeature", "SerializationFlag", "TempfileControlFlag", "TilingOptimizationLevel",
    "ExecutionContextAllocationStrategy", "LayerInformationFormat", "DeviceType", "IRuntimeCache", "CudaGraphStrategy",
    "ComputeCapability", "DynamicShapesKernelSpecializationStrategy",
)  # fmt: skip


def extract(listing: dict) -> dict:
    """The facts of the classes above, and the module's constants."""
    classes = {}
    for name in CLASSES:
        if (found := listing["classes"].get(name)) is None:  # of TensorRT for RTX alone
            continue
        classes[name] = {key: found[key] for key in ("bases", "enum", "methods", "properties") if found.get(key)}
    return {
        "origin": f"read from NVIDIA's Python bindings {listing['version']} (a wheel on PyPI) by extract.py",
        "version": listing["version"],
        "constants": {k: v for k, v in listing["constants"].items() if k != "__version__"},
        "classes": classes,
    }


if __name__ == "__main__":
    source, target = map(Path, sys.argv[1:])
    target.write_text(json.dumps(extract(json.loads(source.read_text())), indent=1, sort_keys=True) + "\n")
