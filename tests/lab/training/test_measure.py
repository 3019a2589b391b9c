"""Each figure is right of a scorer whose faults are known."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from medreward.artifacts.manifest import read_manifest
from medreward.errors import ConfigurationError
from medreward.lab.phantoms.draw import HELD_OUT_FAMILIES
from medreward.lab.training import figures
from medreward.lab.training.card import card
from medreward.lab.training.corpus import DevPair
from medreward.lab.training.dev import Dev, read_dev_pairs
from medreward.lab.training.images import fitted
from medreward.lab.training.measure import Logits, measure, measure_folder
from medreward.lab.training.phantom_pairs import PhantomPair, phantom_pairs
from medreward.lab.training.served import Picture, Row
from medreward.types import DIMENSIONS

WEIGHTS = {"accuracy": 0.5, "overall": 0.5}
PHANTOMS = [
    PhantomPair(Picture(f"phantom/{n}", bytes), f"What {n}?", "mass", "cyst", novelty)
    for n, novelty in enumerate(["seen", "seen", "family held out"])
]


def dev(number: int, good: str = "The plane is axial.", **more: Any) -> Dev:
    given = {"source": "one", "kind": "accuracy", "bad": "The plane is coronal.", "form": "open", **more}
    dimensions = ("accuracy", "overall")
    image = f"image {number}"
    pair = DevPair(given["source"], image, "Which plane?", good, given["bad"], given["kind"], dimensions)
    return Dev(pair, Picture(image, bytes), "axial", given["form"], f"{given['source']}/plane")


def told(score: Callable[[Row], float], pairs: Sequence[Dev], phantoms: Sequence[PhantomPair] = PHANTOMS) -> Any:
    return measure(lambda rows: heads([score(row) for row in rows]), pairs, phantoms, WEIGHTS)


def heads(means: Sequence[float], apart: Sequence[float] | None = None) -> Logits:
    """Two heads, so far from the mean to either side, alike in all dimensions."""
    middle, off = np.array(means), np.array(apart if apart is not None else np.zeros(len(means)))
    both = np.stack([middle - off, middle + off], 1)
    return np.repeat(both[:, :, None], len(DIMENSIONS), 2).astype(np.float32)


def test_shares_are_told_by_kind_set_form_and_question_with_the_image_and_without() -> None:
    pairs = [
        *(dev(n) for n in range(6)),
        dev(6, source="two", form="closed"),
        dev(7, source="two", form="closed"),
        dev(8, kind="relevance"),
    ]

    def score(row: Row) -> float:
        """Without the image blind, before a grey one a little wrong; and wrong about the last."""
        if row.picture is None:
            return 0.0
        if row.picture.name.endswith("blanked"):
            return float(row.picture.name == "image 0 blanked" and row.response.endswith("coronal."))
        return float(row.response.endswith("axial.")) * (-1 if row.picture.name == "image 7" else 1)

    found = told(score, pairs)["pairs"]
    accuracy = found["accuracy"]
    assert accuracy["all"]["all"]["seen"] == pytest.approx(
        {"share": 7 / 8, "low": 0.529, "high": 0.978, "n": 8}, abs=1e-3
    )
    assert accuracy["all"]["all"]["no_image"]["share"] == 0.5
    assert accuracy["all"]["all"]["blank"]["share"] == 0.5 - 0.5 / 8
    gain = accuracy["all"]["all"]["gain"]
    assert gain["gain"] == pytest.approx(3.5 / 8)
    assert gain["low"] < gain["gain"] < gain["high"] <= 1.0
    assert accuracy["set"]["two"]["seen"]["share"] == accuracy["form"]["closed"]["seen"]["share"] == 0.5
    assert accuracy["form"]["open"]["seen"]["share"] == 1.0
    assert {name: one["seen"]["n"] for name, one in accuracy["question"].items()} == {"one/plane": 6, "two/plane": 2}
    assert set(found["relevance"]) == {"all", "set"}


@pytest.mark.parametrize(("gap", "error"), [(np.log(3), 0.0), (4.0, 0.232)])
def test_win_rates_are_held_against_what_the_logits_promise(gap: float, error: float) -> None:
    pairs = [dev(n) for n in range(100)]

    def score(row: Row) -> float:
        """Right three times of four."""
        number = int(row.picture.name.split()[1]) if row.picture and row.picture.name.startswith("image") else 0
        return gap * row.response.endswith("axial.") * (1 if number % 4 else -1)

    found = told(score, pairs)["calibration"]
    assert set(found) == {"accuracy", "overall"}
    assert found["accuracy"]["error"] == pytest.approx(error, abs=1e-3)
    assert found["accuracy"]["error_across_halves"] < 0.1  # either half mends what a temperature can mend
    assert found["accuracy"]["n"] == 100
    assert found["accuracy"]["bins"][0]["observed"]["share"] == 0.75


def test_errors_are_told_by_how_far_the_heads_disagree() -> None:
    wrong = np.array([0.0] * 30 + [1.0] * 10)
    spread = np.linspace(0, 1, 40)
    quarters = [one["wrong"]["share"] for one in figures.quartiles(spread, wrong)]
    assert quarters == [0.0, 0.0, 0.0, 1.0]
    assert figures.ranked(spread, wrong) == 1.0
    assert figures.ranked(-spread, wrong) == 0.0
    assert figures.ranked(np.zeros(40), wrong) == 0.5
    assert figures.ranked(spread, np.zeros(40)) is None


def test_what_is_served_as_uncertainty_is_held_against_errors() -> None:
    pairs = [dev(n) for n in range(8)]

    def ask(rows: Sequence[Row]) -> Logits:
        """Wrong about two pictures, of whose wrong answer the heads think differently."""
        odd = [row.picture is not None and row.picture.name in ("image 2", "image 5") for row in rows]
        bad = [row.response.endswith("coronal.") for row in rows]
        means = [float(b) if o else -float(b) for o, b in zip(odd, bad, strict=True)]
        return heads(means, [0.5 * (o and b) for o, b in zip(odd, bad, strict=True)])

    found = measure(ask, pairs, PHANTOMS, WEIGHTS)["uncertainty"]
    assert found["ranked"] == 1.0
    last = found["quartiles"][-1]
    assert (last["from"], last["to"], last["wrong"]["share"]) == (pytest.approx(0.25), pytest.approx(0.25), 1.0)


def test_reward_that_follows_length_is_seen() -> None:
    pairs = [dev(n) for n in range(5)]
    found = told(lambda row: 0.01 * len(row.response), pairs)["length"]
    for name in ("all", "worded", "padded"):
        assert found[name]["r"] == pytest.approx(1.0)
        assert found[name]["slope"] == pytest.approx(0.01, rel=1e-4)
    assert found["all"]["n"] == 5 * 12


def test_reward_that_follows_the_content_alone_has_nothing_to_do_with_length() -> None:
    found = told(lambda row: float(len(row.picture.name) if row.picture else 0), [dev(n) for n in range(20)])
    assert found["length"]["all"]["r"] == pytest.approx(0.0, abs=1e-6)


def test_changes_that_keep_the_meaning_are_held_against_a_real_error() -> None:
    def score(row: Row) -> float:
        """Shouting costs more than being wrong, a missing stop a little."""
        return ("axial" in row.response) - 3.0 * row.response.isupper() - 0.25 * (row.response[-1:] != ".")

    found = told(score, [dev(n) for n in range(4)])["meaning"]
    assert found["real_error"]["median"] == pytest.approx(1.0)
    changes = found["changes"]
    assert changes["upper case"]["median"] == pytest.approx(4.0)
    assert changes["upper case"]["below_error"] == pytest.approx(
        {"share": 0.0, "low": 0.0, "high": 0.49, "n": 4}, abs=0.01
    )
    assert changes["final stop"]["median"] == pytest.approx(0.25)
    assert changes["final stop"]["below_error"]["share"] == changes["order of clauses"]["below_error"]["share"] == 1.0
    assert changes["synonym or abbreviation"]["median"] == pytest.approx(1.0)  # it knows "axial" only
    assert "order of a list" not in changes


def test_a_ruse_that_pays_is_seen_and_one_that_does_not_too() -> None:
    def score(row: Row) -> float:
        """What is right counts once, a lecture twice as much."""
        return ("axial" in row.response) + 2.0 * ("magnet" in row.response) - 0.5 * ("coronal" in row.response)

    found = told(score, [dev(n) for n in range(20)])["ruses"]
    assert found["right"] == 1.0
    assert found["wrong"]["ahead"]["share"] == 0.0
    families = found["families"]
    assert families["wrong, 20 times"]["ahead"]["share"] == 0.0
    assert 0.2 < families["wrong and lecture"]["ahead"]["share"] == families["wrong and lecture"]["above_wrong"]["gain"]
    assert families["right, 20 times"]["ahead"]["share"] == 0.5
    assert families["cypher alone"]["taught"] is False


def test_forms_and_long_answers_that_hide_what_is_right_are_seen() -> None:
    def score(row: Row) -> float:
        """Reads no JSON, and nothing behind 3,000 characters."""
        return float("axial" in row.response[:3000] and "{" not in row.response)

    found = told(score, [dev(n) for n in range(8)])
    assert found["forms"]["plain"]["share"] == 1.0
    forms = found["forms"]["forms"]
    assert forms["bullet"]["beats_plain_wrong"]["share"] == 1.0
    assert forms["JSON"]["beats_plain_wrong"]["share"] == forms["JSON"]["beats_wrong_in_form"]["share"] == 0.5
    assert forms["JSON"]["moved"] < forms["bullet"]["moved"] == 0.0
    kept = {length: one["kept"]["share"] for length, one in found["long"].items()}
    assert kept["500"] == 1.0
    assert kept["4000"] == pytest.approx(2 / 3)  # in front it is read, in the middle and behind it is not


def test_phantoms_are_told_apart_by_what_is_held_out() -> None:
    def score(row: Row) -> float:
        taught = row.picture is not None and row.picture.name in ("phantom/0", "phantom/1")
        return float(taught and row.response == "mass")

    found = told(score, [dev(0)])["phantoms"]
    assert [*found] == ["seen", "family held out"]
    assert found["seen"]["seen"]["share"] == 1.0
    assert found["seen"]["blank"]["share"] == found["family held out"]["seen"]["share"] == 0.5
    assert found["seen"]["gain"] == pytest.approx({"gain": 0.5, "low": 0.5, "high": 0.5, "n": 2})


def test_the_share_out_of_scope_is_told_where_the_model_has_a_column_for_it() -> None:
    def ask(rows: Sequence[Row]) -> Logits:
        strange = [bool(row.picture and row.picture.name.startswith("stranger/blank")) for row in rows]
        column = np.where(strange, 2.0, -2.0)[:, None, None].repeat(2, 1)
        return np.concatenate([heads(np.zeros(len(rows)).tolist()), column], 2).astype(np.float32)

    found = measure(ask, [dev(0)], PHANTOMS, WEIGHTS)
    assert found["out_of_scope"]["blank"]["share"] == 1.0
    assert found["out_of_scope"]["landscape"]["share"] == found["out_of_scope"]["dev"]["share"] == 0.0
    assert "out_of_scope" not in told(lambda row: 0.0, [dev(0)])


def test_the_card_shows_what_was_measured() -> None:
    found = told(
        lambda row: float(bool(row.picture) and "blanked" not in str(row.picture) and row.response.endswith("axial.")),
        [dev(n) for n in range(8)],
    )
    found |= {"size": {"bytes": 1_500_000, "parameters": 2_000_000}, "latency_ms": {"one_new_image": 1.25}}
    text = card("tiny", "1.0", "shapes", found)
    assert "no physician graded an answer" in text
    assert "on 8 pairs of 8 development images" in text
    half = "50.0% (21.5 to 78.5)"
    assert f"| accuracy | 100.0% (67.6 to 100.0) | {half} | 50.0 (50.0 to 50.0) | {half} | 8 |" in text
    assert "| wrong, 20 times | other wordings | 0.000 | 0.0% (0.0 to 32.4) |" in text
    assert "says what is true" in text
    assert "| graphs and tokenizer | 1.5 MB |" in text
    assert "| one new image, one thread | 1.2 ms |" in text
    assert "Nothing was measured" in card("tiny", "1.0", "shapes", None)


def test_a_pair_is_joined_to_the_row_that_it_was_made_of(data: Path) -> None:
    by_question = {one.pair.question: one for one in read_dev_pairs(data)}
    shape, circle = by_question["What shape is shown?"], by_question["Is the shape a circle?"]
    assert (shape.content, shape.form, shape.about) == (shape.pair.good, "open", "shapes/shape")
    assert (circle.form, circle.about) == ("closed", "shapes/circle")
    assert fitted(circle.picture.read(), 8).shape == (8, 8, 3)


def test_nothing_to_measure_on_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"no pairs of kind accuracy in .*dev_pairs"):
        read_dev_pairs(tmp_path)


def test_a_model_of_fewer_dimensions_is_not_measured(two_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="tiny has not all six dimensions"):
        measure_folder(two_folder, read_manifest(two_folder / "model.toml"), tmp_path, lambda done, of: None)


def test_what_is_held_out_of_training_is_what_is_called_new() -> None:
    pairs = phantom_pairs(40)
    assert {pair.novelty for pair in pairs} == {"seen", "phrasing held out", "family held out"}
    for pair in pairs:
        family = pair.picture.name.split("/")[1]
        assert (family in HELD_OUT_FAMILIES) == (pair.novelty == "family held out")
        assert pair.good != pair.bad
    assert not any("cyst" in pair.question for pair in pairs if pair.novelty != "family held out")
