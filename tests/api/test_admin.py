"""The admin door: metrics that move as they should, state, drain."""

import asyncio
import os
import re
from pathlib import Path

import pytest
from fastapi.openapi.models import OpenAPI
from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families

import pictures
from asking import check_problem, over_grpc, over_rest, post, refused
from cases import ANSWER, QUESTION, SCAN, b64, item, to_message
from keyring import KeysFile, bearer
from medreward.api.state_shapes import StateReply
from medreward.errors import ITEM_CODES
from medreward.metrics import Metrics
from medreward.types import DIMENSIONS, Flag
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
    "medreward_worker_restarts_total": {"reason"},
    "medreward_ready": set(),
    "medreward_requests_in_flight": set(),
    "medreward_queue_cost_limit": set(),
    "medreward_refused_total": {"route", "reason"},
    "medreward_flags_total": {"flag"},
    "medreward_uncertainty_count": {"dimension"},
    "medreward_decode_duration_seconds_count": set(),
    "medreward_certificate_expiry_seconds": set(),
    "medreward_drift_statistic": {"dimension"},
    "medreward_drift_alarm": {"dimension"},
    "medreward_shadow_agreement_total": {"outcome"},
    "medreward_shadow_dropped_total": {"reason"},
    "process_cpu_seconds_total": set(),
    "process_resident_memory_bytes": set(),
    "process_open_fds": set(),
    "medreward_process_cpu_seconds_total": {"role", "pid"},
    "medreward_process_resident_memory_bytes": {"role", "pid"},
    "medreward_process_open_fds": {"role", "pid"},
}
#: Of what is bounded, each with what it may be.
LIMITED = {
    "medreward_queue_cost": "queue_cost",
    "medreward_queue_pixels": "queue_pixels",
    "medreward_request_bytes": "bodies_bytes",
    "medreward_grpc_calls": "grpc_calls",
    "medreward_image_store_bytes": "image_store_bytes",
    "medreward_score_cache_bytes": "score_cache_bytes",
    "medreward_pixel_cache_bytes": "pixel_cache_bytes",
}

RPC_SCORE = "/medreward.v1.RewardService/Score"

Key = tuple[str, tuple[str, ...]]


async def scrape(server: Server) -> dict[Key, float]:
    """Samples by name and label values, in the order of the labels' names."""
    text = (await server.admin.get("/metrics")).text
    return {
        (sample.name, tuple(value for _, value in sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


async def test_metrics_hold_every_name_of_the_contract_right_after_the_start() -> None:
    async with running() as server:
        reply = await server.admin.get("/metrics")
    assert reply.headers["content-type"].startswith("text/plain")
    families = list(text_string_to_metric_families(reply.text))
    labels = {sample.name: set(sample.labels) for family in families for sample in family.samples}
    assert {name for name in CONTRACT if name not in labels} == set()
    assert {name for name, wanted in CONTRACT.items() if not wanted <= labels[name]} == set()


async def test_counters_start_at_nothing_for_what_may_happen() -> None:
    async with running() as server:
        before = await scrape(server)
        expected = [
            ("medreward_requests_total", ("200", "interactive", "/v1/score")),
            ("medreward_requests_total", ("OK", "bulk", RPC_SCORE)),
            ("medreward_request_duration_seconds_count", ("bulk", "/readyz")),
            *(("medreward_items_total", (code,)) for code in ("ok", *ITEM_CODES)),
            *(("medreward_flags_total", (flag,)) for flag in Flag),
            *(("medreward_worker_restarts_total", (reason,)) for reason in ("crash", "hang")),
            *(("medreward_cache_hits_total", (cache,)) for cache in ("images", "pixels", "scores", "prefixes")),
            *(
                ("medreward_refused_total", (reason, RPC_SCORE))
                for reason in ("overloaded", "quota_exceeded", "not_ready")
            ),
            *(("medreward_refused_total", ("unauthenticated", path)) for path in ("/score", "/admin/drain")),
        ]
        assert {key: before.get(key) for key in expected} == dict.fromkeys(expected, 0)


async def test_what_is_bounded_stands_beside_its_limit() -> None:
    body = {"image": SCAN, "question": QUESTION, "response": ANSWER}
    async with running(score_cache_bytes=10**6, pixel_cache_bytes=10**8) as server:
        stored = (await server.rest.put("/v1/images", content=pictures.png())).status_code
        assert (await post(server, body)).status_code == 200
        counts = await scrape(server)
        for name, setting in LIMITED.items():
            assert counts[f"{name}_limit", ()] == getattr(server.engine.settings, setting)
    assert stored == 201
    assert counts["medreward_image_store_bytes", ()] == len(pictures.png())
    assert 0 < counts["medreward_score_cache_bytes", ()] < 10_000
    assert counts["medreward_pixel_cache_bytes", ()] == 224 * 224 * 3
    assert counts["medreward_decode_duration_seconds_count", ()] == 1


async def test_ready_and_in_flight_follow_the_server() -> None:
    async with running(start=False, fake_delay_ms=1000) as server:
        assert (await scrape(server))["medreward_ready", ()] == 0
        await server.engine.start()
        assert (await scrape(server))["medreward_ready", ()] == 1
        triple = {"question": QUESTION, "response": ANSWER}
        asked = [asyncio.create_task(door(server, triple)) for door in (over_rest, over_grpc)]
        await until(lambda: server.engine.state()["requests_in_flight"] == 2)
        counts = await scrape(server)
        assert counts["medreward_requests_in_flight", ()] == 2
        assert counts["medreward_grpc_calls", ()] == 1
        assert counts["medreward_queue_cost", ("bulk",)] > 0
        server.engine.drain()
        assert (await scrape(server))["medreward_ready", ()] == 0
        await asyncio.gather(*asked)
        assert (await scrape(server))["medreward_grpc_calls", ()] == 0


async def test_a_quota_is_not_counted_as_overload(tmp_path: Path) -> None:
    keys = KeysFile(tmp_path / "keys.jsonl")
    key = keys.new(triples_per_second=0.001)
    async with running(keys_file=keys.path) as server:
        triple = {"question": QUESTION, "response": ANSWER}
        replies = [await post(server, triple, bearer(key)) for _ in range(2)]
        await refused(server.stub.Score(to_message(triple), metadata=tuple(bearer(key).items())))
        await post(server, triple)
        counts = await scrape(server)
    assert [reply.status_code for reply in replies] == [200, 503]

    def refusals(reason: str) -> list[float]:
        return [counts["medreward_refused_total", (reason, route)] for route in ("/score", RPC_SCORE)]

    assert refusals("quota_exceeded") == [1, 1]
    assert refusals("overloaded") == [0, 0]
    assert refusals("unauthenticated") == [1, 0]


async def test_flags_and_uncertainties_are_counted(tiny: Server) -> None:
    before = await scrape(tiny)
    for _ in range(2):  # the second time from the cache: what was answered counts
        await over_rest(tiny, {"items": [item(responses=["", "[SEP]"]), item(image=SCAN, responses=["\x00"])]})
    after = await scrape(tiny)

    def more(name: str, label: str) -> float:
        return after[name, (label,)] - before[name, (label,)]

    assert {flag: more("medreward_flags_total", flag) for flag in Flag if more("medreward_flags_total", flag)} == {
        Flag.NO_IMAGE: 4,
        Flag.EMPTY_RESPONSE: 2,
        Flag.CONTROL_TOKENS: 2,
    }
    assert [more("medreward_uncertainty_count", dimension) for dimension in DIMENSIONS] == [4] * 6
    assert all(more("medreward_uncertainty_sum", dimension) > 0 for dimension in DIMENSIONS)


async def test_an_uncertainty_beyond_all_buckets_is_counted() -> None:
    registry = CollectorRegistry()
    Metrics(registry).uncertainty.observe((0.04, 7.0, None, None, None, None))

    def buckets(dimension: str) -> list[float | None]:
        labels = ({"dimension": dimension, "le": bound} for bound in ("0.05", "5.0", "+Inf"))
        return [registry.get_sample_value("medreward_uncertainty_bucket", label) for label in labels]

    assert [buckets("accuracy"), buckets("relevance")] == [[1, 1, 1], [0, 0, 1]]


async def test_every_process_of_the_server_is_measured(tiny: Server) -> None:
    text = (await tiny.admin.get("/metrics")).text
    families = {family.name: family for family in text_string_to_metric_families(text)}
    seconds = {tuple(sorted(s.labels.items())): s.value for s in families["medreward_process_cpu_seconds"].samples}
    pids = {(labels["role"], int(labels["pid"])): value for labels, value in ((dict(k), v) for k, v in seconds.items())}
    decoders = [("decoder", child.pid) for child in tiny.engine.serving.decoders.children]
    assert decoders
    assert set(pids) == {("front", os.getpid()), ("worker", tiny.engine.serving.workers[0].pid), *decoders}
    assert all(value > 0 for value in pids.values())
    memory = [sample.value for sample in families["medreward_process_resident_memory_bytes"].samples]
    assert min(memory) > 10**6


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
    outcomes = {values[0]: n for (name, values), n in counts.items() if name == "medreward_items_total" and n}
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


async def test_a_drain_is_taken_back() -> None:
    triple = {"question": QUESTION, "response": ANSWER}
    async with running() as server:
        await server.admin.post("/admin/drain")
        assert (await server.rest.get("/readyz")).status_code == 503
        state = (await server.admin.post("/admin/undrain")).json()
        assert (state["ready"], state["reason"]) == (True, None)
        assert (await server.rest.get("/readyz")).status_code == 200
        assert (await post(server, triple)).status_code == 200
        assert isinstance(await over_grpc(server, triple), list)


async def test_a_server_that_stops_is_not_taken_back() -> None:
    async with running() as server:
        server.engine.stop()
        check_problem(await server.admin.post("/admin/undrain"), 503, "not_ready")
        assert (await server.rest.get("/readyz")).status_code == 503


async def test_the_admin_port_describes_itself_without_another_host(fake: Server) -> None:
    document = (await fake.admin.get("/openapi.json")).json()
    OpenAPI.model_validate(document)
    routes = {f"{method} {path}" for path, methods in document["paths"].items() for method in methods}
    states = {"get /metrics", "get /admin/state", "post /admin/drain", "post /admin/undrain"}
    models = {"get /admin/model", "post /admin/model", "post /admin/model/rollback"}
    sleep = {"post /admin/sleep", "post /admin/wake"}
    screening = {"post /admin/policies/{name}/current", "post /admin/audit/erase", "post /admin/drift/reset"}
    assert routes == {*states, *models, *sleep, *screening}
    assert all(about["description"] for methods in document["paths"].values() for about in methods.values())
    StateReply.model_validate_json((await fake.admin.get("/admin/state")).content)
    page = (await fake.admin.get("/docs")).text
    linked = re.findall(r"""(?:src|href)=["']([^"']+)""", page)
    assert [(await fake.admin.get(path)).status_code for path in linked] == [200] * len(linked)


@pytest.mark.parametrize("path", ["/metrics", "/admin/state", "/admin/drain", "/admin/undrain"])
async def test_the_front_door_has_no_admin_routes(fake: Server, path: str) -> None:
    assert (await fake.rest.get(path)).status_code == 404
    assert (await fake.rest.post(path)).status_code == 404


async def test_draining_is_not_a_get(fake: Server) -> None:
    assert (await fake.admin.get("/admin/drain")).status_code == 405
    assert (await fake.rest.get("/readyz")).status_code == 200
