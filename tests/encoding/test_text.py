"""Text becomes ids by real tokenizers of four kinds; no text of a user becomes a control token."""

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

from medreward.encoding.text import FileTokenizer, TextEncoder
from medreward.encoding.thinking import ThinkingTags
from medreward.errors import Code, ConfigurationError, ItemError
from medreward.types import Flag, Options, Thinking, TooLong

STRIP = Options(thinking=Thinking.STRIP)
CUT = Options(too_long=TooLong.CUT_MIDDLE)
MANY = 1_000_000
UNKNOWN_WORD = "[UNK]"
UNKNOWN_LETTER = "<unk>"


def special(*names: str) -> list[AddedToken]:
    return [AddedToken(name, special=True, normalized=False) for name in names]


def wordpiece() -> Tokenizer:
    letters = "abcdefghijklmnopqrstuvwxyz0123456789"
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~"]
    words += [*letters, *(f"##{c}" for c in letters), "the", "heart", "cls", "sep"]
    tokenizer = Tokenizer(models.WordPiece({word: i for i, word in enumerate(words)}, unk_token=UNKNOWN_WORD))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    tokenizer.add_special_tokens(special("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"))
    return tokenizer


def byte_level(*added: AddedToken, ignore_merges: bool = False) -> Tokenizer:
    vocab = {c: i for i, c in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    merges = [("t", "h"), ("th", "e"), ("<", "|"), ("|", ">")]
    vocab |= {a + b: 256 + i for i, (a, b) in enumerate(merges)}
    tokenizer = Tokenizer(models.BPE(vocab, merges, ignore_merges=ignore_merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_tokens(list(added))
    return tokenizer


def qwen() -> Tokenizer:
    names = special("<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|image_pad|>")
    thinking = [AddedToken("<think>", special=False), AddedToken("</think>", special=False, normalized=True)]
    return byte_level(*names, *thinking)


def llama3() -> Tokenizer:
    reserved = special(*(f"<|reserved_special_token_{i}|>" for i in range(250)))
    tokenizer = byte_level(*special("<|begin_of_text|>", "<|eot_id|>"), *reserved, ignore_merges=True)
    tokenizer.enable_truncation(4)
    tokenizer.enable_padding(length=16)
    return tokenizer


def unigram() -> Tokenizer:
    """Its normaliser makes `</s>` of full-width letters, and its vocabulary holds that."""
    pieces = ["<unk>", "<s>", "</s>", "<image>", "▁", "the", *"<>/:[]|_.?abcdefghijklmnopqrstuvwxyz"]
    tokenizer = Tokenizer(models.Unigram([(p, 0.0 if i < 4 else -3.0) for i, p in enumerate(pieces)], unk_id=0))
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    tokenizer.add_special_tokens(special("<unk>", "<s>", "</s>", "<image>"))
    return tokenizer


def sentencepiece_bpe() -> Tokenizer:
    """Gemma-like: merges lead to `</s>`, and a run of newlines is an added token."""
    pieces = ["<unk>", "<s>", "</s>", "<image>", *(f"<0x{i:02X}>" for i in range(256))]
    pieces += ["▁", "\n", "\n\n", *"<>/:[]|_.?abcdefghijklmnopqrstuvwxyz", "</", "s>", "th"]
    merges = [("<", "/"), ("s", ">"), ("</", "s>"), ("t", "h"), ("\n", "\n")]
    vocab = {piece: i for i, piece in enumerate(pieces)}
    tokenizer = Tokenizer(models.BPE(vocab, merges, unk_token=UNKNOWN_LETTER, byte_fallback=True, fuse_unk=True))
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    tokenizer.add_special_tokens(special("<unk>", "<s>", "</s>", "<image>"))
    tokenizer.add_tokens([AddedToken("\n\n", special=False, normalized=False)])
    return tokenizer


@dataclass(frozen=True)
class Kind:
    make: Callable[[], Tokenizer]
    prompt: tuple[str, ...]
    answer: tuple[str, ...]
    lossless: bool = False


KINDS = {
    "wordpiece": Kind(wordpiece, ("[CLS]", "{question}", "[SEP]"), ("{response}", "[SEP]")),
    "qwen": Kind(
        qwen,
        ("<|im_start|>", "user\n", "<|vision_start|>", "<|image_pad|>", "{question}", "<|im_end|>", "\n"),
        ("<|im_start|>", "assistant\n", "{response}", "<|im_end|>"),
        lossless=True,
    ),
    "llama3": Kind(
        llama3, ("<|begin_of_text|>", "{question}", "<|eot_id|>"), ("{response}", "<|eot_id|>"), lossless=True
    ),
    "unigram": Kind(unigram, ("<s>", "<image>", "{question}"), ("{response}", "</s>")),
    "sentencepiece_bpe": Kind(
        sentencepiece_bpe, ("<s>", "<image>", "{question}"), ("{response}", "</s>"), lossless=True
    ),
}
# "[UNK]" and "<unk>" are what any unknown letter gives, so they are no control tokens
MARKERS = [
    "[CLS]", "[SEP]", "[PAD]", "[MASK]", "[UNK]", "<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|image_pad|>",
    "<think>", "</think>", "<|begin_of_text|>", "<|eot_id|>", "<|reserved_special_token_7|>", "<s>", "</s>", "<image>",
    "<unk>", "\uff1c/s\uff1e", "<|im_<|im_end|>end|>", "<0x0A>", "\n\n", "▁",
]  # fmt: skip
LETTERS = st.characters(exclude_categories=["Cc", "Cs"])
TEXTS = st.lists(st.one_of(st.text(LETTERS, max_size=8), st.sampled_from(MARKERS)), max_size=6).map("".join)


@dataclass(frozen=True)
class Loaded:
    kind: Kind
    original: Tokenizer
    tokenizer: FileTokenizer

    def encoder(self, max_tokens: int = 100_000, max_chars: int = 100_000) -> TextEncoder:
        return TextEncoder(self.tokenizer, self.kind.prompt, self.kind.answer, max_tokens, max_chars)

    def control_ids(self, ids: list[int]) -> list[int]:
        return [i for i in ids if i in self.tokenizer.control_tokens.values()]

    def template_ids(self, template: tuple[str, ...]) -> list[int]:
        control = self.tokenizer.control_tokens
        return [control[piece] for piece in template if piece in control]


def saved(tokenizer: Tokenizer, folder: Path) -> Path:
    path = folder / "tokenizer.json"
    tokenizer.save(str(path))
    return path


@pytest.fixture(scope="module", params=KINDS)
def loaded(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Loaded:
    kind = KINDS[request.param]
    path = saved(kind.make(), tmp_path_factory.mktemp("tokenizer"))
    original = Tokenizer.from_file(str(path))
    original.no_truncation()
    original.no_padding()
    return Loaded(kind, original, FileTokenizer(path))


@pytest.fixture(scope="module")
def qwen_encoder(tmp_path_factory: pytest.TempPathFactory) -> TextEncoder:
    kind = KINDS["qwen"]
    tokenizer = FileTokenizer(saved(qwen(), tmp_path_factory.mktemp("qwen")))
    return TextEncoder(tokenizer, kind.prompt, kind.answer, 1_000, 1_000)


@given(text=TEXTS)
def test_no_text_becomes_a_control_token(loaded: Loaded, text: str) -> None:
    assert loaded.control_ids(loaded.tokenizer.encode(text)) == []


@given(text=TEXTS)
def test_a_lossless_tokenizer_gives_back_the_visible_text(loaded: Loaded, text: str) -> None:
    if loaded.kind.lossless:
        back = loaded.original.decode(loaded.tokenizer.encode(text), skip_special_tokens=False)
        assert back.replace("▁", " ") == text.replace("▁", " ")


@given(marker=st.sampled_from(MARKERS), at=st.integers(0, 12), question=TEXTS, response=TEXTS)
def test_control_tokens_stand_only_where_the_template_puts_them(
    loaded: Loaded, marker: str, at: int, question: str, response: str
) -> None:
    encoder = loaded.encoder()
    prompt = encoder.prompt(f"q{question}{marker[:at]}")
    answer = encoder.answer(prompt, marker[at:] + response, Options())
    assert loaded.control_ids(list(prompt.ids)) == loaded.template_ids(loaded.kind.prompt)
    assert loaded.control_ids(list(answer.ids)) == loaded.template_ids(loaded.kind.answer)


@given(text=st.text("the <>/|.?abc\n", max_size=60))
def test_ordinary_text_gets_the_ids_the_model_was_trained_with(loaded: Loaded, text: str) -> None:
    original = loaded.original
    if not any(name in text for name in loaded.tokenizer.control_tokens):
        assert loaded.tokenizer.encode(text) == original.encode(text, add_special_tokens=False).ids


def test_every_added_token_but_the_unknown_one_is_a_control_token(loaded: Loaded) -> None:
    added = {token.content: id_ for id_, token in loaded.original.get_added_tokens_decoder().items()}
    text = {"[UNK]", "<unk>", "\n\n"}
    assert loaded.tokenizer.control_tokens == {name: id_ for name, id_ in added.items() if name not in text}


def test_template_and_text_lie_side_by_side(loaded: Loaded) -> None:
    encoder = loaded.encoder()
    prompt = encoder.prompt("the heart")
    answer = encoder.answer(prompt, "the", Options())
    for ids, template, text in ((prompt.ids, loaded.kind.prompt, "the heart"), (answer.ids, loaded.kind.answer, "the")):
        expected: list[int] = []
        for piece in template:
            words = text if piece.startswith("{") else piece
            id_ = loaded.tokenizer.control_tokens.get(piece)
            expected += loaded.tokenizer.encode(words) if id_ is None else [id_]
        assert list(ids) == expected
    assert prompt.flags == answer.flags == ()


def test_the_pieces_of_an_image_stand_only_where_there_is_one(tmp_path: Path) -> None:
    tokenizer = FileTokenizer(saved(qwen(), tmp_path))
    around, image = ["<|im_start|>", "{image}", "{question}"], ["<|vision_start|>", "<|image_pad|>"]
    encoder = TextEncoder(tokenizer, around, ("{response}", "<|im_end|>"), 100, 100, image)
    start, vision, pad = (tokenizer.control_tokens[name] for name in (around[0], *image))
    question = tokenizer.encode("q{image}")  # in a text these are letters
    assert encoder.prompt("q{image}", has_image=True).ids == [start, vision, pad, *question]
    assert encoder.prompt("q{image}").ids == [start, *question]


@pytest.mark.parametrize("text", ["", " ", "\n\t \r\n", "\u00a0\u2003"])
def test_an_empty_question_is_refused_and_an_empty_response_is_legal(qwen_encoder: TextEncoder, text: str) -> None:
    with pytest.raises(ItemError) as refused:
        qwen_encoder.prompt(text)
    assert (refused.value.code, refused.value.field) == (Code.EMPTY_QUESTION, "question")
    assert qwen_encoder.answer(qwen_encoder.prompt("q"), text, Options()).flags == (Flag.EMPTY_RESPONSE,)


def test_a_question_without_a_single_token_is_empty(tmp_path: Path) -> None:
    encoder = TextEncoder(FileTokenizer(saved(wordpiece(), tmp_path)), ("[CLS]", "{question}"), ("{response}",), 9, 9)
    with pytest.raises(ItemError) as refused:
        encoder.prompt("\u200b\ufeff")  # invisible, and this normaliser drops it
    assert refused.value.code is Code.EMPTY_QUESTION


@pytest.mark.parametrize("character", ["\x00", "\x08", "\x0b", "\x1b", "\x1f", "\x80", "\x85", "\x9f", "\ud800"])
def test_bad_characters_are_refused(qwen_encoder: TextEncoder, character: str) -> None:
    with pytest.raises(ItemError) as question:
        qwen_encoder.prompt(f"a{character}b")
    with pytest.raises(ItemError) as response:
        qwen_encoder.answer(qwen_encoder.prompt("q"), f"a{character}b", Options())
    assert (question.value.code, question.value.field) == (Code.BAD_TEXT, "question")
    assert (response.value.code, response.value.field) == (Code.BAD_TEXT, "response")


def test_every_other_character_is_text(qwen_encoder: TextEncoder) -> None:
    text = "\t\r\n ~\u00a0é\u200d\ufffd\uffff😀"
    assert qwen_encoder.answer(qwen_encoder.prompt(text), text, Options()).flags == ()


def test_characters_are_limited(loaded: Loaded) -> None:
    encoder = loaded.encoder(max_chars=5)
    prompt = encoder.prompt("abcde")
    encoder.answer(prompt, "abcde", Options())
    with pytest.raises(ItemError) as question:
        encoder.prompt("abcdef")
    with pytest.raises(ItemError) as response:
        encoder.answer(prompt, "abcdef", CUT)
    assert (question.value.code, question.value.field) == (Code.TOO_LONG, "question")
    assert (response.value.code, response.value.field) == (Code.TOO_LONG, "response")


def test_tokens_are_limited_to_the_very_token(loaded: Loaded) -> None:
    text = "abcdefghijk"
    whole = loaded.encoder()
    prompt = whole.prompt("q")
    full = whole.answer(prompt, text, Options())
    total = len(prompt.ids) + len(full.ids)

    exact = loaded.encoder(max_tokens=total)
    assert exact.answer(prompt, text, Options()) == full
    assert exact.answer(prompt, text, CUT) == full

    short = loaded.encoder(max_tokens=total - 1)
    with pytest.raises(ItemError) as refused:
        short.answer(prompt, text, Options())
    assert (refused.value.code, refused.value.field) == (Code.TOO_LONG, "response")
    cut = short.answer(prompt, text, CUT)
    assert len(prompt.ids) + len(cut.ids) == total - 1
    assert cut.flags == (Flag.CUT_MIDDLE,)


@pytest.mark.parametrize(("room", "kept"), [(1, "a"), (2, "aj"), (3, "abj"), (4, "abij"), (9, "abcdeghij")])
def test_a_cut_keeps_head_and_tail_and_the_template(tmp_path: Path, room: int, kept: str) -> None:
    tokenizer = FileTokenizer(saved(qwen(), tmp_path))
    encoder = TextEncoder(tokenizer, ("{question}",), ("<|im_start|>", "{response}", "<|im_end|>"), 3 + room, 100)
    answer = encoder.answer(encoder.prompt("q"), "abcdefghij", CUT)
    control = tokenizer.control_tokens
    assert answer.ids == [control["<|im_start|>"], *tokenizer.encode(kept), control["<|im_end|>"]]


def test_a_question_must_leave_room_for_one_token_of_answer(tmp_path: Path) -> None:
    encoder = TextEncoder(FileTokenizer(saved(qwen(), tmp_path)), ("{question}",), ("{response}", "<|im_end|>"), 6, 100)
    assert encoder.answer(encoder.prompt("abcd"), "xyz", CUT).flags == (Flag.CUT_MIDDLE,)
    with pytest.raises(ItemError) as refused:
        encoder.prompt("abcde")
    assert (refused.value.code, refused.value.field) == (Code.TOO_LONG, "question")


@pytest.mark.parametrize(
    ("response", "left"),
    [
        ("<think>hm</think>yes", "yes"),
        ("<think>\nhm\n</think>\n\nyes\n", "yes"),
        ("<thinking>hm</thinking>yes", "yes"),
        ("a <think>x</think>b<thinking>y</thinking> c", "a b c"),
        ("yes<think>never closed", "yes"),
        ("opened by the template</think>yes", "yes"),
        ("opened</thinking>no</think>yes", "yes"),
        ("no<think>a</think>no</think>yes", "yes"),
        ("so <think>a</thinking>b</think>yes", "so yes"),
        ("<think>a<think>b</think>c</think>yes", "yes"),
        ("</thi<think>x</think>nk>yes", "</think>yes"),
        ("<think>nothing but thought", ""),
        ("<reasoning>hm</reasoning>yes", "yes"),
        ("<thought>hm</thought>yes", "yes"),
        ("◁think▷hm◁/think▷yes", "yes"),
        ("opened by the template◁/think▷yes", "yes"),
        ("<reasoning>a<thought>b</thought>c</reasoning>yes", "yes"),
        ("<think>a</thought>b</think>yes", "yes"),
        ("yes<thought>never closed</reasoning>", "yes"),
    ],
)
def test_thinking_is_stripped(qwen_encoder: TextEncoder, response: str, left: str) -> None:
    prompt = qwen_encoder.prompt("q")
    stripped = qwen_encoder.answer(prompt, response, STRIP)
    plain = qwen_encoder.answer(prompt, left, Options())
    assert stripped.ids == plain.ids
    assert stripped.flags == (Flag.THINKING_STRIPPED, *plain.flags)


@pytest.mark.parametrize(
    "response", ["yes", " yes\n", "<THINK>a</THINK>yes", "< think>a</ think>", "<thinker>a</thinker>"]
)
def test_what_is_no_think_block_stays(qwen_encoder: TextEncoder, response: str) -> None:
    prompt = qwen_encoder.prompt("q")
    assert qwen_encoder.answer(prompt, response, STRIP) == qwen_encoder.answer(prompt, response, Options())


def test_a_server_may_know_tags_of_its_own(qwen_encoder: TextEncoder, tmp_path: Path) -> None:
    own = [("[THINK]", "[/THINK]"), ("<t>", "</t>"), ("<t>s", "e</t>")]
    kind = KINDS["qwen"]
    tokenizer = FileTokenizer(saved(qwen(), tmp_path))
    encoder = TextEncoder(tokenizer, kind.prompt, kind.answer, 1_000, 1_000, own_thinking_tags=own)
    response = "a[THINK]hm[/THINK]b<t>hm</t>c<t>so</t> the longer tag is meant e</t>d<think>hm</think>e"
    prompt = encoder.prompt("q")
    assert encoder.answer(prompt, response, STRIP).ids == encoder.answer(prompt, "abcde", Options()).ids
    assert qwen_encoder.answer(prompt, "[THINK]hm[/THINK]b", STRIP).flags == ()


@pytest.mark.parametrize("pair", [("<think>", "</x>"), ("<x>", "<x>"), ("", "</x>"), ("<x>", "</think>")])
def test_a_tag_that_is_empty_or_there_already_is_refused(pair: tuple[str, str]) -> None:
    with pytest.raises(ValueError, match="thinking tag"):
        ThinkingTags([pair])


def test_thinking_is_kept_by_default(qwen_encoder: TextEncoder) -> None:
    prompt = qwen_encoder.prompt("q")
    kept = qwen_encoder.answer(prompt, "<think>hm</think>yes", Options())
    assert len(kept.ids) > len(qwen_encoder.answer(prompt, "yes", Options()).ids)
    assert kept.flags == (Flag.CONTROL_TOKENS,)


def test_thinking_is_stripped_before_tokens_are_counted(tmp_path: Path) -> None:
    encoder = TextEncoder(FileTokenizer(saved(qwen(), tmp_path)), ("{question}",), ("{response}",), 4, 1000)
    answer = encoder.answer(encoder.prompt("q"), f"<think>{'hm ' * 50}</think>yes", STRIP)
    assert answer.flags == (Flag.THINKING_STRIPPED,)


def test_control_token_strings_are_flagged_where_they_are(loaded: Loaded) -> None:
    encoder = loaded.encoder()
    plain = encoder.prompt("q")
    for name in loaded.tokenizer.control_tokens:
        assert encoder.prompt(f"a{name}b").flags == (Flag.CONTROL_TOKENS,)
        assert encoder.answer(plain, f"a{name}b", Options()).flags == (Flag.CONTROL_TOKENS,)
        assert encoder.answer(plain, f"a{name[:-1]} b", Options()).flags == ()


def test_a_tokenizer_without_control_tokens_flags_nothing(tmp_path: Path) -> None:
    encoder = TextEncoder(FileTokenizer(saved(byte_level(), tmp_path)), ("{question}",), ("{response}",), 100, 100)
    assert encoder.prompt("<|im_start|>").flags == ()


@pytest.mark.parametrize("piece", ["<|im_strat|>", "[CLS]", "<|im_start|>user", "user<|im_end|>"])
def test_a_template_piece_that_only_looks_like_a_control_token_stops_the_start(tmp_path: Path, piece: str) -> None:
    tokenizer = FileTokenizer(saved(qwen(), tmp_path))
    with pytest.raises(ConfigurationError, match="template piece"):
        TextEncoder(tokenizer, (piece, "{question}"), ("{response}",), 100, 100)


def test_truncation_padding_and_post_processing_of_the_file_are_off(tmp_path: Path) -> None:
    assert len(FileTokenizer(saved(llama3(), tmp_path)).encode("abcdefgh")) == 8
    assert len(FileTokenizer(saved(llama3(), tmp_path)).encode("a")) == 1


def test_dropout_of_the_file_is_off(tmp_path: Path) -> None:
    tokenizer = byte_level()
    tokenizer.model.dropout = 0.5
    encode = FileTokenizer(saved(tokenizer, tmp_path)).encode
    assert {tuple(encode("the the the the the")) for _ in range(20)} == {tuple(encode("the the the the the"))}


def test_merges_in_the_old_notation_are_read(tmp_path: Path) -> None:
    path = saved(sentencepiece_bpe(), tmp_path)
    now = FileTokenizer(path)
    file = json.loads(path.read_text("utf-8"))
    file["model"]["merges"] = [" ".join(pair) for pair in file["model"]["merges"]]
    path.write_text(json.dumps(file), "utf-8")
    assert FileTokenizer(path).encode("the </s> the") == now.encode("the </s> the")


def test_what_is_no_tokenizer_stops_the_start_with_the_name_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.json"
    with pytest.raises(ConfigurationError, match=r"no tokenizer at .*tokenizer\.json"):
        FileTokenizer(path)
    for content in ("{", "{}", '{"model": {"type": "BPE", "vocab": {}}, "added_tokens": []}', "[]"):
        path.write_text(content, "utf-8")
        with pytest.raises(ConfigurationError, match=r"tokenizer\.json is no tokenizer\.json"):
            FileTokenizer(path)


def test_ids_that_contradict_the_vocabulary_stop_the_start(tmp_path: Path) -> None:
    path = saved(qwen(), tmp_path)
    file = json.loads(path.read_text("utf-8"))
    file["added_tokens"][0]["id"] = 5
    path.write_text(json.dumps(file), "utf-8")
    with pytest.raises(ConfigurationError, match="disagree on id 5"):
        FileTokenizer(path)


def test_a_word_that_shares_its_id_with_a_control_token_stops_the_start(tmp_path: Path) -> None:
    path = saved(sentencepiece_bpe(), tmp_path)
    file = json.loads(path.read_text("utf-8"))
    file["model"]["vocab"] = {"heart": 2} | file["model"]["vocab"]
    path.write_text(json.dumps(file), "utf-8")
    with pytest.raises(ConfigurationError, match="could become the control token </s>"):
        FileTokenizer(path)


HOSTILE = {
    "brackets": "<" * MANY,
    "almost a control token": "<|reserved_special_token_" * (MANY // 25),
    "combining marks": "a" + "\u0301\u0316" * (MANY // 2),
    "opened blocks": "<think>" * (MANY // 7),
    "closed blocks": "</think>" * (MANY // 8),
    "blocks of all kinds": "<think></thinking>◁think▷" * (MANY // 25),
}


@pytest.fixture
def hostile_encoder(tmp_path: Path) -> TextEncoder:
    return TextEncoder(FileTokenizer(saved(llama3(), tmp_path)), ("{question}",), ("{response}",), 10 * MANY, MANY + 9)


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE.keys())
def test_hostile_text_takes_linear_time(hostile_encoder: TextEncoder, text: str) -> None:
    prompt = hostile_encoder.prompt("q")
    start = time.process_time()
    hostile_encoder.answer(prompt, text, STRIP)
    assert time.process_time() - start < 20  # under one second; quadratic time would be hours
