"""Heads for a checkpoint that has none. A question for each dimension follows the answer, and its logit is that of yes
less that of no.
"""

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
    """One head, which is the part of the language model's own head that tells yes from no.

    Opening fails with a ConfigurationError for a model or a word that this cannot be done with.
    """

    def __init__(self, verbaliser: Verbaliser, dimensions: Sequence[str], tokenizer: FileTokenizer, model: Any) -> None:
        if getattr(model.config.get_text_config(), "final_logit_softcapping", None):
            raise ConfigurationError("a model that caps its logits has no verbaliser heads")
        ids = {word: tokenizer.encode(word) for word in (verbaliser.yes, verbaliser.no)}
        for word, tokens in ids.items():
            if len(tokens) != 1:
                raise ConfigurationError(f"{word!r} is {len(tokens)} tokens, and a verbaliser's word must be one")
        rows = model.get_output_embeddings().weight.detach()
        yes, no = (whole(rows[ids[word][0]]).float() for word in (verbaliser.yes, verbaliser.no))
        self._weight: Tensor = yes - no
        ask = ["{question}" if piece == "{rubric}" else piece for piece in verbaliser.ask]
        text = TextEncoder(tokenizer, ask, ("{response}",), MANY, MANY)
        self.tails = [text.prompt(RUBRICS[dimension] + YES_OR_NO).ids for dimension in dimensions]

    def to(self, device: str) -> None:
        self._weight = self._weight.to(device)

    def __call__(self, hidden: Tensor) -> Tensor:
        return (hidden @ self._weight)[:, None]
