"""Sentence-transformers models that are made from nothing: texts with the same words are near each other."""

import functools
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.support.tiny_run import scratch


@functools.cache
def word_model(words: tuple[str, ...], dimension: int = 16) -> Path:
    """Return the folder of a model that adds up a random vector for each of ``words`` it reads; seeded."""
    pytest.importorskip("sentence_transformers")
    import torch
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import StaticEmbedding
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.normalizers import Lowercase
    from tokenizers.pre_tokenizers import Whitespace

    vocabulary = {word: number for number, word in enumerate(("[UNK]", *map(str.lower, words)))}
    tokenizer = Tokenizer(WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer, tokenizer.pre_tokenizer = Lowercase(), Whitespace()
    torch.manual_seed(0)
    weights = torch.nn.functional.normalize(torch.randn(len(vocabulary), dimension))
    weights[0] = 0
    folder = scratch() / "words"
    SentenceTransformer(modules=[StaticEmbedding(tokenizer, embedding_weights=weights)], device="cpu").save(str(folder))
    return folder


@functools.cache
def clip_model(*, told_length: bool = True) -> Path:
    """Return the folder of a tiny CLIP of random weights, which embeds texts of up to 24 letters, and images; seeded.

    Without ``told_length`` its tokenizer does not say how much the network reads.
    """
    pytest.importorskip("sentence_transformers")
    import torch
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.base.modules import Transformer
    from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel, CLIPProcessor, CLIPTokenizer

    letters = "abcdefghijklmnopqrstuvwxyz0123456789"
    tokens = ["<|startoftext|>", "<|endoftext|>", *letters, *(f"{one}</w>" for one in letters)]
    vocabulary = {token: number for number, token in enumerate(tokens)}
    more = {"model_max_length": 24} if told_length else {}
    tokenizer = CLIPTokenizer(vocab=vocabulary, merges=[], **more)
    CLIPTokenizer._auto_class = None  # a test that registers code of a model leaves it on a class above
    shape = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    text = shape | {"vocab_size": len(tokens), "max_position_embeddings": 24, "bos_token_id": 0, "eos_token_id": 1,
                    "pad_token_id": 1, "projection_dim": 12}  # fmt: skip
    seen = shape | {"image_size": 16, "patch_size": 8, "projection_dim": 12}
    torch.manual_seed(0)
    bare, folder = scratch() / "clip", scratch() / "sentence-clip"
    CLIPModel(CLIPConfig(text_config=text, vision_config=seen, projection_dim=12)).save_pretrained(bare)
    processor = CLIPImageProcessor(size={"shortest_edge": 16}, crop_size={"height": 16, "width": 16})
    CLIPProcessor(processor, tokenizer).save_pretrained(bare)
    SentenceTransformer(modules=[Transformer(str(bare))], device="cpu").save(str(folder), create_model_card=False)
    return folder


def words_of(texts: Sequence[str]) -> tuple[str, ...]:
    """Return the distinct words of some texts, for `word_model`."""
    return tuple(dict.fromkeys(word.lower() for text in texts for word in text.split()))
