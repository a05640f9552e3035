"""Tiny tokenizers of the kinds that the families have: byte-level BPE, and BPE over `▁` words with byte fallback."""

import functools
import json
from typing import Any

_CORPUS = [
    "A user's preferences: bold red comic covers, quiet landscapes and night scenes.",
    "Candidate: Title: The Blue Harbour. Based on these preferences, will the user choose this candidate?",
    "Answer Yes or No. You are a helpful assistant. Describe this item in one or two sentences.",
    "USER: question ASSISTANT: Yes No yes no 0123456789",
] * 8
_WORDS = ["Yes", "No", " Yes", " No"] * 40
"""Whole tokens, as in every real vocabulary."""


@functools.cache
def _byte_level(special: tuple[str, ...], size: int, words: bool) -> Any:
    from tokenizers import ByteLevelBPETokenizer

    bpe = ByteLevelBPETokenizer()
    corpus = _CORPUS + _WORDS if words else _CORPUS
    bpe.train_from_iterator(corpus, vocab_size=size, special_tokens=list(special), show_progress=False)
    return bpe._tokenizer


@functools.cache
def _words(special: tuple[str, ...], size: int, prepend: str = "always") -> Any:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    backend = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True))
    backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=prepend)
    backend.decoder = decoders.Metaspace()
    trainer = trainers.BpeTrainer(
        vocab_size=size, special_tokens=[*special, *(f"<0x{value:02X}>" for value in range(256))],
        initial_alphabet=[*(chr(code) for code in range(33, 127)), "▁"], show_progress=False,
    )  # fmt: skip
    backend.train_from_iterator(_CORPUS + _WORDS, trainer)
    return backend


def _parts(backend: Any) -> dict[str, Any]:
    model = json.loads(backend.to_str())["model"]
    return {"vocab": model["vocab"], "merges": [tuple(merge) for merge in model["merges"]]}


QWEN_SPECIAL = (
    "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>", "<|vision_pad|>",
    "<|image_pad|>", "<|video_pad|>",
)  # fmt: skip


def small_byte_level() -> Any:
    """Byte-level BPE whose vocabulary has no whole `Yes`: the answers' first pieces must do."""
    from transformers import PreTrainedTokenizerFast

    return PreTrainedTokenizerFast(
        tokenizer_object=_byte_level(QWEN_SPECIAL, 320, False), eos_token="<|im_end|>", pad_token="<|endoftext|>",
        additional_special_tokens=[*QWEN_SPECIAL[1:2], *QWEN_SPECIAL[3:]],
    )  # fmt: skip


def qwen(*more: str, **settings: Any) -> Any:
    """Qwen's: its own class, NFC, its regular expression for words."""
    from transformers import Qwen2Tokenizer

    special = QWEN_SPECIAL + more
    return Qwen2Tokenizer(
        **_parts(_byte_level(special, 400, True)), eos_token="<|im_end|>", pad_token="<|endoftext|>",
        additional_special_tokens=list(special[1:]), **settings,
    )  # fmt: skip


LLAMA3_SPECIAL = (
    "<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>", "<|eom_id|>",
)  # fmt: skip


def llama3(*more: str) -> Any:
    """Llama 3's: byte-level, with roles as tokens; its encoder puts a beginning of text in front unless told not to."""
    from tokenizers.processors import TemplateProcessing
    from transformers import PreTrainedTokenizerFast

    backend = _byte_level(LLAMA3_SPECIAL + more, 400, True)
    backend.post_processor = TemplateProcessing(
        single="<|begin_of_text|> $A", special_tokens=[("<|begin_of_text|>", 0)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, bos_token="<|begin_of_text|>", eos_token="<|end_of_text|>",
        additional_special_tokens=[*LLAMA3_SPECIAL[2:], *more],
    )  # fmt: skip


SMOLLM_SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<repo_name>", "<empty_output>")


def smollm() -> Any:
    """SmolLM2's: byte-level, every digit a token of its own, the end of a turn for padding too."""
    from tokenizers import pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    backend = _byte_level(SMOLLM_SPECIAL, 400, True)
    digits, rest = pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.pre_tokenizer = pre_tokenizers.Sequence([digits, rest])
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, bos_token="<|im_start|>", eos_token="<|im_end|>", unk_token="<|endoftext|>",
        pad_token="<|im_end|>", additional_special_tokens=list(SMOLLM_SPECIAL[3:]),
    )  # fmt: skip


LLAMA_SPECIAL = ("<unk>", "<s>", "</s>", "<pad>", "<image>")


def spaced_words() -> Any:
    """A SentencePiece-like tokenizer without a class of its own."""
    from transformers import PreTrainedTokenizerFast

    return PreTrainedTokenizerFast(
        tokenizer_object=_words(LLAMA_SPECIAL, 700), unk_token="<unk>", bos_token="<s>", eos_token="</s>",
        pad_token="<pad>", additional_special_tokens=["<image>"],
    )  # fmt: skip


def llama() -> Any:
    """Llama's and Mistral's, as transformers 5 builds them: a blank in front of the text is no second one."""
    from transformers import LlamaTokenizer

    return LlamaTokenizer(
        **_parts(_words(LLAMA_SPECIAL, 700)), pad_token="<pad>", additional_special_tokens=["<image>"]
    )


def blanks_apart() -> Any:
    """Llama's and Mistral's by their older files: `▁` goes before every text, even one that begins with a blank."""
    from tokenizers import Tokenizer, decoders, models, normalizers
    from transformers import PreTrainedTokenizerFast

    parts = _parts(_words(LLAMA_SPECIAL, 700))
    backend = Tokenizer(models.BPE(**parts, unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    backend.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    backend.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, unk_token="<unk>", bos_token="<s>", eos_token="</s>", pad_token="<pad>",
        additional_special_tokens=["<image>"],
    )  # fmt: skip


GEMMA_SPECIAL = (
    "<pad>", "<eos>", "<bos>", "<unk>", "<mask>", "<start_of_turn>", "<end_of_turn>", "<start_of_image>",
    "<end_of_image>", "<image_soft_token>",
)  # fmt: skip


def gemma() -> Any:
    """Gemma's: blanks become `▁` and none is put in front."""
    from transformers import GemmaTokenizer

    signs = {"boi_token": "<start_of_image>", "eoi_token": "<end_of_image>", "image_token": "<image_soft_token>"}
    return GemmaTokenizer(
        **_parts(_words(GEMMA_SPECIAL, 700, "never")), extra_special_tokens=signs,
        additional_special_tokens=list(GEMMA_SPECIAL[5:7]),
    )  # fmt: skip
