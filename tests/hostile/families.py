"""Small tokenizers with the control tokens of the model families, made in code, of the kinds those families use."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers

from medreward.encoding.text import FileTokenizer, TextEncoder

LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789"
SIGNS = "!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~"
BYTES = [f"<0x{i:02X}>" for i in range(256)]
LEARNT = [("<", "|"), ("|", ">"), ("<", "/"), ("i", "m"), ("im", "_"), ("e", "n"), ("en", "d"), ("s", ">"), ("t", "h")]

CHATML = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]


@dataclass(frozen=True)
class Family:
    make: Callable[["Family"], Tokenizer]
    special: Sequence[str]
    prompt: Sequence[str]
    answer: Sequence[str]
    plain: Sequence[str] = ()  # added tokens that are not flagged special

    def markers(self) -> list[str]:
        return [*self.special, *self.plain]


@dataclass(frozen=True)
class Loaded:
    family: Family
    original: Tokenizer
    encoder: TextEncoder

    @property
    def special_ids(self) -> set[int]:
        """As the original has them; the unknown token is text, for any unknown letter becomes it."""
        added = self.original.get_added_tokens_decoder().items()
        return {id_ for id_, token in added if token.content not in ("<unk>", "[UNK]") and token.content.strip("\n")}


def load(family: Family, folder: Path, max_tokens: int = 10_000_000, max_chars: int = 1_000_000) -> Loaded:
    original = family.make(family)
    original.add_special_tokens([AddedToken(name, special=True, normalized=False) for name in family.special])
    original.add_tokens([AddedToken(name, special=False, normalized=n % 2 == 1) for n, name in enumerate(family.plain)])
    path = folder / "tokenizer.json"
    original.save(str(path))
    return Loaded(
        family, original, TextEncoder(FileTokenizer(path), family.prompt, family.answer, max_tokens, max_chars)
    )


def byte_level(family: Family) -> Tokenizer:
    """GPT-2's way, as in Qwen, Llama 3, InternVL, SmolVLM."""
    vocabulary = {c: i for i, c in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    for a, b in LEARNT:
        vocabulary[a + b] = len(vocabulary)
    tokenizer = Tokenizer(models.BPE(vocabulary, LEARNT))
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def byte_level_whole_words(family: Family) -> Tokenizer:
    """Llama 3: a word of the vocabulary needs no merges, so a marker in it would be found at once."""
    tokenizer = byte_level(family)
    tokenizer.model.ignore_merges = True
    return tokenizer


def sentencepiece_bpe(family: Family) -> Tokenizer:
    """Vicuna, Gemma: markers are words of the vocabulary, and merges lead to some of them."""
    pieces = ["<unk>", *family.special, *family.plain, *BYTES, "▁", "\n", *LETTERS, *SIGNS]
    pieces = list(dict.fromkeys([*pieces, *(a + b for a, b in LEARNT), "</s>"]))
    vocabulary = {piece: i for i, piece in enumerate(pieces)}
    merges = [*LEARNT, ("</", "s>")]
    tokenizer = Tokenizer(models.BPE(vocabulary, merges, unk_token="<unk>", byte_fallback=True, fuse_unk=True))  # noqa: S106
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    return tokenizer


def unigram(family: Family) -> Tokenizer:
    """XLM-R, T5: its normaliser makes markers of look-alikes, and its vocabulary has them."""
    pieces = list(dict.fromkeys(["<unk>", *family.special, *family.plain, "▁", *LETTERS, *SIGNS, "▁<", "s>", "</"]))
    known = {*family.special, *family.plain}
    tokenizer = Tokenizer(models.Unigram([(p, 0.0 if p in known else -3.0) for p in pieces], unk_id=0))
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Replace("\u200b", "")])
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    return tokenizer


def wordpiece(family: Family) -> Tokenizer:
    """BERT: its normaliser drops what is invisible and makes everything lower case."""
    words = [*family.special, *family.plain, *LETTERS, *SIGNS, *(f"##{c}" for c in LETTERS), "cls", "sep", "mask"]
    vocabulary = {word: i for i, word in enumerate(words)}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))  # noqa: S106
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    return tokenizer


def wordpiece_by_space(family: Family) -> Tokenizer:
    """Split at spaces alone, so that a marker stays one word."""
    tokenizer = wordpiece(family)
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=False)
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return tokenizer


VISION = ["<|vision_start|>", "<|vision_end|>", "<|vision_pad|>", "<|image_pad|>", "<|video_pad|>"]
QWEN_PROMPT = [
    "<|im_start|>",
    "user\n",
    "<|vision_start|>",
    "<|image_pad|>",
    "<|vision_end|>",
    "{question}",
    "<|im_end|>",
]
CHATML_ANSWER = ["\n", "<|im_start|>", "assistant\n", "{response}", "<|im_end|>"]
TOOLS = ["<tool_call>", "</tool_call>", "<|fim_prefix|>", "<|fim_suffix|>", "<|repo_name|>"]
BERT = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
TILES = [f"<row_{row}_col_{column}>" for row in range(1, 7) for column in range(1, 7)]
HEADER = ["<|start_header_id|>", "<|end_header_id|>"]

FAMILIES = {
    "qwen2.5-vl": Family(
        byte_level, [*CHATML, "<|object_ref_start|>", "<|box_start|>", *VISION], QWEN_PROMPT, CHATML_ANSWER, TOOLS
    ),
    "qwen3-vl": Family(
        byte_level, [*CHATML, *VISION], QWEN_PROMPT, CHATML_ANSWER, [*TOOLS, "<think>", "</think>", "<tool_response>"]
    ),
    "llama 3": Family(
        byte_level_whole_words,
        ["<|begin_of_text|>", "<|end_of_text|>", "<|eot_id|>", "<|eom_id|>", "<|python_tag|>", "<|image|>", *HEADER],
        ["<|begin_of_text|>", HEADER[0], "user", HEADER[1], "\n\n", "<|image|>", "{question}", "<|eot_id|>"],
        [HEADER[0], "assistant", HEADER[1], "\n\n", "{response}", "<|eot_id|>"],
        [f"<|reserved_special_token_{n}|>" for n in range(20)],
    ),
    "llava, vicuna": Family(
        sentencepiece_bpe,
        ["<unk>", "<s>", "</s>", "<image>", "<pad>"],
        ["<s>", "USER: ", "<image>", "\n", "{question}"],
        [" ASSISTANT: ", "{response}", "</s>"],
    ),
    "internvl": Family(
        byte_level,
        [*CHATML, "<img>", "</img>", "<IMG_CONTEXT>", "<quad>", "</quad>", "<ref>", "</ref>", "<box>", "</box>"],
        ["<|im_start|>", "user\n", "<img>", "<IMG_CONTEXT>", "</img>", "{question}", "<|im_end|>"],
        CHATML_ANSWER,
        TOOLS,
    ),
    "gemma 3": Family(
        sentencepiece_bpe,
        [
            *("<pad>", "<eos>", "<bos>", "<unk>", "<mask>", "<start_of_turn>", "<end_of_turn>"),
            *("<start_of_image>", "<end_of_image>", "<image_soft_token>"),
        ],
        [
            "<bos>",
            "<start_of_turn>",
            "user\n",
            "<start_of_image>",
            "<image_soft_token>",
            "<end_of_image>",
            "{question}",
        ],
        ["<end_of_turn>", "\n", "<start_of_turn>", "model\n", "{response}", "<end_of_turn>"],
        ["[@BOS@]", "<unused0>", "<unused1>", "<table>", "</h1>", "</s>"],
    ),
    "smolvlm, idefics 3": Family(
        byte_level,
        [*CHATML, "<end_of_utterance>", "<fake_token_around_image>", "<image>", "<global-img>", *TILES],
        ["<|im_start|>", "User:", "<fake_token_around_image>", "<global-img>", "<image>", "{question}"],
        ["<end_of_utterance>", "\nAssistant:", "{response}", "<end_of_utterance>"],
    ),
    "mistral, pixtral": Family(
        sentencepiece_bpe,
        ["<unk>", "<s>", "</s>", "[INST]", "[/INST]", "[IMG]", "[IMG_BREAK]", "[IMG_END]", "[TOOL_CALLS]"],
        ["<s>", "[INST]", "[IMG]", "[IMG_END]", "{question}", "[/INST]"],
        ["{response}", "</s>"],
    ),
    "unigram": Family(
        unigram,
        ["<unk>", "<s>", "</s>", "<pad>", "<mask>", "<extra_id_0>", "<image>"],
        ["<s>", "<image>", "{question}", "</s>"],
        ["{response}", "</s>"],
        ["<|im_end|>", "<extra_id_1>"],
    ),
    "bert": Family(
        wordpiece, BERT, ["[CLS]", "{question}", "[SEP]"], ["{response}", "[SEP]"], ["[IMAGE]", "[EVIDENCE]"]
    ),
    "wordpiece by space": Family(
        wordpiece_by_space, BERT, ["[CLS]", "{question}", "[SEP]"], ["{response}", "[SEP]"], ["[IMAGE]"]
    ),
}
