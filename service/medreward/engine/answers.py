"""What is scored of one response: the response itself, and answers made of it that say more about it."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from medreward.backends.base import HeadOutputs
from medreward.encoding.sentences import Span, without
from medreward.encoding.text import EncodedText, TextEncoder
from medreward.engine.scoring import Scoring, aside, contribution, step
from medreward.errors import ItemError
from medreward.types import Explain, Failed, Flag, Options, Result, Steps, Thinking, TooLong

#: What came of one triple, and whether it was known before.
End = tuple[HeadOutputs | ItemError, bool]


@dataclass(frozen=True, slots=True)
class Branch:
    """An answer that is scored beside that of a response, because it says something about a stretch of the response."""

    stretch: Span
    text: EncodedText | ItemError


@dataclass(frozen=True, slots=True)
class Answer:
    """A response as token ids, with its branches. Those of a kind are None where they were not asked for."""

    place: int  # among the item's responses
    text: EncodedText
    without: tuple[Branch, ...] | None = None  # for each sentence, the answer without it; None for a cut response too
    steps: tuple[Branch, ...] | None = None  # the response up to the end of each step, the longest first; the same
    unthinking: Branch | None = None  # the response without its thoughts

    def texts(self) -> list[EncodedText]:
        """Returns all that is to be scored: the answer itself, then those of its branches that could be encoded."""
        unthinking = [self.unthinking] if self.unthinking else []
        branches = (*(self.without or ()), *(self.steps or ()), *unthinking)
        return [self.text, *(branch.text for branch in branches if isinstance(branch.text, EncodedText))]


def answer_of(place: int, prompt: EncodedText, response: str, options: Options, text: TextEncoder) -> Answer:
    """Returns the response as the options ask for it. Raises ItemError where it cannot be scored, or has not the steps
    that are asked for.
    """

    def branch(stretch: Span, response: str, options: Options) -> Branch:
        try:
            return Branch(stretch, text.answer(prompt, response, options))
        except ItemError as error:
            return Branch(stretch, error)

    encoded = text.answer(prompt, response, options)
    ends = text.step_ends(response, options)
    answer = Answer(place, encoded)
    if options.thinking is Thinking.BOTH:
        stripped = branch((0, len(response)), response, replace(options, thinking=Thinking.STRIP))
        answer = replace(answer, unthinking=stripped)
    # Of a cut response the beginning is not all that was scored, and without a sentence it would be cut elsewhere.
    if Flag.CUT_MIDDLE in encoded.flags:
        return answer
    if options.explain is Explain.SENTENCES:
        spans = text.sentences(response, options)
        rest = (branch(span, without(response, spans, n), options) for n, span in enumerate(spans))
        answer = replace(answer, without=tuple(rest))
    if options.steps is not Steps.NONE:
        # The longest first: what runs first is what the others share their beginnings with.
        cut = (branch((0, end), response[:end], replace(options, too_long=TooLong.ERROR)) for end in reversed(ends))
        answer = replace(answer, steps=tuple(cut))
    return answer


def branches_of(responses: Iterable[str], options: Options, text: TextEncoder) -> int:
    """Returns how many branches the answers of these responses have. One that has not the steps asked for has none."""
    count = 0
    for response in responses:
        try:
            count += len(text.step_ends(response, options))
        except ItemError:
            continue
        count += len(text.sentences(response, options)) if options.explain is Explain.SENTENCES else 0
        count += options.thinking is Thinking.BOTH
    return count


def result_of(i: int, answer: Answer, ends: Iterator[End], flags: tuple[Flag, ...], scoring: Scoring) -> Result:
    """Returns what is answered about one response. It takes from `ends` what came of each of the answer's texts."""

    def result(text: EncodedText | ItemError, flags: tuple[Flag, ...] = ()) -> Result:
        outcome, cached = (text, False) if isinstance(text, ItemError) else next(ends)
        if isinstance(outcome, ItemError):
            return Failed(i, answer.place, outcome, flags)
        return scoring.result(i, answer.place, outcome, flags, cached)

    def results(branches: Sequence[Branch]) -> list[tuple[Branch, Result]]:
        return [(branch, result(branch.text)) for branch in branches]

    whole = result(answer.text, tuple(dict.fromkeys((*flags, *answer.text.flags))))
    without_each, cut_at_each = results(answer.without or ()), results(answer.steps or ())
    unthinking = None
    if answer.unthinking:
        text = answer.unthinking.text
        unthinking = result(text, () if isinstance(text, ItemError) else text.flags)
    if isinstance(whole, Failed):
        return whole
    return replace(
        whole,
        explain=None
        if answer.without is None
        else tuple(contribution(*branch.stretch, whole, rest) for branch, rest in without_each),
        steps=None
        if answer.steps is None
        else tuple(step(branch.stretch[1], cut) for branch, cut in reversed(cut_at_each)),
        without_thinking=aside(unthinking) if unthinking else None,
    )
