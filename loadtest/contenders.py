"""What loadtest/vllm.py measures: servers of ours and of vLLM's, and transformers in a process of its own."""

import asyncio
import json
import os
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from itertools import chain
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Final, Protocol

import httpx
import numpy as np
from loadtest.classifier import Asked
from loadtest.servers import free_port, serving
from numpy.typing import NDArray

from medreward.types import DIMENSIONS

GROUP: Final = "group"
SINGLES: Final = "singles"
VLLM: Final = "vllm"
VLLM_NO_PREFIX: Final = "vllm no prefix cache"
ON_VLLM: Final = "on vllm, group"
PLAIN: Final = "plain, padded"

START_SECONDS: Final = 1200.0
STEP_TOKENS: Final = 8192
VLLM_DTYPES: Final = {"fp32": "float32", "bf16": "bfloat16"}
PLAIN_ROWS: Final = 8  # of a padded batch
GIB: Final = 1024**3

Logits = NDArray[np.float64]  # group, answer, dimension


class Contender(Protocol):
    """One row of the table."""

    name: str

    def logits(self, groups: Sequence[Asked], fp32: bool = False) -> Logits:
        """Returns what it says of all answers. With `fp32` it is the reference; only plain transformers can be."""

    def memory_mib(self) -> float:
        """Returns the proportional set size of all its processes."""


class Served:
    """A server, and how it is asked."""

    def __init__(self, name: str, pid: int, port: int, connections: int, asks: "Asks", reads: "Reads") -> None:
        self.name = name
        self._pid = pid
        self._url = f"http://127.0.0.1:{port}"
        self._connections = connections
        self._asks = asks
        self._reads = reads

    def logits(self, groups: Sequence[Asked], fp32: bool = False) -> Logits:
        requests = [request for group in groups for request in self._asks(group)]
        replies = asyncio.run(self._replies(requests))
        rows = [*chain.from_iterable(self._reads(reply) for reply in replies)]
        return np.array(rows, np.float64).reshape(len(groups), -1, len(DIMENSIONS))

    def memory_mib(self) -> float:
        return sum(pss_mib(pid) for pid in [self._pid, *descendants(self._pid)])

    async def _replies(self, requests: Sequence[tuple[str, bytes]]) -> list[Any]:
        limits = httpx.Limits(max_connections=self._connections)
        headers = {"content-type": "application/json"}
        async with httpx.AsyncClient(base_url=self._url, limits=limits, timeout=600, headers=headers) as client:
            replies = await asyncio.gather(*(client.post(path, content=body) for path, body in requests))
        for reply in replies:
            if reply.status_code != 200:
                raise RuntimeError(f"{self.name} answered {reply.status_code}: {reply.text[:500]}")
        return [reply.json() for reply in replies]


Asks = Callable[[Asked], list[tuple[str, bytes]]]  # a path and a body for each request
Reads = Callable[[Any], list[list[float]]]  # the logits of each answer in a reply


class Plain:
    """Transformers' own model, in a process that this one ends."""

    name = PLAIN

    def __init__(self, folder: Path, dtype: str, device: str) -> None:
        context = get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=run_plain, args=(theirs, folder, dtype, device), daemon=True)
        self._process.start()
        self._pipe.recv()

    def logits(self, groups: Sequence[Asked], fp32: bool = False) -> Logits:
        self._pipe.send((list(groups), fp32))
        rows: Logits = self._pipe.recv()
        return rows.reshape(len(groups), -1, len(DIMENSIONS))

    def memory_mib(self) -> float:
        return pss_mib(self._process.pid or 0)

    def close(self) -> None:
        self._process.kill()
        self._process.join()


@contextmanager
def starting(
    rows: Sequence[str],
    folders: tuple[Path, Path],
    dtype: str,
    device: str,
    connections: int,
    vllm: Sequence[str],
    peers_python: Path,
) -> Iterator[list[Contender]]:
    """Yields the rows in their order, each ready. Servers end with the context; ours has one for both its rows."""
    ours, theirs = folders
    found: dict[str, Contender] = {}
    with ExitStack() as stack:

        def serve(command: Sequence[str], port: int, ready: str) -> int:
            url = f"http://127.0.0.1:{port}{ready}"
            return stack.enter_context(serving(command, url, os.sched_getaffinity(0), START_SECONDS))

        def ask_ours(names: Sequence[str], more: Sequence[str]) -> None:
            port = free_port()
            pid = serve([*our_command(ours, port, dtype, device), *more], port, "/readyz")
            for name in names:
                asks = ask_singles if name == SINGLES else ask_group
                found[name] = Served(name, pid, port, connections, asks, read_ours)

        if names := [row for row in (GROUP, SINGLES) if row in rows]:
            ask_ours(names, [])
        if ON_VLLM in rows:
            ask_ours([ON_VLLM], ["--backend", "vllm", "--worker-python", str(peers_python)])
        for row, flag in ((VLLM, "--enable-prefix-caching"), (VLLM_NO_PREFIX, "--no-enable-prefix-caching")):
            if row in rows:
                port = free_port()
                command = [*vllm_command(peers_python, theirs, port), *vllm, flag]
                pid = serve(command, port, "/health")
                found[row] = Served(row, pid, port, connections, ask_vllm, read_vllm)
        plain = Plain(ours, dtype, device)
        stack.callback(plain.close)
        found[PLAIN] = plain
        yield [found[row] for row in rows]


def our_command(folder: Path, port: int, dtype: str, device: str) -> list[str]:
    """Returns how our server is started: no score is kept, for a measured answer must be run."""
    ports = ["--port", str(port), "--grpc-port", str(free_port()), "--admin-port", str(free_port())]
    how = ["--dtype", dtype, "--device", device, "--score-cache-bytes", "0", "--load-seconds", str(START_SECONDS)]
    medreward = Path(sys.executable).with_name("medreward")
    limits = ["--batch-seconds", "600", "--deadline-seconds", "600", "--hang-seconds", "60"]
    return [str(medreward), "serve", "--model", str(folder), *ports, *how, *limits]


def vllm_command(python: Path, folder: Path, port: int) -> list[str]:
    """Returns what starts vLLM's server.

    Its command `vllm` does not start where the package has another name, as its build for processors has. By itself it
    would leave a core out, and one of each two threads of a core; here it gets what ours has.
    """
    cores = f"VLLM_CPU_OMP_THREADS_BIND={','.join(map(str, sorted(os.sched_getaffinity(0))))}"
    where = ["--host", "127.0.0.1", "--port", str(port)]
    return ["env", cores, str(python), "-m", "vllm.entrypoints.openai.api_server", "--model", str(folder), *where]


def how_vllm(dtype: str, kv_gib: int, eager: bool) -> list[str]:
    """Returns vLLM's flags: room for the states of the longest cell, and steps of 8,192 tokens."""
    how = ["--runner", "pooling", "--convert", "classify", "--dtype", VLLM_DTYPES[dtype]]
    room = ["--max-num-batched-tokens", str(STEP_TOKENS), "--kv-cache-memory-bytes", str(kv_gib * GIB)]
    images = ["--max-model-len", "4096", "--limit-mm-per-prompt", json.dumps({"image": 1, "video": 0})]
    return [*how, *room, *images, *(["--enforce-eager"] if eager else [])]


def ask_group(group: Asked) -> list[tuple[str, bytes]]:
    item = {"image": group.base64, "question": group.question, "responses": [*group.answers]}
    return [("/score", json.dumps({"items": [item]}).encode())]


def ask_singles(group: Asked) -> list[tuple[str, bytes]]:
    about = {"image": group.base64, "question": group.question}
    return [("/score", json.dumps({**about, "response": answer}).encode()) for answer in group.answers]


def ask_vllm(group: Asked) -> list[tuple[str, bytes]]:
    image = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{group.base64}"}}
    user = {"role": "user", "content": [image, {"type": "text", "text": group.question}]}
    how = {"add_generation_prompt": False, "add_special_tokens": False, "use_activation": False}
    turns = [[user, {"role": "assistant", "content": answer}] for answer in group.answers]
    return [("/classify", json.dumps({"messages": each, **how}).encode()) for each in turns]


def read_ours(reply: Any) -> list[list[float]]:
    return [[result["logits"][dimension] for dimension in DIMENSIONS] for result in reply["results"]]


def read_vllm(reply: Any) -> list[list[float]]:
    return [one["probs"] for one in reply["data"]]


def run_plain(pipe: Connection, folder: Path, dtype: str, device: str) -> None:
    """Scores what comes through the pipe, until this process is ended. The reference is made in a second model."""
    import torch

    from medreward.backends.base import ModelImage
    from medreward.backends.torch_vlm.backend import open_torch_vlm
    from medreward.encoding.image import ImageLimits, decode, probe
    from medreward.engine.model import open_model
    from medreward.settings import Settings
    from medreward.types import Options

    settings = Settings(model=str(folder), dtype=dtype, device=device, isolation="inline")
    model = open_model(settings)
    assert model.folder
    backends = {dtype: open_torch_vlm(model.folder, model.manifest, settings)}
    if "fp32" not in backends:
        backends["fp32"] = open_torch_vlm(model.folder, model.manifest, settings.model_copy(update={"dtype": "fp32"}))
    limits = ImageLimits(10**9, 10**9, 10**5, 1, 100)
    pipe.send(True)
    while True:
        groups, fp32 = pipe.recv()
        backend = backends["fp32" if fp32 else dtype]
        rows = []
        for group in groups:
            header = probe(group.png, limits)
            image = ModelImage("", decode(group.png, header, model.image.of(header.width, header.height)))
            prompt = model.text.prompt(group.question, has_image=True)
            rows += [(image, prompt.ids, model.text.answer(prompt, each, Options()).ids) for each in group.answers]
        logits = []
        with torch.inference_mode():
            for start in range(0, len(rows), PLAIN_ROWS):
                images, prompts, answers = zip(*rows[start : start + PLAIN_ROWS], strict=True)
                hidden = backend.backbone.whole([[image] for image in images], prompts, answers)
                logits.append(backend.heads(hidden[:, None])[:, 0].cpu().numpy())
        pipe.send(np.concatenate(logits).astype(np.float64))


def descendants(pid: int) -> list[int]:
    """Returns the ids of a process's children and of theirs."""
    try:
        listed = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        return []
    return [own for child in map(int, listed) for own in (child, *descendants(child))]


def pss_mib(pid: int) -> float:
    """Returns the memory of a process, in which what several share counts in parts; 0 where it has ended."""
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    except OSError:
        return 0.0
    found = re.search(r"^Pss:\s+(\d+) kB", text, re.MULTILINE)
    return int(found[1]) / 1024 if found else 0.0
