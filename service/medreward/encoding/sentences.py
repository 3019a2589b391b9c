"""Finds the sentences and the paragraphs of a response. The rules, and what they get wrong, are in docs/explain.md."""

import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from typing import Final

MOST: Final = 32  # sentences of a response that are told apart, unless the server says otherwise
MOST_STEPS: Final = 64  # the same of its steps

#: Where a sentence or a run of sentences begins and ends in its text, in characters; the end is exclusive.
Span = tuple[int, int]

BLANK_LINES: Final = re.compile(r"\n\s*\n")
WORD: Final = re.compile(r"\S+")
STOPS: Final = (".", "!", "?", "…", "؟", "।")
QUOTES: Final = "\"'«»\u2018\u2019\u201c\u201d"
CLOSERS: Final = f")]}}*_{QUOTES}"  # what may stand behind the stop and still belong to the sentence
#: Chinese and Japanese put no space behind their full stop.
FULL_STOP: Final = re.compile(rf"[。｡\uff01\uff1f]+[」』\uff09{re.escape(CLOSERS)}]*")
MARKER: Final = re.compile(r"[(\[]?(?:[0-9]{1,3}|[A-Za-z]|[ivxIVX]{1,4})[.)\]]")  # 1. (2) a) B. iv.
INITIAL: Final = re.compile(r"[A-Z]\.")
#: Behind these a sentence always goes on.
GOES_ON: Final = re.compile(
    r"drs?|mrs?|ms|prof|st|e\.?g|i\.?e|vs|cf|ca|approx|figs?|eq|refs?|vol|pp|eds?|resp|incl|esp|viz|u\.s", re.IGNORECASE
)
#: Behind these a sentence goes on if a small letter follows.
MAY_GO_ON: Final = re.compile(
    r"etc|al|mm|cm|[md]l|mc?g|kg|hrs?|mins?|sec|wks?|mo|yrs?|max|temp|wt|ht|pts?|[hdtrsf]x|[btq]id|prn|dept|nos?|spp",
    re.IGNORECASE,
)


def split(text: str) -> list[Span]:
    """Returns the sentences in order, without the white space around them. Empty for a text of white space alone."""
    return _pieces(text, _ends(text))


def paragraphs(text: str) -> list[Span]:
    """Returns what blank lines part, in order, without the white space around it. Empty for white space alone."""
    return _pieces(text, (match.start() for match in BLANK_LINES.finditer(text)))


def merged(spans: Sequence[Span], most: int) -> list[Span]:
    """Returns at most so many runs of neighbouring sentences, which have as nearly as possible as many each."""
    parts = min(most, len(spans))
    bounds = [len(spans) * part // parts for part in range(parts + 1)] if parts else []
    return [(spans[first][0], spans[end - 1][1]) for first, end in pairwise(bounds)]


def without(text: str, spans: Sequence[Span], place: int) -> str:
    """Returns the text without one of its spans and the white space after it; for the last one, before it.

    It is empty where there is no other span.
    """
    if len(spans) == 1:
        return ""
    if place == len(spans) - 1:
        return text[: spans[place - 1][1]] + text[spans[place][1] :]
    return text[: spans[place][0]] + text[spans[place + 1][0] :]


def _pieces(text: str, ends: Iterable[int]) -> list[Span]:
    spans: list[Span] = []
    start = 0
    for end in (*ends, len(text)):
        piece = text[start:end]
        if piece.strip():
            spans.append((start + len(piece) - len(piece.lstrip()), start + len(piece.rstrip())))
        start = end
    return _joined_to_words(text, spans)


def _ends(text: str) -> Iterator[int]:
    """Yields each place behind which another sentence may begin."""
    words = [match.span() for match in WORD.finditer(text)]
    before = ""  # the word before, within the same sentence; empty at the beginning of one
    for place, (start, end) in enumerate(words):
        word = text[start:end]
        for stop in FULL_STOP.finditer(word):
            yield start + stop.end()
        following = words[place + 1][0] if place + 1 < len(words) else len(text)
        after = text[following : following + 1]
        if _breaks_line(text[end:following], after) or _stops(word, before, after):
            yield end
            before = ""
        else:
            before = word


def _breaks_line(gap: str, after: str) -> bool:
    """Returns whether a new sentence begins on the next line. A line that goes on with a small letter was wrapped."""
    lines = gap.count("\n")
    return lines > 1 or (lines == 1 and not after.islower())


def _stops(word: str, before: str, after: str) -> bool:
    """Returns whether a sentence ends with this word."""
    bare = word.rstrip(CLOSERS)
    if not bare.endswith(STOPS):
        return False
    if not bare.endswith("."):
        return True
    if not before and MARKER.fullmatch(word):
        return False
    name = bare.rstrip(".").lstrip(f"([{{*_{QUOTES}")
    if name.isupper() and len(name) > 1 and "." not in name:
        return True  # MS. and DR. are diseases, Ms. and Dr. are people
    if GOES_ON.fullmatch(name) or (name.lower() == "no" and before and after.isdigit()):
        return False
    if INITIAL.fullmatch(bare) and (INITIAL.fullmatch(before) or GOES_ON.fullmatch(before.rstrip("."))):
        return False
    may_go_on = MAY_GO_ON.fullmatch(name) or len(name) == 1 or "." in name or bare.endswith("..")
    return not (may_go_on and after.islower())


def _joined_to_words(text: str, spans: Sequence[Span]) -> list[Span]:
    """Returns the spans; one without a letter or a digit, such as a rule or a bullet, becomes part of the next."""
    joined: list[Span] = []
    waiting: int | None = None
    for start, end in spans:
        if not any(map(str.isalnum, text[start:end])):
            waiting = start if waiting is None else waiting
            continue
        joined.append((start if waiting is None else waiting, end))
        waiting = None
    if waiting is not None:  # nothing follows: it becomes part of the one before, if there is one
        last = spans[-1][1]
        joined[-1:] = [(joined[-1][0] if joined else waiting, last)]
    return joined
