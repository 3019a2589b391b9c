"""What a user asks of the client, through both doors of a real server."""

import asyncio
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from clients.processes import Process
from medreward.clients import AsyncClient, NotScored, Score, Triple
from medreward.clients.images import File, load
from medreward.types import DIMENSIONS, Turn
from pictures import dicom, jpeg, png

pytestmark = pytest.mark.slow

UPLOADS = {"http": 'route="/v1/images"', "grpc": "RewardService/PutImage"}
CALLS = {"http": 'route="/score"', "grpc": "RewardService/Score"}


def triples(count: int = 60) -> list[Triple]:
    """Six groups, their responses all over the place."""
    images = [png(1), png(2), None]
    made = [Triple(images[n % 3], f"question {n % 2}", f"response {n}") for n in range(count)]
    random.Random(1).shuffle(made)
    return made


async def one_by_one(client: AsyncClient, asked: list[Triple]) -> list[Score]:
    return [score for one in asked for score in await client.score(one.image, one.question, [one.response])]


async def test_scores_are_in_the_order_of_the_triples(client: AsyncClient) -> None:
    scores = await client.score_many(triples())
    assert scores == await one_by_one(client, triples())
    assert len({score.reward for score in scores}) == 60


async def test_both_doors_give_the_same_scores(server: Process) -> None:
    async with AsyncClient(server.url("http")) as rest, AsyncClient(server.url("grpc")) as rpc:
        assert await rest.score_many(triples()) == await rpc.score_many(triples())


async def test_a_score_has_all_that_the_server_says(client: AsyncClient) -> None:
    (score,) = await client.score(None, "q", [""])
    assert score.error is None
    assert score.logits is not None
    assert score.scores is not None
    assert list(score.logits) == list(score.scores) == list(DIMENSIONS)
    assert set(score.flags) == {"no_image", "empty_response"}
    assert score.reward == pytest.approx(sum(logit or 0.0 for logit in score.logits.values()) / 6)


async def test_both_doors_explain_alike(server: Process) -> None:
    response = "No. The rib is whole. 👍 Nothing else."
    async with AsyncClient(server.url("http")) as rest, AsyncClient(server.url("grpc")) as rpc:
        by_rest, by_rpc = [
            await client.score(png(3), "Is it broken?", [response, "", "\x01"], explain="sentences")
            for client in (rest, rpc)
        ]
        (plain,) = await rest.score(png(3), "Is it broken?", [response])
    assert by_rest == by_rpc
    explained, empty, failed = by_rest
    assert [response[part.start : part.end] for part in explained.explain or ()] == [
        "No.",
        "The rib is whole.",
        "👍 Nothing else.",
    ]
    assert all(part.error is None and part.logits and part.reward for part in explained.explain or ())
    assert (empty.explain, failed.explain, plain.explain) == ((), None, None)


async def test_groups_travel_together_and_an_image_once(server: Process, door: str) -> None:
    def counts() -> list[float]:
        return [server.count("medreward_requests_total", route) for route in (UPLOADS[door], CALLS[door])]

    images = [png(seed) for seed in range(100, 104)]
    before = counts()
    async with AsyncClient(server.url(door)) as client:
        asked = [(images[n % 4], f"q {n % 8 // 4}", str(n)) for n in range(64)]
        await client.score_many(asked)
        await client.score_many([(*triple[:2], f"again {n}") for n, triple in enumerate(asked)])
        await client.score(images[0], "q", ["once more"])
    assert [after - since for after, since in zip(counts(), before, strict=True)] == [4, 3]


async def test_an_image_asked_about_at_once_by_many_is_sent_once(server: Process, door: str) -> None:
    before = server.count("medreward_requests_total", UPLOADS[door])
    async with AsyncClient(server.url(door)) as client:
        await asyncio.gather(*[client.score(jpeg(77), f"q {n}", ["r"]) for n in range(20)])
    assert server.count("medreward_requests_total", UPLOADS[door]) - before == 1


async def test_an_image_that_the_server_forgot_is_sent_again(server: Process, client: AsyncClient) -> None:
    first = await client.score(png(5), "q", ["r"])
    file = load(png(5))
    assert isinstance(file, File)
    async with httpx.AsyncClient() as other:
        deleted = await other.delete(f"{server.url('http')}/v1/images/{file.sha256}")
    assert deleted.status_code == 204
    assert await client.score(png(5), "q", ["r"]) == first


@pytest.fixture(scope="module")
def forgetful(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    """Its image store is too small for any image."""
    process = Process(tmp_path_factory.mktemp("forgetful"), ("--model=fake", "--image-store-bytes=10"))
    process.start()
    yield process
    process.kill()


async def test_a_server_that_keeps_no_image_still_scores_all(server: Process, forgetful: Process, door: str) -> None:
    asked = [(png(seed), "q", str(seed)) for seed in range(1, 25)]
    async with AsyncClient(server.url(door)) as client, AsyncClient(forgetful.url(door)) as tried:
        scores = await asyncio.wait_for(tried.score_many(asked), 120)
        assert scores == await client.score_many(asked)


async def test_dicom_files_are_scored(client: AsyncClient, tmp_path: Path) -> None:
    path = tmp_path / "x.dcm"
    path.write_bytes(dicom())
    by_path, by_bytes = await client.score_many([(path, "q", "r"), (dicom(), "q", "r")])
    assert by_path.reward is not None
    assert by_path == by_bytes


async def test_weights_make_the_reward(client: AsyncClient) -> None:
    (score,) = await client.score_many([(None, "q", "r")], weights={"accuracy": 2, "overall": -1})
    assert score.logits is not None
    accuracy, overall = score.logits["accuracy"], score.logits["overall"]
    assert accuracy is not None
    assert overall is not None
    assert score.reward == 2 * accuracy - overall


@pytest.mark.parametrize("weights", [{"accurcy": 1}, {"accuracy": float("nan")}])
async def test_wrong_weights_are_the_callers_error(client: AsyncClient, weights: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="accuracy, relevance"):
        await client.score(None, "q", ["r"], weights=weights)


async def test_options_reach_the_server(client: AsyncClient) -> None:
    long = "word " * 5000
    (refused,) = await client.score(None, "q", [long])
    (cut,) = await client.score(None, "q", [long], too_long="cut_middle")
    (stripped,) = await client.score_many([(None, "q", "<think>hm</think>yes")], thinking="strip")
    (plain,) = await client.score(None, "q", ["yes"])
    assert refused.error == "too_long"
    assert "cut_middle" in cut.flags
    assert "thinking_stripped" in stripped.flags
    assert stripped.reward == plain.reward


async def test_history_that_the_model_cannot_read_is_a_value(client: AsyncClient) -> None:
    scores = await client.score(None, "q", ["a", "b"], history=[{"role": "user", "content": "before"}])
    assert [(score.error, score.reward) for score in scores] == [("unsupported_field", None)] * 2


async def test_turns_that_the_model_cannot_read_may_be_left_out(
    client: AsyncClient, caplog: pytest.LogCaptureFixture
) -> None:
    asked = [Triple(None, "q", text, (Turn("user", "before"), Turn("assistant", "yes"))) for text in ("a", "b")]
    for _ in range(2):
        scores = await client.score_many(asked, unread_turns="leave_out")
        assert [score.reward for score in scores] == [s.reward for s in await client.score(None, "q", ["a", "b"])]
    said = [record.getMessage() for record in caplog.records if "no turns" in record.getMessage()]
    assert len(said) == 1


BAD: list[tuple[str, Any, str, str]] = [
    ("image_url_refused", "https://example.org/x.png", "q", "r"),
    ("image_kind", b"no image", "q", "r"),
    ("image_invalid", Path("/there/is/none"), "q", "r"),
    ("image_too_small", png(0, 4, 4), "q", "r"),
    ("too_long", None, "q", "word " * 5000),
    ("too_long", None, "q", "x" * 200_001),
    ("bad_text", None, "q", "\x00"),
    ("bad_text", None, "q", "\ud800"),
    ("bad_text", None, "\ud800", "r"),
]


async def test_what_cannot_be_scored_is_a_value_and_takes_no_neighbour(client: AsyncClient) -> None:
    good = [(png(1), "q", f"r {n}") for n in range(len(BAD))]
    mixed = [triple for n, (_, *bad) in enumerate(BAD) for triple in (good[n], tuple(bad))]
    scores = await client.score_many(mixed)
    assert scores[::2] == await client.score_many(good)
    assert all(score.reward is not None for score in scores[::2])
    assert [score.error for score in scores[1::2]] == [code for code, *_ in BAD]
    for score in scores[1::2]:
        assert (score.reward, score.logits, score.scores, score.uncertainty) == (None,) * 4
        assert score.message


async def test_a_bad_image_of_many_questions_fails_each_of_them(client: AsyncClient) -> None:
    scores = await client.score_many([(b"no image", f"q {n % 5}", str(n)) for n in range(40)])
    assert {score.error for score in scores} == {"image_kind"}


@pytest.fixture(scope="module")
def narrow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    """Refuses whole calls that other servers take."""
    flags = ("--model=fake", "--items=3", "--responses=5", "--body-bytes=150000", "--text-chars=100000")
    process = Process(tmp_path_factory.mktemp("narrow"), flags)
    process.start()
    yield process
    process.kill()


async def test_calls_that_are_too_big_are_divided(server: Process, narrow: Process, door: str) -> None:
    asked = [(png(n % 10), "q", f"response {n}") for n in range(120)]
    async with AsyncClient(server.url(door)) as client, AsyncClient(narrow.url(door)) as tried:
        assert await tried.score_many(asked) == await client.score_many(asked)


async def test_one_text_that_is_too_big_takes_no_neighbour(narrow: Process, door: str) -> None:
    asked = [(None, "q", "x" * 300_000 if n == 7 else f"response {n}") for n in range(20)]
    async with AsyncClient(narrow.url(door)) as client:
        scores = await client.score_many(asked)
    assert [n for n, score in enumerate(scores) if score.reward is None] == [7]
    assert scores[7].error == "body_too_large"


async def test_strict_raises_what_is_missing(server: Process, door: str) -> None:
    async with AsyncClient(server.url(door), strict=True) as client:
        assert len(await client.score(None, "q", ["a"])) == 1
        with pytest.raises(NotScored, match="bad_text: response 1: ") as raised:
            await client.score(None, "q", ["a", "\x00"])
    assert raised.value.code == "bad_text"


async def test_progress_counts_up_to_all(client: AsyncClient) -> None:
    seen: list[tuple[int, int]] = []
    asked = [(None, f"q {n}", "r") for n in range(50)] + [(Path("/none"), "q", "r")]
    await client.score_many(asked, progress=lambda done, count: seen.append((done, count)))
    assert len(seen) > 2
    assert seen == sorted(seen)
    assert seen[-1] == (51, 51)


async def test_nothing_asked_is_nothing_scored(client: AsyncClient) -> None:
    assert await client.score_many([]) == await client.score(png(), "q", []) == []


async def test_one_text_is_no_list_of_responses(client: AsyncClient) -> None:
    with pytest.raises(TypeError, match="list of texts"):
        await client.score(None, "q", "not a list")


async def test_model_says_what_is_served(client: AsyncClient) -> None:
    model = await client.model()
    assert (model.name, model.evidence) == ("fake", "none")
    assert client.fingerprint is None
    await client.score(None, "q", ["r"])
    assert client.fingerprint == model.fingerprint


async def test_the_lane_is_the_one_asked_for(server: Process, door: str) -> None:
    labels = CALLS[door], 'lane="interactive"'
    before = server.count("medreward_requests_total", *labels)
    async with AsyncClient(server.url(door), lane="interactive") as client:
        await client.score(None, "q", ["r"])
    assert server.count("medreward_requests_total", *labels) == before + 1
    with pytest.raises(ValueError, match="urgent"):
        AsyncClient("http://x", lane="urgent")
