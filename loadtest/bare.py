"""The least a server in Python can do with such a request: take the JSON, decode the image, answer."""

import io

import pybase64
from fastapi import FastAPI
from PIL import Image
from pydantic import BaseModel

SIDE = 224

app = FastAPI()


class Triple(BaseModel):
    image: str
    question: str
    response: str


def decode(image: str) -> bytes:
    picture = Image.open(io.BytesIO(pybase64.b64decode(image, validate=True)), formats=["JPEG"])
    picture.draft("RGB", (SIDE, SIDE))
    return picture.resize((SIDE, SIDE), Image.Resampling.BILINEAR).tobytes()


@app.get("/readyz")
async def ready() -> dict[str, bool]:
    return {"ready": True}


@app.post("/inline")
async def inline(triple: Triple) -> dict[str, float]:
    decode(triple.image)
    return {"score": 0.5}


@app.post("/threads")
def threads(triple: Triple) -> dict[str, float]:
    decode(triple.image)
    return {"score": 0.5}
