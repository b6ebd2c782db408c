"""What the machine can train, as far as it can be told without importing torch or asking the network."""

from __future__ import annotations

from dataclasses import dataclass

from segdeploy.environment import available_cores, describe_machine, free_memory, versions


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """Cores and free memory in bytes; the first GPU that torch can use and its memory in bytes, or None and 0.

    `cached` are the hub repositories whose trained weights are in the local cache.
    """

    cores: int
    memory: int
    gpu: str | None = None
    gpu_memory: int = 0
    cached: frozenset[str] = frozenset()


def this_machine(repositories: tuple[str, ...]) -> Machine:
    """Describe this machine; of `repositories` those are told apart whose weights are in the local cache."""
    gpus = describe_machine()["gpus"]
    # Wheels for the CPU alone say so in their version.
    if not gpus or "+cpu" in versions().get("torch", ""):
        name, memory = None, 0
    else:
        name, megabytes, _ = (part.strip() for part in gpus[0].split(","))
        memory = int(megabytes.split()[0]) << 20 if megabytes.split()[0].isdecimal() else 0
    return Machine(
        cores=available_cores(),
        memory=free_memory(),
        gpu=name,
        gpu_memory=memory,
        cached=frozenset(r for r in repositories if _is_cached(r)),
    )


def _is_cached(repository: str) -> bool:
    try:
        from huggingface_hub import try_to_load_from_cache  # comes with timm; knows where the cache is
    except ImportError:
        return False
    return any(
        isinstance(try_to_load_from_cache(repository, file), str) for file in ("model.safetensors", "pytorch_model.bin")
    )
