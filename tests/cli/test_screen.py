"""`medreward screen`: from a labelled file to a policy, what the policy does, and verdicts for a file."""

import json
from pathlib import Path
from typing import Any

import httpx
import pyarrow
import pyarrow.parquet
import pytest

from commands import Run, assert_refused, serving
from medreward.artifacts.repository import bundled_models
from medreward.cli.labelled import read_labelled
from medreward.cli.screen_fit import target_of
from medreward.errors import ConfigurationError
from medreward.screening.policy import FalseAllow, FalseBlock, Policy, Rule, read_policy

Rows = list[dict[str, Any]]
FAKE = ("--model", "fake")
#: What is asked has no image here, and the fake model's numbers mean nothing: half of the wrong answers may pass.
LENIENT = (*FAKE, "--review-flags", "", "--max-false-allow", "0.5", "--max-false-block", "0.4", "--guard", "none")


def rows(count: int = 80) -> Rows:
    return [
        {
            "question": f"Why {n // 2}?",
            "response": f"answer {n}",
            "right": n % 2 == 0,
            "organ": ("chest", "brain")[n // 2 % 2],
            "department": ("ward-a", "ward-b")[n // 4 % 2],
            "evidence": "constructed",
        }
        for n in range(count)
    ]


def write(path: Path, content: Rows) -> Path:
    if path.suffix == ".parquet":
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(content), path)
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in content))
    return path


def read(path: Path) -> Rows:
    if path.suffix == ".parquet":
        found: Rows = pyarrow.parquet.read_table(path).to_pylist()
        return found
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture
def labelled(tmp_path: Path) -> Path:
    return write(tmp_path / "labelled.jsonl", rows())


@pytest.fixture
def policy(run_here: Run, labelled: Path, tmp_path: Path) -> Path:
    done = run_here("screen", "fit", "--data", labelled, "--out", "strict.toml", *LENIENT)
    assert done.returncode == 0, done
    return tmp_path / "strict.toml"


# fit


def test_a_fitted_policy_says_what_it_promises_and_on_what(run_here: Run, labelled: Path, tmp_path: Path) -> None:
    done = run_here("screen", "fit", "--data", labelled, "--out", "policies", "--name", "strict", *LENIENT, "--json")
    assert done.returncode == 0, done
    said = json.loads(done.stdout)
    file = read_policy(tmp_path / "policies" / "strict" / "1.toml")
    assert (said["digest"], said["fingerprint"]) == (file.digest, file.policy.fingerprint)
    stated = file.policy.false_allow
    assert stated is not None
    assert (stated.images, stated.wrong, stated.right, stated.at_most) == (40, 40, 40, 0.5)
    assert stated.right_allowed > 5
    assert said["false_allow"]["upper"] <= 0.5
    assert (tmp_path / "policies" / "strict" / "current").read_text() == "1\n"
    text = file.file.read_text()
    assert "# Of wrong answers at most 50% are allowed, at confidence 95%: of 40 wrong answers, one drawn from" in text
    assert "# Labels: 80 constructed. A label made by rule is not a physician's" in text
    assert "# Labels of: labelled.jsonl (sha256:" in text


def test_a_version_is_never_overwritten_and_a_second_one_is_not_current(
    run_here: Run, labelled: Path, tmp_path: Path
) -> None:
    fit = ("screen", "fit", "--data", labelled, "--out", "policies", *LENIENT)
    assert run_here(*fit).returncode == 0
    before = (tmp_path / "policies" / "screen" / "1.toml").read_bytes()
    assert_refused(run_here(*fit), "already exists", "--version")
    assert (tmp_path / "policies" / "screen" / "1.toml").read_bytes() == before
    assert run_here(*fit, "--version", "2").returncode == 0
    assert (tmp_path / "policies" / "screen" / "current").read_text() == "1\n"


def test_labels_that_cannot_show_the_bound_write_nothing(run_here: Run, labelled: Path, tmp_path: Path) -> None:
    done = run_here("screen", "fit", "--data", labelled, "--out", "strict.toml", *FAKE)
    assert done.returncode == 1
    assert "needs wrong answers about 149 images, and there are 40" in done.stderr
    assert "109 more images" in done.stderr
    assert not (tmp_path / "strict.toml").exists()
    done = run_here("screen", "fit", "--data", labelled, "--out", "strict.toml", *FAKE, "--json")
    assert done.returncode == 1
    assert "109 more" in json.loads(done.stdout)["missing"]


def test_a_policy_on_the_reward_keeps_the_weights_that_made_it(run_here: Run, labelled: Path, tmp_path: Path) -> None:
    reward = ("--on", "reward", "--weights", "accuracy=2,overall=1")
    done = run_here("screen", "fit", "--data", labelled, "--out", "strict.toml", *LENIENT, *reward)
    assert done.returncode == 0, done
    found = read_policy(tmp_path / "strict.toml").policy
    assert found.weights == {"accuracy": 2, "overall": 1}
    done = run_here("screen", "check", "--policy", "strict.toml", "--data", labelled, *FAKE, "--json")
    assert found.false_allow is not None
    assert json.loads(done.stdout)["matrix"]["right"]["allow"]["count"] == found.false_allow.right_allowed


@pytest.mark.parametrize(
    ("out", "name", "version", "expected"),
    [
        ("policies", None, None, ("policies/screen/1.toml", "screen", "1")),
        ("policies", "strict", "7", ("policies/strict/7.toml", "strict", "7")),
        ("strict.toml", None, None, ("strict.toml", "strict", "1")),
        ("policies/strict/2.toml", None, None, ("policies/strict/2.toml", "strict", "2")),
    ],
)
def test_a_policy_is_named_by_where_it_is_written(
    out: str, name: str | None, version: str | None, expected: tuple[str, str, str]
) -> None:
    target = target_of(Path(out), name, version)
    assert (str(target.file), target.name, target.version) == expected


def test_departments_have_thresholds_of_their_own_labels(run_here: Run, labelled: Path, tmp_path: Path) -> None:
    fit = ("screen", "fit", "--data", labelled, "--out", "strict.toml", *LENIENT, "--by-department")
    assert run_here(*fit).returncode == 0
    found = read_policy(tmp_path / "strict.toml").policy
    assert set(found.departments) == {"ward-a", "ward-b"}
    general = next(rule.at_least for rule in found.rules if rule.name == "allow")
    assert general == max(table["allow"] for table in found.departments.values())


# labels


@pytest.mark.parametrize(
    ("label", "right"),
    [
        ({"right": True}, True),
        ({"right": False}, False),
        ({"label": "right"}, True),
        ({"label": "Wrong"}, False),
        ({"label": 1}, True),
        ({"label": 0}, False),
        ({"right": "true"}, True),
    ],
)
@pytest.mark.parametrize("kind", ["labels.jsonl", "labels.parquet"])
def test_labels_have_many_forms(tmp_path: Path, kind: str, label: dict[str, Any], right: bool) -> None:
    file = write(tmp_path / kind, [{"question": "Why?", "response": "So.", "region13": "chest", "group": 7, **label}])
    (found,) = read_labelled(file, ["accuracy"])
    assert found.right is right
    assert (found.parts["organ"], found.group) == ("chest", "7")


def test_a_pair_is_a_right_and_a_wrong_answer(tmp_path: Path) -> None:
    pairs = [{"question": "Why?", "good": "So.", "bad": "No.", "kind": kind} for kind in ("accuracy", "relevance")]
    file = write(tmp_path / "pairs.jsonl", pairs)
    assert [(one.response, one.right, one.evidence) for one in read_labelled(file, ["accuracy"])] == [
        ("So.", True, "constructed"),
        ("No.", False, "constructed"),
    ]
    assert len(list(read_labelled(file, ["all"]))) == 4


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("{", "line 3: this is no JSON object"),
        ('{"question": "Why?", "response": "So."}', "line 3: a row needs `right`"),
        ('{"question": "Why?", "response": "So.", "right": "perhaps"}', "line 3: `right` is neither right nor wrong"),
        ('{"question": "Why?", "right": true}', "line 3: an item has either responses or response"),
        ('{"question": "Why?", "responses": ["a", "b"], "right": true}', "line 3: a labelled row has one response"),
    ],
)
def test_what_is_wrong_with_a_row_is_said_with_its_line(tmp_path: Path, line: str, words: str) -> None:
    good = json.dumps(rows(1)[0])
    file = tmp_path / "labels.jsonl"
    file.write_text(f"{good}\n\n{line}\n")
    with pytest.raises(ConfigurationError, match=words):
        list(read_labelled(file, ["accuracy"]))


def test_an_image_that_is_not_there_stops_before_a_policy_is_made(run_here: Run, tmp_path: Path) -> None:
    file = write(tmp_path / "labels.jsonl", [{**row, "image": "none.png"} for row in rows(4)])
    done = run_here("screen", "fit", "--data", file, "--out", "strict.toml", *LENIENT)
    assert_refused(done, "line 1", "neither a file that can be read nor base64")


# check


def test_check_shows_the_matrix_and_writes_a_page(run_here: Run, policy: Path, labelled: Path, tmp_path: Path) -> None:
    check = ("screen", "check", "--policy", policy, "--data", labelled, *FAKE)
    done = run_here(*check, "--json", "--out", "page.html", "--base-rate", "0.1,0.2")
    assert done.returncode == 0, done
    found = json.loads(done.stdout)
    stated = read_policy(policy).policy.false_allow
    assert stated is not None
    assert found["matrix"]["wrong"]["allow"]["count"] == stated.wrong_allowed
    assert sum(found["matrix"]["right"][verdict]["count"] for verdict in found["matrix"]["right"]) == 40
    assert [row["base_rate"] for row in found["base_rates"]] == [0.1, 0.2]
    assert {(part["kind"], part["name"]) for part in found["parts"]} == {
        ("organ", "brain"),
        ("organ", "chest"),
        ("department", "ward-a"),
        ("department", "ward-b"),
    }
    assert (found["bound"]["own_labels"], found["bound"]["contradicted"]) == (True, False)
    assert "Constructed labels, not clinical evidence." in (tmp_path / "page.html").read_text()
    printed = run_here(*check).stdout
    assert "right among allowed (NPV)" in printed
    assert "this is no independent check" in printed


def test_labels_that_contradict_the_bound_exit_1(run_here: Run, policy: Path, labelled: Path, tmp_path: Path) -> None:
    verdicts = tmp_path / "verdicts.jsonl"
    assert run_here("screen", "run", "--policy", policy, labelled, verdicts, *FAKE).returncode == 0
    decided = zip(rows(), read(verdicts), strict=True)
    other = write(tmp_path / "other.jsonl", [{**row, "right": one["verdict"] != "allow"} for row, one in decided])
    done = run_here("screen", "check", "--policy", policy, "--data", other, *FAKE)
    assert done.returncode == 1, done
    assert "Contradicted" in done.stdout


def test_a_policy_of_another_model_is_refused_before_anything_is_scored(
    run_here: Run, policy: Path, labelled: Path, tmp_path: Path
) -> None:
    text = policy.read_text()
    other = tmp_path / "other.toml"
    other.write_text(text.replace(read_policy(policy).policy.fingerprint, f"sha256:{'0' * 64}"))
    for command in (("check", "--data", labelled), ("run", labelled, "out.jsonl")):
        done = run_here("screen", *command, "--policy", other, *FAKE)
        assert_refused(done, "was made for the model sha256:000", "screen fit")
    assert not (tmp_path / "out.jsonl").exists()


def test_production_rates_come_from_labels_and_unlabelled_answers(
    run_here: Run, policy: Path, labelled: Path, tmp_path: Path
) -> None:
    stream = write(tmp_path / "stream.jsonl", [{"question": f"How {n}?", "response": f"so {n}"} for n in range(200)])
    check = ("screen", "check", "--policy", policy, "--data", labelled, "--unlabelled", stream, *FAKE)
    found = json.loads(run_here(*check, "--json").stdout)["estimates"]
    for rate in ("false_allow", "wrong_among_allowed"):
        low, high = found[rate]["interval"]
        assert 0 <= low < found[rate]["value"] < high <= 1
    assert "in production, of allowed answers, wrong:" in run_here(*check).stdout


# run


@pytest.mark.parametrize("suffix", ["jsonl", "parquet"])
def test_run_decides_on_each_row_as_check_does(
    run_here: Run, policy: Path, labelled: Path, tmp_path: Path, suffix: str
) -> None:
    source = write(tmp_path / f"in.{suffix}", rows())
    done = run_here("screen", "run", "--policy", policy, source, f"out.{suffix}", *FAKE, "--json")
    assert done.returncode == 0, done
    found = read(tmp_path / f"out.{suffix}")
    assert [row["row"] for row in found] == list(range(80))
    stated = read_policy(policy).policy.false_allow
    assert stated is not None
    allowed = [row["verdict"] == "allow" for row in found]
    assert sum(allowed[::2]) == stated.right_allowed
    assert sum(allowed[1::2]) == stated.wrong_allowed
    assert found[0]["policy"] == read_policy(policy).as_json()
    assert json.loads(done.stdout)["verdicts"]["allow"] == sum(allowed)
    (result,) = found[0]["results"]
    assert result["reasons"][0]["rule"] in {"allow", "block", "otherwise"}
    assert result["margin"] > 0


def test_what_cannot_be_scored_is_unscored_and_exits_1(run_here: Run, policy: Path, tmp_path: Path) -> None:
    source = tmp_path / "in.jsonl"
    source.write_text(
        '{"question": "Why?", "response": "So."}\n{"question": "Why?"}\nnot json\n'
        '{"question": "", "responses": ["a", "b"]}\n'
    )
    done = run_here("screen", "run", "--policy", policy, source, "out.jsonl", *FAKE)
    assert done.returncode == 1
    found = read(tmp_path / "out.jsonl")
    assert [row["verdict"] for row in found][1:] == ["unscored"] * 3
    assert found[0]["verdict"] != "unscored"
    assert [row["error"] and row["error"]["code"] for row in found[:3]] == [None, "invalid_field", "malformed"]
    assert {result["verdict"] for result in found[3]["results"]} == {"unscored"}
    assert "3 unscored" in done.stdout


def test_a_row_is_as_bad_as_its_worst_answer(run_here: Run, policy: Path, tmp_path: Path) -> None:
    source = write(tmp_path / "in.jsonl", [{"question": "Why?", "responses": [f"answer {n}" for n in range(40)]}])
    assert run_here("screen", "run", "--policy", policy, source, "out.jsonl", *FAKE).returncode == 0
    (row,) = read(tmp_path / "out.jsonl")
    assert {result["verdict"] for result in row["results"]} == {"allow", "review", "block"}
    assert row["verdict"] == "block"


def test_a_run_goes_on_where_it_stopped_but_not_by_another_policy(
    run_here: Run, policy: Path, labelled: Path, tmp_path: Path
) -> None:
    run = ("screen", "run", labelled, "out.jsonl", *FAKE)
    assert run_here(*run, "--policy", policy).returncode == 0
    whole = (tmp_path / "out.jsonl").read_text()
    (tmp_path / "out.jsonl").write_text("".join(whole.splitlines(keepends=True)[:30]))
    assert run_here(*run, "--policy", policy).returncode == 0
    assert (tmp_path / "out.jsonl").read_text() == whole
    other = tmp_path / "other.toml"
    other.write_text(policy.read_text().replace('version = "1"', 'version = "2"'))
    assert_refused(run_here(*run, "--policy", other), "another policy")


# a server's policy, and the bundled one


@pytest.mark.slow
def test_a_policy_of_a_server_is_named(run_here: Run, policy: Path, labelled: Path, tmp_path: Path) -> None:
    published = tmp_path / "policies" / "strict" / "1.toml"
    published.parent.mkdir(parents=True)
    published.write_text(policy.read_text())
    with serving(tmp_path, "--policies", str(tmp_path / "policies")) as served:
        there = ("--url", served.url)
        done = run_here("screen", "check", "--policy", "strict", "--data", labelled, *there, "--json")
        assert done.returncode == 0, done
        assert json.loads(done.stdout)["policy"]["digest"] == read_policy(published).digest
        assert run_here("screen", "run", "--policy", "strict", labelled, "there.jsonl", *there).returncode == 0
        assert run_here("screen", "run", "--policy", policy, labelled, "here.jsonl", *FAKE).returncode == 0
        verdicts = [[row["verdict"] for row in read(tmp_path / name)] for name in ("there.jsonl", "here.jsonl")]
        assert verdicts[0] == verdicts[1]
        assert_refused(run_here("screen", "check", "--policy", "none", "--data", labelled, *there), "there: strict")


@pytest.mark.slow
def test_the_bundled_model_screens_without_a_setting(tmp_path: Path) -> None:
    with serving(tmp_path, "--model", "medreward-mini") as served:
        body = {"image": None, "question": "Is there a pneumothorax?", "response": "No."}
        reply = httpx.post(f"{served.url}/v1/screen", json=body, timeout=60)
    assert reply.status_code == 200, reply.text
    assert reply.json()["policy"]["name"] == "example"
    (result,) = reply.json()["results"]
    assert (result["verdict"], result["reasons"][0]["rule"]) == ("review", "flag-no-image")


def test_the_bundled_policy_is_honest_about_its_labels() -> None:
    file = read_policy(bundled_models() / "medreward-mini" / "policies" / "example" / "1.toml")
    text = file.file.read_text()
    assert "2086 constructed" in text
    assert "not a physician's" in text
    assert file.policy.false_allow is not None
    assert file.policy.false_block is not None


# docs/screening.md


def test_the_policy_of_the_documentation_is_one_and_has_every_key(tmp_path: Path) -> None:
    text = (Path(__file__).parents[2] / "docs" / "screening.md").read_text()
    example = text.partition("```toml\n")[2].partition("```")[0].replace("sha256:…", f"sha256:{'a' * 64}")
    (tmp_path / "strict.toml").write_text(example)
    read_policy(tmp_path / "strict.toml")
    for shape in (Policy, Rule, FalseAllow, FalseBlock):
        for key in shape.model_fields:
            assert f"{key} =" in example or f"[{key}" in example, key


@pytest.mark.slow
def test_the_example_of_the_documentation_runs(run_here: Run, tmp_path: Path) -> None:
    assert run_here("screen", "example", "--out", "phantoms", "--count", "26").returncode == 0
    found = read(tmp_path / "phantoms" / "labelled.jsonl")
    assert [row["right"] for row in found] == [True, False] * 26
    assert len({row["image"] for row in found}) == 26
    assert all((tmp_path / "phantoms" / row["image"]).is_file() for row in found)
    fit = ("screen", "fit", "--data", "phantoms/labelled.jsonl", "--max-false-allow", "0.2", "--out", "policies")
    done = run_here(*fit, "--model", "medreward-mini", "--json")
    assert done.returncode == 0, done
    assert json.loads(done.stdout)["labels"] == {"constructed": 52}
    assert_refused(run_here("screen", "example", "--out", "phantoms"), "already exists")


def test_questions_of_a_data_set_become_labelled_answers(run_here: Run, tmp_path: Path, picture: Path) -> None:
    asked = [
        {"id": n, "image": "pictures/chest.png", "question": "Which organ?", "answer": answer, "region13": "chest"}
        for n, answer in enumerate(("Lung", "Heart"))
    ]
    source = write(tmp_path / "qa.jsonl", asked)
    done = run_here("screen", "import", source, "labelled.jsonl", "--layout", "questions", "--json")
    assert json.loads(done.stdout)["answers"] == 4
    found = list(read_labelled(tmp_path / "labelled.jsonl", ["accuracy"]))
    assert [(one.response, one.right) for one in found] == [
        ("Lung", True),
        ("Heart", False),
        ("Heart", True),
        ("Lung", False),
    ]
    assert {(one.parts["organ"], one.evidence) for one in found} == {("chest", "constructed")}
    assert_refused(run_here("screen", "import", source, "labelled.jsonl", "--layout", "questions"), "already exists")
