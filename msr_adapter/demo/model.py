"""The tiny model before its first lesson: a Qwen2-VL of about 1.15 million random parameters and its own tokenizer."""

from collections.abc import Iterable

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    GenerationConfig,
    PreTrainedTokenizerFast,
    Qwen2VLConfig,
    Qwen2VLForConditionalGeneration,
    Qwen2VLImageProcessor,
    Qwen2VLProcessor,
    Qwen2VLVideoProcessor,
)

from msr_adapter.synthetic import IMAGE_SIZE

VOCABULARY = 704
_INIT = 0.06
"""Standard deviation of initial weights; the usual 0.02 is made for wide models and learns far more slowly here."""
_PAD, _START, _END = "<|endoftext|>", "<|im_start|>", "<|im_end|>"
_SPECIAL = (
    _PAD, _START, _END, "<|vision_start|>", "<|vision_end|>", "<|vision_pad|>", "<|image_pad|>", "<|video_pad|>",
)  # fmt: skip

_CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}"
    "{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<|vision_start|><|image_pad|><|vision_end|>{% else %}{{ part['text'] }}{% endif %}"
    "{% endfor %}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
"""What LLaMA-Factory's `qwen2_vl` template writes when its system text is empty."""


def make_tokenizer(corpus: Iterable[str]) -> PreTrainedTokenizerFast:
    """Train a byte-level BPE tokenizer on ``corpus``: any text can be encoded, words of lessons are one token."""
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=[AddedToken(token, special=True, normalized=False) for token in _SPECIAL],
        # In order: the library returns a set's, which is another in every process, and ids would differ.
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    bpe.train_from_iterator(corpus, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=bpe, eos_token=_END, pad_token=_PAD, additional_special_tokens=list(_SPECIAL[1:]),
        model_max_length=2048, clean_up_tokenization_spaces=False, chat_template=_CHAT_TEMPLATE,
    )  # fmt: skip


def make_processor(tokenizer: PreTrainedTokenizerFast) -> Qwen2VLProcessor:
    """Join ``tokenizer`` with an image and a video processor that keep a 56x56 image as it is: 4 image tokens."""
    size = {"shortest_edge": IMAGE_SIZE**2, "longest_edge": IMAGE_SIZE**2 * 16}
    return Qwen2VLProcessor(
        image_processor=Qwen2VLImageProcessor(size=size),
        video_processor=Qwen2VLVideoProcessor(size=size),
        tokenizer=tokenizer,
        chat_template=_CHAT_TEMPLATE,
    )


def make_model(tokenizer: PreTrainedTokenizerFast) -> Qwen2VLForConditionalGeneration:
    """Return the untrained float32 model; its weights come from PyTorch's current random state."""
    token = tokenizer.convert_tokens_to_ids
    text = {
        "vocab_size": len(tokenizer), "hidden_size": 128, "intermediate_size": 352, "num_hidden_layers": 4,
        "num_attention_heads": 4, "num_key_value_heads": 4, "max_position_embeddings": 2048,
        "rope_parameters": {"rope_type": "default", "rope_theta": 10_000.0, "mrope_section": [4, 6, 6]},
        "bos_token_id": None, "eos_token_id": token(_END), "pad_token_id": token(_PAD), "initializer_range": _INIT,
    }  # fmt: skip
    vision = {"depth": 2, "embed_dim": 64, "hidden_size": 128, "num_heads": 4, "mlp_ratio": 2}
    config = Qwen2VLConfig(
        text_config=text, vision_config=vision | {"initializer_range": _INIT},
        image_token_id=token("<|image_pad|>"), video_token_id=token("<|video_pad|>"),
        vision_start_token_id=token("<|vision_start|>"), vision_end_token_id=token("<|vision_end|>"),
        tie_word_embeddings=True, dtype="float32",
    )  # fmt: skip
    model = Qwen2VLForConditionalGeneration(config)
    model.generation_config = GenerationConfig(eos_token_id=token(_END), pad_token_id=token(_PAD), do_sample=False)
    return model
