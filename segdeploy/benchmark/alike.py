"""Whether two reports can be compared: what was not the same when they were measured, in words."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from segdeploy.benchmark.result import BenchmarkResult


def times_differ(new: BenchmarkResult, old: BenchmarkResult) -> tuple[str, ...]:
    """Why no time of the one says anything about the other; empty where times can be compared."""
    return tuple(_machine(new, old, {"cpu": "another CPU", "gpus": "other GPUs", "cores": "another number of cores"}))


def accuracy_differs(new: BenchmarkResult, old: BenchmarkResult) -> tuple[str, ...]:
    """Why no score of the one says anything about the other; empty where scores can be compared."""
    said = []
    if new.data_sha256 != old.data_sha256:
        said.append(f"other data: {old.table} ({old.images} images), now {new.table} ({new.images} images)")
    if new.measured_at != old.measured_at:
        said.append(f"counted at the {old.measured_at}'s size, now at the {new.measured_at}'s")
    if new.spec.classes.names != old.spec.classes.names:
        said.append("other classes")
    return tuple(said)


def other_differences(new: BenchmarkResult, old: BenchmarkResult) -> tuple[str, ...]:
    """What else is not the same and may be the cause of a change; times and scores can be compared all the same."""
    said = [] if _same_model(new, old) else [f"another model: {old.model}, now {new.model}"]
    said += _machine(new, old, {"driver": "GPU driver", "os": "system", "python": "Python"})
    was, now = _versions(old), _versions(new)
    said += [
        _pair(name, was.get(name), now.get(name)) for name in sorted({*was, *now}) if was.get(name) != now.get(name)
    ]
    if new.rounds != old.rounds:
        said.append(_pair("rounds", old.rounds, new.rounds))
    return tuple(said)


def same_torch(new: BenchmarkResult, old: BenchmarkResult) -> bool:
    """Whether torch's rows did the same work in both: then a change of their time is one of the machine."""
    versions = [side.get("torch") for side in (_versions(old), _versions(new))]
    return _same_model(new, old) and versions[0] is not None and versions[0] == versions[1]


def _same_model(new: BenchmarkResult, old: BenchmarkResult) -> bool:
    return (new.spec.encoder, new.spec.decoder, new.parameters) == (old.spec.encoder, old.spec.decoder, old.parameters)


def _machine(new: BenchmarkResult, old: BenchmarkResult, names: dict[str, str]) -> list[str]:
    was, now = _parts(old), _parts(new)
    return [_pair(said, was.get(key), now.get(key)) for key, said in names.items() if was.get(key) != now.get(key)]


def _parts(result: BenchmarkResult) -> dict[str, Any]:
    """The machine, with its GPUs apart from their driver: "NAME, MEMORY, DRIVER" is how they are told."""
    told = [gpu.rpartition(", ") for gpu in result.machine.get("gpus") or []]
    return {**result.machine, "gpus": [gpu for gpu, _, _ in told], "driver": [driver for _, _, driver in told]}


def _versions(result: BenchmarkResult) -> dict[str, str]:
    """Of packages, and of the engines of plugins: "acme-quick 2.5, quick 1.1"."""
    words = (word.rpartition(" ") for text in result.backends.values() for word in text.split(", "))
    return {name: version for name, _, version in words} | (result.machine.get("packages") or {})


def _pair(name: str, was: object, now: object) -> str:
    return f"{name}: {_said(was)}, now {_said(now)}"


def _said(value: object) -> str:
    if isinstance(value, list):
        return " and ".join(map(str, value)) or "none"
    return "unknown" if value is None else str(value)
