"""How many cores this process may use."""

import os


def available_cores() -> int:
    """How many cores this process may run on; in a container or under taskset, fewer than the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
