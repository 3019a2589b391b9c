"""Images in shapes that have text alone, named by the label of a sample."""

import hashlib
import json
import os
from base64 import b64encode
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import pictures
from api.compat.shapes import chatml, get_reward
from cases import ANSWER, QUESTION, UNKNOWN_HASH
from medreward.engine.images.root import ImageRoot
from medreward.errors import ConfigurationError, ItemError
from serving import Server, running

FILE, SECRET = pictures.png(3), pictures.png(4)
DATA_URL = "data:image/png;base64," + b64encode(FILE).decode()


@dataclass(frozen=True)
class Rooted:
    server: Server
    root: Path


@pytest.fixture(scope="module")
async def rooted(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Rooted]:
    """A server with a folder of images, beside another folder that is nobody's business."""
    top = tmp_path_factory.mktemp("images")
    root, outside = top / "root", top / "outside"
    (root / "deep" / "er").mkdir(parents=True)
    outside.mkdir()
    (root / "deep" / "er" / "a.png").write_bytes(FILE)
    (outside / "secret.png").write_bytes(SECRET)
    (root / "inside.png").symlink_to(root / "deep" / "er" / "a.png")
    (root / "leads-out.png").symlink_to(outside / "secret.png")
    (root / "folder-out").symlink_to(outside)
    (root / "circle").symlink_to(root / "circle")
    (root / "text.png").write_text("no image")
    os.mkfifo(root / "pipe.png")
    (top / "root-beside").mkdir()
    (top / "root-beside" / "a.png").write_bytes(FILE)
    async with running(image_root=root) as server:
        yield Rooted(server, root)


async def ask(server: Server, label: Any) -> Any:
    return await server.rest.post("/get_reward", json=get_reward(QUESTION, ANSWER) | {"labels": [label]})


async def expected(server: Server, question: str = QUESTION) -> Any:
    body = {"image": b64encode(FILE).decode(), "question": question, "response": ANSWER}
    return [(await server.rest.post("/score", json=body)).json()["results"][0]["reward"]]


async def test_each_way_to_name_an_image(rooted: Rooted) -> None:
    server, right = rooted.server, await expected(rooted.server)
    digest = (await server.rest.put("/v1/images", content=FILE)).json()["sha256"]
    paths = ["deep/er/a.png", "./deep/../deep/er/a.png", str(rooted.root / "deep" / "er" / "a.png"), "inside.png"]
    for name in (digest, DATA_URL, *paths):
        for label in (name, {"image": name}, json.dumps({"image": name, "answer": "B"}), {"image": name, "n": [1]}):
            reply = await ask(server, label)
            assert reply.json().get("rewards") == right, (label, reply.text)


async def test_a_question_in_the_label_wins(rooted: Rooted) -> None:
    label = {"image": "deep/er/a.png", "question": "What is shown?"}
    for written in (label, json.dumps(label)):
        assert (await ask(rooted.server, written)).json()["rewards"] == await expected(rooted.server, "What is shown?")


async def test_no_label_is_no_image(rooted: Rooted) -> None:
    plain = (await rooted.server.rest.post("/get_reward", json=get_reward(QUESTION, ANSWER))).json()
    for label in (None, "", {}, {"image": None}, {"image": ""}, "{}"):
        assert (await ask(rooted.server, label)).json() == plain


@pytest.mark.parametrize(
    "path",
    [
        "../outside/secret.png",
        "deep/../../outside/secret.png",
        "{top}/outside/secret.png",
        "leads-out.png",
        "folder-out/secret.png",
        "../root-beside/a.png",
        "{top}/root-beside/a.png",
        "circle",
        "nothing.png",
        "deep/er/a.png/b",
        "/",
        ".",
        "/etc/passwd",
        "file:///etc/passwd",
        "~/a.png",
        "a\x00.png",
        "x" * 5000,
        "\ud800",
    ],
)
async def test_no_path_leads_out_and_each_failure_reads_the_same(rooted: Rooted, path: str) -> None:
    label = path.format(top=rooted.root.parent) if "{top}" in path else path
    body = json.dumps(get_reward(QUESTION, ANSWER) | {"labels": [label]})
    reply = await rooted.server.rest.post("/get_reward", content=body)
    assert reply.status_code == 422
    problem = reply.json()
    assert problem["code"] in ("image_fetch_failed", "image_invalid"), problem
    assert problem["detail"] in (
        "no image can be read at this path below --image-root",
        "the path below --image-root is no file",
    )


async def test_a_file_that_is_no_image_and_one_that_is_no_file(rooted: Rooted) -> None:
    for name, code in (("text.png", "image_kind"), ("pipe.png", "image_invalid"), ("deep", "image_invalid")):
        reply = await ask(rooted.server, name)
        assert (reply.status_code, reply.json()["code"]) == (422, code)


def test_a_link_that_is_put_there_after_the_path_was_looked_at_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "root" / "a").mkdir(parents=True)
    (tmp_path / "root" / "a" / "x.png").write_bytes(FILE)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "x.png").write_bytes(SECRET)
    root = ImageRoot(tmp_path / "root")
    opened = root._open

    def swapped(inside: Path) -> int:
        (tmp_path / "root" / "a").rename(tmp_path / "root" / "b")
        (tmp_path / "root" / "a").symlink_to(tmp_path / "out")
        return opened(inside)

    root._open = swapped  # type: ignore[method-assign]  # somebody changes the folder at the worst moment
    with pytest.raises(ItemError, match="no image can be read"):
        root.read("a/x.png", 10_000)


def test_a_file_that_is_too_large_and_a_root_that_is_not_there(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(FILE)
    assert ImageRoot(tmp_path).read("a.png", len(FILE)) == FILE
    with pytest.raises(ItemError, match="more than"):
        ImageRoot(tmp_path).read("a.png", len(FILE) - 1)
    with pytest.raises(ConfigurationError, match="there is no folder"):
        ImageRoot(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("label", "code"),
    [
        (UNKNOWN_HASH, "image_unknown"),
        ("B", "image_invalid"),
        ("deep/er/a.png", "image_invalid"),
        ("https://example.org/a.png", "image_url_refused"),
        ("data:image/png,abc", "image_invalid"),
        ("data:image/png;base64,!", "image_invalid"),
        ('{"image": ', "image_invalid"),
        ('{"image": 5}', "image_invalid"),
        ('{"a": ' + "[" * 5000, "image_invalid"),
        ({"image": {"sha256": UNKNOWN_HASH}}, "image_invalid"),
        ({"question": 7}, "image_invalid"),
        (5, "image_invalid"),
        (["a"], "image_invalid"),
        (True, "image_invalid"),
    ],
)
async def test_any_other_label_is_an_error_of_its_sample(fake: Server, label: Any, code: str) -> None:
    reply = await ask(fake, label)
    assert (reply.status_code, reply.json()["code"], reply.json()["field"]) == (422, code, "/query/0")


async def test_an_unknown_hash_is_sent_again_and_then_known(fake: Server) -> None:
    file = pictures.png(91)
    digest = hashlib.sha256(file).hexdigest()
    assert (await ask(fake, digest)).json()["code"] == "image_unknown"
    assert (await fake.rest.put("/v1/images", content=file)).json()["sha256"] == digest
    assert (await ask(fake, digest)).status_code == 200


async def test_placeholders_in_the_prompt_do_not_count_as_an_image(fake: Server) -> None:
    prompt = chatml(QUESTION, image=True)
    body = {"query": [prompt + ANSWER], "prompts": [prompt]}
    plain = (await fake.rest.post("/get_reward", json=get_reward(QUESTION, ANSWER))).json()
    assert (await fake.rest.post("/get_reward", json=body)).json() == plain
