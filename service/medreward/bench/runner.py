"""A run: every case once, some side by side, each recorded as soon as it is answered."""

import asyncio
import importlib.util
import platform
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from contextlib import closing
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any, Final

from medreward.bench.cases import Case, DataSet, Images, with_images
from medreward.bench.chooser import Chooser
from medreward.bench.rundir import Identity, RunDirectory
from medreward.bench.tables import summarise
from medreward.cores import available_cores
from medreward.errors import ConfigurationError

#: What computes a score, where it is installed.
RUNTIMES: Final = ("onnxruntime", "torch", "transformers")
Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class Plan:
    data: str
    out: Path
    settings: Mapping[str, Any]
    concurrency: int
    limit: int | None = None
    images: Images = Images.OWN
    folder: Path | None = None  # of the model, where it is known
    in_process: bool = False  # the model runs here, so what it runs on is known


async def run(data: DataSet, chooser: Chooser, plan: Plan, progress: Progress) -> dict[str, Any]:
    """Returns the summary, which is in the run's folder too. `progress` is told (done, all).

    Raises ConfigurationError where the set cannot be measured on, or where the folder holds something else.
    """
    cases = _runnable(data, plan)
    clock, started = time.monotonic(), _now()
    about = await chooser.about()
    identity = Identity(data.digest, asdict(about), {**plan.settings, "limit": plan.limit, "images": str(plan.images)})
    with closing(RunDirectory(plan.out, identity)) as folder:
        shown = with_images(cases, plan.images)
        to_ask = [case for case in shown if case.key not in folder.predictions]
        progress(len(cases) - len(to_ask), len(cases))
        await _ask_all(to_ask, chooser, folder, plan.concurrency, lambda: progress(len(folder.predictions), len(cases)))
        predictions = folder.in_order(cases)
        summary = summarise(cases, predictions)
        if not folder.finished:
            evidence = Counter(case.evidence or "not stated" for case in cases)
            about_run = {
                "fingerprint": about.fingerprint,
                "runtime": about.runtime,
                "folder": str(plan.folder) if plan.folder else None,
                "data": plan.data,
                "evidence": dict(sorted(evidence.items())),
                "findings": len(data.findings),
                **_machine(plan.in_process),
                "concurrency": plan.concurrency,
                "totals": {"cases": len(cases), **chooser.totals(predictions)},
                "last_part": {
                    "asked": len(to_ask),
                    "started": started,
                    "finished": _now(),
                    "seconds": round(time.monotonic() - clock, 3),
                },
            }
            folder.finish(cases, summary, about_run)
    return summary


def _runnable(data: DataSet, plan: Plan) -> list[Case]:
    """Returns the cases to ask; raises ConfigurationError where figures on them would be wrong, or there is none."""
    if data.fatal:
        first, *others = data.fatal
        more = f" and {len(others)} more" if others else ""
        raise ConfigurationError(
            f"{plan.data} cannot be measured on: {first}{more}; medreward bench check lists everything"
        )
    cases = list(data.cases[: plan.limit])
    if not cases:
        raise ConfigurationError(f"{plan.data} has no case with a label")
    return cases


async def _ask_all(
    cases: Iterable[Case], chooser: Chooser, folder: RunDirectory, concurrency: int, advance: Callable[[], None]
) -> None:
    """Asks about so many cases at a time. The first exception ends it; what was recorded by then stays recorded."""
    waiting = iter(cases)

    async def work() -> None:
        for case in waiting:  # one iterator for all: who is free takes the next
            folder.record(case, await chooser.choose(case))
            advance()

    workers = [asyncio.create_task(work()) for _ in range(concurrency)]
    try:
        await asyncio.gather(*workers)
    finally:
        for worker in workers:
            worker.cancel()
        await asyncio.gather(*workers, return_exceptions=True)


def _machine(in_process: bool) -> dict[str, Any]:
    """Returns versions and, where the model runs in this process, those of its runtimes and the name of the CPU."""
    names = ("medreward", "numpy", *(RUNTIMES if in_process else ()))
    versions = {name: metadata.version(name) for name in names if importlib.util.find_spec(name)}
    about: dict[str, Any] = {"versions": {"python": platform.python_version(), **versions}}
    return about | ({"cpu": cpu_name(), "cores": available_cores()} if in_process else {})


def cpu_name() -> str:
    """Returns the processor's own name where the system tells it, or else its architecture."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
