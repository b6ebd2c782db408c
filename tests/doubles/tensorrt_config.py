"""What small values, builder configurations, profiles and timing caches of the TensorRT double do.

Each function's first argument is the loaded library.
"""

from pybind import make
from tensorrt_values import doing, host_memory

BEHAVIOUR: dict = {}
does = doing(BEHAVIOUR)
CACHE_MAGIC = "double-cache "


# Small values


@does("DataType.itemsize")
def _itemsize(lib, self):
    return {"FLOAT": 4, "INT32": 4, "HALF": 2, "BF16": 2, "INT64": 8}.get(self.name, 1)


@does("Dims.__init__")
def _dims(lib, self, shape=()):
    if len(shape) > 8:
        raise ValueError(f"Input length {len(shape)}. Max expected length is 8")
    self._state["dims"] = list(shape)


@does("Dims.__eq__")
def _dims_equal(lib, self, other):
    return self._state["dims"] == list(other)


@does("Dims.__getitem__")
def _dims_item(lib, self, at):
    if isinstance(at, slice):
        return tuple(self._state["dims"][at])
    if not -len(self._state["dims"]) <= at < len(self._state["dims"]):
        raise IndexError("Out of bounds")
    return self._state["dims"][at]


BEHAVIOUR["Dims.__repr__"] = lambda lib, self: repr(tuple(self._state["dims"]))
BEHAVIOUR["Dims.__len__"] = lambda lib, self: len(self._state["dims"])
BEHAVIOUR["Dims.MAX_DIMS"] = lambda lib, self: 8


@does("Logger.__init__")
def _logger(lib, self, severity):
    self._state["min_severity"] = severity


@does("Logger.log")
def _log(lib, self, severity, text):
    if severity <= self._state["min_severity"]:
        print(f"[TRT] [{severity.name[0]}] {text}")


# Configuration


@does("IBuilderConfig.set_flag")
def _set_flag(lib, self, flag):
    self._state["flags"] |= 1 << int(flag)


@does("IBuilderConfig.clear_flag")
def _clear_flag(lib, self, flag):
    self._state["flags"] &= ~(1 << int(flag))


@does("IBuilderConfig.get_flag")
def _get_flag(lib, self, flag):
    return bool(self._state["flags"] >> int(flag) & 1)


@does("IBuilderConfig.set_memory_pool_limit")
def _set_pool(lib, self, pool, size):
    self._state["pools"][pool] = size


@does("IBuilderConfig.get_memory_pool_limit")
def _get_pool(lib, self, pool):
    return self._state["pools"].get(pool, lib.device.memory)


@does("IBuilderConfig.add_optimization_profile")
def _add_profile(lib, self, profile):
    if not _is_valid(profile):
        lib.say("ERROR", "IBuilderConfig::addOptimizationProfile: Error Code 3: API Usage Error (profile->isValid())")
        return -1
    self._state["profiles"].append(profile)
    return len(self._state["profiles"]) - 1


BEHAVIOUR["IBuilderConfig.num_optimization_profiles"] = lambda lib, self: len(self._state["profiles"])
BEHAVIOUR["IBuilderConfig.get_timing_cache"] = lambda lib, self: self._state["cache"]


@does("IBuilderConfig.builder_optimization_level=")
def _level(lib, self, value):
    return 0 <= value <= 5


@does("IBuilderConfig.set_compute_capability")
def _set_target(lib, self, capability, index):
    return 0 <= index < self.num_compute_capabilities


@does("IBuilderConfig.max_aux_streams=")
def _aux(lib, self, value):
    return value >= 0


def _cache_head(lib) -> str:
    return f"{CACHE_MAGIC}{lib.full_version} {lib.device.name} {lib.device.capability}"


@does("IBuilderConfig.create_timing_cache")
def _create_cache(lib, self, data):
    head, *entries = data.decode(errors="replace").split("\n") if data else (_cache_head(lib),)
    if not head.startswith(CACHE_MAGIC):
        lib.say("ERROR", "IBuilderConfig::createTimingCache: Error Code 3: the blob is no timing cache")
        return None
    return make(lib.classes["ITimingCache"], head=head, entries=set(entries) - {""})


@does("IBuilderConfig.set_timing_cache")
def _set_cache(lib, self, cache, ignore_mismatch):
    if cache._state["head"] != _cache_head(lib) and not ignore_mismatch:
        lib.say("WARNING", "the timing cache was made by another version or on another device")
        return False
    self._state["cache"] = cache
    return True


@does("ITimingCache.serialize")
def _serialize_cache(lib, self):
    return host_memory(lib, "\n".join([self._state["head"], *sorted(self._state["entries"])]).encode())


@does("ITimingCache.combine")
def _combine(lib, self, other, ignore_mismatch):
    if other._state["head"] != self._state["head"] and not ignore_mismatch:
        return False
    self._state["entries"] |= other._state["entries"]
    return True


# Profiles


@does("IOptimizationProfile.set_shape")
def _set_shape(lib, self, name, low, opt, high):
    shapes = [tuple(low), tuple(opt), tuple(high)]
    for word, shape in zip(("min", "opt", "max"), shapes, strict=True):
        if any(s < 0 for s in shape):
            raise RuntimeError(f"Shape provided for {word} is inconsistent with other shapes.")
    self._state["shapes"][name] = shapes


@does("IOptimizationProfile.get_shape")
def _get_shape(lib, self, name):
    return [lib.classes["Dims"](s) for s in self._state["shapes"].get(name, ())]


@does("IOptimizationProfile.__bool__")
def _profile_bool(lib, self):
    return _is_valid(self)


def _is_valid(profile) -> bool:
    return all(
        len(low) == len(opt) == len(high) and all(0 < a <= b <= c for a, b, c in zip(low, opt, high, strict=True))
        for low, opt, high in profile._state["shapes"].values()
    )
