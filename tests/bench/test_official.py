"""The benchmark's own figures, quirks included; and the strict reading, which has none of them."""

import json
import random
import time
from typing import Any

import pytest

from medreward.bench import official
from medreward.bench.votes import read_vote
from medreward.types import DIMENSIONS

SIX = {dimension: "AB"[n % 2] for n, dimension in enumerate(DIMENSIONS)}
TEMPLATE = json.dumps(dict.fromkeys(DIMENSIONS, "A|B") | {"reason": "brief explanation"})
LINES = "\n".join(f"{dimension}: {letter}" for dimension, letter in SIX.items())


def all_six(letter: str) -> dict[str, str]:
    return dict.fromkeys(DIMENSIONS, letter)


#: Texts that the benchmark's script takes for votes, and what it makes of them.
NOT_MEANT_AS_A_VOTE = [
    ("I cannot help with a diagnosis.", all_six("A")),
    (TEMPLATE, all_six("A")),
    (f"Reply like this: {TEMPLATE}", all_six("A")),
    ("[[B]] or rather [[A]]", all_six("B")),
    ("Plan b.", all_six("B")),
    ("\n".join(f"{dimension}: both are good" for dimension in DIMENSIONS), all_six("B")),
    ("B", all_six("B")),
    (json.dumps({"overall": "A"}), all_six("A")),
    (LINES, SIX),
    (f"My verdict: {json.dumps(SIX)} and that is final.", SIX),
    (json.dumps({dimension: letter.lower() for dimension, letter in SIX.items()}), SIX),
    (json.dumps({dimension: f" {letter} " for dimension, letter in SIX.items()}), SIX),
]
NO_VOTE_FOR_ANYONE = ["", "A or B", "I refuse.", LINES.replace("overall: B", ""), "[" * 9999]


@pytest.mark.parametrize(("text", "votes"), NOT_MEANT_AS_A_VOTE)
def test_the_official_reading_makes_votes_of_texts_that_the_strict_one_refuses(
    text: str, votes: dict[str, str]
) -> None:
    assert official.read_letters(text) == votes
    assert read_vote(text) is None


@pytest.mark.parametrize("text", NO_VOTE_FOR_ANYONE)
def test_what_neither_reading_takes_for_a_vote(text: str) -> None:
    assert official.read_letters(text) is None
    assert read_vote(text) is None


@pytest.mark.parametrize(
    "text",
    [
        json.dumps(SIX),
        f"\n {json.dumps(SIX, indent=2)}\n",
        f"```json\n{json.dumps(SIX)}\n```",
        f"<think>Perhaps a {{brace}}, or {json.dumps(all_six('A'))}?</think>\n\n```\n{json.dumps(SIX)}\n```",
        f"◁think▷Perhaps {json.dumps(all_six('A'))}?◁/think▷{json.dumps(SIX)}",
        json.dumps({**SIX, "reason": "B names the side."}),
    ],
)
def test_the_strict_reading_takes_a_whole_object_behind_thoughts_and_in_a_fence(text: str) -> None:
    assert read_vote(text) == SIX


@pytest.mark.parametrize(
    "text",
    [
        f"{json.dumps(SIX)}{json.dumps(SIX)}",
        json.dumps({**SIX, "overall": "tie"}),
        json.dumps({**SIX, "overall": None}),
        json.dumps({**SIX, "overall": ["A"]}),
        json.dumps([SIX]),
        json.dumps(SIX)[:-1] + ', "overall": "A"}',
        f"<think>{json.dumps(SIX)}",
        f"{json.dumps(SIX)}<think>no</think>",
    ],
)
def test_the_strict_reading_takes_nothing_that_could_be_meant_otherwise(text: str) -> None:
    assert read_vote(text) is None


@pytest.mark.parametrize(
    "bait",
    [
        "1" * 100_000,
        "[" * 100_000,
        "{" * 100_000,
        "<think>" * 20_000,
        "```" + "\n" * 100_000,
        "accuracy" + " " * 100_000,
        '{"overall": ' * 20_000,
    ],
)
def test_bait_for_a_parser_is_no_vote_and_takes_no_time(bait: str) -> None:
    begin = time.process_time()
    for text in (bait, f"{bait}{json.dumps(SIX)}", f"{json.dumps(SIX)}{bait}"):
        assert read_vote(text) is None
        official.read_letters(text)
    assert time.process_time() - begin < 5  # a quadratic one takes minutes


def plainly(labels: list[tuple[str, dict[str, str]]], texts: list[tuple[str, Any]], dimension: str) -> float:
    """The rule in the plainest words, without a line of ours: count over the organ's ids, look each one up."""
    right_answers: dict[str, str] = {}
    for id_, human_answer in labels:
        right_answers[id_] = human_answer[dimension]
    chosen = dict(texts)
    hits = 0
    for id_, right in right_answers.items():
        if id_ not in chosen:
            continue
        if chosen[id_] is None:
            continue
        if dimension not in chosen[id_]:
            continue
        if chosen[id_][dimension] == right:
            hits += 1
    return round(hits / len(right_answers), 4)


def random_choices(chance: random.Random) -> dict[str, str] | None:
    """A verdict, a part of one, one with ties, or nothing readable."""
    if chance.random() < 0.15:
        return None
    return {dimension: chance.choice(["A", "B", "A", "B", "tie"]) for dimension in DIMENSIONS if chance.random() < 0.95}


def test_the_official_table_is_that_of_the_rules_on_a_thousand_random_runs() -> None:
    chance = random.Random(20260821)
    for _ in range(1000):
        labels, verdicts = {}, {}
        for organ in chance.sample(["abdomen", "brain", "eye", "foot"], chance.randint(1, 4)):
            ids = [f"q{n}" for n in range(chance.randint(1, 30))]
            ids += chance.choices(ids, k=chance.randint(0, 3))  # repeated ids
            labels[organ] = [(id_, {d: chance.choice("AB") for d in DIMENSIONS}) for id_ in ids]
            given = [(id_, random_choices(chance)) for id_ in ids if chance.random() < 0.9]
            verdicts[organ] = chance.sample(given, len(given))
        table = official.table(labels, verdicts)
        assert table == {
            organ: {dimension: plainly(rows, verdicts[organ], dimension) for dimension in DIMENSIONS}
            for organ, rows in labels.items()
        }
