"""The model that comes with the package."""

from base64 import b64encode
from io import BytesIO

import numpy as np
from PIL import Image

from medreward.artifacts.repository import bundled_models, list_models
from medreward.engine.files import open_verified
from medreward.settings import Settings
from serving import running

MB = 10**6


def test_it_is_the_default_and_whole_and_small() -> None:
    folder, manifest = open_verified(Settings())
    assert manifest.name == "medreward-mini"
    assert [manifest.name] == list_models(bundled_models())
    sizes = [path.stat().st_size for path in folder.iterdir() if path.is_file()]
    assert max(sizes) < 40 * MB
    assert sum(sizes) < 60 * MB


async def test_it_serves_its_golden_scores_and_says_what_it_cannot_know() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (224, 224, 3), dtype=np.uint8)
    file = BytesIO()
    Image.fromarray(noise).save(file, "PNG")
    items = [
        {"image": image, "question": "Is there a fracture?", "responses": ["No."]}
        for image in (None, b64encode(file.getvalue()).decode())
    ]
    async with running(model="medreward-mini") as server:  # which is ready only with the golden scores
        reply = (await server.rest.post("/score", json={"items": items})).raise_for_status().json()
    assert reply["model"]["evidence"] == "constructed"
    assert [result["flags"] for result in reply["results"]] == [["no_image"], ["out_of_scope"]]
