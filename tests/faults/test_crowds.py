"""Many clients that want the same, and many that leave."""

import asyncio
import json
import socket
from pathlib import Path

import pytest

from commands import serving
from faults.outside import Body, ask, metric, state, triples, until

pytestmark = pytest.mark.slow

CROWD = 1000


async def test_answers_that_come_in_calls_of_their_own_share_image_and_prompt(tmp_path: Path) -> None:
    work = "medreward_image_encodes_total", "medreward_prefix_runs_total"
    shown = triples(1)[0]
    answers = [shown | {"response": f"Answer {n}."} for n in range(8)]
    with serving(tmp_path, "--fake-delay-ms", "2000", "--score-cache-bytes", "0") as served:
        busy = asyncio.create_task(ask(served.url, [{"question": "Busy?", "response": "Yes."}]))
        await until(lambda: state(served)["triples_in_flight"] == 1)
        replies = await ask(served.url, answers)
        assert [reply.status_code for reply in [*await busy, *replies]] == [200] * 9
        assert [metric(served, name) for name in work] == [1, 2]  # the busy one had a prompt too
        assert metric(served, "medreward_inference_duration_seconds_count") == 2


async def test_a_crowd_that_leaves_takes_its_work_along(tmp_path: Path) -> None:
    with serving(tmp_path, "--fake-delay-ms", "1000", "--batch-cost", "200", "--score-cache-bytes", "0") as served:
        address = "127.0.0.1", int(served.url.rpartition(":")[2])
        crowd = await asyncio.to_thread(lambda: [_asking(address, body) for body in triples(CROWD)])
        await until(lambda: state(served)["requests_in_flight"] > CROWD // 2)
        for client in crowd:
            client.close()
        await until(lambda: state(served)["requests_in_flight"] == 0)
        await until(lambda: state(served)["cost_admitted"] == 0)  # what the device was busy with
        left = state(served)
        assert (left["triples_waiting"], left["triples_in_flight"]) == (0, 0)
        assert metric(served, "medreward_queue_cost") == 0
        assert metric(served, "medreward_batch_items_sum") < CROWD / 2
        assert (await ask(served.url, triples(1)))[0].status_code == 200


def _asking(address: tuple[str, int], body: Body) -> socket.socket:
    """A client that has sent its whole request."""
    content = json.dumps(body).encode()
    client = socket.create_connection(address)
    head = f"POST /v1/score HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(content)}\r\n"
    client.sendall(head.encode() + b"Content-Type: application/json\r\n\r\n" + content)
    return client
