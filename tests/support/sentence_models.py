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


def words_of(texts: Sequence[str]) -> tuple[str, ...]:
    """Return the distinct words of some texts, for `word_model`."""
    return tuple(dict.fromkeys(word.lower() for text in texts for word in text.split()))
