"""Scores of a checkpoint without heads: a question for each dimension after the answer, logit(yes) - logit(no)."""

from collections.abc import Sequence
from typing import Any, Final

from torch import Tensor

from medreward.artifacts.manifest import Verbaliser
from medreward.backends.torch_vlm.sharing import whole
from medreward.encoding.text import FileTokenizer, TextEncoder
from medreward.errors import ConfigurationError

#: In this wording as `rubrics = 1` of the manifest names it; another wording is another number.
RUBRICS: Final = {
    "accuracy": "Is every medical claim of the answer right, against the image and settled knowledge?",
    "relevance": "Is the answer about this image and this question, with nothing beside the point?",
    "comprehensiveness": "Does the answer hold all that the question needs, with nothing needed left out?",
    "creativity": "Does the answer give useful insight beyond the minimum, without inventing anything?",
    "responsiveness": "Does the answer say directly what was asked, in the form that was asked for?",
    "overall": "Would a physician hand this answer on?",
}
YES_OR_NO: Final = " Reply with yes or no."
MANY: Final = 10**6


class VerbaliserHeads:
    """One head; of the language model's own head it keeps what tells yes from no."""

    def __init__(self, verbaliser: Verbaliser, dimensions: Sequence[str], tokenizer: FileTokenizer, model: Any) -> None:
        if getattr(model.config.get_text_config(), "final_logit_softcapping", None):
            raise ConfigurationError("a model that caps its logits has no verbaliser heads")
        yes, no = (_one_token(tokenizer, word) for word in (verbaliser.yes, verbaliser.no))
        rows = model.get_output_embeddings().weight.detach()
        self._weight: Tensor = whole(rows[yes]).float() - whole(rows[no]).float()
        ask = ["{question}" if piece == "{rubric}" else piece for piece in verbaliser.ask]
        text = TextEncoder(tokenizer, ask, ("{response}",), MANY, MANY)
        self.tails = [text.prompt(RUBRICS[dimension] + YES_OR_NO).ids for dimension in dimensions]

    def __call__(self, hidden: Tensor) -> Tensor:
        return (hidden @ self._weight)[:, None]


def _one_token(tokenizer: FileTokenizer, word: str) -> int:
    ids = tokenizer.encode(word)
    if len(ids) != 1:
        raise ConfigurationError(f"{word!r} is {len(ids)} tokens, and a verbaliser's word must be one")
    return ids[0]
