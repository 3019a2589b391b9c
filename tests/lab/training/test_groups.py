"""What training learns from: only training groups, no label given away, the grades that the definitions ask for."""

from pathlib import Path

import numpy as np
import pytest

from lab.training.shapes import write_lines
from medreward.lab.training.cases import Case, read_cases
from medreward.lab.training.corpus import Corpus
from medreward.lab.training.grades import Group
from medreward.lab.training.groups import Builder
from medreward.lab.training.library import Library, overlap
from medreward.lab.training.padding import neutral
from medreward.lab.training.probes import FILLER
from medreward.types import DIMENSIONS

ACCURACY, COMPREHENSIVENESS, OVERALL = (DIMENSIONS.index(name) for name in ("accuracy", "comprehensiveness", "overall"))
ORGANS = ("liver", "left kidney", "heart and great vessels", "lung", "spleen", "brain")


def many(library: Library, count: int = 150) -> list[Group]:
    builder = Builder(library, np.random.default_rng(3))
    groups: list[Group] = []
    for _ in range(count):
        case = library.any_case(builder.dice)
        groups += [builder.decide(case), builder.lengths(case), builder.manner(case)]
        if (other := library.twin(case, builder.dice)) is not None:
            groups += builder.twins(case, other)
    return groups


@pytest.fixture(scope="module")
def library() -> Library:
    dice = np.random.default_rng(0)
    cases = []
    for image in range(60):
        organ = ORGANS[dice.integers(len(ORGANS))]
        present = ("Yes", "No")[dice.integers(2)]
        for question, answer in (("Which organ is shown?", organ), ("Is there a cyst?", present), ("Plane?", "axial")):
            kind = f"set/{question}/{'closed' if answer in ('Yes', 'No') else 'open'}"
            cases.append(Case(f"{image}.png", question, answer, kind, kind, str(image), organ))
    return Library(cases, {})


def row(group: int, split: str, question: str = "What is it?", answer: str = "A liver.") -> dict[str, object]:
    return {"image": f"{group}.jpg", "question": question, "answer": answer, "group": group, "split": split}


def test_nothing_of_a_held_out_group_is_learnt_from(tmp_path: Path) -> None:
    for name, rows in {
        "one": [row(1, "train"), row(2, "dev"), row(3, "train")],
        "two": [row(2, "train"), row(4, "train", answer="yes")],  # 2 is held out in the other set
    }.items():
        (tmp_path / name).mkdir()
        write_lines(tmp_path / name / "qa.jsonl", rows)
    assert {case.group for case in read_cases(tmp_path)} == {"1", "3", "4"}


def test_no_picture_of_the_dev_pairs_is_among_the_cases(corpus: Corpus) -> None:
    held_out = {pair.image for pair in corpus.dev}
    assert held_out
    assert held_out.isdisjoint(case.image for case in corpus.library.cases)


def test_length_does_not_tell_right_from_wrong(library: Library) -> None:
    told = [
        (len(answer.text), answer.grades[ACCURACY])
        for group in many(library)
        for answer in group.answers
        if answer.grades[ACCURACY] is not None
    ]
    lengths, accuracy = np.array(told, np.float64).T
    assert abs(np.corrcoef(np.log(lengths), accuracy)[0, 1]) < 0.2


def test_twins_leave_the_decision_to_the_image(library: Library) -> None:
    builder = Builder(library, np.random.default_rng(0))
    case = library.by_meaning["set/Which organ is shown?/open"][0]
    other = library.twin(case, builder.dice)
    assert other is not None
    one, two = builder.twins(case, other)
    assert (one.question, [a.text for a in one.answers]) == (two.question, [a.text for a in two.answers])
    assert one.image != two.image
    assert [a.grades for a in one.answers] == [a.grades for a in two.answers][::-1]


def test_a_wrong_answer_is_not_right_in_other_words(library: Library) -> None:
    dice = np.random.default_rng(0)
    for case in library.cases:
        wrong = library.wrong(case, dice)
        assert wrong is None or not overlap(wrong, case.answer)
    assert library.wrong(library.by_meaning["set/Plane?/open"][0], dice) is None


def test_yes_is_answered_by_no(library: Library) -> None:
    case = next(case for case in library.cases if case.answer == "Yes")
    assert library.wrong(case, np.random.default_rng(0)) == "No"


def test_grades_follow_the_definitions(library: Library) -> None:
    builder = Builder(library, np.random.default_rng(1))
    for case in library.cases * 2:
        right, *others = builder.manner(case).answers
        for other in others:
            assert all(grade is None or 0 <= grade <= 1 for grade in other.grades)
            if other.grades[ACCURACY] == 0:  # wrong, however said
                assert overall(other.grades) < overall(right.grades)


def test_padding_moves_neither_accuracy_nor_the_whole_however_long(library: Library) -> None:
    builder = Builder(library, np.random.default_rng(2), ["Bones store calcium.", "A fever is a raised temperature."])
    longest, told = 0, []
    for case in library.cases * 3:
        group = builder.padding(case)
        bare = group.answers[0]
        for answer in group.answers[1:]:
            if bare.text.rstrip(".") in answer.text and answer.grades[ACCURACY] == 1:
                assert overall(bare.grades) - overall(answer.grades) < 0.03
                assert answer.grades[COMPREHENSIVENESS] == bare.grades[COMPREHENSIVENESS]
                longest = max(longest, len(answer.text) - len(bare.text))
            told.append((len(answer.text), overall(answer.grades)))
    assert longest > 200
    lengths, graded = np.array(told, np.float64).T
    assert abs(np.corrcoef(lengths, graded)[0, 1]) < 0.2


def test_padding_comes_in_many_wordings_and_none_of_the_measured_ones() -> None:
    dice = np.random.default_rng(0)
    said = {neutral(dice) for _ in range(1000)}
    assert len(said) > 800
    assert {len(text) // 50 for text in said} >= {0, 1, 2}
    assert said.isdisjoint(FILLER)


def overall(grades: tuple[float | None, ...]) -> float:
    grade = grades[OVERALL]
    assert grade is not None
    return grade
