"""Image files: one written outcome each, the same through both doors, in bounded memory and time."""

import base64
import hashlib
import time
import zlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import NoReturn

import pytest
from PIL import Image

import pictures
from asking import NoNumbers, Numbers, over_grpc, over_rest, post
from cases import ANSWER, QUESTION, b64, item
from hostile import files
from hostile.outside import Outside, forget_highest, highest_memory, memory, outside
from medreward.api.rest.status import HTTP_STATUS
from medreward.encoding.image import probe
from medreward.engine.limits import image_limits
from medreward.errors import Code, ItemError
from medreward.settings import MIB, Settings

pytestmark = pytest.mark.slow

MOST_MEMORY = 96 * MIB  # an honest image of 9 million pixels takes half of it, a bomb would take gigabytes
MOST_SECONDS = 20.0  # milliseconds are usual; the aim is 100 ms

Make = Callable[[], bytes]

# `None`: scored
FILES: dict[str, tuple[Code | None, Make]] = {
    "B1 PNG of 50,000 x 50,000 zeros": (Code.IMAGE_TOO_LARGE, lambda: files.png_bomb(50_000)),
    "B1 JPEG that claims 65,000 x 65,000": (Code.IMAGE_TOO_LARGE, lambda: files.jpeg_that_claims(65_000)),
    "B1 WebP that claims 16,000 x 16,000": (Code.IMAGE_TOO_LARGE, lambda: files.webp_canvas(16_000)),
    "B2 GIF of 10,000 frames": (Code.IMAGE_KIND, lambda: files.animated_gif(10_000)),
    "B2 PNG of 10,000 frames": (Code.IMAGE_ANIMATED, lambda: files.animated_png(10_000)),
    "B2 WebP of 10,000 frames": (Code.IMAGE_ANIMATED, lambda: files.animated_webp(10_000)),
    "B3 text of 1 GiB": (Code.IMAGE_INVALID, lambda: files.grey_png(before=files.text_bomb())),
    "B3 profile of 1 GiB": (Code.IMAGE_INVALID, lambda: files.grey_png(before=files.profile_bomb())),
    "B3 text of 1 GiB after the pixels": (Code.IMAGE_INVALID, lambda: files.grey_png(after=files.text_bomb())),
    "B3 pixels of 1 GiB for 16 x 16": (None, lambda: files.png(16, 16, files.deflated_zeros(files.GIB))),
    "B3 JPEG of 250,000 empty segments": (Code.IMAGE_INVALID, lambda: files.jpeg_of_segments(250_000)),
    "B3 PNG of 80,000 empty chunks": (Code.IMAGE_INVALID, lambda: files.grey_png(before=files.chunks(80_000))),
    "B3 PNG of 80,000 empty chunks at its end": (
        Code.IMAGE_INVALID,
        lambda: files.grey_png(after=files.chunks(80_000)),
    ),
    "B3 PNG with EXIF of 60,000 entries": (
        None,
        lambda: files.grey_png(before=files.chunk(b"eXIf", files.large_exif(60_000))),
    ),
    "B3 honest PNG in pieces of 1 KiB": (None, lambda: files.png_in_pieces(3000, 1024)),
    "B4 1 x 1": (Code.IMAGE_TOO_SMALL, lambda: pictures.png(0, 1, 1)),
    "B4 3 x 3": (Code.IMAGE_TOO_SMALL, lambda: pictures.png(0, 3, 3)),
    "B4 3 x 5,000": (Code.IMAGE_TOO_SMALL, lambda: pictures.png(0, 3, 5000)),
    "B4 1 x 10,000": (Code.IMAGE_TOO_SMALL, lambda: pictures.png(0, 1, 10_000)),
    "B4 10,000 x 1": (Code.IMAGE_TOO_SMALL, lambda: pictures.png(0, 10_000, 1)),
    "B4 8 x 257": (Code.IMAGE_TOO_SMALL, lambda: pictures.png(0, 8, 257)),
    "B4 8 x 256": (None, lambda: pictures.png(0, 8, 256)),
    "B4 8 x 8": (None, lambda: pictures.png(0, 8, 8)),
    "B4 JPEG of 1 x 1": (Code.IMAGE_TOO_SMALL, lambda: pictures.encoded("JPEG", pictures.pixels(0, 1, 1))),
    "B5 truncated JPEG": (Code.IMAGE_INVALID, lambda: pictures.cut_short(pictures.jpeg())),
    "B5 JPEG without its end": (Code.IMAGE_INVALID, lambda: pictures.jpeg()[:-200]),
    "B5 truncated PNG": (Code.IMAGE_INVALID, lambda: pictures.cut_short(pictures.png())),
    "B5 PNG with a wrong checksum": (Code.IMAGE_INVALID, lambda: files.flipped(pictures.png(), -14)),
    "B5 PNG with wrong pixels": (Code.IMAGE_INVALID, lambda: files.flipped(pictures.png(), 500)),
    "B5 truncated WebP": (Code.IMAGE_INVALID, lambda: pictures.cut_short(pictures.webp())),
    "B6 16-bit grey": (None, files.deep_png),
    "B7 CMYK": (None, lambda: _converted("JPEG", "CMYK")),
    "B7 palette": (None, lambda: _converted("PNG", "P")),
    "B7 grey with alpha": (None, lambda: _converted("PNG", "LA")),
    "B7 colour with alpha": (None, lambda: _converted("PNG", "RGBA")),
    "B9 EPS": (Code.IMAGE_KIND, lambda: files.other("EPS")),
    "B9 PSD": (Code.IMAGE_KIND, lambda: b"8BPS\0\1" + bytes(200)),
    "B9 TIFF": (Code.IMAGE_KIND, lambda: files.other("TIFF")),
    "B9 JP2": (Code.IMAGE_KIND, lambda: files.other("JPEG2000")),
    "B9 FITS": (Code.IMAGE_KIND, lambda: b"SIMPLE  =                    T".ljust(2880)),
    "B9 SVG": (Code.IMAGE_KIND, lambda: b'<svg xmlns="http://www.w3.org/2000/svg"/>'),
    "B9 AVIF": (Code.IMAGE_KIND, lambda: files.other("AVIF")),
    "B9 ICO": (Code.IMAGE_KIND, lambda: files.other("ICO")),
    "B9 PDF": (Code.IMAGE_KIND, lambda: files.other("PDF")),
    "B9 BMP": (Code.IMAGE_KIND, lambda: files.other("BMP")),
    "B10 JPEG with a ZIP behind": (None, lambda: pictures.jpeg() + files.archive()),
    "B10 PNG with a ZIP behind": (None, lambda: pictures.png() + files.archive()),
    "B10 ZIP with a JPEG behind": (Code.IMAGE_KIND, lambda: files.archive() + pictures.jpeg()),
    "B10 GIF with a JAR behind": (Code.IMAGE_KIND, lambda: files.other("GIF") + files.archive()),
    "B10 DICOM with a program before": (None, lambda: files.with_preamble(b"MZ\x90\0")),
    "B10 DICOM with a TIFF before": (None, lambda: files.with_preamble(files.other("TIFF"))),
    "B10 DICOM with a JPEG before": (Code.IMAGE_INVALID, lambda: files.with_preamble(pictures.jpeg())),
    "B11 DICOM": (None, pictures.dicom),
    "B11 deflated DICOM": (Code.IMAGE_KIND, pictures.deflated_dicom),
    "B15 zero bytes": (Code.IMAGE_INVALID, lambda: b""),
}


def _converted(kind: str, mode: str) -> bytes:
    return files.saved(Image.fromarray(pictures.pixels()).convert(mode), kind)


@pytest.fixture(scope="module")
async def server(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Outside]:
    """Real processes, a real model, limits as they come; no score is remembered."""
    flags = ("--model", str(tiny_folder), "--decoders", "1", "--score-cache-bytes", "0")
    async with outside(tmp_path_factory.mktemp("hostile"), *flags) as server:
        yield server


async def numbers(server: Outside, file: bytes) -> Numbers:
    """The same through both doors."""
    body = {"items": [item(image=b64(file), response=ANSWER)]}
    rest, rpc = await over_rest(server, body), await over_grpc(server, body)
    assert rest == rpc
    assert isinstance(rest, list)
    assert isinstance(rest[0], Numbers)
    return rest[0]


@pytest.mark.parametrize(("code", "make"), FILES.values(), ids=FILES)
async def test_each_file_has_one_outcome_at_both_doors(server: Outside, code: Code | None, make: Make) -> None:
    good, file = await numbers(server, pictures.jpeg()), make()
    body = {"items": [item(image=b64(file), response=ANSWER)]}
    before = {pid: memory(pid) for pid in server.processes()}
    for pid in before:
        forget_highest(pid)
    start = time.perf_counter()
    if code:
        assert await over_rest(server, body) == [NoNumbers(0, 0, code, "/items/0/image")]
        assert await over_grpc(server, body) == [NoNumbers(0, 0, code, "/items/0/images/0")]
    else:
        await numbers(server, file)
    assert time.perf_counter() - start < MOST_SECONDS
    assert server.processes() == set(before)  # nobody died over it
    assert max(highest_memory(pid) - now for pid, now in before.items()) < MOST_MEMORY
    assert await numbers(server, pictures.jpeg()) == good


@pytest.mark.parametrize("code", [Code.IMAGE_TOO_LARGE, Code.IMAGE_KIND, Code.IMAGE_INVALID, Code.IMAGE_TOO_SMALL])
async def test_one_triple_gets_the_code_as_a_status(server: Outside, code: Code) -> None:
    file = next(make() for expected, make in FILES.values() if expected is code)
    reply = await post(server, {"image": b64(file), "question": QUESTION, "response": ANSWER})
    assert reply.status_code == HTTP_STATUS[code]
    assert (reply.json()["code"], reply.json()["field"]) == (code, "/image")
    stored = await server.rest.put("/v1/images", content=file)
    assert (stored.status_code, stored.json()["code"]) == (HTTP_STATUS[code], code)


def test_a_bomb_is_one() -> None:
    assert len(files.png_bomb(50_000)) < 3 * MIB
    zeros = zlib.decompress(files.deflated_zeros(100_000_001))
    assert (len(zeros), set(zeros)) == (100_000_001, {0})


async def test_16_bit_grey_scores_as_its_high_byte(server: Outside) -> None:
    assert await numbers(server, files.deep_png()) == await numbers(server, files.shallow_png())


async def test_all_eight_orientations_score_as_the_upright_one(server: Outside) -> None:
    upright = await numbers(server, files.turned_png(1))
    for orientation in range(2, 9):
        assert await numbers(server, files.turned_png(orientation)) == upright, orientation
    assert len({files.turned_png(orientation) for orientation in range(1, 9)}) == 8


async def test_what_stands_behind_or_before_an_image_changes_nothing(server: Outside) -> None:
    for dressed, plain in (
        (pictures.jpeg() + files.archive(), pictures.jpeg()),
        (files.with_preamble(b"MZ"), pictures.dicom()),
    ):
        assert await numbers(server, dressed) == await numbers(server, plain)


@pytest.mark.parametrize("make", [make for name, (_, make) in FILES.items() if name.startswith("B9")])
def test_no_other_decoder_is_called(monkeypatch: pytest.MonkeyPatch, make: Make) -> None:
    def called(*_: object) -> NoReturn:
        raise AssertionError

    Image.init()
    file = make()
    for kind in Image.OPEN:
        monkeypatch.setitem(Image.OPEN, kind, (called, None))
    with pytest.raises(ItemError) as refused:
        probe(file, image_limits(Settings()))
    assert refused.value.code is Code.IMAGE_KIND


# What only the JSON and multipart doors have


async def test_the_bytes_decide_whatever_type_and_name_are_given(server: Outside) -> None:
    form = {"question": QUESTION, "response": ANSWER}
    right = await numbers(server, pictures.jpeg())
    for name, kind in (("a.png", "image/png"), ("a.jpg", "image/jpeg"), ("a.exe", "text/html"), ("", "no type at all")):
        reply = await server.rest.post("/score", data=form, files={"image": (name or "x", pictures.jpeg(), kind)})
        assert tuple(reply.json()["results"][0]["logits"].values()) == right.logits
    wrong = {"image": ("a.png", files.other("GIF"), "image/png")}
    refused = await server.rest.post("/score", data=form, files=wrong)
    assert (refused.status_code, refused.json()["code"]) == (415, "image_kind")


SCAN = b64(pictures.jpeg())
URL_SAFE = base64.urlsafe_b64encode(b"\xff\xd8\xff\xfb\xf0").decode()
VARIANTS = {
    "B13 a line break": SCAN[:76] + "\n" + SCAN[76:],
    "B13 a line break at the end": SCAN + "\n",
    "B13 a space": SCAN[:4] + " " + SCAN[4:],
    "B13 the URL-safe alphabet": URL_SAFE,
    "B13 no padding": SCAN.rstrip("=") if SCAN.endswith("=") else SCAN[:-1],
    "B13 padding in the middle": "QQ==" + SCAN,
    "B13 a letter beyond ASCII": SCAN[:-1] + "é",
    "B13 a full-width letter": "\uff21" + SCAN[1:],
    "B13 a NUL": SCAN + "\0",
    "B13 a lone surrogate": SCAN + "\ud800",
    "B13 a data: URL": "data:image/jpeg;base64," + SCAN,
    "B14 a data: URL with a media type of 10 MB": "data:" + "a" * 10_000_000 + ";base64," + SCAN,
    "B15 an empty text": "",
    "B15 a space": " ",
}


@pytest.mark.parametrize("written", VARIANTS.values(), ids=VARIANTS)
async def test_base64_is_strict(server: Outside, written: str) -> None:
    for image in (written, {"base64": written}):
        answer = await over_rest(server, {"items": [item(image=image, response="a")]})
        assert answer == [NoNumbers(0, 0, "image_invalid", "/items/0/image")]


async def test_base64_beyond_the_limit_is_refused_before_it_is_decoded(server: Outside) -> None:
    most = Settings().image_bytes
    too_long = "A" * (most * 4 // 3 + 8)
    for image in (too_long, "!" * len(too_long)):  # the second would not decode
        answer = await over_rest(server, {"items": [item(image=image, response="a")]})
        assert answer == [NoNumbers(0, 0, "image_too_large", "/items/0/image")]


async def test_null_is_no_image(server: Outside) -> None:
    for body in (item(image=None, response="a"), item(response="a")):
        answer = await over_rest(server, {"items": [body]})
        assert isinstance(answer, list)
        assert isinstance(answer[0], Numbers)
        assert answer[0].flags == ("no_image",)


async def test_a_claimed_hash_is_looked_up_and_never_believed(server: Outside) -> None:
    mine, other = pictures.jpeg(1), pictures.jpeg(2)
    claimed = hashlib.sha256(other).hexdigest()
    stored = await server.rest.put("/v1/images", content=mine, headers={"X-Sha256": claimed, "ETag": claimed})
    assert stored.json()["sha256"] == hashlib.sha256(mine).hexdigest()
    answer = await over_rest(server, {"items": [item(image={"sha256": claimed}, response="a")]})
    assert answer == [NoNumbers(0, 0, "image_unknown", "/items/0/image")]
