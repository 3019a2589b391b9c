"""Takes a policy's thoughts, which stand between tags, out of a text. The rules are in docs/text.md."""

import re
from collections.abc import Iterable
from typing import Final

Pair = tuple[str, str]  # the tag that opens a block of thoughts, and the one that closes it

#: Every server knows these; its own tags are added to them.
KNOWN_TAGS: Final[tuple[Pair, ...]] = (
    ("<think>", "</think>"),
    ("<thinking>", "</thinking>"),
    ("<reasoning>", "</reasoning>"),
    ("<thought>", "</thought>"),
    ("◁think▷", "◁/think▷"),
)


class ThinkingTags:
    """The known tags and a server's own ones; raises ValueError if one of these is empty or there twice."""

    def __init__(self, own: Iterable[Pair] = ()) -> None:
        pairs = (*KNOWN_TAGS, *own)
        tags = [tag for pair in pairs for tag in pair]
        for tag in tags:
            if not tag:
                raise ValueError("a thinking tag is empty")
            if tags.count(tag) > 1:
                raise ValueError(f"the thinking tag {tag} is given twice, or is a known one: leave it out")
        self._closing = dict(pairs)
        # Of two tags that begin alike, the longer one is meant.
        self._any = re.compile("|".join(re.escape(tag) for tag in sorted(tags, key=len, reverse=True)))

    def without_thoughts(self, text: str) -> str | None:
        """Returns the text outside of the blocks of thoughts, or None if it has no tag at all."""
        kept = self._kept(text)
        return None if kept is None else "".join(text[start:end] for start, end in kept).strip()

    def blanked(self, text: str) -> str:
        """Returns the text with a space for each character that `without_thoughts` takes out, so that places stay."""
        blanked: list[str] = []
        at = 0
        for start, end in self.thoughts(text):
            blanked += [text[at:start], " " * (end - start)]
            at = end
        return "".join([*blanked, text[at:]])

    def thoughts(self, text: str) -> list[tuple[int, int]]:
        """Returns the stretches that `without_thoughts` takes out, tags included: from where, and to where."""
        kept = self._kept(text)
        if kept is None:
            return []
        starts, ends = [0, *(end for _, end in kept)], [*(start for start, _ in kept), len(text)]
        return [(start, end) for start, end in zip(starts, ends, strict=True) if start < end]

    def _kept(self, text: str) -> list[tuple[int, int]] | None:
        """Returns the stretches outside of the blocks of thoughts, or None if the text has no tag at all."""
        if not self._any.search(text):
            return None
        kept: list[tuple[int, int]] = []
        start = 0
        awaited = ""  # the tag that closes the block we are in
        for match in self._any.finditer(text):
            tag = match.group()
            if awaited:
                if tag == awaited:
                    start, awaited = match.end(), ""
            elif tag in self._closing:
                kept.append((start, match.start()))
                awaited = self._closing[tag]
            else:  # a tag that closes: the prompt had opened this block
                kept.clear()
                start = match.end()
        if not awaited:
            kept.append((start, len(text)))
        return kept
