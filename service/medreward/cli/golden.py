"""Golden triples of a model on disk: phantoms and the logits that the model gives them in this process."""

import base64
import json
from pathlib import Path
from typing import Final

from medreward.cli.client import open_client
from medreward.errors import ConfigurationError
from medreward.types import DIMENSIONS, InlineImage, Item

IMAGES: Final = 4
DIGITS: Final = 6  # of a logit


async def golden_json(folder: Path) -> str:
    """Returns golden.json for the model in the folder, scored in fp32.

    A phantom whose texts the model cannot read is left out. Fails with a ConfigurationError where none is left.
    """
    from medreward.lab.phantoms.golden import golden_images

    items = [
        (picture.png, Item(picture.question.text, (answer.text,), (InlineImage(picture.png),)))
        for picture in golden_images(IMAGES)
        for answer in picture.answers[:1]
    ]
    async with open_client(None, None, {"model": str(folder), "dtype": "fp32"}) as client:
        reply = await client.ask([item for _, item in items])
    rows = [
        {
            "image": base64.b64encode(png).decode(),
            "question": item.question,
            "response": item.responses[0],
            "logits": {d: None if (logit := score.logits[d]) is None else round(logit, DIGITS) for d in DIMENSIONS},
        }
        for (png, item), [score] in zip(items, reply.scores, strict=True)
        if score.logits
    ]
    if not rows:
        raise ConfigurationError(f"the model in {folder} cannot score a phantom: {reply.scores[0][0].message}")
    return json.dumps(rows, indent=1) + "\n"
