"""How much memory this machine has left, and how much a model may take: enough to tell whether two fit."""

from pathlib import Path
from typing import Final

from medreward.artifacts.repository import bundled_models, resolve
from medreward.settings import Settings

CGROUP: Final = Path("/sys/fs/cgroup")
WEIGHTS: Final = ("*.safetensors", "*.onnx")
OVERHEAD: Final = 1.5  # of the files: what a runtime adds to the weights it has read
PROCESS_BYTES: Final = 256 << 20  # of a worker without a model


def free_bytes() -> int:
    """Returns the bytes that processes here may still take: of the machine, or of its cgroup where that has less."""
    lines = Path("/proc/meminfo").read_text().splitlines()
    free = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable"))
    try:
        limit, used = ((CGROUP / name).read_text().strip() for name in ("memory.max", "memory.current"))
    except OSError:  # no cgroup v2 of our own
        return free
    return free if limit == "max" else min(free, int(limit) - int(used))


def needed_bytes(settings: Settings) -> int:
    """Returns the bytes that the model's workers and caches may take. Fails with a ConfigurationError without one."""
    caches = settings.pixel_cache_bytes + settings.feature_cache_bytes
    if settings.model == "fake":
        return caches
    folder = resolve(settings.model, settings.models_dir or bundled_models())
    weights = sum(path.stat().st_size for pattern in WEIGHTS for path in folder.glob(pattern))
    return caches + settings.workers * (PROCESS_BYTES + int(OVERHEAD * weights))
