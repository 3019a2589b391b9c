"""A server without file descriptors to spare comes back by itself when there are some again."""

import asyncio
import os
import resource
import signal
import socket
from pathlib import Path

import pytest

from commands import serving
from faults.outside import ask, check, held, logits, replaced, triples, until, worker
from serving import Server

pytestmark = pytest.mark.slow


async def test_without_file_descriptors(tmp_path: Path, fake: Server) -> None:
    asked = triples(8)
    expected = [logits(await fake.rest.post("/v1/score", json=body)) for body in asked]
    with serving(tmp_path, "--score-cache-bytes", "0") as served:
        hurt, address = worker(served), ("127.0.0.1", int(served.url.rpartition(":")[2]))
        pid = served.process.pid
        _, most = resource.prlimit(pid, resource.RLIMIT_NOFILE)
        open_now = held(served, "fd")
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (open_now + 8, most))
        crowd = [socket.create_connection(address) for _ in range(40)]
        await asyncio.sleep(0.3)
        os.kill(hurt, signal.SIGKILL)  # its successor needs descriptors too
        await asyncio.sleep(1)
        assert served.process.poll() is None
        for client in crowd:
            client.close()
        await until(replaced(served, hurt))
        check(await ask(served.url, asked), expected, least_scored=8)
