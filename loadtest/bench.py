"""How near `medreward bench run` comes to the ideal on a backend of fixed latency: cases / concurrency x latency.

The backend is a stand-in of this file that answers every score after that time, as many at once as are asked. Timed is
the whole command, from its start to its end. Prints one JSON line.
"""

import asyncio
import json
import math
import random
import socket
import subprocess
import sys
import tempfile
import time
from multiprocessing import Process
from pathlib import Path
from typing import Any

import click
import uvicorn
from loadtest.bodies import jpegs
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from medreward.bench.cases import Case
from medreward.bench.layout import write
from medreward.types import DIMENSIONS

MODEL = {"name": "stand-in", "version": "0", "fingerprint": "sha256:0", "runtime": "none", "evidence": "none"}
ORGANS = 13


def stand_in(sock: socket.socket, latency: float) -> None:
    async def score(request: Request) -> JSONResponse:
        items = (await request.json())["items"]
        await asyncio.sleep(latency)
        results = [_result(i, j) for i, item in enumerate(items) for j in range(len(item["responses"]))]
        return JSONResponse({"id": request.headers["x-request-id"], "model": MODEL, "results": results})

    async def model(request: Request) -> JSONResponse:
        return JSONResponse(MODEL)

    routes = [Route("/score", score, methods=["POST"]), Route("/v1/model", model)]
    uvicorn.Server(uvicorn.Config(Starlette(routes=routes), log_level="error")).run([sock])


def _result(item: int, response: int) -> dict[str, Any]:
    six = dict.fromkeys(DIMENSIONS, float(response))
    about = {"item": item, "response": response, "status": "ok", "flags": [], "reward": 1.0}
    return about | {"scores": six, "logits": six, "uncertainty": None}


def write_cases(folder: Path, count: int) -> None:
    chance = random.Random(0)
    images = jpegs()
    cases = [
        Case(
            question_id=f"case-{n}",
            organ=f"organ_{n % ORGANS:02}",
            question=f"What is seen in image {n}?",
            answers=(f"Nothing. {n}", f"Something. {n}"),
            image=images[n % len(images)],
            labels={dimension: chance.choice("AB") for dimension in DIMENSIONS},
        )
        for n in range(count)
    ]
    write(folder, cases, {})


@click.command()
@click.option("--cases", default=1026, show_default=True)
@click.option("--latency-ms", default=300, show_default=True)
@click.option("--concurrency", default=16, show_default=True)
def main(cases: int, latency_ms: int, concurrency: int) -> None:
    sock = socket.create_server(("127.0.0.1", 0))
    backend = Process(target=stand_in, args=(sock, latency_ms / 1000), daemon=True)
    backend.start()
    with tempfile.TemporaryDirectory() as temporary:
        data, out = Path(temporary, "set"), Path(temporary, "run")
        write_cases(data, cases)
        url = f"http://127.0.0.1:{sock.getsockname()[1]}"
        medreward = str(Path(sys.executable).with_name("medreward"))
        flags = ["--data", str(data), "--out", str(out), "--url", url, "--concurrency", str(concurrency)]
        begin = time.perf_counter()
        subprocess.run([medreward, "bench", "run", *flags], check=True, stdout=subprocess.DEVNULL)
        seconds = time.perf_counter() - begin
        statuses = json.loads((out / "summary.json").read_text())["statuses"]
    backend.kill()
    ideal = math.ceil(cases / concurrency) * latency_ms / 1000
    report = {"cases": cases, "latency_ms": latency_ms, "concurrency": concurrency, "statuses": statuses}
    print(json.dumps(report | {"ideal_s": ideal, "seconds": round(seconds, 2), "ratio": round(seconds / ideal, 3)}))


if __name__ == "__main__":
    main()
