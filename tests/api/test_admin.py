"""The admin door: metrics that move as they should, state, drain."""

import asyncio

import pytest
from prometheus_client.parser import text_string_to_metric_families

import pictures
from asking import over_grpc, over_rest, post
from cases import ANSWER, QUESTION, SCAN, b64, item
from medreward.types import DIMENSIONS
from serving import Server, running
from waiting import until

CONTRACT = {
    "medreward_requests_total": {"route", "lane", "code"},
    "medreward_request_duration_seconds_count": {"route", "lane"},
    "medreward_items_total": {"outcome"},
    "medreward_image_encodes_total": set(),
    "medreward_prefix_runs_total": set(),
    "medreward_batch_items_count": set(),
    "medreward_queue_cost": {"lane"},
    "medreward_queue_wait_seconds_count": {"lane"},
    "medreward_inference_duration_seconds_count": set(),
    "medreward_score_count": {"dimension"},
    "medreward_nonfinite_scores_total": set(),
    "medreward_cache_requests_total": {"cache"},
    "medreward_cache_hits_total": {"cache"},
    "medreward_build_info": {"version", "model", "fingerprint", "runtime"},
}
#: Has no sample before the first restart.
WITHOUT_SAMPLES = {"medreward_worker_restarts"}

Key = tuple[str, tuple[str, ...]]


async def scrape(server: Server) -> dict[Key, float]:
    """Samples by name and label values, in the order of the labels' names."""
    text = (await server.admin.get("/metrics")).text
    return {
        (sample.name, tuple(value for _, value in sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


async def test_metrics_hold_every_name_of_the_contract(tiny: Server) -> None:
    await over_rest(tiny, {"image": SCAN, "question": QUESTION, "response": ANSWER})
    reply = await tiny.admin.get("/metrics")
    assert reply.headers["content-type"].startswith("text/plain")
    families = list(text_string_to_metric_families(reply.text))
    labels = {sample.name: set(sample.labels) for family in families for sample in family.samples}
    assert {name for name in CONTRACT if name not in labels} == set()
    assert {name for name, wanted in CONTRACT.items() if not wanted <= labels[name]} == set()
    assert {family.name for family in families} >= WITHOUT_SAMPLES


async def test_counts_after_known_requests() -> None:
    async with running() as server:
        good = await over_rest(server, {"image": SCAN, "question": QUESTION, "response": ANSWER})
        await over_rest(server, {"items": [item(responses=["a", "\x00", "b"]), item(image=b64(b"?"), response="c")]})
        await over_grpc(server, {"image": SCAN, "question": QUESTION, "response": ANSWER}, {"x-lane": "interactive"})
        await over_rest(server, {"question": "", "response": "r"})
        await server.rest.post("/v1/score", content=b"{", headers={"content-type": "application/json"})
        await server.rest.get("/not/a/route")
        counts = await scrape(server)
    assert isinstance(good, list)

    def requests(code: str, lane: str, route: str) -> float:
        return counts["medreward_requests_total", (code, lane, route)]

    assert requests("200", "bulk", "/score") == 2
    assert requests("422", "bulk", "/score") == 1
    assert requests("400", "bulk", "/v1/score") == 1
    assert requests("404", "bulk", "unmatched") == 1
    assert requests("OK", "interactive", "/medreward.v1.RewardService/Score") == 1
    assert counts["medreward_request_duration_seconds_count", ("bulk", "/score")] == 3
    outcomes = {values[0]: n for (name, values), n in counts.items() if name == "medreward_items_total"}
    assert outcomes == {"ok": 4, "bad_text": 1, "image_kind": 1, "empty_question": 1}
    for dimension in DIMENSIONS:
        assert counts["medreward_score_count", (dimension,)] == 4
        assert 0 < counts["medreward_score_sum", (dimension,)] < 4
    assert counts["medreward_batch_items_sum", ()] == 4
    assert counts["medreward_inference_duration_seconds_count", ()] == 3
    assert counts["medreward_queue_wait_seconds_count", ("interactive",)] == 1
    assert counts["medreward_queue_cost", ("bulk",)] == counts["medreward_queue_cost", ("interactive",)] == 0
    assert counts["medreward_cache_requests_total", ("pixels",)] == 2
    assert counts["medreward_cache_hits_total", ("pixels",)] == 1


async def test_the_score_histogram_holds_the_scores_given() -> None:
    async with running() as server:
        reply = (await post(server, {"question": QUESTION, "response": ANSWER})).json()
        counts = await scrape(server)
    for name, score in reply["results"][0]["scores"].items():
        assert counts["medreward_score_sum", (name,)] == pytest.approx(score)
        buckets = {
            values[1]: n for (key, values), n in counts.items() if key == "medreward_score_bucket" and values[0] == name
        }
        assert {bound: n for bound, n in buckets.items() if (n == 1) != (score <= float(bound))} == {}


async def test_an_image_is_encoded_once(tiny: Server) -> None:
    before = (await scrape(tiny))["medreward_image_encodes_total", ()]
    for response in ("a", "b", "c"):
        await over_rest(tiny, {"image": b64(pictures.png(4242)), "question": QUESTION, "response": response})
    assert (await scrape(tiny))["medreward_image_encodes_total", ()] == before + 1


async def test_state_and_drain() -> None:
    triple = {"question": QUESTION, "response": ANSWER}
    async with running(fake_delay_ms=1500) as server:
        state = (await server.admin.get("/admin/state")).json()
        assert (state["ready"], state["reason"], state["requests_in_flight"]) == (True, None, 0)

        by_rest = asyncio.create_task(over_rest(server, triple))
        by_grpc = asyncio.create_task(over_grpc(server, triple))
        await until(lambda: server.engine.state()["requests_in_flight"] == 2)
        state = (await server.admin.get("/admin/state")).json()
        assert state["requests_in_flight"] == 2
        assert state["cost_admitted"] > 0

        state = (await server.admin.post("/admin/drain")).json()
        assert (state["ready"], state["reason"]) == (False, "draining")
        assert (await post(server, triple)).status_code == 503
        assert await by_rest == await by_grpc
        assert isinstance(await by_rest, list)
        assert (await server.admin.get("/admin/state")).json()["requests_in_flight"] == 0


@pytest.mark.parametrize("path", ["/metrics", "/admin/state", "/admin/drain"])
async def test_the_front_door_has_no_admin_routes(fake: Server, path: str) -> None:
    assert (await fake.rest.get(path)).status_code == 404
    assert (await fake.rest.post(path)).status_code == 404


async def test_draining_is_not_a_get(fake: Server) -> None:
    assert (await fake.admin.get("/admin/drain")).status_code == 405
    assert (await fake.rest.get("/readyz")).status_code == 200
