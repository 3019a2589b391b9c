"""`medreward bench report`: one file that a stranger's texts cannot break, with the verdict and the labels first."""

import base64
import hashlib
import json
import re
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from html.parser import HTMLParser
from io import BytesIO
from itertools import repeat
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from bench.here import medreward
from bench.runs import make_run
from bench.sets import some_cases, write_set
from browser import Browser, browser
from medreward.bench.cases import CONSTRUCTED, Case, Choice, DataSet
from medreward.bench.chooser import Prediction, Reply
from medreward.bench.comparing import compare
from medreward.bench.figures import Figure
from medreward.bench.finished import FinishedRun, open_run
from medreward.bench.report.examples import data_uri, lost, most_surprising, outcomes, worst
from medreward.bench.report.headline import labels_of, read_gate
from medreward.bench.report.leaderboard import leaderboard
from medreward.bench.report.page import heat
from medreward.bench.report.report import Report
from medreward.bench.rundir import Identity, RunDirectory
from medreward.bench.tables import summarise
from medreward.errors import ConfigurationError
from medreward.intervals import wilson
from medreward.types import DIMENSIONS

pytestmark = pytest.mark.slow

CASES = 90
HOSTILE = (
    "<script>alert(1)</script>",
    "</style></svg></table><img src=x onerror=alert(2)>",
    '" onmouseover="alert(3)" href="javascript:alert(4)',
    "{{ 7 * 7 }} {% raw %} ${7*7} <!-- ]]>",
    "\u202eright to left\u202c &lt;b&gt; <iframe src=https://example.org>",
)
MODEL = "<b onclick=alert(5)>$x_1$</b>"


def hostile_cases() -> list[Case]:
    """In every list of the report there is one of each."""
    return [
        replace(
            case,
            question=f"{HOSTILE[n % 5]} {case.question}",
            answers=(f"{case.answers[0]} {HOSTILE[(n + 1) % 5]}", f"{HOSTILE[(n + 2) % 5]}{'long' * 900}"),
            evidence=CONSTRUCTED,
            department=HOSTILE[n % 2],
        )
        for n, case in enumerate(some_cases(CASES))
    ]


class Page(HTMLParser):
    """Its elements, their attributes and the texts between them."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.texts.append(data)

    def of(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.texts).split())


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A set and two runs on it."""
    made = tmp_path_factory.mktemp("report")
    cases = hostile_cases()
    data = write_set(made / "data", cases)
    departments = json.dumps({str(case.question_id): case.department for case in cases})
    (made / "departments.json").write_text(departments)
    make_run(made / "run", cases, right=0.8, ties=0.05, unanswered=0.05, seed=1, data=str(data), model=MODEL)
    make_run(made / "baseline", cases, right=0.5, seed=2, data=str(data), model="b")
    return made


@pytest.fixture(scope="module")
def run(folder: Path) -> FinishedRun:
    return open_run(folder / "run")


@pytest.fixture(scope="module")
def baseline(folder: Path) -> FinishedRun:
    return open_run(folder / "baseline")


@pytest.fixture(scope="module")
def html(run: FinishedRun, baseline: FinishedRun) -> str:
    return Report.of(run, baseline).page({case.key: case for case in hostile_cases()}, 6)


@pytest.fixture(scope="module")
def board(run: FinishedRun, baseline: FinishedRun) -> str:
    return leaderboard(compare([baseline, run]))


def test_a_strangers_text_is_text(html: str, board: str) -> None:
    for page in (Page(html), Page(board)):
        assert not {"script", "iframe", "object", "embed", "link", "base", "form"} & {tag for tag, _ in page.elements}
        for tag, attributes in page.elements:
            assert not [name for name in attributes if name.startswith("on")], tag
            for name in ("src", "href", "xlink:href"):
                assert (attributes.get(name) or "#").startswith(("data:image/jpeg;base64,", "#")), attributes
        assert MODEL in page.text
    for text in HOSTILE:
        assert " ".join(text.split()) in Page(html).text
    assert "49" not in re.findall(r"answer \d+ (\S+)", Page(html).text)


def test_a_long_answer_is_cut_and_says_so(html: str) -> None:
    assert re.search(r"long\w* … \(2\d\d\d more characters\)", Page(html).text)


def test_the_page_may_load_nothing(html: str, board: str) -> None:
    for page in (html, board):
        policies = [m["content"] for m in Page(page).of("meta") if m.get("http-equiv") == "Content-Security-Policy"]
        assert policies == ["default-src 'none'; img-src data:; style-src 'unsafe-inline'"]
        assert not re.search(r"@import|url\((?!#)", page)


def test_what_is_drawn_has_words_and_what_is_wide_can_be_reached(html: str, board: str) -> None:
    for page in (Page(html), Page(board)):
        assert page.of("svg")
        assert all(svg.get("aria-label") and svg.get("role") == "img" for svg in page.of("svg"))
        assert all(image.get("alt") for image in page.of("img"))
        scrolled = [div for div in page.of("div") if div.get("class") == "scroll"]
        assert all(div.get("tabindex") == "0" and div.get("aria-label") for div in scrolled)
        ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
        assert len(ids) == len({*ids})


def test_labels_come_first_and_the_verdict_second(html: str) -> None:
    text = Page(html[html.index("<body") :]).text
    assert text.startswith(f"Constructed labels, not clinical evidence. All {CASES} cases were labelled by rule.")
    assert text.index("Better than the baseline") < text.index("Six dimensions")
    assert "Constructed labels" in html[html.index("<title") : html.index("</title")]
    assert text.count("Constructed labels, not clinical evidence.") == 2  # at the foot too


@pytest.mark.parametrize(
    ("evidence", "headline", "tone"),
    [
        ({"constructed": 3}, "Constructed labels, not clinical evidence.", "warn"),
        ({"physician": 3}, "Physicians' labels.", "plain"),
        ({"not stated": 3}, "Origin of the labels not stated.", "warn"),
        ({"constructed": 1, "physician": 2}, "Mixed labels.", "warn"),
        ({"not stated": 1, "physician": 2}, "Mixed labels.", "warn"),
    ],
)
def test_no_label_passes_for_a_physicians(evidence: dict[str, int], headline: str, tone: str) -> None:
    labels = labels_of(evidence)
    assert (labels.headline, labels.tone) == (headline, tone)


def test_the_figures_are_those_of_the_tables_and_the_tests(run: FinishedRun, baseline: FinishedRun, html: str) -> None:
    found, compared = Report.of(run, baseline).facts, compare([run, baseline])
    text = Page(html).text
    pairs = {row["dimension"]: row for row in compared["pairs"]}
    for row in found.dimensions:
        strict, pair = run.summary["strict"]["micro"][row.name], pairs[row.name]
        figure = row.figure
        assert row.against
        assert figure.accuracy == pytest.approx(strict["accuracy"], abs=1e-6)
        assert (figure.n, figure.ties, figure.unanswered) == (strict["n"], strict["ties"], strict["unanswered"])
        assert figure.unanswered > 0
        assert row.against.difference.value == pytest.approx(pair["difference"], abs=1e-6)
        assert row.against.p >= pair["p"]  # corrected for six
        assert f"{row.name} {100 * strict['accuracy']:.1f}" in text
    for organ in found.heat:
        for dimension, cell in zip(DIMENSIONS, organ.cells, strict=True):
            strict = run.summary["strict"]["organ"][organ.name][dimension]
            assert cell.n == strict["n"]
            assert cell.accuracy == pytest.approx(strict["accuracy"], abs=1e-6)


def test_a_cell_is_as_strong_as_its_whole_interval_is_away_from_a_coin() -> None:
    def strength(right: int, n: int) -> int:
        return heat(Figure(right / n, *wilson(right, n), n, right, 0, 0))

    assert strength(1, 1) == strength(0, 1) == strength(20, 30) == 0
    assert strength(505, 505) == strength(0, 505) == 60
    assert 0 < strength(20, 25) < strength(160, 200) < strength(404, 505)
    assert heat(Figure(None, None, None, 0, 0, 0, 0)) == 0


def test_a_length_that_is_right_as_often_stands_beside_the_figure(tmp_path: Path) -> None:
    """On comprehensiveness the better answer is always the longer one; the model is always right there too."""
    longer = [
        replace(case, answers=("short", "the longer one"), labels={**case.labels, "comprehensiveness": "B"})
        for case in some_cases(40)
    ]
    found = Report.of(open_run(make_run(tmp_path / "run", longer, right=1)))
    rows = {row.name: row for row in found.facts.dimensions}
    shortcut = rows["comprehensiveness"].shortcut
    assert shortcut
    assert (shortcut.name, shortcut.accuracy, shortcut.beaten) == ("length", 1, False)
    accuracy = rows["accuracy"].shortcut
    assert accuracy
    assert accuracy.beaten
    text = Page(found.page({}, 0)).text
    assert "comprehensiveness 100.0 100.0 length 0.0 91.2 to 100.0" in text


def test_the_words_of_the_page_are_plain(html: str) -> None:
    text = Page(html).text
    for plain in ("smallest detectable difference", "95% limit for a perfectly calibrated model"):
        assert plain in text
    assert not re.search("could have shown|by luck", text, re.IGNORECASE)


def test_the_worst_cases_are_shown(run: FinishedRun, baseline: FinishedRun) -> None:
    wrong = {case.key: sum(one.wrong for one in outcomes((case, p))) for case, p in _pairs(run)}
    first, *others = worst(run)
    assert wrong[first[0].key] == max(wrong[case.key] for case, p in _pairs(run) if p.status == "ok")
    assert [wrong[case.key] for case, _ in others] == sorted((wrong[c.key] for c, _ in others), reverse=True)
    by_margin = {}
    for case, prediction in _pairs(run):
        for dimension, label in case.labels.items():
            if prediction.logits and prediction.choices[dimension] not in (label, "tie"):
                logits = [prediction.logits[side][dimension] for side in ("A", "B")]
                by_margin[abs(logits[0] - logits[1])] = case.key
    assert most_surprising(run)[0][0].key == by_margin[max(by_margin)]
    knew = {case.key for case, p in _pairs(baseline) if p.choices["overall"] == case.labels["overall"]}
    fell = {case.key for case, p in _pairs(run) if p.choices["overall"] != case.labels["overall"]}
    assert {case.key for case, _ in lost(run, baseline)} == knew & fell


def _pairs(run: FinishedRun) -> list[tuple[Any, Any]]:
    return list(zip(run.cases, run.predictions, strict=True))


async def test_the_same_run_gives_the_same_bytes_in_any_process(folder: Path, tmp_path: Path) -> None:
    pages = []
    for seed in ("1", "2"):
        out = tmp_path / f"{seed}.html"
        flags = ("--baseline", folder / "baseline", "--departments", folder / "departments.json", "--out", out)
        done = await medreward("bench", "report", folder / "run", *flags, PYTHONHASHSEED=seed)
        assert (done.code, done.err) == (0, ""), done
        assert "Better than the baseline" in done.out
        assert "Constructed labels, not clinical evidence." in done.out
        pages.append(out.read_bytes())
    assert pages[0] == pages[1]
    assert len(pages[0]) < 500_000
    assert str(tmp_path).encode() not in pages[0]


async def test_data_that_is_gone_leaves_its_texts_out_and_says_so(folder: Path, tmp_path: Path) -> None:
    cases = some_cases(12)
    run = make_run(tmp_path / "run", cases, data=str(tmp_path / "gone"))
    done = await medreward("bench", "report", run, "--json")
    assert done.code == 0, done
    assert "name the data with --data" in done.err
    out = run / "report.html"
    assert json.loads(done.out) == {
        "out": str(out),
        "verdict": "Measured, not decided",
        "labels": "Origin of the labels not stated.",
    }
    assert "Its question and answers are not at hand." in out.read_text()
    data = write_set(tmp_path / "moved", cases)
    assert (await medreward("bench", "report", run, "--data", data)).code == 0
    assert "What is seen in" in out.read_text()
    done = await medreward("bench", "report", run, "--data", folder / "data")
    assert (done.code, done.out, done.err.count("\n")) == (2, "", 1), done
    assert "is not the data" in done.err


def gate_file(run: FinishedRun, baseline: FinishedRun | None, verdict: str = "refuse") -> dict[str, Any]:
    def predictions(one: FinishedRun) -> dict[str, str]:
        digest = hashlib.sha256((one.path / "predictions.jsonl").read_bytes()).hexdigest()
        return {"predictions": f"sha256:{digest}"}

    return {
        "verdict": verdict,
        "made": "2026-11-21T08:00:00+00:00",
        "candidate": predictions(run),
        "baseline": predictions(baseline) if baseline else None,
        "policy": {"name": "default", "digest": "sha256:policy"},
        "code": {"version": "1", "digest": "sha256:code"},
        "checks": [
            {"name": "floor/overall", "status": "pass", "what": "above it", "value": 0.8},
            {"name": "organ/lung", "status": "fail", "what": HOSTILE[0], "value": None},
        ],
        "cases_needed": None,
    }


def test_a_judge_and_a_dimension_without_labels_have_a_page(tmp_path: Path) -> None:
    cases = [replace(case, labels={"accuracy": case.labels["accuracy"]}) for case in some_cases(12)]
    a, b = dict.fromkeys(DIMENSIONS, "A"), dict.fromkeys(DIMENSIONS, "B")
    replies = (Reply("AB", 0, "first", a), Reply("BA", 0, "first", b), Reply("BA", 1, "I cannot help.", None))
    tie: Choice = "tie"
    choices: tuple[Choice, ...] = ("A", *repeat(tie, 11))
    with closing(RunDirectory(tmp_path / "run", Identity(DataSet(cases).digest, {"name": "judge"}, {}))) as folder:
        for case, choice in zip(cases, choices, strict=True):
            folder.record(case, Prediction("ok", dict.fromkeys(DIMENSIONS, choice), None, replies))
        summary = summarise(cases, folder.in_order(cases))
        folder.finish(cases, summary, {"data": "made", "totals": {"cases": len(cases)}})
    run = open_run(tmp_path / "run")
    text = Page(Report.of(run, run).page({}, 3)).text
    assert "Nothing was measured on overall." in text
    assert "A judge gives no probabilities, so there is no calibration to show." in text
    assert "12 of 36 replies could not be read as a vote." in text
    assert "accuracy 12 0.0 100.0" in text  # the votes are for what was shown first
    assert "None" not in text.replace("None.", "").replace("None of the 12 cases says", "")
    assert "Accuracy, %" in Page(leaderboard(compare([run, run]))).text


@pytest.mark.parametrize(
    ("verdict", "word"), [("promote", "Promote"), ("refuse", "Refuse"), ("undecided", "Undecided")]
)
def test_the_gates_verdict_is_the_first_word(
    run: FinishedRun, baseline: FinishedRun, tmp_path: Path, verdict: str, word: str
) -> None:
    file = tmp_path / "gate.json"
    file.write_text(json.dumps(gate_file(run, baseline, verdict)))
    html = Report.of(run, baseline, read_gate(file, run, baseline)).page({}, 0)
    text = Page(html[html.index('id="verdict"') :]).text
    assert re.match(rf"\S*>? ?{word} ", text), text[:80]
    assert text.index("organ/lung") < text.index("floor/overall")
    assert HOSTILE[0] in text
    assert {"sha256:policy", "sha256:code"} <= {*re.findall(r"sha256:\w+", text)}
    assert "The worst cases" not in text


def test_a_verdict_on_something_else_is_refused(run: FinishedRun, baseline: FinishedRun, tmp_path: Path) -> None:
    file = tmp_path / "gate.json"
    for written, word in {
        json.dumps(gate_file(baseline, None)): "other predictions",
        json.dumps(gate_file(run, run)): "another baseline",
        json.dumps(gate_file(run, None)): "another baseline",
        json.dumps(gate_file(run, baseline, "perhaps")): "not a verdict",
        "{": "not a verdict",
    }.items():
        file.write_text(written)
        with pytest.raises(ConfigurationError, match=word):
            read_gate(file, run, baseline)
    with pytest.raises(ConfigurationError, match="No such file"):
        read_gate(tmp_path / "none.json", run, baseline)


def test_a_picture_keeps_its_pixels_and_nothing_else_of_its_file() -> None:
    image, file = Image.new("RGB", (900, 600), (200, 30, 30)), BytesIO()
    exif = Image.Exif()
    exif[0x010E] = "the patient's name"
    exif[0x0112] = 6  # lies on its side
    image.save(file, "JPEG", exif=exif)
    assert b"patient" in file.getvalue()
    uri = data_uri(file.getvalue())
    assert uri
    shown = base64.b64decode(uri.removeprefix("data:image/jpeg;base64,"))
    assert b"patient" not in shown
    with Image.open(BytesIO(shown)) as small:
        assert small.size == (213, 320)
        assert np.asarray(small, np.int64)[100, 100] == pytest.approx((200, 30, 30), abs=6)


def test_a_deep_grey_picture_is_not_white_and_a_broken_one_is_none() -> None:
    deep, file = np.linspace(0, 4000, 64 * 64).reshape(64, 64).astype(np.uint16), BytesIO()
    Image.fromarray(deep).save(file, "PNG")
    uri = data_uri(file.getvalue())
    assert uri
    with Image.open(BytesIO(base64.b64decode(uri.split(",")[1]))) as shown:
        grey = np.asarray(shown)
    assert grey[0, 0] < 20
    assert 100 < grey[32, 32] < 155
    assert grey[-1, -1] > 235
    assert data_uri(b"\x89PNG\r\n\x1a\n broken") is None
    assert data_uri(file.getvalue()[:90]) is None


def test_the_leaderboard_ranks_and_names_who_differs(board: str, run: FinishedRun, baseline: FinishedRun) -> None:
    text = Page(board).text
    assert re.search(r"run 1 \d\d\.\d a .*? baseline 2 \d\d\.\d b", text)
    assert "Against run, on overall" in text
    difference = baseline.column("overall").credits.mean() - run.column("overall").credits.mean()
    assert f"baseline −{-100 * difference:.1f} " in text  # noqa: RUF001
    for organ in ("brain", "lung", "upper limb"):
        assert text.count(organ) >= 6


async def test_a_run_ends_with_its_report_and_a_comparison_with_its_page(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    done = await medreward("bench", "run", "--data", folder / "data", "--model", "fake", "--out", out)
    assert done.code == 0, done
    assert "Origin of the labels not stated." in done.out
    assert f"{CASES} cases ({CASES} ok): {out / 'report.html'}" in done.out
    page = Page((out / "report.html").read_text())
    assert "This is the fake model: its scores mean nothing." in page.text
    assert page.of("img")
    html = tmp_path / "board.html"
    done = await medreward("bench", "compare", folder / "run", folder / "baseline", "--html", html)
    assert done.code == 0, done
    assert "Leaderboard" in html.read_text()


def luminance(colour: str) -> float:
    parts = [int(colour[n : n + 2], 16) / 255 for n in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_text_stands_out_from_what_is_behind_it(html: str) -> None:
    """4.5 is what WCAG 2.2 AA asks for."""
    palettes = [
        dict(re.findall(r"--([\w-]+): (#\w{6})", block)) for block in re.findall(r":root \{(.*?)\}", html, re.DOTALL)
    ]
    assert len(palettes) == 3  # light, dark, print
    for palette in palettes:
        pairs = [(text, back) for text in ("ink", "muted") for back in ("page", "surface", "sunken")]
        pairs += [(tone, f"{tone}-soft") for tone in ("good", "bad", "warn", "plain")]
        pairs += [("ink", f"{tone}-soft") for tone in ("good", "bad", "warn", "plain")]
        pairs += [("candidate", "surface"), ("baseline", "surface")]
        for text, back in pairs:
            dark, light = sorted((luminance(palette[text]), luminance(palette[back])))
            assert (light + 0.05) / (dark + 0.05) >= 4.5, (text, back)


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    with browser() as started:
        yield started


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_browser_opens_it_without_a_complaint_a_request_or_a_scroll_bar(
    chromium: Browser, html: str, board: str, tmp_path: Path, scheme: str
) -> None:
    for name, page in {"report.html": html, "board.html": board}.items():
        file = tmp_path / name
        file.write_text(page)
        for width in (400, 1280):
            seen = chromium.open(file, width, scheme)
            assert seen.complaints == []
            assert [url for url in seen.requests if not url.startswith("data:")] == [file.as_uri()]
            assert seen.overflow == 0
            assert width == 400 or seen.cut == []
            assert seen.background == {"light": "rgb(244, 246, 249)", "dark": "rgb(14, 18, 23)"}[scheme]


def test_the_browser_sees_what_it_must_not_find(chromium: Browser, tmp_path: Path) -> None:
    file = tmp_path / "bad.html"
    file.write_text("<img src=http://127.0.0.1:9/x.png><script>console.error(1)</script><p style='width: 900px'>wide")
    seen = chromium.open(file, 400, "light")
    assert "http://127.0.0.1:9/x.png" in seen.requests
    assert seen.complaints
    assert seen.overflow > 400
