"""Tiny random models, one of each tested family, each saved in a second, offline.

The weights are noise; architecture, tokenizer kind, image processor and special tokens are those of the families.
"""

import atexit
import functools
import shutil
import tempfile
from pathlib import Path
from typing import Any

from tests.support import tiny_tokenizers as tokenizers

_CHAT = "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
MISTRAL_CHAT = "{% for m in messages %}[INST] {{ m['content'] }}[/INST]{% endfor %}"
_VICUNA_CHAT = "{% for m in messages %}USER: {{ m['content'] }} ASSISTANT:{% endfor %}"
_LLAMA3_CHAT = (
    "{% for m in messages %}<|start_header_id|>{{ m['role'] }}<|end_header_id|>{{ m['content'] }}{% endfor %}"
)
_SMOLLM_CHAT = _CHAT.replace("{% for", "{{ 'You are a helpful AI assistant named SmolLM' }}{% for", 1)
_GEMMA_CHAT = "{{ bos_token }}{% for m in messages %}<start_of_turn>{{ m['role'] }}\n{{ m['content'] }}{% endfor %}"

_ALIASES = {"qwen2_vl": "qwen2-vl", "qwen3_vl_nothink": "qwen3-vl", "llava": "llava-1.5"}
_TEXT = {
    "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2,
    "num_key_value_heads": 2, "max_position_embeddings": 2048, "initializer_range": 0.3,
}  # fmt: skip
_CLIP = {
    "model_type": "clip_vision_model", "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
    "num_attention_heads": 2, "image_size": 28, "patch_size": 14, "projection_dim": 32,
}  # fmt: skip
_MROPE = {"rope_type": "default", "mrope_section": [2, 3, 3], "rope_theta": 10000.0}
_PIXELS = {"min_pixels": 56 * 56, "max_pixels": 112 * 112}


@functools.cache
def tiny_model(name: str) -> Path:
    """Return the folder of the tiny model of a family (or of the template `qwen2_vl` or `llava`), built once."""
    folder = Path(tempfile.mkdtemp(prefix=f"tiny-{name}-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return BUILDERS[_ALIASES.get(name, name)](folder)


def build_qwen2_vl(folder: Path, seed: int = 0) -> Path:
    """Save a random Qwen2-VL of about 0.1M parameters with its processor; byte-level BPE."""
    from transformers import Qwen2VLConfig, Qwen2VLForConditionalGeneration

    tokenizer = tokenizers.small_byte_level()
    vision = {"depth": 2, "embed_dim": 32, "hidden_size": 32, "num_heads": 2, "mlp_ratio": 2, "patch_size": 14,
              "spatial_merge_size": 2, "temporal_patch_size": 2}  # fmt: skip
    config = Qwen2VLConfig(
        text_config=_qwen_text(tokenizer), vision_config=vision, tie_word_embeddings=False, **_signs(tokenizer)
    )
    _save(folder, Qwen2VLForConditionalGeneration, config, seed)
    return _save_qwen_processor(folder, tokenizer, _PIXELS)


def build_qwen2_5_vl(folder: Path, seed: int = 0) -> Path:
    """Save a random Qwen2.5-VL: windows of attention in its vision tower, RMS norms."""
    from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

    tokenizer = tokenizers.qwen()
    vision = {"depth": 2, "hidden_size": 32, "intermediate_size": 64, "num_heads": 2, "out_hidden_size": 32,
              "patch_size": 14, "window_size": 56, "fullatt_block_indexes": [1]}  # fmt: skip
    config = Qwen2_5_VLConfig(
        text_config=_qwen_text(tokenizer), vision_config=vision, tie_word_embeddings=False, **_signs(tokenizer)
    )
    _save(folder, Qwen2_5_VLForConditionalGeneration, config, seed)
    return _save_qwen_processor(folder, tokenizer, _PIXELS)


def build_qwen3_vl(folder: Path, seed: int = 0) -> Path:
    """Save a random Qwen3-VL: patches of 16, visual features added again in deeper layers, interleaved M-RoPE."""
    from transformers import Qwen3VLConfig, Qwen3VLForConditionalGeneration

    tokenizer = tokenizers.qwen()
    vision = {"depth": 3, "hidden_size": 32, "intermediate_size": 64, "num_heads": 2, "out_hidden_size": 32,
              "num_position_embeddings": 64, "deepstack_visual_indexes": [0, 1], "initializer_range": 0.3}  # fmt: skip
    text = _qwen_text(tokenizer) | {"num_hidden_layers": 3, "num_key_value_heads": 1, "head_dim": 16}
    text["rope_parameters"] = _MROPE | {"mrope_section": [4, 2, 2], "mrope_interleaved": True}
    config = Qwen3VLConfig(text_config=text, vision_config=vision, **_signs(tokenizer))
    _save(folder, Qwen3VLForConditionalGeneration, config, seed)
    return _save_qwen3_processor(folder, tokenizer)


def build_llava(folder: Path, seed: int = 0) -> Path:
    """Save a random LLaVA (CLIP + Llama) of about 0.1M parameters; a SentencePiece-like tokenizer with ``▁`` words."""
    from transformers import CLIPImageProcessor, LlavaConfig, LlavaForConditionalGeneration, LlavaProcessor

    tokenizer = tokenizers.spaced_words()
    config = LlavaConfig(
        vision_config=_CLIP, text_config={"model_type": "llama", "vocab_size": len(tokenizer), **_TEXT},
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        vision_feature_select_strategy="default", vision_feature_layer=-1,
    )  # fmt: skip
    _save(folder, LlavaForConditionalGeneration, config, seed)
    LlavaProcessor(
        image_processor=CLIPImageProcessor(size={"shortest_edge": 28}, crop_size={"height": 28, "width": 28}),
        tokenizer=tokenizer, patch_size=14, num_additional_image_tokens=1, vision_feature_select_strategy="default",
        chat_template=_VICUNA_CHAT,
    ).save_pretrained(folder)  # fmt: skip
    return folder


def build_llava_next(folder: Path, text_type: str, tokenizer: Any, chat: str | None, seed: int = 0) -> Path:
    """Save a random LLaVA-NeXT: pictures in tiles by their shape, a line end after each row of patches."""
    from transformers import (
        LlavaNextConfig,
        LlavaNextForConditionalGeneration,
        LlavaNextImageProcessor,
        LlavaNextProcessor,
    )

    grid = [[28, 56], [56, 28], [56, 56], [84, 28], [28, 84]]
    text = {"model_type": text_type, "vocab_size": len(tokenizer), **_TEXT}
    text |= {"sliding_window": None} if text_type == "mistral" else {}
    config = LlavaNextConfig(
        vision_config=_CLIP, text_config=text, image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        vision_feature_layer=-1, image_grid_pinpoints=grid,
    )  # fmt: skip
    _save(folder, LlavaNextForConditionalGeneration, config, seed)
    sizes = {"size": {"shortest_edge": 28}, "crop_size": {"height": 28, "width": 28}}
    LlavaNextProcessor(
        image_processor=LlavaNextImageProcessor(**sizes, image_grid_pinpoints=grid), tokenizer=tokenizer,
        patch_size=14, num_additional_image_tokens=1, vision_feature_select_strategy="default", chat_template=chat,
    ).save_pretrained(folder)  # fmt: skip
    return folder


def build_internvl(folder: Path, seed: int = 0) -> Path:
    """Save a random InternVL (*-hf): four patches become one token."""
    from transformers import (
        GotOcr2ImageProcessor,
        InternVLConfig,
        InternVLForConditionalGeneration,
        InternVLProcessor,
        InternVLVideoProcessor,
    )

    names = {"start_image_token": "<img>", "end_image_token": "</img>", "context_image_token": "<IMG_CONTEXT>",
             "video_token": "<video>"}  # fmt: skip
    tokenizer = tokenizers.qwen(*names.values(), extra_special_tokens=names)
    vision = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2,
              "image_size": [56, 56], "patch_size": [14, 14]}  # fmt: skip
    config = InternVLConfig(
        vision_config=vision, text_config={"model_type": "qwen2", "vocab_size": len(tokenizer), **_TEXT},
        image_token_id=tokenizer.convert_tokens_to_ids("<IMG_CONTEXT>"), image_seq_length=4,
    )  # fmt: skip
    _save(folder, InternVLForConditionalGeneration, config, seed)
    size = {"height": 56, "width": 56}
    InternVLProcessor(
        image_processor=GotOcr2ImageProcessor(size=size), video_processor=InternVLVideoProcessor(size=size),
        tokenizer=tokenizer, image_seq_length=4, chat_template=_CHAT,
    ).save_pretrained(folder)  # fmt: skip
    return folder


def build_gemma3(folder: Path, seed: int = 0) -> Path:
    """Save a random Gemma 3: five of six layers see a window of 24 tokens, pictures see all of themselves."""
    from transformers import Gemma3Config, Gemma3ForConditionalGeneration, Gemma3ImageProcessor, Gemma3Processor

    tokenizer = tokenizers.gemma()
    ids = tokenizer.convert_tokens_to_ids
    text = {
        **_TEXT, "vocab_size": len(tokenizer), "num_hidden_layers": 6, "head_dim": 16, "num_key_value_heads": 1,
        "sliding_window": 24, "query_pre_attn_scalar": 16, "pad_token_id": 0, "eos_token_id": 1, "bos_token_id": 2,
    }  # fmt: skip
    config = Gemma3Config(
        text_config=text, mm_tokens_per_image=4, image_token_index=ids("<image_soft_token>"),
        vision_config={"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2,
                       "image_size": 56, "patch_size": 14},
        boi_token_index=ids("<start_of_image>"), eoi_token_index=ids("<end_of_image>"),
    )  # fmt: skip
    _save(folder, Gemma3ForConditionalGeneration, config, seed)
    Gemma3Processor(
        image_processor=Gemma3ImageProcessor(size={"height": 56, "width": 56}), tokenizer=tokenizer,
        image_seq_length=4, chat_template=_GEMMA_CHAT,
    ).save_pretrained(folder)  # fmt: skip
    return folder


def build_text(folder: Path, kind: str, tokenizer: Any, chat: str, seed: int = 0) -> Path:
    """Save a random text model of ``kind`` (`qwen2`, `qwen3`, `llama`) with its tokenizer."""
    from transformers import AutoConfig, AutoModelForCausalLM

    more = {"head_dim": 16} if kind == "qwen3" else {}
    config = AutoConfig.for_model(kind, vocab_size=len(tokenizer), **_TEXT, **more)
    _save(folder, AutoModelForCausalLM, config, seed)
    tokenizer.chat_template = chat
    tokenizer.save_pretrained(folder)
    return folder


BUILDERS = {
    "qwen2-vl": build_qwen2_vl,
    "qwen2.5-vl": build_qwen2_5_vl,
    "qwen3-vl": build_qwen3_vl,
    "llava-1.5": build_llava,
    "llava-next": lambda folder: build_llava_next(folder, "mistral", tokenizers.llama(), MISTRAL_CHAT),
    "llava-next-llama3": lambda folder: build_llava_next(folder, "llama", tokenizers.llama3("<image>"), _LLAMA3_CHAT),
    "llava-next-vicuna": lambda folder: build_llava_next(folder, "llama", tokenizers.llama(), _VICUNA_CHAT),
    "llava-next-qwen": lambda folder: build_llava_next(folder, "qwen2", tokenizers.qwen("<image>"), _CHAT),
    "internvl": build_internvl,
    "gemma3": build_gemma3,
    "qwen2.5": lambda folder: build_text(folder, "qwen2", tokenizers.qwen(), _CHAT),
    "qwen3": lambda folder: build_text(folder, "qwen3", tokenizers.qwen(), _CHAT),
    "llama3": lambda folder: build_text(folder, "llama", tokenizers.llama3(), _LLAMA3_CHAT),
    "smollm2": lambda folder: build_text(folder, "llama", tokenizers.smollm(), _SMOLLM_CHAT),
}
"""Family of `msr_adapter.llamafactory.families` -> what saves a tiny model of it."""


def _save(folder: Path, kind: Any, config: Any, seed: int) -> None:
    import torch

    torch.manual_seed(seed)
    model = getattr(kind, "from_config", kind)(config)
    for name, weights in model.named_parameters():
        if name.endswith("mm_input_projection_weight"):  # Gemma 3 begins with zeros there, and sees nothing
            torch.nn.init.normal_(weights, std=0.3)
    model.save_pretrained(folder)


def _qwen_text(tokenizer: Any) -> dict[str, Any]:
    ids = tokenizer.convert_tokens_to_ids
    return {
        **_TEXT, "vocab_size": len(tokenizer), "rope_parameters": _MROPE, "bos_token_id": None,
        "eos_token_id": ids("<|im_end|>"), "pad_token_id": ids("<|endoftext|>"),
    }  # fmt: skip


def _signs(tokenizer: Any) -> dict[str, int]:
    ids = tokenizer.convert_tokens_to_ids
    return {
        "image_token_id": ids("<|image_pad|>"), "video_token_id": ids("<|video_pad|>"),
        "vision_start_token_id": ids("<|vision_start|>"), "vision_end_token_id": ids("<|vision_end|>"),
    }  # fmt: skip


def _save_qwen_processor(folder: Path, tokenizer: Any, pixels: dict[str, int]) -> Path:
    from transformers import Qwen2VLImageProcessor, Qwen2VLProcessor
    from transformers.models.qwen2_vl.video_processing_qwen2_vl import Qwen2VLVideoProcessor

    Qwen2VLProcessor(
        image_processor=Qwen2VLImageProcessor(**pixels), video_processor=Qwen2VLVideoProcessor(**pixels),
        tokenizer=tokenizer, chat_template=_CHAT,
    ).save_pretrained(folder)  # fmt: skip
    return folder


def _save_qwen3_processor(folder: Path, tokenizer: Any) -> Path:
    from transformers import Qwen2VLImageProcessor, Qwen3VLProcessor
    from transformers.models.qwen3_vl.video_processing_qwen3_vl import Qwen3VLVideoProcessor

    size = {"shortest_edge": 64 * 64, "longest_edge": 128 * 128}
    Qwen3VLProcessor(
        image_processor=Qwen2VLImageProcessor(patch_size=16, size=size),
        video_processor=Qwen3VLVideoProcessor(patch_size=16, size=size), tokenizer=tokenizer, chat_template=_CHAT,
    ).save_pretrained(folder)  # fmt: skip
    return folder
