"""The blocking client: threads, event loops, forks and the end of a program."""

import asyncio
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from clients.canned import canned
from clients.processes import Process
from medreward.clients import AsyncClient, Client, Closed, VersionChanged
from pictures import png
from waiting import until

HANGS = 120.0


async def test_it_gives_what_the_async_client_gives(server: Process, door: str) -> None:
    asked = [(png(n % 3), "q", f"r {n}") for n in range(20)]
    async with AsyncClient(server.url(door)) as client:
        expected = await client.score_many(asked)
    seen: list[int] = []
    with Client(server.url(door)) as blocking:  # inside a running event loop, as in a notebook
        assert blocking.score_many(asked, progress=lambda done, _: seen.append(done)) == expected
        assert blocking.score(png(0), "q", ["r 0"]) == expected[:1]
        assert blocking.fingerprint == blocking.model().fingerprint
    assert seen[-1] == 20


def test_threads_share_it(server: Process, door: str) -> None:
    with Client(server.url(door)) as client, ThreadPoolExecutor(8) as threads:
        alone = client.score(png(1), "q", [str(n) for n in range(40)])
        together = list(threads.map(lambda n: client.score(png(1), "q", [str(n)]), range(40)))
    assert [score for (score,) in together] == alone


def test_closing_twice_is_closing_once(server: Process, door: str) -> None:
    client = Client(server.url(door))
    client.score(None, "q", ["r"])
    client.close()
    client.close()
    with pytest.raises(Closed):
        client.score(None, "q", ["r"])


def test_errors_come_through(server: Process) -> None:
    with Client(server.url("http"), pin="sha256:other") as client, pytest.raises(VersionChanged):
        client.score(None, "q", ["r"])


async def test_closing_ends_who_still_waits() -> None:
    async with canned(lambda _: None) as server:
        client = Client(server.url)
        waiting = asyncio.create_task(asyncio.to_thread(client.score, None, "q", ["r"]))
        await until(lambda: len(server.asked) == 1)
        await asyncio.to_thread(client.close)
        with pytest.raises(Closed):
            await asyncio.wait_for(waiting, HANGS)


def test_its_own_callback_may_not_call_it(server: Process) -> None:
    def call_it(done: int, count: int) -> None:
        client.score(None, "q", ["r"])

    with Client(server.url("http")) as client, pytest.raises(Closed):
        client.score_many([(None, "q", "r")], progress=call_it)


def in_python(script: str, url: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", script, url]
    return subprocess.run(command, capture_output=True, text=True, timeout=HANGS, check=False)


FORKING = """
import os, sys
from medreward.clients import Client, Closed
client = Client(sys.argv[1])
client.score(None, "q", ["r"])
child = os.fork()
if child == 0:
    try:
        client.score(None, "q", ["r"])
    except Closed:
        client.close()
        os._exit(7)
    os._exit(1)
_, status = os.waitpid(child, 0)
assert client.score(None, "q", ["r"])[0].reward is not None
client.close()
sys.exit(os.waitstatus_to_exitcode(status))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_forked_process_is_told_and_does_not_hang(server: Process) -> None:
    done = in_python(FORKING, server.url("http"))
    assert done.returncode == 7, done.stderr


UNCLOSED = """
import sys
from medreward.clients import Client
client = Client(sys.argv[1])
assert client.score(None, "q", ["r"])[0].reward is not None
"""


def test_a_program_that_never_closes_it_ends(server: Process, door: str) -> None:
    done = in_python(UNCLOSED, server.url(door))
    assert (done.returncode, done.stderr) == (0, "")


LIGHT = """
import sys
blocked = {"fastapi", "starlette", "pydantic", "uvicorn", "torch", "onnxruntime", "numpy", "PIL", "pydicom",
           "tokenizers", "prometheus_client", "transformers", "trl"}

class OnlyTheBase:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in blocked:
            raise ModuleNotFoundError(f"No module named {name!r}")

sys.meta_path.insert(0, OnlyTheBase())
import medreward.clients.trl
from medreward.clients import Client
loaded = blocked & {name.partition(".")[0] for name in sys.modules}
assert not loaded, loaded
image = open(sys.argv[2], "rb").read()
with Client(sys.argv[1]) as client:
    scores = client.score_many([(image, "q", "r"), (sys.argv[2], "q", "r"), ({"bytes": image}, "q", "r")])
    (reward,) = medreward.clients.trl.reward_funcs(client)
    assert reward(["q"], ["r"], image=[image]) == [scores[0].reward]
assert len({score.reward for score in scores}) == 1 and scores[0].reward is not None
"""


def test_it_works_with_the_base_install(server: Process, door: str, tmp_path: Path) -> None:
    path = tmp_path / "x.png"
    path.write_bytes(png())
    command = [sys.executable, "-c", LIGHT, server.url(door), str(path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=HANGS, check=False)
    assert done.returncode == 0, done.stderr


#: verl's and NeMo-RL's are imported by those trainers alone, for they inherit from theirs.
LIGHT_ADAPTERS = ("areal", "easyr1", "llamafactory", "ms_swift", "openrlhf", "slime", "trl")


def test_importing_loads_nothing_of_a_server_nor_of_images() -> None:
    heavy = "{'fastapi', 'torch', 'onnxruntime', 'numpy', 'PIL', 'transformers', 'trl'}"
    adapters = ", ".join(f"medreward.clients.{name}" for name in LIGHT_ADAPTERS)
    script = f"import sys, {adapters}; print(sorted({heavy} & sys.modules.keys()))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
