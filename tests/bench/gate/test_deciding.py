"""`medreward bench gate` on runs alone: what is promoted, what is refused, and what is no decision at all."""

import hashlib
import random
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from scipy import stats

from bench.gating import decided, edit, edit_rows, gate, statuses
from bench.runs import make_run
from bench.sets import some_cases
from medreward.artifacts.evidence import policy_file
from medreward.bench.cases import Case, DataSet
from medreward.bench.gate.checks import NEVER, cases_to_decide, needed_in_words
from medreward.bench.gate.quality import worse
from medreward.errors import ConfigurationError
from medreward.types import DIMENSIONS

pytestmark = pytest.mark.slow

CASES = 1000


def shown_blank(run: Path) -> Path:
    edit(run / "run.json", lambda about: about["settings"].update(images="blank"))
    return run


@pytest.fixture(scope="module")
def cases() -> list[Case]:
    return some_cases(CASES)


@pytest.fixture(scope="module")
def made(cases: list[Case], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made")
    make_run(folder / "new", cases, right=0.75, seed=1, model="new")
    make_run(folder / "old", cases, right=0.75, seed=2, model="old")
    return folder


@pytest.fixture
def runs(made: Path, tmp_path: Path) -> tuple[Path, Path]:
    """Of two models that are equally good."""
    shutil.copytree(made, tmp_path, dirs_exist_ok=True)
    return tmp_path / "new", tmp_path / "old"


def test_an_equal_model_is_promoted_and_every_digest_is_written(
    runs: tuple[Path, Path], cases: list[Case], capsys: pytest.CaptureFixture[str]
) -> None:
    new, old = runs
    assert gate("--candidate", new, "--baseline", old) == 0
    assert "promote: new may replace the baseline" in capsys.readouterr().out
    found = decided(new)
    assert (found["verdict"], found["reasons"], found["cases"]) == ("promote", [], CASES)
    assert (found["candidate"]["fingerprint"], found["baseline"]["fingerprint"]) == ("sha256:new", "sha256:old")
    predictions = (new / "predictions.jsonl").read_bytes()
    assert found["candidate"]["predictions"] == f"sha256:{hashlib.sha256(predictions).hexdigest()}"
    assert found["data"]["digest"] == DataSet(cases).digest
    shipped = policy_file("default").read_bytes()
    assert found["policy"]["digest"] == f"sha256:{hashlib.sha256(shipped).hexdigest()}"
    assert found["code"]["digest"].startswith("sha256:")
    assert set(statuses(new).values()) == {"pass", "skipped"}
    suite = ElementTree.fromstring((new / "gate.junit.xml").read_bytes())  # noqa: S314  # our own
    assert (suite.get("failures"), suite.get("tests")) == ("0", str(len(found["checks"])))
    page = (new / "gate.md").read_text()
    assert page.startswith("## PROMOTE: new")
    assert found["policy"]["digest"] in page


def test_a_worse_model_is_refused_and_the_figure_is_named(runs: tuple[Path, Path], cases: list[Case]) -> None:
    new, old = runs
    bad = make_run(new.parent / "bad", cases, right=0.6, seed=3, model="bad")
    assert gate("--candidate", bad, "--baseline", old, "--out", new.parent / "out") == 1
    found = decided(new.parent / "out")
    assert (found["verdict"], found["cases_needed"]) == ("refuse", None)
    assert any(reason.startswith("non_inferiority/overall: -1") for reason in found["reasons"])
    assert not (bad / "gate.json").exists()
    suite = ElementTree.fromstring((new.parent / "out" / "gate.junit.xml").read_bytes())  # noqa: S314
    failed = [case.get("name") for case in suite if case.find("failure[@type='fail']") is not None]
    assert "non_inferiority/overall" in failed


def test_too_few_cases_decide_nothing_and_how_many_would_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    few = some_cases(60)
    new = make_run(tmp_path / "new", few, right=0.75, seed=1, model="new")
    old = make_run(tmp_path / "old", few, right=0.75, seed=2, model="old")
    assert gate("--candidate", new, "--baseline", old) == 3
    found = decided(new)
    assert found["verdict"] == "undecided"
    assert 299 <= found["cases_needed"] < 10_000  # 299 without a refusal show less than 1% of them
    said = capsys.readouterr().out
    assert f"About {found['cases_needed']:,} cases would be needed. There are 60." in said
    assert "undecided: new can be neither promoted nor refused: there is too little data (" in said


BREAKS: dict[str, tuple[Callable[[Path], object], str]] = {
    "a row is missing": (lambda run: edit_rows(run, lambda rows: rows.pop(3)), "damaged"),
    "a row is there twice": (lambda run: edit_rows(run, lambda rows: rows.append(rows[3])), "damaged"),
    "choices that are not those of the logits": (
        lambda run: edit_rows(run, lambda rows: rows[3]["choices"].update(overall="tie")),
        "case-3 contradicts itself",
    ),
    "choices without an answer": (
        lambda run: edit_rows(run, lambda rows: rows[3].update(status="too_long")),
        "case-3 contradicts itself",
    ),
    "other data": (
        lambda run: edit(run / "run.json", lambda about: about.update(data_digest="sha256:x")),
        "other data",
    ),
    "it is not finished": (lambda run: (run / "predictions.part.jsonl").touch(), "not finished"),
    "no summary": (lambda run: (run / "summary.json").unlink(), "is not a finished run"),
    "blank images": (shown_blank, "--images blank; use a run that was made with --images own"),
}


@pytest.mark.parametrize("whose", ["candidate", "baseline"])
@pytest.mark.parametrize(("spoil", "word"), BREAKS.values(), ids=BREAKS)
def test_a_broken_run_is_no_decision_and_an_old_one_does_not_stay(
    runs: tuple[Path, Path], whose: str, spoil: Callable[[Path], object], word: str
) -> None:
    new, old = runs
    (new / "gate.json").write_text('{"verdict": "promote"}')
    spoil(new if whose == "candidate" else old)
    with pytest.raises(ConfigurationError, match=word):
        gate("--candidate", new, "--baseline", old)
    assert not (new / "gate.json").exists()


def test_the_first_cases_of_a_set_are_never_enough(runs: tuple[Path, Path]) -> None:
    for run in runs:
        edit(run / "run.json", lambda about: about["settings"].update(limit=CASES))
    assert gate("--candidate", runs[0], "--baseline", runs[1]) == 3
    assert [name for name, status in statuses(runs[0]).items() if status == "undecided"] == ["complete"]


def test_a_model_that_refuses_one_case_in_twenty_is_refused(runs: tuple[Path, Path], cases: list[Case]) -> None:
    refusing = make_run(runs[0].parent / "refusing", cases, right=0.8, unanswered=0.05, seed=4, model="refusing")
    assert gate("--candidate", refusing, "--baseline", runs[1]) == 1
    assert [name for name, status in statuses(refusing).items() if status == "fail"] == ["unanswered"]


def test_one_fingerprint_with_other_numbers_is_refused(runs: tuple[Path, Path]) -> None:
    """Also where every choice is the same, as when all scores are shifted."""
    new = runs[0]
    canary = new.parent / "canary"
    shutil.copytree(new, canary)
    assert gate("--candidate", canary, "--baseline", new) == 0
    assert statuses(canary)["parity/baseline"] == "pass"

    def shift(rows: list[dict[str, Any]]) -> None:
        for six in (rows[5]["logits"]["A"], rows[5]["logits"]["B"]):
            six["accuracy"] += 0.1

    edit_rows(canary, shift)
    assert gate("--candidate", canary, "--baseline", new) == 1
    assert [name for name, status in statuses(canary).items() if status == "fail"] == ["parity/baseline"]
    in_bf16 = "torch_vlm/cuda/bf16"  # whose numbers differ by more in another batch alone
    edit(canary / "run.json", lambda about: about["model"].update(runtime=in_bf16))
    assert gate("--candidate", canary, "--baseline", new) == 0
    for _ in range(20):
        edit_rows(canary, shift)
    assert gate("--candidate", canary, "--baseline", new) == 1


def test_a_model_must_beat_length_and_position(tmp_path: Path, cases: list[Case]) -> None:
    """The second answer is the longer one here, and right three times in four."""
    chance = random.Random(0)
    leaning = [replace(case, labels={d: "B" if chance.random() < 0.75 else "A" for d in DIMENSIONS}) for case in cases]
    always = make_run(tmp_path / "always", leaning, model="always")

    def take_b(rows: list[dict[str, Any]]) -> None:
        for row in rows:
            row["choices"] = dict.fromkeys(DIMENSIONS, "B")
            row["logits"] = {"A": dict.fromkeys(DIMENSIONS, 0.0), "B": dict.fromkeys(DIMENSIONS, 1.1)}

    edit_rows(always, take_b)
    assert gate("--candidate", always) == 1
    assert {n for n, status in statuses(always).items() if status == "fail"} == {"shortcut/length", "shortcut/position"}
    better = make_run(tmp_path / "better", leaning, right=0.85, model="better")
    assert gate("--candidate", better) == 0


def test_a_model_must_see_the_image_where_a_blanked_run_is_given(runs: tuple[Path, Path], cases: list[Case]) -> None:
    new, old = runs
    blind = shown_blank(make_run(new.parent / "blind", cases, right=0.6, seed=5, model="new"))
    assert gate("--candidate", new, "--baseline", old, "--blanked", blind) == 0
    assert statuses(new)["shortcut/blanked"] == "pass"
    same = new.parent / "same"
    shutil.copytree(new, same)
    assert gate("--candidate", new, "--baseline", old, "--blanked", shown_blank(same)) == 1
    assert [name for name, status in statuses(new).items() if status == "fail"] == ["shortcut/blanked"]
    other = new.parent / "other"
    shutil.copytree(old, other)
    with pytest.raises(ConfigurationError, match="another model"):
        gate("--candidate", new, "--baseline", old, "--blanked", shown_blank(other))


def test_overconfidence_is_refused_with_every_choice_as_before(runs: tuple[Path, Path]) -> None:
    new, old = runs

    def shout(rows: list[dict[str, Any]]) -> None:
        for row in rows:
            row["logits"] = {side: {d: 20 * v for d, v in six.items()} for side, six in row["logits"].items()}

    edit_rows(new, shout)
    assert gate("--candidate", new, "--baseline", old) == 1
    assert [name for name, status in statuses(new).items() if status == "fail"] == ["calibration"]


def test_a_judge_is_decided_on_without_probabilities(runs: tuple[Path, Path]) -> None:
    new, old = runs
    edit_rows(new, lambda rows: [row.update(logits=None) for row in rows])
    assert gate("--candidate", new, "--baseline", old) == 0
    assert statuses(new)["calibration"] == "skipped"


def test_a_name_is_no_markup(runs: tuple[Path, Path]) -> None:
    edit(runs[0] / "run.json", lambda about: about["model"].update(name="<img src=x> | b"))
    assert gate("--candidate", runs[0], "--baseline", runs[1]) == 0
    assert (runs[0] / "gate.md").read_text().startswith("## PROMOTE: &lt;img src=x> \\| b may")


def test_a_policy_of_ones_own_is_read_and_says_what_must_be_given(runs: tuple[Path, Path], tmp_path: Path) -> None:
    policy = tmp_path / "strict.toml"
    policy.write_text(
        'require = ["baseline"]\nalpha = 0.05\nfamily_alpha = 0.02\npower = 0.8\n[floors]\noverall = 0.9\n'
    )
    with pytest.raises(ConfigurationError, match=r"requires --baseline"):
        gate("--candidate", runs[0], "--policy", policy)
    assert gate("--candidate", runs[0], "--baseline", runs[1], "--policy", policy) == 1
    assert decided(runs[0])["policy"]["digest"] == f"sha256:{hashlib.sha256(policy.read_bytes()).hexdigest()}"
    assert [name for name, status in statuses(runs[0]).items() if status == "fail"] == ["floor/overall"]
    policy.write_text("alpha = 0.05\nfamily_alpha = 0.02\npower = 0.8\nmax_unanswerd = 0.01\n")
    with pytest.raises(ConfigurationError, match="max_unanswerd"):
        gate("--candidate", runs[0], "--policy", policy)
    with pytest.raises(ConfigurationError, match="no policy at"):
        gate("--candidate", runs[0], "--policy", tmp_path / "none.toml")


def test_worse_counts_images_not_dimensions() -> None:
    lost, won = np.zeros(18), np.ones(18)
    assert worse(lost, won, np.arange(18)) < 1e-4
    assert worse(lost, won, np.repeat(np.arange(3), 6)) == pytest.approx(1 / 8)  # three cases, each lost six times
    assert worse(won, lost, np.arange(18)) > 0.99
    assert worse(won, won, np.arange(18)) == 1.0


def test_worse_is_called_as_often_as_it_says() -> None:
    """Of equal models, with six dependent dimensions a case."""
    chance = np.random.default_rng(0)
    groups = np.repeat(np.arange(79), 6)
    ps = []
    for _ in range(400):
        shared = chance.normal(size=(2, 79, 1))
        first, second = (shared + chance.normal(size=(2, 79, 6)) > 0).astype(np.float64)
        ps.append(worse(first.ravel(), second.ravel(), groups))
    assert 0.02 < np.mean(np.array(ps) < 0.05) < 0.08


def test_the_number_of_cases_needed_is_that_of_the_textbook() -> None:
    """(z_alpha + z_power)^2 variance / distance^2"""
    z = stats.norm.ppf([0.95, 0.8])
    seen, limit, variance, n = -0.01, -0.05, 0.2, 400
    bound = seen - z[0] * (variance / n) ** 0.5
    assert cases_to_decide(n, seen, bound, limit, 0.05, 0.8) == np.ceil(z.sum() ** 2 * variance / 0.04**2)
    assert cases_to_decide(n, limit, bound, limit, 0.05, 0.8) == NEVER


def test_a_number_of_cases_that_nobody_will_have_is_said_in_words() -> None:
    assert needed_in_words(None) == ""
    assert needed_in_words(1_234) == "About 1,234 cases would be needed."
    assert "will never decide it: about 104,477 would be needed" in needed_in_words(104_477)
    assert "will never decide it" in needed_in_words(NEVER)


@pytest.fixture(scope="module")
def as_imported(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two equal models on labels such as `bench import --layout questions` makes: on accuracy and overall alone."""
    folder = tmp_path_factory.mktemp("imported")
    two = [
        replace(case, labels={d: case.labels[d] for d in ("accuracy", "overall")}, evidence="constructed")
        for case in some_cases(CASES)
    ]
    new, old = (make_run(folder / name, two, right=0.75, seed=n, model=name) for n, name in enumerate(("new", "old")))
    return new, old


def test_a_dimension_without_labels_is_a_reason_of_its_own(
    as_imported: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    new, old = as_imported
    assert gate("--candidate", new, "--baseline", old, "--out", tmp_path) == 3
    found = decided(tmp_path)
    assert {name for name, status in statuses(tmp_path).items() if status == "undecided"} == set()
    assert statuses(tmp_path)["floor/creativity"] == statuses(tmp_path)["labels/creativity"] == "no label"
    assert "labels/creativity: no case has a label on creativity" in found["reasons"]
    said = capsys.readouterr().out
    assert "neither promoted nor refused: the data has no labels on some dimension that the policy needs" in said
    assert "too little data" not in said


def test_a_policy_for_accuracy_and_overall_decides_on_what_importers_make(
    as_imported: tuple[Path, Path], tmp_path: Path
) -> None:
    new, old = as_imported
    flags = ("--policy", "accuracy-overall", "--out", tmp_path)
    assert gate("--candidate", new, "--baseline", old, *flags) == 0
    found = statuses(tmp_path)
    assert {name for name in found if name.startswith(("floor/", "labels/"))} == {
        f"{kind}/{dimension}" for kind in ("floor", "labels") for dimension in ("accuracy", "overall")
    }
    assert found["calibration"] == "pass"
    assert gate("--candidate", old, "--baseline", new, *flags) == 0


def test_a_policy_may_only_ask_of_the_dimensions_that_it_needs(runs: tuple[Path, Path], tmp_path: Path) -> None:
    policy = tmp_path / "own.toml"
    policy.write_text(
        'dimensions = ["overall"]\nalpha = 0.05\nfamily_alpha = 0.02\npower = 0.8\n[floors]\naccuracy = 0.5\n'
    )
    with pytest.raises(ConfigurationError, match="accuracy must be among `dimensions`"):
        gate("--candidate", runs[0], "--policy", policy)


def test_an_organ_of_a_few_cases_is_not_shown_however_it_came_out(cases: list[Case], tmp_path: Path) -> None:
    """Five eyes, four of them lost."""
    some = [replace(case, organ="eye" if n < 5 else case.organ) for n, case in enumerate(cases)]
    new = make_run(tmp_path / "new", some, right=0.8, seed=1, model="new")
    old = make_run(tmp_path / "old", some, right=0.75, seed=2, model="old")

    def lose(rows: list[dict[str, Any]]) -> None:
        for row, case in zip(rows[:4], some, strict=False):
            wrong = {d: "B" if label == "A" else "A" for d, label in case.labels.items()}
            logits = {side: {d: float(choice == side) for d, choice in wrong.items()} for side in ("A", "B")}
            row.update(choices=wrong, logits=logits)

    edit_rows(new, lose)
    assert gate("--candidate", new, "--baseline", old) == 0
    found = {check["name"]: check for check in decided(new)["checks"]}
    assert found["organ/eye"]["value"] < -0.3
    assert found["organ/eye"]["status"] == "not shown"
    assert "too few cases" in found["organ/eye"]["what"]
    assert {found[f"organ/{name}"]["status"] for name in ("brain", "lung", "upper_limb")} == {"pass"}


def pinned(folder: Path, lines: str) -> Path:
    """The default policy with these lines in its section `pinned`."""
    file = folder / "pinned.toml"
    file.write_text(f"{policy_file('default').read_text()}\n[pinned]\n{lines}\n")
    return file


def test_a_pinned_policy_decides_on_what_it_names_alone(
    runs: tuple[Path, Path], as_imported: tuple[Path, Path], cases: list[Case], tmp_path: Path
) -> None:
    new, old = runs
    own = ("--candidate", new, "--baseline", old)
    coin = make_run(tmp_path / "coin", cases, right=0.5, seed=9, model="coin")
    for lines, flags, message in (
        ('data = "sha256:other"', own, "decides on the data sha256:other alone"),
        ('labels = ["physician"]', own, "decides on physician labels alone; .* has not stated ones"),
        ('baseline = "sha256:served"', own, "wants the baseline sha256:served; .* is a run of sha256:old"),
        ('baseline = "sha256:old"', own[:2], "pins the baseline: name its run with --baseline"),
        ("baseline_floors = { overall = 0.7 }", ("--candidate", new, "--baseline", coin), "at least 70.0% on overall"),
    ):
        with pytest.raises(ConfigurationError, match=message):
            gate(*flags, "--policy", pinned(tmp_path, lines))
        assert not (new / "gate.json").exists()
    digest = DataSet(cases).digest
    lines = (
        f'data = "{digest}"\nlabels = ["not stated"]\nbaseline = "sha256:old"\nbaseline_floors = {{ overall = 0.7 }}'
    )
    assert gate(*own, "--policy", pinned(tmp_path, lines)) == 0
