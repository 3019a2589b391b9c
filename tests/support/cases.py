"""Score requests as REST has them in JSON, each with what must come of it. The gRPC form is made from the same JSON."""

import base64
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import pictures
from medreward.proto import reward_pb2 as pb

Body = dict[str, Any]

QUESTION = "Is there a fracture of the left rib?"
ANSWER = "Yes, the chest radiograph shows a fracture of the left sixth rib."
LONG = "the scan shows no lesion " * 1000
THOUGHT = "<think>the rib looks broken</think>" + ANSWER
UNKNOWN_HASH = "0" * 64


@dataclass(frozen=True)
class Bad:
    """A response that is not scored. `field` is the pointer as REST has it in the grouped form, below the item."""

    code: str
    field: str


@dataclass(frozen=True)
class Ok:
    flags: tuple[str, ...] = ()


@dataclass(frozen=True)
class Refused:
    """The whole request fails."""

    code: str
    field: str


Outcome = Ok | Bad


@dataclass(frozen=True)
class Case:
    name: str
    body: Body
    outcomes: Sequence[Outcome] = ()
    refused: Refused | None = None
    metadata: dict[str, str] = field(default_factory=dict)


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


SCAN = b64(pictures.jpeg())


def triple(name: str, outcome: Outcome | Refused = Ok(), /, **changes: Any) -> Case:
    body = {"image": SCAN, "question": QUESTION, "response": ANSWER, **changes}
    body = {key: value for key, value in body.items() if value is not ...}
    if isinstance(outcome, Refused):
        return Case(name, body, refused=outcome)
    return Case(name, body, [outcome])


def item(**changes: Any) -> Body:
    """Without an image, where none is given."""
    return {"question": QUESTION, **changes}


def grouped(name: str, *items: Body, expect: Sequence[Outcome], **beside: Any) -> Case:
    return Case(name, {"items": list(items), **beside}, expect)


def refused(name: str, code: str, pointer: str, *items: Body, **beside: Any) -> Case:
    return Case(name, {"items": list(items), **beside}, refused=Refused(code, pointer))


def bad_image(name: str, code: str, file: bytes) -> Case:
    return triple(name, Bad(code, "image"), image=b64(file))


NO_IMAGE = Ok(("no_image",))
BAD_IMAGE = Bad("image_kind", "image")
EMPTY_QUESTION = Bad("empty_question", "question")
BAD_ANSWER = Bad("bad_text", "response")

GOOD = [
    triple("a triple"),
    triple("PNG", image=b64(pictures.png())),
    triple("WebP", image=b64(pictures.webp())),
    triple("DICOM", image=b64(pictures.dicom())),
    triple("image as an object", image={"base64": SCAN}),
    triple("images with one entry", image=..., images=[SCAN]),
    triple("images with none", NO_IMAGE, image=..., images=[]),
    triple("no image", NO_IMAGE, image=...),
    triple("null image", NO_IMAGE, image=None),
    triple("no turns", history=[]),
    triple("empty response", Ok(("empty_response",)), response=""),
    triple("white response", Ok(("empty_response",)), response=" \n\t "),
    triple("long question", question="which " * 100),
    triple("unicode", question="Есть ли перелом? 骨折がありますか 🩻", response="Да — é́ 👩🏽‍⚕️ 是的 \u202e\ufeff"),
    triple("newlines and tabs", response="1.\tYes\r\n2.\tNo"),
    triple("text that looks like JSON", response='{"score": 1.0, "flags": []}'),
    triple("control tokens in the response", Ok(("control_tokens",)), response="fine [SEP] <|image|>"),
    triple("control tokens in the question", Ok(("control_tokens",)), question="[CLS] what is this?"),
    triple("other models' control tokens", question="<|im_start|>system", response="</s><image>"),
    triple("control tokens, no image", Ok(("no_image", "control_tokens")), image=..., response="[SEP]"),
    triple("cut in the middle", Ok(("cut_middle",)), response=LONG, options={"too_long": "cut_middle"}),
    triple("short text is not cut", options={"too_long": "cut_middle"}),
    triple("thinking stripped", Ok(("thinking_stripped",)), response=THOUGHT, options={"thinking": "strip"}),
    triple("thinking kept", response=THOUGHT, options={"thinking": "keep"}),
    triple("no thinking to strip", options={"thinking": "strip"}),
    triple(
        "nothing but thinking",
        Ok(("thinking_stripped", "empty_response")),
        response="<think>hm</think>",
        options={"thinking": "strip"},
    ),
    triple(
        "stripped, then short enough",
        Ok(("thinking_stripped",)),
        response=f"<think>{LONG}</think>yes",
        options={"too_long": "error", "thinking": "strip"},
    ),
    triple("explained", options={"explain": "sentences"}),
    triple("not explained", options={"explain": "none"}),
    triple("steps by sentence", options={"steps": "sentences"}),
    triple("steps by paragraph", options={"steps": "paragraphs"}),
    triple("steps that are named", options={"steps": [0, 3, len(ANSWER)]}),
    triple("no steps", options={"steps": "none"}),
    triple("thinking both ways", response=THOUGHT, options={"thinking": "both"}),
    triple("empty options", options={}),
    triple("one weight", weights={"accuracy": 2}),
    triple("several weights", weights={"accuracy": 2, "overall": 0.5, "creativity": 1e-3}),
    triple("negative weights", weights={"accuracy": -1.5, "overall": 3}),
    triple("zero weights", weights={"overall": 0}),
    triple("no weights named", weights={}),
    triple(
        "all six weights",
        weights={
            "accuracy": 1,
            "relevance": 2,
            "comprehensiveness": 3,
            "creativity": 4,
            "responsiveness": 5,
            "overall": 6,
        },
    ),
    grouped("group of one by alias", item(image=SCAN, response=ANSWER), expect=[Ok()]),
    grouped("group of four", item(image=SCAN, responses=["a", "b", "c", ANSWER]), expect=[Ok()] * 4),
    grouped("equal responses", item(image=SCAN, responses=[ANSWER] * 3), expect=[Ok()] * 3),
    grouped("text only group", item(responses=["yes", "no"]), expect=[NO_IMAGE] * 2),
    grouped(
        "two images", item(image=SCAN, response="a"), item(image=b64(pictures.png(5)), response="a"), expect=[Ok()] * 2
    ),
    grouped(
        "one image, two questions",
        item(image=SCAN, response="a"),
        item(image=SCAN, question="And now?", response="a"),
        expect=[Ok()] * 2,
    ),
    grouped("with and without image", item(image=SCAN, response="a"), item(response="a"), expect=[Ok(), NO_IMAGE]),
    grouped("as many items as allowed", *[item(response=f"answer {n}") for n in range(64)], expect=[NO_IMAGE] * 64),
    grouped(
        "as many responses as allowed", item(responses=[f"answer {n}" for n in range(256)]), expect=[NO_IMAGE] * 256
    ),
    grouped(
        "short and long together",
        item(image=SCAN, responses=["no", LONG[:1000], ""]),
        expect=[Ok(), Ok(), Ok(("empty_response",))],
    ),
    grouped(
        "weights over many",
        item(image=SCAN, responses=["a", "b"]),
        item(response="c"),
        expect=[Ok(), Ok(), NO_IMAGE],
        weights={"relevance": 1, "accuracy": -1},
    ),
]

BAD = [
    bad_image("damaged JPEG", "image_invalid", pictures.cut_short(pictures.jpeg())),
    bad_image("damaged PNG", "image_invalid", pictures.cut_short(pictures.png())),
    bad_image("damaged WebP", "image_invalid", pictures.cut_short(pictures.webp())),
    bad_image("damaged DICOM", "image_invalid", pictures.cut_short(pictures.dicom())),
    bad_image("empty file", "image_invalid", b""),
    bad_image("text file", "image_kind", b"hello"),
    bad_image("GIF", "image_kind", pictures.encoded("GIF", pictures.pixels())),
    bad_image("TIFF", "image_kind", pictures.encoded("TIFF", pictures.pixels())),
    bad_image("BMP", "image_kind", pictures.encoded("BMP", pictures.pixels())),
    bad_image("deflated DICOM", "image_kind", pictures.deflated_dicom()),
    bad_image("animated PNG", "image_animated", pictures.animated("PNG")),
    bad_image("animated WebP", "image_animated", pictures.animated("WEBP")),
    bad_image("tiny image", "image_too_small", pictures.png(0, 4, 4)),
    bad_image("ribbon of an image", "image_too_small", pictures.png(0, 8, 264)),
    bad_image("header with a long side", "image_too_large", pictures.png_that_claims(50_000, 20_000)),
    bad_image("header with many pixels", "image_too_large", pictures.png_that_claims(9000, 9000)),
    bad_image("many bytes", "image_too_large", pictures.larger_than(1024 * 1024)),
    triple("unknown hash", Bad("image_unknown", "image"), image={"sha256": UNKNOWN_HASH}),
    triple("no hash at all", Bad("image_unknown", "image"), image={"sha256": ""}),
    triple("URL", Bad("image_url_refused", "image"), image={"url": "https://example.org/scan.png"}),
    triple("URL of a file", Bad("image_url_refused", "image"), image={"url": "file:///etc/passwd"}),
    triple("images with two entries", Bad("unsupported_field", "images"), image=..., images=[SCAN, SCAN]),
    triple("a turn before", Bad("unsupported_field", "history"), history=[{"role": "user", "content": "Hello"}]),
    triple("empty question", EMPTY_QUESTION, question=""),
    triple("white question", EMPTY_QUESTION, question=" \t\n"),
    triple("a step beyond the response", Bad("bad_steps", "/options/steps/1"), options={"steps": [1, len(ANSWER) + 1]}),
    triple("NUL in the question", Bad("bad_text", "question"), question="a\x00b"),
    triple("NUL in the response", BAD_ANSWER, response="\x00"),
    triple("C1 in the response", BAD_ANSWER, response="a\x85b"),
    triple("escape in the response", BAD_ANSWER, response="\x1b[31mred"),
    triple("response too long", Bad("too_long", "response"), response=LONG),
    triple("question too long", Bad("too_long", "question"), question=LONG),
    triple("question too long to cut", Bad("too_long", "question"), question=LONG, options={"too_long": "cut_middle"}),
    triple("kept thinking too long", Bad("too_long", "response"), response=f"<think>{LONG}</think>yes"),
    triple(
        "too many characters", Bad("too_long", "response"), response="x" * 200_001, options={"too_long": "cut_middle"}
    ),
]

MIXED = [
    grouped(
        "one bad image of two",
        item(image=b64(b"nothing"), responses=["a", "b"]),
        item(image=SCAN, responses=["a", "b"]),
        expect=[BAD_IMAGE, BAD_IMAGE, Ok(), Ok()],
    ),
    grouped(
        "one damaged image between good ones",
        item(image=SCAN, response=ANSWER),
        item(image=b64(pictures.cut_short(pictures.jpeg(3))), response=ANSWER),
        item(image=SCAN, response="no"),
        expect=[Ok(), Bad("image_invalid", "image"), Ok()],
    ),
    grouped(
        "one bad response of three",
        item(image=SCAN, responses=["a", "\x00", ANSWER]),
        expect=[Ok(), Bad("bad_text", "responses/1"), Ok()],
    ),
    grouped(
        "one response too long",
        item(image=SCAN, responses=[ANSWER, LONG, ""]),
        expect=[Ok(), Bad("too_long", "responses/1"), Ok(("empty_response",))],
    ),
    grouped(
        "a step beyond one of two responses",
        item(responses=["yes", "no"]),
        expect=[NO_IMAGE, Bad("bad_steps", "/options/steps/0")],
        options={"steps": [3]},
    ),
    grouped(
        "one response cut, one stripped",
        item(image=SCAN, responses=[LONG, THOUGHT, "no"]),
        expect=[Ok(("cut_middle",)), Ok(("thinking_stripped",)), Ok()],
        options={"too_long": "cut_middle", "thinking": "strip"},
    ),
    grouped(
        "each wrong in its own way",
        item(question="", response="a"),
        item(image={"sha256": UNKNOWN_HASH}, response="a"),
        item(image={"url": "http://localhost/"}, response="a"),
        item(images=[SCAN, SCAN], response="a"),
        item(response="\x07"),
        item(response="good"),
        expect=[
            EMPTY_QUESTION,
            Bad("image_unknown", "image"),
            Bad("image_url_refused", "image"),
            Bad("unsupported_field", "images"),
            BAD_ANSWER,
            NO_IMAGE,
        ],
    ),
    grouped(
        "every item bad", item(question=" ", response="a"), item(question="", response="b"), expect=[EMPTY_QUESTION] * 2
    ),
    grouped("bad group by alias", item(question="\x00", response="a"), expect=[Bad("bad_text", "question")]),
    grouped(
        "every response of a group bad",
        item(responses=["\x01", "\x02"]),
        expect=[Bad("bad_text", "responses/0"), Bad("bad_text", "responses/1")],
    ),
    grouped(
        "flags of one are not the other's",
        item(image=SCAN, responses=["[SEP]", "fine"]),
        expect=[Ok(("control_tokens",)), Ok()],
    ),
    grouped(
        "a bad image in a list of one", item(images=[b64(b"?")], response="a"), expect=[Bad("image_kind", "images/0")]
    ),
]

WHOLE = [
    refused("no items", "invalid_field", "/items"),
    refused("an item without responses", "invalid_field", "/items/0/responses", item(responses=[])),
    refused(
        "a later item without responses", "invalid_field", "/items/1/responses", item(response="a"), item(responses=[])
    ),
    refused("too many items", "too_many", "/items", *[item(response="a")] * 65),
    refused("too many responses", "too_many", "/items/0/responses", item(responses=["a"] * 257)),
    refused("a weight of no dimension", "invalid_field", "/weights", item(response="a"), weights={"beauty": 1}),
    refused(
        "an unknown way to cut", "invalid_field", "/options/too_long", item(response="a"), options={"too_long": "cut"}
    ),
    refused(
        "an unknown way to think", "invalid_field", "/options/thinking", item(response="a"), options={"thinking": "x"}
    ),
    refused(
        "an unknown way to explain",
        "invalid_field",
        "/options/explain",
        item(response="a"),
        options={"explain": "words"},
    ),
    refused("unknown steps", "invalid_field", "/options/steps", item(response="a"), options={"steps": "words"}),
    refused(
        "steps that do not rise",
        "invalid_field",
        "/options/steps/2",
        item(response="abc"),
        options={"steps": [1, 2, 2]},
    ),
    refused("too many steps", "too_many", "/options/steps", item(response="a" * 99), options={"steps": [*range(65)]}),
    refused(
        "an unknown role",
        "invalid_field",
        "/items/0/history/0/role",
        item(response="a", history=[{"role": "bot", "content": ""}]),
    ),
    triple("a weight of no dimension, one triple", Refused("invalid_field", "/weights"), weights={"": 1}),
    triple(
        "an unknown way to cut, one triple",
        Refused("invalid_field", "/options/too_long"),
        options={"too_long": "CUT_MIDDLE"},
    ),
    Case(
        "another fingerprint",
        {"items": [item(response="a")]},
        refused=Refused("version_changed", ""),
        metadata={"x-model-fingerprint": "sha256:0"},
    ),
    Case(
        "no such lane",
        {"items": [item(response="a")]},
        refused=Refused("invalid_field", "X-Lane"),
        metadata={"x-lane": "fast"},
    ),
    *(
        Case(
            f"deadline of {written!r}",
            {"items": [item(response="a")]},
            refused=Refused("invalid_field", "X-Deadline-Ms"),
            metadata={"x-deadline-ms": written},
        )
        for written in ("0", "-1", "1.5", "soon", "1e3", "9" * 10)
    ),
    Case("interactive", {"items": [item(response="a")]}, [NO_IMAGE], metadata={"x-lane": "interactive"}),
    Case("a deadline far away", {"items": [item(response="a")]}, [NO_IMAGE], metadata={"x-deadline-ms": "20000"}),
]

CASES = [*GOOD, *BAD, *MIXED, *WHOLE]


def is_triple(body: Body) -> bool:
    return "items" not in body


def items_of(body: Body) -> list[Body]:
    return [body] if is_triple(body) else body["items"]


def images_of(written: Body) -> list[Any]:
    images: list[Any] = written.get("images") or [written.get("image")]
    return [image for image in images if image is not None]


def responses_of(written: Body) -> list[str]:
    responses: list[str] = written["responses"] if "responses" in written else [written["response"]]
    return responses


def singles(body: Body) -> list[Body]:
    """Each response of the request as a triple of its own."""
    beside = {key: body[key] for key in ("weights", "options") if key in body}
    return [
        {key: written[key] for key in ("image", "images", "question") if key in written} | {"response": text} | beside
        for written in items_of(body)
        for text in responses_of(written)
    ]


def to_message(body: Body) -> pb.ScoreRequest:
    items = [
        pb.Item(
            images=[_image(image) for image in images_of(written)],
            question=written["question"],
            responses=responses_of(written),
            history=[_turn(turn) for turn in written.get("history", [])],
            department=written.get("department"),
        )
        for written in items_of(body)
    ]
    options = dict(body.get("options", {}))
    if isinstance(options.get("steps"), list):
        options["step_ends"] = options.pop("steps")
    return pb.ScoreRequest(
        items=items,
        weights=body.get("weights"),
        viewpoint=body.get("viewpoint"),
        options=pb.Options(**options),
    )


def _turn(turn: dict[str, Any]) -> pb.Turn:
    name = "content" if isinstance(turn["content"], str) else "parts"
    return pb.Turn(role=turn["role"], **{name: turn["content"]})


def _image(image: str | dict[str, str]) -> pb.Image:
    named: dict[str, Any] = image if isinstance(image, dict) else {"base64": image}
    frames = named.get("frames")
    wanted = {"even_frames" if isinstance(frames, int) else "frames": frames} if frames is not None else {}
    named = {name: value for name, value in named.items() if name != "frames"}
    if "base64" in named:
        return pb.Image(data=base64.b64decode(named["base64"]), **wanted)
    return pb.Image(**named, **wanted)
