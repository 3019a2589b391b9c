"""How much of this machine is ours."""

import os


def available_cores() -> int:
    """Cores this process may run on, which a container or taskset may have made fewer than the machine's."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
