"""One line a request: who asked, what came of it, and an id that is no patient's name."""

import json
import logging
import re
from typing import Any

import httpx
import pytest

from asking import over_grpc, post, refused, send
from cases import QUESTION, Body, item, to_message
from keyring import KeysFile, bearer
from medreward import logs
from medreward.proto import reward_pb2 as pb
from serving import LOOPBACK, Server, running
from waiting import until

PATIENT = "John Smith MRN 12345"
UUID = "4fc1a3e2-5b6d-4c7e-8f90-a1b2c3d4e5f6"
ONE: Body = {"question": QUESTION, "response": "yes"}
MIXED: Body = {"items": [item(responses=["yes", "\x00", ""]), item(image="?", response="no")]}
RPC = "/medreward.v1.RewardService"


class Access:
    """The lines of the access log so far, as they are written."""

    def __init__(self, caplog: pytest.LogCaptureFixture) -> None:
        self._caplog = caplog

    @property
    def text(self) -> str:
        return "\n".join(map(logs.JsonFormatter().format, self._caplog.records))

    async def line(self, number: int = 1) -> dict[str, Any]:
        """The request of this number; it is written after the answer."""
        await until(lambda: len(self._lines()) >= number)
        return self._lines()[number - 1]

    def _lines(self) -> list[dict[str, Any]]:
        records = (record for record in self._caplog.records if record.name == "medreward.access")
        return [json.loads(logs.JsonFormatter().format(record)) for record in records]


@pytest.fixture
def access(caplog: pytest.LogCaptureFixture) -> Access:
    caplog.set_level(logging.INFO, "medreward")
    return Access(caplog)


async def test_a_line_says_who_asked_and_what_came_of_it(fake: Server, access: Access) -> None:
    reply = await post(fake, MIXED, {"X-Forwarded-For": "203.0.113.9"})
    line = await access.line()
    assert line["client"] == LOOPBACK  # the peer, whatever a header says
    assert line["route"] == "/score"
    assert line["code"] == "200"
    assert line["fingerprint"] == reply.json()["model"]["fingerprint"]
    assert line["responses"] == 4
    assert line["outcomes"] == {"ok": 2, "bad_text": 1, "image_invalid": 1}
    assert line["flags"] == {"no_image": 2, "empty_response": 1}
    assert "reason" not in line


async def test_a_line_over_grpc_says_the_same(fake: Server, access: Access) -> None:
    await over_grpc(fake, MIXED)
    line = await access.line()
    assert (line["client"], line["route"], line["code"]) == (LOOPBACK, f"{RPC}/Score", "OK")
    assert line["fingerprint"] == fake.engine.serving.ref.fingerprint
    assert (line["responses"], line["flags"]) == (4, {"no_image": 2, "empty_response": 1})
    assert line["outcomes"]["ok"] == 2


async def test_a_stream_is_one_line_of_all_its_messages(fake: Server, access: Access) -> None:
    requests = [to_message(ONE), to_message(MIXED), pb.ScoreRequest(items=[pb.Item(question="q")])]
    assert len([reply async for reply in fake.stub.ScoreStream(iter(requests))]) == 3
    line = await access.line()
    assert (line["route"], line["responses"]) == (f"{RPC}/ScoreStream", 6)
    assert line["outcomes"] | {"image_kind": 0, "image_invalid": 0} == {
        "ok": 3,
        "bad_text": 1,
        "invalid_field": 1,
        "image_kind": 0,
        "image_invalid": 0,
    }


async def test_a_refusal_has_its_reason(fake: Server, access: Access) -> None:
    await send(fake, b"{")
    await post(fake, {"question": "", "response": "yes"})
    broken, empty = await access.line(1), await access.line(2)
    assert (broken["reason"], broken["detail"]) == ("malformed", "the body is not valid JSON")
    assert (empty["reason"], empty["outcomes"]) == ("empty_question", {"empty_question": 1})


async def test_a_wrong_key_is_one_line_with_the_reason_and_the_route(keys: KeysFile, access: Access) -> None:
    key = keys.new()
    wrong = key[:-1] + ("A" if key[-1] != "A" else "B")
    id_ = key.split("_")[1]
    tried: dict[str, dict[str, str]] = {
        "no Authorization header was sent": {},
        "the Authorization header holds no key of the form mr_<id>_<secret>, as Bearer or as a Basic password": {
            "authorization": "Basic eA=="
        },
        f"the secret of the key {id_} is wrong": bearer(wrong),
        f"the key {'0' * 16} is unknown, or was revoked": bearer(key.replace(id_, "0" * 16)),
    }
    async with running(keys_file=keys.path) as server:
        replies = [await server.rest.get("/v1/model", headers=headers) for headers in tried.values()]
        lines = [await access.line(n) for n in range(1, len(tried) + 1)]
        await refused(server.stub.GetModel(pb.GetModelRequest(), metadata=tuple(bearer(wrong).items())))
        over_rpc = await access.line(len(tried) + 1)
    assert [line["detail"] for line in lines] == list(tried)
    assert {(line["route"], line["code"], line["reason"]) for line in lines} == {
        ("/v1/model", "401", "unauthenticated")
    }
    assert (over_rpc["route"], over_rpc["detail"]) == (f"{RPC}/GetModel", f"the secret of the key {id_} is wrong")
    assert len({reply.json()["detail"] for reply in replies}) == 1  # a stranger learns nothing of it
    assert key.split("_", 2)[2][:20] not in access.text


async def test_a_key_without_the_scope_is_told_which(keys: KeysFile, access: Access) -> None:
    key = keys.new(tenant="ward-7")
    async with running(keys_file=keys.path) as server:
        reply = await server.admin.post("/admin/drain", headers=bearer(key))
        line = await access.line()
    assert reply.json()["detail"] == line["detail"] == "this key lacks the scope admin"
    assert (line["route"], line["code"], line["reason"]) == ("/admin/drain", "403", "forbidden")
    assert (line["key"], line["tenant"]) == (key.split("_")[1], "ward-7")


async def test_a_known_path_keeps_its_name_whatever_refuses_it(fake: Server, access: Access) -> None:
    await fake.rest.get("/score")
    await fake.rest.get("/v1/model", headers={"host": "evil.example"})
    await fake.rest.delete("/v1/images/" + PATIENT.replace(" ", "-"))
    await fake.rest.get("/" + PATIENT.replace(" ", "-"))
    lines = [await access.line(n) for n in (1, 2, 3, 4)]
    assert [line["route"] for line in lines] == ["/score", "/v1/model", "/v1/images/{sha256}", "unmatched"]
    assert [line["code"] for line in lines] == ["405", "400", "404", "404"]
    assert "Smith" not in access.text


# ids


def replaced(reply: httpx.Response) -> bool:
    return "x-request-id-replaced" in reply.headers


@pytest.mark.parametrize("kept", ["JohnSmith-MRN12345", "step-7.1_b", UUID, "x" * 64])
async def test_an_id_of_plain_characters_is_kept(fake: Server, access: Access, kept: str) -> None:
    reply = await post(fake, ONE, {"X-Request-Id": kept})
    line = await access.line()
    assert reply.headers["x-request-id"] == reply.json()["id"] == line["request_id"] == kept
    assert not replaced(reply)
    assert "request_id_replaced" not in line


@pytest.mark.parametrize("given", [PATIENT, "x" * 65, "a/b", 'a"b', "{$jndi:ldap}", "a\tb", "é"])
async def test_any_other_id_is_replaced_and_the_answer_and_the_log_say_so(
    fake: Server, access: Access, given: str
) -> None:
    reply = await fake.rest.post("/score", json=ONE, headers={b"x-request-id": given.encode("latin-1")})
    line = await access.line()
    assert re.fullmatch("[0-9a-f]{32}", line["request_id"])
    assert reply.headers["x-request-id"] == reply.json()["id"] == line["request_id"]
    assert replaced(reply)
    assert line["request_id_replaced"] is True
    assert given not in access.text


async def test_a_refusal_says_so_too(fake: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    assert replaced(await send(fake, b"{", x_request_id=PATIENT))
    async with running() as server:
        monkeypatch.setattr(server.engine, "score", None)
        fault = await send(server, json.dumps(ONE).encode(), x_request_id=PATIENT)
    assert (fault.status_code, replaced(fault)) == (500, True)


async def test_ids_are_hashed_where_the_operator_wants_it(access: Access) -> None:
    async with running(request_ids="hash") as server:
        first, again, other, own = [
            await post(server, ONE, {"X-Request-Id": id_}) for id_ in ("JohnSmith", "JohnSmith", "JaneDoe", UUID)
        ]
        line = await access.line()
    hashed = first.headers["x-request-id"]
    assert re.fullmatch("[0-9a-f]{32}", hashed)
    assert line["request_id"] == first.json()["id"] == again.headers["x-request-id"] == hashed
    assert other.headers["x-request-id"] != hashed
    assert (replaced(first), line["request_id_replaced"]) == (True, True)
    assert (own.headers["x-request-id"], replaced(own)) == (UUID, False)
    assert "JohnSmith" not in access.text


async def test_none_but_uuids_are_kept_where_the_operator_wants_it(access: Access) -> None:
    async with running(request_ids="uuid-only") as server:
        plain = await post(server, ONE, {"X-Request-Id": "JohnSmith"})
        dashes, bare = [await post(server, ONE, {"X-Request-Id": id_}) for id_ in (UUID, UUID.replace("-", ""))]
    assert replaced(plain)
    assert not replaced(dashes)
    assert (bare.headers["x-request-id"], replaced(bare)) == (UUID.replace("-", ""), False)
    assert "JohnSmith" not in access.text


async def test_over_grpc_the_message_keeps_its_id_and_the_log_has_another(fake: Server, access: Access) -> None:
    message = to_message(ONE)
    message.request_id = PATIENT
    call = fake.stub.Score(message)
    assert (await call).request_id == PATIENT  # the client matches by it
    line = await access.line()
    trailing = dict(await call.trailing_metadata())
    assert trailing["x-request-id"] == line["request_id"]
    assert (trailing["x-request-id-replaced"], line["request_id_replaced"]) == ("true", True)
    assert PATIENT not in access.text


async def test_a_fault_over_grpc_is_logged_under_the_other_id(access: Access, monkeypatch: pytest.MonkeyPatch) -> None:
    async def lost(*_: object) -> None:
        raise ValueError

    message = to_message(ONE)
    message.request_id = PATIENT
    async with running() as server:
        monkeypatch.setattr(server.engine.serving.items, "score", lost)
        alone = await server.stub.Score(message)
        streamed = [reply async for reply in server.stub.ScoreStream(iter([message]))]
        monkeypatch.setattr(server.engine, "score", lost)
        streamed += [reply async for reply in server.stub.ScoreStream(iter([message]))]
    assert [reply.request_id for reply in (alone, *streamed)] == [PATIENT] * 3
    assert access.text.count('"error":"ValueError"') == 3
    assert PATIENT not in access.text
