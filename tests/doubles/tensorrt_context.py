"""What execution contexts of the TensorRT double do; each function's first argument is the loaded library."""

import functools
import time

import numpy as np
from tensorrt_run import SCRATCH, known, limits
from tensorrt_values import NUMPY, doing

BEHAVIOUR: dict = {}
does = doing(BEHAVIOUR)


@functools.lru_cache(maxsize=8)
def _session(model: bytes):
    import onnxruntime as ort

    settings = ort.SessionOptions()
    settings.intra_op_num_threads = settings.inter_op_num_threads = 1
    settings.log_severity_level = 3
    return ort.InferenceSession(model, settings, providers=["CPUExecutionProvider"])


@does("IExecutionContext.set_optimization_profile_async")
def _set_profile(lib, self, index, stream):
    _change(lib, self)
    engine = self._state["engine"]
    if lib.faults.profile or not 0 <= index < max(1, len(engine._state["plan"].profiles)):
        lib.say("ERROR", f"Error Code 3: API Usage Error (profile {index})")
        return False
    on = lib.device.stream(stream)
    if on is None:
        return False
    self._state |= {"active_optimization_profile": index, "shapes": {}, "choosing": True}
    lib.device.enqueue(on, lambda: self._state.update(choosing=False))
    return True


@does("IExecutionContext.set_device_memory")
def _set_memory(lib, self, address, size):
    _change(lib, self)
    self._state["scratch"] = (address, size)


def _change(lib, context) -> None:
    """A captured graph holds the state of its context: changing it later is undefined behaviour."""
    if context._state["captured"]:
        lib.device.problems.append("a context was changed after a graph was captured from it")


@does("IExecutionContext.set_input_shape")
def _set_input_shape(lib, self, name, shape):
    _change(lib, self)
    if self._state.get("choosing"):
        lib.device.problems.append("a shape was set before the stream had chosen the profile")
    engine, shape = self._state["engine"], tuple(shape)
    found = known(lib, engine, name)
    if found is None or not found[0] or lib.faults.shape:
        return False
    low, _, high = limits(engine, name, self._state["active_optimization_profile"])
    if len(shape) != len(low) or any(not a <= s <= b for a, s, b in zip(low, shape, high, strict=True)):
        lib.say("ERROR", f"Error Code 3: API Usage Error (set dimensions {shape} for {name}, valid {low} to {high})")
        return False
    self._state["shapes"][name] = shape
    return True


def _missing(lib, context) -> list[str]:
    tensors = context._state["engine"]._state["tensors"]
    free = [n for n, (is_input, _, dims) in tensors.items() if is_input and any(isinstance(d, str) for d in dims)]
    return [n for n in free if n not in context._state["shapes"] or lib.faults.infer]


@does("IExecutionContext.infer_shapes")
def _infer(lib, self):
    return _missing(lib, self)


BEHAVIOUR["IExecutionContext.all_binding_shapes_specified"] = lambda lib, self: not _missing(lib, self)


def _shape(context, name) -> tuple[int, ...]:
    """The shape of a tensor as it is now; -1 where it is not known yet."""
    tensors = context._state["engine"]._state["tensors"]
    if name in context._state["shapes"]:
        return context._state["shapes"][name]
    known = {
        d: given[i]
        for n, given in context._state["shapes"].items()
        for i, d in enumerate(tensors[n][2])
        if isinstance(d, str)
    }
    return tuple(d if isinstance(d, int) else known.get(d, -1) for d in tensors[name][2])


@does("IExecutionContext.get_tensor_shape")
def _context_shape(lib, self, name):
    return lib.classes["Dims"](_shape(self, name) if known(lib, self._state["engine"], name) else ())


@does("IExecutionContext.set_tensor_address")
def _set_address(lib, self, name, address):
    _change(lib, self)
    if known(lib, self._state["engine"], name) is None or lib.faults.address:
        return False
    self._state["addresses"][name] = address
    return True


@does("IExecutionContext.get_tensor_address")
def _get_address(lib, self, name):
    return self._state["addresses"].get(name, 0)


@does("IExecutionContext.execute_async_v3")
def _execute(lib, self, stream):
    device = lib.device
    if not self._state["busy"].acquire(blocking=False):
        device.problems.append("a context was used by two threads at once")
        return False
    try:
        time.sleep(0)  # the real call lets other threads run
        on = device.stream(stream)
        refusal = _cannot_execute(lib, self, on)
        if refusal:
            lib.say("ERROR", refusal)
            return False
        with device.lock:
            self._state["captured"] |= on.capture is not None
            scratch = (self._state["scratch"] or (0, 0))[0]
            device.enqueue(on, _work(lib, self), (*self._state["addresses"].values(), scratch))
        if self._state["config"] is not None and self._state["config"]._state["cache"] is not None:
            self._state["config"]._state["cache"]._state["kernels"].add(str(sorted(self._state["shapes"].values())))
        return True
    finally:
        self._state["busy"].release()


def _cannot_execute(lib, context, on) -> str:
    if lib.faults.execute:
        return "IExecutionContext::enqueueV3: Error Code 1: Cuda Runtime (launch failure)"
    if on is None:
        return "IExecutionContext::enqueueV3: Error Code 1: Cuda Runtime (invalid resource handle)"
    if on.capture is not None and lib.faults.execute_in_capture:
        on.invalid = True
        return "IExecutionContext::enqueueV3: Error Code 1: Cuda Runtime (not permitted when stream is capturing)"
    if missing := _missing(lib, context):
        return f"IExecutionContext::enqueueV3: Error Code 3: API Usage Error (shapes of {missing} are not set)"
    if context._state["held"] is None and (context._state["scratch"] or (0, 0))[1] < SCRATCH:
        return "IExecutionContext::enqueueV3: Error Code 3: API Usage Error (no device memory was set)"
    for name in context._state["engine"]._state["tensors"]:
        address = context._state["addresses"].get(name, 0)
        if not address:
            return f"IExecutionContext::enqueueV3: Error Code 3: API Usage Error (address of {name} is not set)"
        if address % 256:
            return f"IExecutionContext::enqueueV3: Error Code 3: API Usage Error (address of {name} is not aligned)"
    return ""


def _work(lib, context):
    """The run, with shapes and addresses as they are now; a captured graph keeps these."""
    engine, device = context._state["engine"], lib.device
    tensors = {
        name: (is_input, NUMPY[kind], _shape(context, name), context._state["addresses"][name])
        for name, (is_input, kind, _) in engine._state["tensors"].items()
    }
    model, scratch = engine._state["plan"].onnx, context._state["scratch"]

    def run() -> None:
        views = {}
        if scratch is not None and device.bytes_at(*scratch) is None:
            return
        for name, (_, dtype, shape, address) in tensors.items():
            block = device.bytes_at(address, int(np.prod(shape)) * np.dtype(dtype).itemsize)
            if block is None:
                return
            views[name] = block.view(dtype).reshape(shape)
        found = _session(model).run(None, {n: views[n] for n, t in tensors.items() if t[0]})
        for name, value in zip([n for n, t in tensors.items() if not t[0]], found, strict=True):
            views[name][:] = value

    return run
