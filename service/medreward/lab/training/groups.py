"""Groups of graded answers, built from cases: right and wrong, in every manner, at every length."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from numpy.random import Generator

from medreward.lab.training.cases import Case
from medreward.lab.training.grades import (
    ELSEWHERE,
    EVADED,
    GENERIC,
    NOTHING,
    REFUSED,
    RIGHT,
    UNRELATED,
    WRONG,
    Answer,
    Grades,
    Group,
    changed,
)
from medreward.lab.training.library import Library
from medreward.lab.training.padding import neutral
from medreward.lab.training.tricks import Trickster, wrapped
from medreward.lab.training.wording import (
    BOILERPLATE,
    CERTAIN,
    EMPTY_TALK,
    EVASIONS,
    REFUSALS,
    STATED,
    cased,
    form,
    one_of,
    stated,
)

CONFIRMED: Final = {
    "plane": ("Is this the {} plane?", "Is the view {}?"),
    "modality": ("Is this {}?", "Was {} used here?"),
    "organ": ("Does the image show the {}?", "Is {} pictured?"),
    "region13": ("Was the {} imaged?", "Is this the {}?"),
    "finding": ("Is there {}?", "Does the image show {}?"),
    "abnormality": ("Is there {}?", "Does this look like {}?"),
    "abn": ("Is there {}?", "Does the image show {}?"),
    "pos": ("Is it {}?", "Is the location {}?"),
    "position": ("Is it the {}?", "Is the place {}?"),
}
MORE: Final = {"comprehensiveness": 0.4, "creativity": 0.1, "overall": 0.06}  # for two true facts beside the answer

#: Padding raises nothing, however long. It costs the answer as a whole nothing where it is harmless, and little where
#: it is beside the point.
NO_MORE: Final = {"relevance": -0.05, "creativity": -0.05}
BESIDE: Final = {"relevance": -0.15, "creativity": -0.1, "responsiveness": -0.05, "overall": -0.02}
NEUTRAL, BEFORE = 0.65, 0.3  # shares of the padded answers


@dataclass(frozen=True, slots=True)
class Builder:
    library: Library
    dice: Generator
    asides: Sequence[str] = ()  # sentences that are true, and about something else

    def twins(self, case: Case, other: Case) -> tuple[Group, Group]:
        """Gives one question, both answers and two images: the image alone decides."""
        how = form(self.dice) if self.dice.random() < 0.92 else stated(case.question, "{}", one_of(STATED, self.dice))
        likes = (case.answer, other.answer)
        say = [self._in(how, answer) for answer in likes]
        one, two = (
            [Answer(text, grades, like) for text, grades, like in zip(say, order, likes, strict=True)]
            for order in ((RIGHT, WRONG), (WRONG, RIGHT))
        )
        return self._group(case, case.question, one), self._group(other, case.question, two)

    def decide(self, case: Case) -> Group:
        """Sets the right answer against one or two plausible wrong ones in the same form."""
        wrong = {self.library.wrong(case, self.dice) for _ in range(1 if case.yes_or_no else 2)} - {None}
        texts = [case.answer, *sorted(filter(None, wrong))]
        each_its_own = self.dice.random() < 0.25
        how = self._how(case)
        answers = [
            Answer(self._in(self._how(case) if each_its_own else how, text), WRONG if place else RIGHT, text)
            for place, text in enumerate(texts)
        ]
        return self._group(case, case.question, answers)

    def confirm(self, case: Case) -> Group:
        """Asks for yes or no, of the right answer as often as of a wrong one."""
        kind = case.kind.split("/")[-2].lower()
        wrong = self.library.wrong(case, self.dice)
        if case.yes_or_no or wrong is None or kind not in CONFIRMED:
            return self.decide(case)
        true = bool(self.dice.random() < 0.5)
        question = one_of(CONFIRMED[kind], self.dice).format((case.answer if true else wrong).lower())
        how = form(self.dice)
        say = [self._in(how, text) for text in (("Yes", "No") if true else ("No", "Yes"))]
        return self._group(case, question, [Answer(say[0], RIGHT), Answer(say[1], WRONG)])

    def lengths(self, case: Case) -> Group:
        """Gives right and wrong, each short and long: length must not tell."""
        wrong = self.library.wrong(case, self.dice)
        facts = self._facts(case)
        answers = []
        for text, grades in ((case.answer, RIGHT), (wrong, WRONG)):
            if text is None:
                continue
            answers.append(Answer(self._say(case, text), grades, text))
            if facts and self.dice.random() < 0.7:
                gain = {name: by * (1.0 if grades is RIGHT else 0.5) for name, by in MORE.items()}
                answers.append(Answer(f"{self._say(case, text)} {facts}", changed(grades, **gain)))
            else:
                answers.append(self._more(self._say(case, text), grades, text))
        return self._group(case, case.question, answers)

    def padding(self, case: Case) -> Group:
        """Gives right and wrong in one form, bare and with any number of sentences that add nothing."""
        wrong = self.library.wrong(case, self.dice)
        how = self._how(case)
        answers = []
        for text, grades in ((case.answer, RIGHT), (wrong, WRONG)):
            if text is not None:
                said = self._in(how, text)
                answers += [Answer(said, grades, text), *(self._more(said, grades, text) for _ in range(2))]
        return self._group(case, case.question, answers)

    def tricks(self, case: Case) -> Group:
        """Gives right and wrong in one form, and tricks that must raise neither, mostly played with the wrong one."""
        wrong = self.library.wrong(case, self.dice)
        if wrong is None:
            return self.decide(case)
        how = self._how(case)
        answers = [Answer(self._in(how, text), grades, text) for text, grades in ((case.answer, RIGHT), (wrong, WRONG))]
        others = [self.library.wrong(case, self.dice) for _ in range(0 if case.yes_or_no else 4)]
        options = [*dict.fromkeys(filter(None, (case.answer, wrong, *others)))]
        for _ in range(4):
            right = bool(self.dice.random() < 0.3)
            base = answers[0 if right else 1]
            said = case.answer if right else wrong
            answers.append(Trickster(case.question, said, base, options, self._aside, self.dice).play())
        return self._group(case, case.question, answers)

    def forms(self, case: Case) -> Group:
        """Gives right and wrong, each in several forms that must not matter."""
        wrong = self.library.wrong(case, self.dice)
        answers = []
        for text, grades, count in ((case.answer, RIGHT, 3), (wrong, WRONG, 2)):
            if text is not None:
                said = [self._say(case, text), *(wrapped(text, self.dice) for _ in range(count))]
                answers += [Answer(each, grades, text) for each in said]
        return self._group(case, case.question, answers)

    def manner(self, case: Case) -> Group:
        """Sets the right answer beside others of all sorts."""
        makers: tuple[Callable[[Case], Answer | None], ...] = (
            self._complete, self._complete, self._elsewhere, self._elsewhere, self._elsewhere, self._unrelated,
            self._refusal, self._refusal, self._evasion, self._evasion, self._generic, self._nothing, self._nothing,
            self._padded, self._certain, self._certain_wrong, self._insight, self._half_false, self._echo, self._wrong,
        )  # fmt: skip
        chosen = self.dice.choice(len(makers), 4, replace=False)
        others = [makers[place](case) for place in chosen]
        if any(other is not None and other.grades is ELSEWHERE for other in others) and self.dice.random() < 0.6:
            first = Answer(stated(case.question, case.answer, one_of(STATED, self.dice)), RIGHT)
        else:
            first = Answer(self._say(case, case.answer), RIGHT)
        return self._group(case, case.question, [first, *filter(None, others)])

    def _complete(self, case: Case) -> Answer | None:
        facts = self._facts(case)
        return Answer(f"{self._say(case, case.answer)} {facts}", changed(RIGHT, **MORE)) if facts else None

    def _half_false(self, case: Case) -> Answer | None:
        beside = self.library.beside(case, 1, self.dice)
        false = self.library.wrong(beside[0], self.dice) if beside else None
        if false is None:
            return None
        text = f"{self._say(case, case.answer)} {stated(beside[0].question, false, STATED[0])}"
        return Answer(text, changed(RIGHT, accuracy=-0.5, comprehensiveness=0.05, overall=-0.35))

    def _elsewhere(self, case: Case) -> Answer | None:
        others = [other for other in self.library.beside(case, 4, self.dice) if other.kind != case.kind]
        if not others:
            return None
        text = stated(others[0].question, others[0].answer, one_of(STATED, self.dice))
        if not others[0].yes_or_no and self.dice.random() < 0.3:
            text = self._say(others[0], others[0].answer)
        return Answer(text, ELSEWHERE)

    def _unrelated(self, case: Case) -> Answer | None:
        other = self.library.any_case(self.dice)
        if other.kind == case.kind or other.image == case.image:
            return None
        return Answer(stated(other.question, other.answer, one_of(STATED, self.dice)), UNRELATED)

    def _refusal(self, case: Case) -> Answer:
        return Answer(self._some(REFUSALS, 2), REFUSED)

    def _evasion(self, case: Case) -> Answer:
        return Answer(self._some(EVASIONS, 3), EVADED)

    def _generic(self, case: Case) -> Answer:
        return Answer(self._some(BOILERPLATE, 3), GENERIC)

    def _nothing(self, case: Case) -> Answer:
        return Answer(one_of(EMPTY_TALK, self.dice), NOTHING)

    def _echo(self, case: Case) -> Answer:
        return Answer(case.question, NOTHING)

    def _padded(self, case: Case) -> Answer:
        return self._more(self._say(case, case.answer), RIGHT, case.answer)

    def _certain(self, case: Case) -> Answer:
        text = f"{self._say(case, case.answer)} {self._some(CERTAIN, 2)}"
        return Answer(text, changed(RIGHT, accuracy=-0.15, creativity=-0.1, overall=-0.2))

    def _certain_wrong(self, case: Case) -> Answer | None:
        wrong = self.library.wrong(case, self.dice)
        if wrong is None:
            return None
        text = f"{self._say(case, wrong)} {self._some(CERTAIN, 2)}"
        return Answer(text, changed(WRONG, creativity=-0.1, overall=-0.1))

    def _wrong(self, case: Case) -> Answer | None:
        wrong = self.library.wrong(case, self.dice)
        return Answer(self._say(case, wrong), WRONG) if wrong else None

    def _insight(self, case: Case) -> Answer | None:
        insight = self.library.insight(case.answer, self.dice)
        if insight is None:
            return None
        text = f"{self._say(case, case.answer)} {insight}"
        return Answer(text, changed(RIGHT, comprehensiveness=0.2, creativity=0.45, overall=0.1))

    def _more(self, said: str, grades: Grades, like: str) -> Answer:
        """Returns the answer with sentences around it that add nothing, or nothing about the image."""
        plain = self.dice.random() < NEUTRAL
        more = [neutral(self.dice) if plain else self._aside() for _ in range(self.dice.integers(1, 5))]
        stopped = said if said.endswith((".", "?", "!")) else f"{said}."
        before = int(self.dice.integers(0, len(more) + 1)) if self.dice.random() < BEFORE else 0
        text = " ".join([*more[:before], stopped, *more[before:]])
        return Answer(text, changed(grades, **(NO_MORE if plain else BESIDE)), like, 0.0 if plain else 0.1)

    def _aside(self) -> str:
        talk = self.asides if self.asides and self.dice.random() < 0.8 else BOILERPLATE
        return talk[int(self.dice.integers(len(talk)))]

    def _facts(self, case: Case) -> str:
        """Returns other things that are true of the image."""
        beside = self.library.beside(case, int(self.dice.integers(1, 4)), self.dice)
        how = one_of(STATED, self.dice)
        return " ".join(stated(other.question, other.answer, how) for other in beside)

    def _how(self, case: Case) -> str:
        return form(self.dice) if self.dice.random() < 0.92 else stated(case.question, "{}", one_of(STATED, self.dice))

    def _say(self, case: Case, answer: str) -> str:
        return self._in(self._how(case), answer)

    def _in(self, how: str, answer: str) -> str:
        return cased(how.replace("{}", answer), self.dice)

    def _some(self, texts: tuple[str, ...], most: int) -> str:
        return " ".join(dict.fromkeys(one_of(texts, self.dice) for _ in range(self.dice.integers(1, most + 1))))

    def _group(self, case: Case, question: str, answers: list[Answer]) -> Group:
        distinct = {answer.text: answer for answer in answers}
        return Group(case.image, question, tuple(distinct.values()))
