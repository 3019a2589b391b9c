"""Runs a class over pieces of work by Ray Data: in actors, each of which keeps what it made at its start."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

import ray
from ray.data import ActorPoolStrategy, DataContext

from medreward.errors import ConfigurationError, MedRewardError

OUR_ERROR: Final = f"{ConfigurationError.__module__}.{ConfigurationError.__name__}: "  # where an actor did not start
MOST_OF_A_NODE: Final = 0.75
BLOCKS_PER_ACTOR: Final = 16  # so that an actor which starts late finds work


@dataclass(frozen=True, slots=True)
class Device:
    """What one actor takes of a node."""

    cpus: float
    gpus: float


@contextmanager
def connected(address: str) -> Iterator[None]:
    """Connects to a cluster, or starts one of this machine for `local`, and leaves it. Raises ConfigurationError where
    none is there."""
    try:
        ray.init(address=address, log_to_driver=False, logging_level=logging.CRITICAL, ignore_reinit_error=True)
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise ConfigurationError(f"--ray {address}: there is no Ray cluster: {error}") from None
    try:
        yield
    finally:
        ray.shutdown()


def device_of(device: str, threads: int, gpus: int = 1) -> Device:
    """Returns what an actor of such settings takes: `gpus` GPUs where the cluster has any and may be asked for them,
    else a core for each thread of the model. Without a number of threads the model uses all cores of its node, as
    `score-file` does: the actor takes so many that no second one fits beside it, and leaves some to others."""
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    if device == "cuda" or (device == "auto" and any(node.get("GPU") for node in nodes)):
        return Device(cpus=threads or 1, gpus=gpus)
    smallest = min((node["CPU"] for node in nodes if node.get("CPU")), default=1)
    return Device(cpus=threads or max(1, int(smallest * MOST_OF_A_NODE)), gpus=0)


def room_for(device: Device, threads: int) -> int:
    """Returns how many actors the cluster has room for now, one at least: one a node where each uses all cores."""
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    if device.gpus:
        return max(1, sum(int(node.get("GPU", 0) // device.gpus) for node in nodes))
    return max(1, sum(int(node.get("CPU", 0) // device.cpus) if threads else 1 for node in nodes if node.get("CPU")))


def results(
    kind: type, argument: Any, pieces: Sequence[Mapping[str, Any]], device: Device, most: int
) -> Iterator[dict[str, Any]]:
    """Gives what `kind(argument)` returns for each piece, as it comes. An actor or a node that is lost is replaced, and
    its piece given to another. What the class raises ends the run with a ConfigurationError."""
    if not pieces:
        return
    context = DataContext.get_current()
    context.enable_progress_bars = context.print_on_execution_start = False
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)  # tracebacks; what matters is raised here
    most = min(most, len(pieces))
    blocks = min(len(pieces), BLOCKS_PER_ACTOR * most)
    scored = ray.data.from_items([dict(piece) for piece in pieces], override_num_blocks=blocks).map_batches(
        kind,
        fn_constructor_args=(argument,),
        batch_size=1,
        compute=ActorPoolStrategy(min_size=1, max_size=most),
        num_cpus=device.cpus,
        **({"num_gpus": device.gpus} if device.gpus else {}),
    )
    try:
        yield from scored.iter_rows()
    except ray.exceptions.RayError as error:
        cause: BaseException | None = error
        while cause is not None and not isinstance(cause, MedRewardError | ConfigurationError):
            cause = getattr(cause, "cause", None) or cause.__cause__
        why = str(cause or error).strip().splitlines()[-1].removeprefix(OUR_ERROR)
        raise ConfigurationError(f"stopped; what was scored is kept, and started again it goes on: {why}") from None
