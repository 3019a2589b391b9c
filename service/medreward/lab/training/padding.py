"""Sentences that add nothing to an answer, in very many wordings: about the looking, the question, the reply."""

from typing import Final

from numpy.random import Generator

from medreward.lab.training.wording import one_of

Clause = tuple[tuple[str, ...], tuple[str, ...]]

CLAUSES: Final[tuple[Clause, ...]] = (
    (
        ("the image", "this scan", "the study", "the file", "the whole frame", "every corner of it", "the material"),
        ("was opened", "has been viewed", "was gone through", "was inspected", "has been studied", "was examined",
         "lay before me", "was brought up on a screen", "has been considered"),
    ),
    (
        ("the request", "your question", "what was asked", "the wording", "the task", "the prompt"),
        ("has been understood", "was taken as it stands", "was kept in mind", "is dealt with here", "was noted",
         "has been considered", "asks for one thing", "is the one that is meant", "came first"),
    ),
    (
        ("this reply", "the answer", "my statement", "the text here", "what stands here", "this response", "the above"),
        ("is kept plain", "was put into words", "refers to the request alone", "is given in English", "ends here",
         "can be gone over in a moment", "was typed by hand", "follows from that", "is all there is", "is for you"),
    ),
    (
        ("I", "the reader of this scan", "whoever answers", "one"),
        ("took the usual time", "went about it in the usual order", "had nothing else to go by", "kept to the task",
         "thought about it", "did what was asked", "worked through it", "started from the top"),
    ),
)  # fmt: skip
HOW: Final = (
    "", "", "", "with care", "from corner to corner", "twice", "in full", "without haste", "as usual", "for some time",
    "step by step", "in its own right", "to begin with", "in the end", "as far as that goes", "on the whole", "today",
    "by and large", "all the same", "on this occasion", "as such", "in so many words",
)  # fmt: skip
AND: Final = (" and ", ", and ", "; ", ", while ", ", after which ", ", so that ", " because ", ", and then ", ", as ")
TAGS: Final = (
    "As mentioned, this is what can be said.", "To sum up, the above is the answer to what was asked.", "That is all.",
    "It is good to ask such questions.", "Please note that this answer refers to the question.", "Kind regards.",
    "There are many things one could say in general.", "Thank you for the question.", "So much for that.",
    "In other words, see above.", "This is my answer.", "Feel free to ask again.", "As always, it took a moment.",
)  # fmt: skip


def neutral(dice: Generator) -> str:
    """Draws one sentence of one to three clauses."""
    if dice.random() < 0.1:
        return one_of(TAGS, dice)
    text = _clause(dice)
    for _ in range(dice.choice(3, p=(0.45, 0.4, 0.15))):
        text += one_of(AND, dice) + _clause(dice)
    return f"{text[0].upper()}{text[1:]}."


def _clause(dice: Generator) -> str:
    what, done = CLAUSES[dice.integers(len(CLAUSES))]
    return " ".join(filter(None, (one_of(what, dice), one_of(done, dice), one_of(HOW, dice))))
