"""What the routes of trainers reach when answers come one a call, as trainers send them, beside /score with groups.

The same triples go through each route: groups of n answers to one question about an image of their own, which was
stored before. `of groups` is a route's rate over that of /score with a whole group a call; a server that finds the
answers to one question among separate calls comes near 1. Rewards are compared with those of /score. Prints a table
and, as its last line, JSON.

A tiny vision-language model with a long prompt: `python -m loadtest.vlm --save DIR`, and then
`python -m loadtest.trainers --model DIR --words 300`.
"""

import asyncio
import hashlib
import json
import os
import platform
import random
import re
import statistics
import sys
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import click
import httpx
from loadtest.bodies import VOCABULARY, jpegs
from loadtest.overhead import parse_cores
from loadtest.servers import free_port, serving

GROUPED: Final = "/score groups"
COUNTS: Final = ("medreward_image_encodes_total", "medreward_prefix_runs_total")
CLOSE: Final = 1e-3  # of rewards, where a batch's company may change the last digits


@dataclass(frozen=True)
class Group:
    image: str  # its sha256; empty for none
    question: str
    responses: Sequence[str]


@dataclass(frozen=True)
class Route:
    path: str
    body: Callable[[Group, Sequence[str]], Any]  # of these responses: one, or the whole group
    rewards: Callable[[Any], list[float]]  # of a reply
    grouped: bool = False
    images: bool = True


def score_body(group: Group, responses: Sequence[str]) -> Any:
    image = {"sha256": group.image} if group.image else None
    return {"items": [{"image": image, "question": group.question, "responses": responses}]}


def chatml(group: Group, response: str) -> str:
    return f"<|im_start|>user\n{group.question}<|im_end|>\n<|im_start|>assistant\n{response}"


def query(group: Group, responses: Sequence[str]) -> Any:
    prompts = [chatml(group, "")] * len(responses)
    labels = [group.image or None] * len(responses)
    return {"query": [chatml(group, response) for response in responses], "prompts": prompts, "labels": labels}


def rm(group: Group, responses: Sequence[str]) -> Any:
    prompt = [{"role": "user", "content": group.question}]
    return {"prompt": prompt, "response": responses[0], "label": group.image or None}


def chat(group: Group, responses: Sequence[str]) -> Any:
    parts = [{"type": "image_url", "image_url": {"url": group.image}}, {"type": "text", "text": group.question}]
    messages = [{"role": "user", "content": parts}, {"role": "assistant", "content": responses[0]}]
    return {"model": "any", "messages": messages}


def gym(group: Group, responses: Sequence[str]) -> Any:
    parts = [{"type": "input_image", "image_url": group.image}, {"type": "input_text", "text": group.question}]
    said = {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": responses[0]}]}
    asked = {"input": [{"role": "user", "content": parts}]}
    return {"responses_create_params": asked, "response": {"output": [said]}}


def infer(group: Group, responses: Sequence[str]) -> Any:
    columns = {"image": group.image, "question": group.question, "response": responses[0]}
    inputs = [{"name": name, "datatype": "BYTES", "shape": [1], "data": [text]} for name, text in columns.items()]
    return {"inputs": inputs, "outputs": [{"name": "reward"}]}


def of_score(reply: Any) -> list[float]:
    return [result["reward"] for result in reply["results"]]


ROUTES: Final = {
    GROUPED: Route("/score", score_body, of_score, grouped=True),
    "/score": Route("/score", score_body, of_score),
    "/get_reward": Route("/get_reward", query, lambda reply: reply["rewards"]),
    "/rm": Route("/rm", rm, lambda reply: [reply["reward"]]),
    "/classify chat": Route("/classify", chat, lambda reply: [reply["data"][-1]["probs"][-1]]),
    "/verify": Route("/verify", gym, lambda reply: [reply["reward"]]),
    "/v2 infer": Route("/v2/models/MODEL/infer", infer, lambda reply: reply["outputs"][0]["data"]),
    "/score text groups": Route("/score", score_body, of_score, grouped=True, images=False),
    "/classify text": Route(
        "/classify",
        lambda group, responses: {"model": "any", "input": chatml(group, responses[0])},
        lambda reply: [reply["data"][-1]["probs"][-1]],
        images=False,
    ),
    "/v1/score/evaluation": Route(
        "/v1/score/evaluation",
        lambda group, responses: {"model": "any", "messages": [chatml(group, one) for one in responses]},
        lambda reply: reply["scores"],
        images=False,
    ),
}


class Texts:
    """The same questions and answers for each route; a new round has others."""

    def __init__(self, seed: int, words: int, count: int, n: int) -> None:
        rng, vocabulary = random.Random(seed), VOCABULARY.split()
        self.questions = [" ".join(rng.choices(vocabulary, k=words)) for _ in range(count)]
        self.responses = [[" ".join(rng.choices(vocabulary, k=40)) for _ in range(n)] for _ in range(count)]

    def groups(self, images: Sequence[str]) -> list[Group]:
        return [Group(*group) for group in zip(images, self.questions, self.responses, strict=True)]


def store(client: httpx.Client, images: Sequence[bytes], stamp: int) -> list[str]:
    """Stores the pictures as files that were never seen before; returns their hashes."""
    digests = []
    for n, image in enumerate(images):
        file = b"\xff\xd8\xff\xfe\x00\x0e%012d" % (stamp * 1000 + n) + image[2:]  # a comment behind the first marker
        client.put("/v1/images", content=file).raise_for_status()
        digests.append(hashlib.sha256(file).hexdigest())
    return digests


async def asked(port: int, path: str, bodies: Sequence[bytes], connections: int) -> tuple[float, list[Any]]:
    """Returns the seconds that all calls took, and their replies in order."""
    waiting = deque(enumerate(bodies))
    replies: list[Any] = [None] * len(bodies)

    async def run() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        while waiting:
            place, body = waiting.popleft()
            head = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
            writer.write(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
            answer = await reader.readuntil(b"\r\n\r\n")
            size = re.search(rb"(?i)content-length: (\d+)", answer)
            assert size, answer
            content = await reader.readexactly(int(size[1]))
            if not answer.startswith(b"HTTP/1.1 200"):
                raise click.ClickException(f"{path} refused a call: {content.decode()}")
            replies[place] = json.loads(content)
        writer.close()

    started = time.perf_counter()
    await asyncio.gather(*(run() for _ in range(connections)))
    return time.perf_counter() - started, replies


def measured(
    client: httpx.Client, port: int, route: Route, groups: Sequence[Group], connections: int
) -> tuple[float, list[float]]:
    """Returns triples/s and the rewards of all triples. As many triples are under way in each route."""
    n = len(groups[0].responses)
    model = client.get("/v1/model").json()["name"]
    if route.grouped:
        calls, connections = [route.body(group, group.responses) for group in groups], max(1, connections // n)
    else:
        calls = [route.body(group, [response]) for group in groups for response in group.responses]
    bodies = [json.dumps(call).encode() for call in calls]
    seconds, replies = asyncio.run(asked(port, route.path.replace("MODEL", model), bodies, connections))
    return n * len(groups) / seconds, [reward for reply in replies for reward in route.rewards(reply)]


def counts(admin: int) -> list[float]:
    lines = httpx.get(f"http://127.0.0.1:{admin}/metrics", timeout=60).text.splitlines()
    return [float(next((line.split()[-1] for line in lines if line.startswith(f"{name} ")), 0)) for name in COUNTS]


@click.command(help=__doc__)
@click.option("--model", default="medreward-mini", show_default=True)
@click.option("--groups", "count", default=32, show_default=True, help="Groups of a round.")
@click.option("--n", default=8, show_default=True, help="Answers of a group.")
@click.option("--words", default=12, show_default=True, help="Words of a question.")
@click.option("--rounds", default=3, show_default=True)
@click.option("--connections", default=32, show_default=True, help="Calls at a time, where a call is one answer.")
@click.option("--only", default=",".join(ROUTES), help="Routes, by their names in the table.")
@click.option("--server-cores", default="0", show_default=True)
@click.option("--at-least", default=0.0, show_default=True, help="Exit 1 where a route is below that part of groups.")
def main(
    model: str,
    count: int,
    n: int,
    words: int,
    rounds: int,
    connections: int,
    only: str,
    server_cores: str,
    at_least: float,
) -> None:
    routes = {name: ROUTES[name] for name in only.split(",")}
    images = jpegs(count)
    rates: dict[str, list[float]] = {name: [] for name in routes}
    spent: dict[str, list[list[float]]] = {name: [] for name in routes}
    http, admin = free_port(), free_port()
    ports = ["--port", str(http), "--grpc-port", str(free_port()), "--admin-port", str(admin)]
    command = [sys.executable, "-m", "medreward", "serve", "--model", model, "--deadline-seconds", "3600", *ports]
    with (
        serving(command, f"http://127.0.0.1:{http}/readyz", parse_cores(server_cores)),
        httpx.Client(base_url=f"http://127.0.0.1:{http}", timeout=600) as client,
    ):
        for number in range(rounds + 1):
            texts = Texts(number, words, count, n)
            expected: dict[bool, list[float]] = {}
            for place, (name, route) in enumerate(routes.items()):
                digests = store(client, images, number * 100 + place) if route.images else [""] * count
                if not route.images:  # nothing else makes the triples of two routes differ
                    texts = Texts(1000 + number * 100 + place, words, count, n) if not route.grouped else texts
                before = counts(admin)
                rate, rewards = measured(client, http, route, texts.groups(digests), connections)
                far = max(map(abs, map(float.__sub__, rewards, expected.setdefault(route.images, rewards))))
                if route.images and far > CLOSE:
                    raise click.ClickException(f"{name} gives other rewards than the first route: {far} away")
                if number:  # the first round warms up
                    rates[name].append(rate)
                    spent[name].append(
                        [(after - first) / count for after, first in zip(counts(admin), before, strict=True)]
                    )
    print(f"{'':<26}{'triples/s':>10}{'lowest..highest':>18}{'of groups':>11}{'image encodes':>15}{'prefix runs':>13}")
    shares = {}
    for name, values in rates.items():
        base = rates[GROUPED if ROUTES[name].images else "/score text groups"]
        shares[name] = statistics.median(mine / groups for mine, groups in zip(values, base, strict=True))
        encodes, prefixes = (statistics.median(column) for column in zip(*spent[name], strict=True))
        spread = f"{min(values):.0f}..{max(values):.0f}"
        print(
            f"{name:<26}{statistics.median(values):>10.1f}{spread:>18}{shares[name]:>11.2f}{encodes:>15.2f}{prefixes:>13.2f}"
        )
    setup = {"benchmark": "trainers", "python": platform.python_version(), "cores": os.cpu_count(), "model": model}
    sizes = {"groups": count, "n": n, "words": words, "rounds": rounds, "connections": connections}
    print(json.dumps({**setup, **sizes, "rates": rates, "of_groups": shares}))
    raise SystemExit(0 if min(shares.values()) >= at_least else 1)


if __name__ == "__main__":
    main()
