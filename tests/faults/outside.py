"""A running server from outside: its processes, its state, its metrics, and many questions at once."""

import asyncio
import ctypes
import os
import re
import time
from base64 import b64encode
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, Literal

import httpx

from commands import Served
from medreward.errors import RETRYABLE
from pictures import jpeg

Body = dict[str, str]

PR_SET_CHILD_SUBREAPER: Final = 36  # linux/prctl.h


def state(served: Served) -> dict[str, Any]:
    found: dict[str, Any] = httpx.get(f"{served.admin_url}/admin/state", timeout=60).json()
    return found


def metric(served: Served, name: str) -> float:
    """The sum over all series of this name, and with these labels where it names some."""
    lines = httpx.get(f"{served.admin_url}/metrics", timeout=60).text.splitlines()
    return sum(float(line.split()[-1]) for line in lines if re.match(rf"{re.escape(name)}(?![a-z_])", line))


def worker(served: Served) -> int:
    return int(state(served)["workers"][0]["pid"])


def children(served: Served) -> set[int]:
    pid = served.process.pid
    return set(map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split()))


def held(served: Served, kind: Literal["fd", "task"]) -> int:
    """How many open files, or threads."""
    return len(list(Path(f"/proc/{served.process.pid}/{kind}").iterdir()))


def decoders(served: Served) -> set[int]:
    return children(served) - {worker(served)}


def replaced(served: Served, lost: int) -> Callable[[], bool]:
    """Whether another worker is ready in its place."""
    return lambda: bool(state(served)["ready"]) and worker(served) != lost


@contextmanager
def adopting_orphans() -> Iterator[None]:
    """Makes this process the parent of its children's orphans, so that it is told how they ended."""
    prctl = ctypes.CDLL(None).prctl
    prctl(PR_SET_CHILD_SUBREAPER, 1)
    try:
        yield
    finally:
        prctl(PR_SET_CHILD_SUBREAPER, 0)


async def ended_by(pid: int) -> int:
    """Returns the signal that ended an orphan of ours, 0 if it ended by itself."""
    _, status = await asyncio.to_thread(os.waitpid, pid, 0)
    return os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0


def is_alive(pid: int) -> bool:
    """A zombie is not: it waits for nothing but its reaping."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def send(pids: Iterable[int], signal: int) -> None:
    for pid in pids:
        os.kill(pid, signal)


async def until(condition: Callable[[], bool], seconds: float = 300) -> float:
    """How long it took; leaves the loop to the calls under way."""
    started = time.monotonic()
    while not await asyncio.to_thread(condition):
        assert time.monotonic() - started < seconds, "waited too long"
        await asyncio.sleep(0.02)
    return time.monotonic() - started


def triples(count: int, images: int = 20) -> list[Body]:
    """All different; every third has one of so many images."""
    return [
        {"question": f"What is seen in case {n % 40}?", "response": f"Finding {n} of many."}
        | ({"image": b64encode(jpeg(n % images)).decode()} if n % 3 == 0 else {})
        for n in range(count)
    ]


async def ask(url: str, bodies: Sequence[Body]) -> list[httpx.Response]:
    """All at once, each over a connection of its own."""
    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(base_url=url, trust_env=False, timeout=120, limits=limits) as client:
        return await asyncio.gather(*(client.post("/v1/score", json=body) for body in bodies))


def logits(reply: httpx.Response) -> Any:
    (result,) = reply.json()["results"]
    return result["logits"]


def check(replies: Sequence[httpx.Response], expected: Sequence[Any], least_scored: int) -> None:
    """Each the right score, to the last bit, or an error that says to try again."""
    scored = 0
    for reply, right in zip(replies, expected, strict=True):
        if reply.status_code == 200:
            assert logits(reply) == right
            scored += 1
        else:
            assert reply.status_code in {429, 503, 504}, reply.text
            assert reply.json()["code"] in RETRYABLE
    assert scored >= least_scored
