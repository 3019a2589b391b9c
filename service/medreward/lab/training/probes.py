"""Ways to say the same: longer, padded, and changed without a change of meaning. None of them is learnt from."""

import re
from collections.abc import Callable, Mapping
from typing import Final

#: The same content in ever more words.
WORDED: Final = (
    "Read as {}.",
    "One would say {}.",
    "What one finds here is {}.",
    "In reply to what was asked: {}.",
    "Put into words, the reply to this would be {}.",
    "Having gone through the whole of the picture once, one arrives at {}.",
    "If one goes from one edge of the picture to the other and then writes the reply down, it reads {}.",
    "Taken all together, and with the question as it stands in mind, what one would write down as the reply is {}.",
)
#: What adds nothing, to be put behind a short answer.
FILLER: Final = (
    "The picture was looked at once.",
    "The question was read before the picture was looked at, and it was then answered in writing.",
    "These lines were written down in one go, and they are meant to be read together with the question above them.",
)
#: Two orders of the same clauses.
ORDERS: Final = ("As far as the picture goes, it reads {}.", "It reads {}, as far as the picture goes.")
#: Either may stand for the other.
SYNONYMS: Final = (
    ("x-ray", "radiograph"),
    ("xr", "radiography"),
    ("plain film", "plain radiograph"),
    ("ct", "computed tomography"),
    ("cta", "computed tomography angiography"),
    ("mri", "magnetic resonance imaging"),
    ("mr", "magnetic resonance"),
    ("mra", "magnetic resonance angiography"),
    ("ultrasound", "sonography"),
    ("us", "ultrasonography"),
    ("pet", "positron emission tomography"),
    ("ap", "anteroposterior"),
    ("pa", "posteroanterior"),
    ("axial", "transverse"),
    ("t1 weighted", "t1-weighted"),
    ("t2 weighted", "t2-weighted"),
    ("gi", "gastrointestinal"),
    ("cns", "central nervous system"),
    ("tumor", "tumour"),
    ("edema", "oedema"),
    ("hemorrhage", "haemorrhage"),
    ("esophagus", "oesophagus"),
    ("cardiomegaly", "enlarged heart"),
    ("bilateral", "both-sided"),
    ("grey", "gray"),
    ("1", "one"),
    ("2", "two"),
    ("3", "three"),
    ("4", "four"),
    ("5", "five"),
)
SIDES: Final = re.compile(r"\b(left|right)\b", re.IGNORECASE)

Change = Callable[[str, str], tuple[str, str] | None]  # content and answer to before and after


def worded(content: str) -> list[str]:
    return [form.format(content) for form in WORDED]


def padded(content: str) -> list[str]:
    """Returns a short answer, and the same with more and more behind it."""
    return [" ".join((WORDED[0].format(content), *FILLER[:count])) for count in range(len(FILLER) + 1)]


def upper_case(_: str, answer: str) -> tuple[str, str]:
    return answer, answer.upper()


def white_space(_: str, answer: str) -> tuple[str, str]:
    return answer, f" {answer.replace(' ', '  ')}\n"


def final_stop(_: str, answer: str) -> tuple[str, str]:
    return answer, answer.removesuffix(".") if answer.endswith(".") else f"{answer}."


def clause_order(content: str, _: str) -> tuple[str, str]:
    return ORDERS[0].format(content), ORDERS[1].format(content)


def list_order(content: str, _: str) -> tuple[str, str] | None:
    """Turns a list round; None if it speaks of sides, which may belong to what stands beside them."""
    parts = [part.strip() for part in content.split(",")]
    if len(parts) < 2 or SIDES.search(content):
        return None
    before, after = (WORDED[0].format(", ".join(order)) for order in (parts, parts[::-1]))
    return before, after


def synonym(_: str, answer: str) -> tuple[str, str] | None:
    """Exchanges the first word that has a synonym; None if there is none."""
    for pair in SYNONYMS:
        for old, new in (pair, pair[::-1]):
            after, count = re.subn(rf"(?<![\w-]){re.escape(old)}(?![\w-])", new, answer, flags=re.IGNORECASE)
            if count:
                return answer, after
    return None


CHANGES: Final[Mapping[str, Change]] = {
    "upper case": upper_case,
    "white space": white_space,
    "final stop": final_stop,
    "order of clauses": clause_order,
    "order of a list": list_order,
    "synonym or abbreviation": synonym,
}
