"""The page in a real Chromium, as people use it: by keyboard, by file, with keys, behind a proxy."""

import asyncio
import base64
import json
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
from fastapi import FastAPI, Request, Response
from google.protobuf import json_format

import pictures
from background import in_background
from browser import Browser, Tab, browser
from keyring import KeysFile
from medreward.api.access.keys import Scope
from medreward.api.page.files import FOLDER
from medreward.api.server import Door
from medreward.artifacts.manifest import read_manifest
from medreward.proto import reward_pb2 as pb
from medreward.types import DIMENSIONS, Lane
from policies import policy_text, publish, threshold
from programs import installed
from serving import Server, listening, running, settings_for

pytestmark = pytest.mark.slow

MODEL = Path(__file__).parents[3] / "models" / "medreward-mini"
PREFIX = "/wards/7/rm"
QUESTION = "Is there a pleural effusion?"
ANSWERS = ["Yes, on the left.", "No. Both angles are sharp."]
ALT, CTRL = 1, 2
READY = "document.querySelector('#served .dot.ready')"


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    with browser() as started:
        yield started


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The bundled model, and a policy whose two rules divide by the score of overall."""
    folder = tmp_path_factory.mktemp("policies")
    rules = threshold("good", "allow", 0.8, "overall", "score") + threshold(
        "middling", "review", 0.3, "overall", "score"
    )
    departments = "[departments.chest]\ngood = 0.99\n"
    text = policy_text(rules + departments, fingerprint=read_manifest(MODEL / "model.toml").fingerprint)
    publish(folder, text)
    with in_background(running(model="medreward-mini", policies=folder)) as started:
        yield started


@dataclass(frozen=True)
class Keyed:
    """A server that wants keys; the key that may score may not use the interactive lane."""

    server: Server
    scoring: str
    watching: str


@pytest.fixture(scope="module")
def keyed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Keyed]:
    keys = KeysFile(tmp_path_factory.mktemp("keys") / "keys.jsonl")
    scoring, watching = keys.new(lanes=[Lane.BULK]), keys.new(scopes=[Scope.METRICS])
    with in_background(running(keys_file=keys.path)) as started:
        yield Keyed(started, scoring, watching)


class Page:
    """The page as a person sees it."""

    def __init__(self, tab: Tab) -> None:
        self.tab = tab

    def write(self, question: str, answers: list[str]) -> None:
        for selector, text in (("#question", question), *zip(self.fields(), answers, strict=True)):
            self.tab.value(f"document.querySelector({json.dumps(selector)}).select()")
            self.tab.type(text)

    def fields(self) -> list[str]:
        return [f".answer:nth-child({place + 1}) textarea" for place in range(len(self.texts(".answer")))]

    def texts(self, selector: str) -> list[str]:
        found: list[str] = self.tab.value(
            f"[...document.querySelectorAll({json.dumps(selector)})].map((one) => one.textContent)"
        )
        return found

    def click(self, selector: str) -> None:
        self.tab.value(f"document.querySelector({json.dumps(selector)}).click()")

    def pick(self, select: str, option: str) -> None:
        self.tab.value(f"{select}.value = '{option}'; {select}.dispatchEvent(new Event('change'))")

    def take_phantom(self, name: str) -> None:
        self.click(f"[data-phantom={name}]")
        self.tab.wait("question.value && shown.naturalWidth")

    def score(self) -> None:
        self.tab.press("Enter", CTRL)
        self.tab.wait(
            "!document.querySelector('.stale') && document.querySelector('#status').textContent.includes(' scored in ')"
        )

    def rewards(self) -> list[float]:
        """Returns the rewards to the last digit."""
        shown = self.tab.value("[...document.querySelectorAll('.reward output')].map((one) => Number(one.title))")
        return [float(reward) for reward in shown]

    def press_until(self, expression: str, key: str = "Tab") -> None:
        for _ in range(80):
            if self.tab.value(f"Boolean({expression})"):
                return
            self.tab.press(key)
        raise AssertionError(f"no way by {key} to {expression}")

    def choose(self, file: Path) -> None:
        self.tab.choose("#file", file)
        self.tab.wait(f"document.querySelector('#image-name').textContent === {json.dumps(file.name)}")
        self.tab.wait("document.querySelector('#shown').naturalWidth")


@pytest.fixture
def page(chromium: Browser, server: Server) -> Iterator[Page]:
    """The page of the bundled model. Whatever a test does with it: no complaint, and no request to anybody else."""
    tab = chromium.tab(f"http://127.0.0.1:{server.port}/")
    tab.wait(READY)
    yield Page(tab)
    assert tab.seen.complaints == []
    foreign = [
        url for url in tab.seen.requests if not url.startswith((f"http://127.0.0.1:{server.port}/", "blob:", "data:"))
    ]
    assert foreign == ["about:blank"] * len(foreign)
    tab.close()


def url_of(server: Server, path: str) -> str:
    return f"http://127.0.0.1:{server.port}{path}"


def asked(server: Server, answers: list[str], **beside: Any) -> dict[str, Any]:
    """Returns what the server itself answers about these answers, without an image."""
    body = {"items": [{"question": QUESTION, "responses": answers}], **beside}
    reply: dict[str, Any] = httpx.post(url_of(server, "/v1/score"), json=body, trust_env=False, timeout=60).json()
    return reply


# scores


def test_it_scores_by_keyboard_alone(page: Page, server: Server) -> None:
    tab = page.tab
    page.press_until("document.activeElement.id === 'question'")
    assert tab.value("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    tab.type(QUESTION)
    for answer in ANSWERS:
        page.press_until("document.activeElement.matches('.answer textarea') && !document.activeElement.value")
        tab.type(answer)
    page.score()
    results = asked(server, ANSWERS)["results"]
    assert page.rewards() == [result["reward"] for result in results]
    assert page.texts("td.score") == [f"{result['scores'][d]:.2f}" for result in results for d in DIMENSIONS]
    first = max((0, 1), key=lambda place: results[place]["reward"])
    assert f"{'AB'[first]} is first" in tab.text("#status[role=status]")
    assert page.texts(".rank") == (["1st", "2nd"] if first == 0 else ["2nd", "1st"])
    assert page.texts(".flags code") == ["no_image"] * 2


def test_it_says_what_stands_behind_the_numbers(page: Page, chromium: Browser, server: Server) -> None:
    assert "No physician graded an answer" in page.tab.text("#evidence")
    page.write(QUESTION, ANSWERS)
    page.score()
    assert page.tab.text("#evidence-chip") == "evidence: constructed"
    by_people = (
        "const real = fetch; window.fetch = async (...given) => new Response((await (await real(...given)).text())"
        ".replace('\"constructed\"', '\"physician\"'), {headers: {'Content-Type': 'application/json'}})"
    )
    page.tab.value(by_people)
    page.write(QUESTION, ANSWERS)
    page.score()
    page.tab.wait("document.querySelector('#evidence').matches('.calm') && !document.querySelector('.chip.warn')")


def test_sliders_give_the_reward_that_the_server_gives(page: Page, server: Server) -> None:
    page.write(QUESTION, ANSWERS)
    page.score()
    weights = {"accuracy": -1.35, "relevance": 0.1, "creativity": 0.7, "responsiveness": 1e-9, "overall": 1.15}
    for dimension in DIMENSIONS:
        field = f"document.querySelector('[aria-label=\"{dimension}, exact weight\"]')"
        page.tab.value(f"{field}.value = {weights.get(dimension, 0)}; {field}.dispatchEvent(new Event('input'))")
    expected = asked(server, ANSWERS, weights=weights)["results"]
    assert page.rewards() == [result["reward"] for result in expected]
    page.tab.value("document.querySelector('#weight-accuracy').focus()")
    for _ in range(3):
        page.tab.press("ArrowRight")
    assert page.tab.value("document.querySelector('[aria-label=\"accuracy, exact weight\"]').value") == "-1.2"
    page.click("#weights-reset")
    assert page.rewards() == [result["reward"] for result in asked(server, ANSWERS)["results"]]


def test_two_to_eight_answers_are_compared(page: Page, server: Server) -> None:
    for _ in range(7):
        page.tab.press("a", ALT)
    answers = [f"{word} effusion." for word in ("No", "A small", "A large", "A left", "A right", "One", "Some", "Any")]
    assert len(page.fields()) == 8
    assert page.tab.value("document.querySelector('#add').disabled")
    page.write(QUESTION, answers)
    page.score()
    results = asked(server, answers)["results"]
    assert page.rewards() == [result["reward"] for result in results]
    page.click(".answer .remove")
    assert page.rewards() == [result["reward"] for result in results[1:]]
    page.write(QUESTION, ["Something else.", *answers[2:]])
    assert (
        page.tab.value("[...document.querySelectorAll('.answer')].map((one) => one.matches('.stale'))")
        == [True] + [False] * 6
    )


def test_a_policy_gives_a_verdict_and_says_why(page: Page) -> None:
    tab = page.tab
    page.write(QUESTION, ANSWERS)
    page.pick("policy", "strict")
    page.score()
    scores = [float(score) for score in page.texts("[data-dimension=overall] .score")]
    assert page.texts(".verdict b") == ["allow" if score >= 0.8 else "review" for score in scores]
    assert all("score of overall 0." in line and "margin 0." in line for line in page.texts(".verdict"))
    assert "/v1/screen" in tab.text("#recipe")
    page.pick("department", "chest")
    page.score()
    assert "0.990" in tab.text(".verdict") or "rule middling" in tab.text(".verdict")


#: Stands between the page and its server, and says what each sentence adds. It counts characters as Python does.
EXPLAINS = """
const real = fetch;
const six = (accuracy, overall) => ({...NOUGHTS, accuracy, overall});
const parts = [
  {start: 0, end: 21, logits: six(1, 2)},
  {start: 22, end: 45, logits: six(0, -0.5)},
  {start: 46, end: 51, logits: null},
];
window.fetch = async (url, sent) => {
  if (url.endsWith("/v1/limits")) {
    const limits = await (await real(url, sent)).json();
    return Response.json({...limits, explain_sentences: 9});
  }
  if (!url.endsWith("/v1/score")) return real(url, sent);
  const {options, ...body} = JSON.parse(sent.body);
  const reply = await (await real(url, {...sent, body: JSON.stringify(body)})).json();
  if (options?.explain === "sentences") reply.results[0].explain = parts;
  return Response.json(reply);
};
""".replace("NOUGHTS", json.dumps(dict.fromkeys(DIMENSIONS, 0)))


def test_sentences_are_coloured_by_what_they_add(page: Page) -> None:
    answers = ["The \N{GRINNING FACE} heart is large. The left lung is white. Fine.", "No."]
    page.tab.value(EXPLAINS)
    page.click("#key-forget")  # it asks for the limits again
    page.tab.wait("document.querySelector('#recipe').textContent.includes('explain')")
    page.write(QUESTION, answers)
    page.score()
    assert page.texts(".answer mark.for") == ["The \N{GRINNING FACE} heart is large.+2.50"]  # by weights of 0.5 and 1
    assert page.texts(".answer mark.against") == ["The left lung is white.\N{MINUS SIGN}0.50"]
    assert page.tab.text(".text").endswith(" Fine.")
    weight = "document.querySelector('#weight-accuracy')"
    page.tab.value(f"{weight}.value = -2; {weight}.dispatchEvent(new Event('input'))")
    assert page.texts(".answer mark small") == ["0.00", "\N{MINUS SIGN}0.50"]
    page.click("#sentences")
    page.write(QUESTION, answers)
    page.score()
    assert page.texts(".answer mark") == []


def test_the_reward_along_an_answer_is_that_of_its_beginnings(page: Page, server: Server) -> None:
    answers = ["No. The \N{GRINNING FACE} lung is clear. There is a large effusion on the right.", "No."]
    page.click("#steps")
    page.write(QUESTION, answers)
    page.score()
    [first, _] = asked(server, answers, options={"steps": "sentences"})["results"]
    shown = page.tab.value("[...document.querySelectorAll('.steps output')].map((one) => Number(one.title))")
    assert shown == [step["reward"] for step in first["steps"]]  # one sentence has nothing along it
    assert page.texts(".steps li span") == [
        "No.",
        "\N{HORIZONTAL ELLIPSIS} \N{GRINNING FACE} lung is clear.",
        "\N{HORIZONTAL ELLIPSIS} effusion on the right.",
    ]
    assert page.tab.value("document.querySelectorAll('.steps .curve').length") == 1
    assert '"steps": "sentences"' in page.tab.text("#recipe")
    assert "steps=1" in page.tab.value("location.hash")


#: Stands between the page and its server as a model would that reads several images and turns, and keeps what is sent.
READS_MORE = """
const real = fetch;
window.fetch = async (url, sent) => {
  if (url.endsWith("/v1/limits")) {
    const limits = await (await real(url, sent)).json();
    return Response.json({...limits, item_images: 3, item_turns: 4});
  }
  if (!url.endsWith("/v1/score")) return real(url, sent);
  const {items: [{images, history, ...item}], ...body} = JSON.parse(sent.body);
  window.sent = {images: images ?? [item.image], history};
  return real(url, {...sent, body: JSON.stringify({...body, items: [item]})});
};
"""


def test_further_images_and_earlier_turns_are_sent_where_the_model_reads_them(page: Page, tmp_path: Path) -> None:
    tab = page.tab
    assert tab.value("before.hidden")  # the bundled model reads neither
    tab.value(READS_MORE)
    page.click("#key-forget")  # it asks for the limits again
    tab.wait("!before.hidden")
    tab.value("before.open = true")
    files = [tmp_path / name for name in ("now.png", "prior.png", "first.png")]
    for seed, file in enumerate(files):
        file.write_bytes(pictures.png(seed))
    page.choose(files[0])
    tab.choose("#more-files", *files[1:])
    page.write(QUESTION, ANSWERS)
    for _ in range(3):  # the third would be one more than the model reads
        page.click("#add-turn")
    for place, text in enumerate(("Whose lung?", "MARYBROWN's.", "And this?")):
        tab.value(f"document.querySelectorAll('#turns textarea')[{place}].select()")
        tab.type(text)
    assert len(page.texts("#turns textarea")) == 4
    page.score()
    sent = tab.value("window.sent")
    assert sent["images"] == [base64.b64encode(file.read_bytes()).decode() for file in files]
    assert [turn["role"] for turn in sent["history"]] == ["user", "assistant"] * 2
    assert [turn["content"] for turn in sent["history"]] == ["Whose lung?", "MARYBROWN's.", "And this?", ""]
    assert "image.png" in tab.text("#recipe")
    assert "image3.png" in tab.text("#recipe")
    assert '"history"' in tab.text("#recipe")
    assert "prior" not in tab.text("#recipe")
    assert "MARY" not in tab.value("location.href")
    page.click("#more-images button")
    page.click("#turns button")
    assert page.tab.value("document.querySelectorAll('.answer.stale').length") == 2
    page.score()
    assert len(tab.value("window.sent.images")) == 2
    assert tab.value("window.sent.history.length") == 2


# images


def test_a_dicom_file_is_shown_as_the_model_sees_it_and_scored(page: Page, tmp_path: Path) -> None:
    file = tmp_path / "scan.dcm"
    file.write_bytes(pictures.dicom())
    page.choose(file)
    assert page.tab.value("[shown.naturalWidth, shown.naturalHeight]") == [224, 187]  # 48 x 40 at the model's width
    page.write(QUESTION, ANSWERS)
    page.score()
    assert "no_image" not in page.texts(".flags code")


def test_where_the_score_hangs_is_drawn_for_a_phantom(page: Page) -> None:
    tab = page.tab
    page.take_phantom("brain")
    tab.value("where.open = true; document.querySelector('#where-grid').value = '4'")
    page.click("#where-run")
    tab.wait("!document.querySelector('#where-legend').hidden")
    assert "Full colour: hiding the patch changes the reward of answer A by" in tab.text("#where-scale")
    colours = "new Set(overlay.getContext('2d').getImageData(0, 0, overlay.width, overlay.height).data).size"
    assert tab.value(colours) > 4
    page.click("#where-run")
    tab.wait("!document.querySelector('#where-cancel').hidden")
    tab.press("Escape")
    tab.wait("document.querySelector('#where-cancel').hidden && !document.querySelector('#where-run').disabled")
    assert tab.text("#where-problem") == ""


# what goes elsewhere


def test_the_link_has_the_settings_and_nothing_of_the_payload(page: Page, chromium: Browser, server: Server) -> None:
    tab = page.tab
    page.take_phantom("eye")
    tab.press("a", ALT)
    page.write("Is MARYBROWN well?", ["MARYBROWN is well.", "No.", "Who is MARYBROWN?"])
    page.click("#logits")
    page.pick("policy", "strict")
    field = "document.querySelector('#weight-creativity')"
    tab.value(f"{field}.value = 0.35; {field}.dispatchEvent(new Event('input'))")
    page.score()
    link = str(tab.value("location.href"))
    assert set(parse_qs(urlsplit(link).fragment)) == {"view", "answers", "weights", "policy", "logits"}
    assert "MARY" not in link
    kept = tab.value("JSON.stringify([{...localStorage}, {...sessionStorage}, document.cookie, document.title])")
    assert "MARY" not in kept
    other = Page(chromium.tab(link))
    other.tab.wait(f"{READY} && policy.value === 'strict'")
    assert len(other.fields()) == 3
    assert other.tab.value("document.querySelector('#weight-creativity').value") == "0.35"
    assert other.tab.value("document.querySelector('#logits').checked")
    assert other.tab.value("location.href") == link
    other.tab.close()


def test_the_same_request_gives_the_same_rewards_elsewhere(page: Page, tmp_path: Path) -> None:
    image = FOLDER / "phantom-chest.png"
    (tmp_path / "image.png").write_bytes(image.read_bytes())
    page.choose(image)
    question, answers = "Is `$HOME` \\ there?", ['"Yes", it\'s $1.', "No\\n"]
    page.write(question, answers)
    page.score()
    installed("curl", package="curl")

    def run(*command: str) -> str:
        return subprocess.run(command, cwd=tmp_path, capture_output=True, check=True, timeout=60, text=True).stdout

    by_curl = json.loads(run("bash", "-c", page.tab.text("#recipe")))
    assert [result["reward"] for result in by_curl["results"]] == page.rewards()
    page.click("[data-recipe=python]")
    by_python = run(sys.executable, "-c", page.tab.text("#recipe"))
    assert [float(line.split()[0]) for line in by_python.splitlines()] == page.rewards()
    page.click("[data-recipe=grpc]")
    sent = run("bash", "-c", f"grpcurl() {{ cat; }}\n{page.tab.text('#recipe')}")  # what it would send
    (item,) = json_format.Parse(sent, pb.ScoreRequest()).items
    assert (item.question, list(item.responses), item.images[0].data) == (question, answers, image.read_bytes())


# safety


def test_what_is_written_stays_text(page: Page) -> None:
    tab = page.tab
    page.write("<img src=x onerror=alert(1)>", ["<script>window.bad = 1</script>", "<b>bold</b>"])
    page.score()
    assert tab.value("[window.bad, document.querySelectorAll('main script, main b:not(#evidence b)').length]") == [
        None,
        0,
    ]
    tab.value("document.body.append(Object.assign(document.createElement('script'), {textContent: 'window.bad = 1'}))")
    assert tab.value("window.bad") is None
    assert any("Content Security Policy" in complaint for complaint in tab.seen.complaints)
    tab.seen.complaints.clear()


def test_a_key_is_asked_for_explained_and_kept_in_the_tab(chromium: Browser, keyed: Keyed) -> None:
    tab = chromium.tab(url_of(keyed.server, "/"))
    page = Page(tab)

    def give(key: str) -> None:
        tab.value("key.focus(); key.select()")
        tab.type(key)
        tab.press("Enter")

    explained = "document.activeElement.id === 'key' && document.querySelector('#key-problem').textContent"
    tab.wait(explained)
    assert "needs a valid API key" in tab.text("#key-problem")
    give("mr_wrong")
    tab.wait(explained)
    give(keyed.scoring)
    tab.wait(READY)
    assert tab.value("Object.keys(localStorage).concat(document.cookie ? ['cookie'] : [])") == []
    page.write("q", ["a", "b"])
    page.score()
    assert keyed.scoring not in tab.text("#recipe")
    assert "$MEDREWARD_KEY" in tab.text("#recipe")
    tab.press("v", ALT)
    tab.wait(explained)
    assert "lacks the scope metrics or admin" in tab.text("#key-problem")
    give(keyed.watching)
    tab.wait("document.querySelector('.counts')")
    assert {complaint.partition("status of ")[2][:3] for complaint in tab.seen.complaints} == {"401", "403"}
    tab.close()


def test_a_refusal_is_shown_in_words_and_nothing_spins(page: Page, server: Server) -> None:
    page.write(QUESTION, ANSWERS)
    admin = f"http://127.0.0.1:{server.admin_port}/admin/"
    httpx.post(admin + "drain", trust_env=False)
    page.tab.press("Enter", CTRL)
    page.tab.wait("!document.querySelector('#problem').hidden")
    assert "draining" in page.tab.text("#problem")
    assert page.tab.value(
        "document.querySelector('#cancel').hidden && document.querySelector('#status').textContent === ''"
    )
    httpx.post(admin + "undrain", trust_env=False)
    page.score()
    assert page.tab.value("document.querySelector('#problem').hidden")
    page.write(" ", ANSWERS)
    page.tab.press("Enter", CTRL)
    assert page.tab.text("#status") == "Write a question first."
    page.tab.seen.complaints.clear()  # the browser's own line about the 503


def test_no_answer_ends_with_a_word_too(page: Page) -> None:
    tab = page.tab
    page.write(QUESTION, ANSWERS)
    tab.value("window.patient = AbortSignal.timeout; AbortSignal.timeout = () => AbortSignal.abort()")
    tab.press("Enter", CTRL)
    tab.wait("document.querySelector('#problem').innerText.includes('No answer within 35 seconds.')")
    tab.value(
        "AbortSignal.timeout = window.patient; window.real = fetch; window.fetch = () => Promise.reject(TypeError())"
    )
    tab.press("Enter", CTRL)
    tab.wait("document.querySelector('#problem').innerText.includes('The server cannot be reached.')")
    tab.wait("document.querySelector('#served .dot.not-ready')")
    assert tab.value("document.querySelector('#cancel').hidden")
    tab.value("window.fetch = window.real")
    tab.wait(READY)  # it asks until the server is back
    tab.press("Enter", CTRL)  # a second request takes the place of the first
    page.score()


@asynccontextmanager
async def proxy(to: int) -> AsyncIterator[int]:
    """Something in front of the server that has it under a path of its own, and gives its port."""
    app, client = FastAPI(), httpx.AsyncClient(base_url=f"http://127.0.0.1:{to}", trust_env=False)

    @app.api_route(PREFIX + "/{path:path}", methods=["GET", "POST"])
    async def forward(path: str, request: Request) -> Response:
        headers = {name: value for name, value in request.headers.items() if name not in ("host", "content-length")}
        reply = await client.request(request.method, f"/{path}", content=await request.body(), headers=headers)
        kept = {name: value for name, value in reply.headers.items() if name not in ("content-length", "date")}
        return Response(reply.content, reply.status_code, kept)

    door, sock = Door(app, settings_for()), listening()
    serving = asyncio.create_task(door.serve([sock]))
    yield sock.getsockname()[1]
    door.close()
    await serving
    await client.aclose()


def test_it_works_under_a_path_of_a_proxy(chromium: Browser, server: Server, tmp_path: Path) -> None:
    with in_background(proxy(server.port)) as port:
        base = f"http://127.0.0.1:{port}{PREFIX}/"
        tab = chromium.tab(base)
        tab.wait(READY)
        page = Page(tab)
        page.take_phantom("chest")
        page.score()
        tab.press("v", ALT)
        tab.wait("document.querySelector('.counts')")
        assert tab.seen.complaints == []
        assert [url for url in tab.seen.requests if not url.startswith((base, "blob:", "about:"))] == []
        tab.close()


# the operator


def test_the_operator_sees_a_request_that_was_made(page: Page, server: Server) -> None:
    page.tab.press("v", ALT)
    page.tab.wait("document.querySelector('.counts')")
    httpx.get(url_of(server, "/not/there"), trust_env=False)
    httpx.post(url_of(server, "/v1/score"), json={"question": "q", "response": "r"}, trust_env=False, timeout=60)
    row = "[...document.querySelectorAll('.counts tr')].find((row) => row.textContent.startsWith('/v1/score · 200'))"
    page.tab.wait(f"Number({row}?.cells[1].textContent) >= 1")
    page.tab.wait("document.querySelectorAll('.chart .curve').length >= 4")
    assert page.tab.text("#operator-status").startswith("Ready")
    median = page.tab.text(".tile:nth-child(2) .value")
    assert median.endswith("s")


# looks


def violations(tab: Tab) -> list[str]:
    """Returns what axe-core finds wrong, each with its elements."""
    tab.value((files("axe_core_python") / "axe.min.js").read_text("utf-8"))
    found = json.loads(
        tab.value("axe.run({resultTypes: ['violations']}).then(({violations}) => JSON.stringify(violations))")
    )
    return [f"{rule['id']}: {[node['failureSummary'] + node['html'] for node in rule['nodes']]}" for rule in found]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_contrast_roles_and_width_hold_in_both_schemes(page: Page, scheme: str) -> None:
    tab = page.tab
    tab.resize(1280, scheme)
    page.take_phantom("chest")
    page.pick("policy", "strict")
    tab.value("where.open = true")
    page.score()
    page.click("#key-button")
    assert (
        tab.value("getComputedStyle(document.body).backgroundColor")
        == {"light": "rgb(243, 245, 247)", "dark": "rgb(14, 20, 26)"}[scheme]
    )
    assert violations(tab) == []
    page.click("#help-button")
    assert violations(tab) == []
    tab.press("Escape")
    for view in ("try", "operator"):
        page.click(f"#tab-{view}")
        if view == "operator":
            tab.wait("document.querySelector('.counts')")
            assert violations(tab) == []
        for width in (400, 900, 1600):
            tab.resize(width, scheme)
            assert tab.value("document.documentElement.scrollWidth - document.documentElement.clientWidth") == 0
