"""What the server gives the page: its files, what the model sees of an image, and what goes through now."""

import re
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import pictures
from asking import body_with, check_problem, send
from keyring import KeysFile, bearer
from medreward.api.access.keys import Scope
from medreward.api.page.files import FOLDER, OPEN_PATHS
from medreward.api.state_shapes import NowReply
from medreward.lab.phantoms import page as phantoms
from medreward.types import Lane
from serving import Server, running

BYTES = {"content-type": "application/octet-stream"}


async def test_the_page_loads_what_is_there_and_nothing_else(fake: Server) -> None:
    page = await fake.rest.get("/", headers={"accept": "application/json"})
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    named = re.findall(r'(?:src|href)="([^"]+)"', page.text)
    for module in FOLDER.glob("*.js"):
        named += [f"page/{name}" for name in re.findall(r'from "\./([\w.]+)"', module.read_text())]
    assert {"page/app.js", "page/base.css", "page/charts.js"} <= set(named)
    for path in named:
        assert (await fake.rest.get(f"/{path}")).status_code == 200
    assert [path for path in named if "//" in path or path.startswith("/")] == []  # a proxy may put it anywhere
    assert re.findall(r"(?i)<style|<script>|\son\w+=|\sstyle=", page.text) == []


async def test_its_files_are_as_safe_as_headers_make_them(fake: Server) -> None:
    for path in OPEN_PATHS:
        headers = (await fake.rest.get(path)).headers
        assert headers["content-security-policy"] == (
            "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data: blob:; "
            "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
        )
        assert (headers["x-content-type-options"], headers["referrer-policy"]) == ("nosniff", "no-referrer")


async def test_a_file_that_the_browser_has_is_not_sent_again(fake: Server) -> None:
    first = await fake.rest.get("/page/app.js")
    assert first.headers["cache-control"] == "no-cache"
    tag = first.headers["etag"]
    for known in (tag, f'"other", W/{tag}'):
        again = await fake.rest.get("/page/app.js", headers={"if-none-match": known})
        assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", tag)
    assert (await fake.rest.get("/page/app.js", headers={"if-none-match": '"other"'})).status_code == 200
    assert (await fake.rest.get("/page/base.css")).headers["etag"] != tag


@pytest.mark.parametrize("name", ["nothing.js", "..%2Ffiles.py", "%2e%2e/routes.py"])
async def test_there_is_no_other_file(fake: Server, name: str) -> None:
    check_problem(await fake.rest.get(f"/page/{name}"), 404, "not_found")


def test_the_phantoms_are_those_that_the_script_draws(tmp_path: Path) -> None:
    phantoms.main(tmp_path)
    for file in sorted(tmp_path.iterdir()):
        drawn, shipped = Image.open(file), Image.open(FOLDER / file.name)
        assert np.array_equal(np.asarray(drawn.convert("RGB")), np.asarray(shipped.convert("RGB")))


# what the model sees


async def test_the_preview_is_what_the_model_sees(fake: Server) -> None:
    for data in (pictures.png(), pictures.dicom()):
        reply = await fake.rest.post("/page/preview", content=data, headers=BYTES)
        assert (reply.status_code, reply.headers["content-type"]) == (200, "image/png")
        assert reply.headers["cache-control"] == "no-store"
        seen = Image.open(BytesIO(reply.content))
        assert seen.size == (224, 187)  # 48 x 40 at the model's width, without the black that fills up its square
        again = await fake.rest.post("/page/preview", content=reply.content, headers=BYTES)
        assert np.array_equal(np.asarray(Image.open(BytesIO(again.content))), np.asarray(seen))


async def test_the_preview_refuses_what_a_score_would_refuse(fake: Server) -> None:
    for data, status, code in (
        (b"GIF89a", 415, "image_kind"),
        (b"", 422, "image_invalid"),
        (pictures.cut_short(pictures.png()), 422, "image_invalid"),
        (pictures.png_that_claims(60_000, 60_000), 413, "image_too_large"),
        (pictures.animated("PNG"), 422, "image_animated"),
    ):
        check_problem(await fake.rest.post("/page/preview", content=data, headers=BYTES), status, code)
    state = fake.engine.state()
    assert (state["pixels_admitted"], state["request_bytes"]) == (0, 0)


# keys


async def test_with_keys_the_files_are_open_and_all_else_is_closed(keys: KeysFile) -> None:
    scoring, watching = keys.new(lanes=[Lane.BULK]), keys.new(scopes=[Scope.METRICS])
    async with running(keys_file=keys.path) as server:
        for path in OPEN_PATHS:
            assert (await server.rest.get(path)).status_code == 200
        check_problem(await server.rest.get("/page/now"), 401, "unauthenticated")
        check_problem(await server.rest.get("/page/other.js"), 401, "unauthenticated")
        preview = "/page/preview"
        check_problem(await server.rest.post(preview, content=pictures.png()), 401, "unauthenticated")
        urgent = bearer(scoring) | {"x-lane": "interactive"}
        check_problem(
            await server.rest.post(preview, content=pictures.png(), headers=urgent), 403, "forbidden", "X-Lane"
        )
        assert (await server.rest.post(preview, content=pictures.png(), headers=bearer(scoring))).status_code == 200
        check_problem(await server.rest.get("/page/now", headers=bearer(scoring)), 403, "forbidden")
        assert (await server.rest.get("/page/now", headers=bearer(watching))).status_code == 200


# what goes through now


async def test_now_shows_what_went_through(keys: KeysFile) -> None:
    async with running() as server:
        await send(server, body_with(""))
        now = NowReply.model_validate_json((await server.rest.get("/page/now")).content)
        assert (now.ready, now.reason) == (True, None)
        items = {series.labels["outcome"]: series.value for series in now.metrics["medreward_items_total"]}
        assert items == {"ok": 1}
        (route,) = now.metrics["medreward_requests_total"]
        assert (route.labels["route"], route.value) == ("/score", 1)
        buckets = [series.value for series in now.metrics["medreward_request_duration_seconds_bucket"]]
        assert len(buckets) == 16  # all bounds of the one route that was asked
        assert buckets[-1] == 1
        server.engine.drain()
        drained = (await server.rest.get("/page/now")).json()
        assert (drained["ready"], drained["reason"]) == (False, "draining")
