"""Builders of tiny random models: Qwen2-VL-, Qwen3-VL- and LLaVA-like folders, each saved in a second, offline.

The weights are noise; architecture, tokenizer kind, image processor and special tokens are those of the families.
"""

import atexit
import functools
import shutil
import tempfile
from pathlib import Path

_CORPUS = [
    "A user's preferences: bold red comic covers, quiet landscapes and night scenes.",
    "Candidate: Title: The Blue Harbour. Based on these preferences, will the user choose this candidate?",
    "Answer Yes or No. You are a helpful assistant. Describe this item in one or two sentences.",
    "USER: question ASSISTANT: Yes No yes no 0123456789",
] * 8
_QWEN_SPECIAL = [
    "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>", "<|vision_pad|>",
    "<|image_pad|>", "<|video_pad|>",
]  # fmt: skip
_CHAT = "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"


@functools.cache
def tiny_model(template: str) -> Path:
    """Return the folder of the tiny model for ``template``, built once per process."""
    folder = Path(tempfile.mkdtemp(prefix=f"tiny-{template}-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return BUILDERS[template](folder)


def build_qwen2_vl(folder: Path, seed: int = 0) -> Path:
    """Save a random Qwen2-VL of about 0.1M parameters with its processor; byte-level BPE."""
    import torch
    from transformers import Qwen2VLConfig, Qwen2VLForConditionalGeneration, Qwen2VLImageProcessor, Qwen2VLProcessor
    from transformers.models.qwen2_vl.video_processing_qwen2_vl import Qwen2VLVideoProcessor

    tokenizer = _byte_level_tokenizer()
    ids = tokenizer.convert_tokens_to_ids
    config = Qwen2VLConfig(
        text_config={
            "vocab_size": len(tokenizer), "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
            "num_attention_heads": 2, "num_key_value_heads": 2, "max_position_embeddings": 2048,
            "rope_parameters": {"rope_type": "default", "mrope_section": [2, 3, 3], "rope_theta": 10000.0},
            "bos_token_id": None, "eos_token_id": ids("<|im_end|>"), "pad_token_id": ids("<|endoftext|>"),
            "initializer_range": 0.3,
        },
        vision_config={"depth": 2, "embed_dim": 32, "hidden_size": 32, "num_heads": 2, "mlp_ratio": 2,
                       "patch_size": 14, "spatial_merge_size": 2, "temporal_patch_size": 2},
        image_token_id=ids("<|image_pad|>"), video_token_id=ids("<|video_pad|>"),
        vision_start_token_id=ids("<|vision_start|>"), vision_end_token_id=ids("<|vision_end|>"),
        tie_word_embeddings=False,
    )  # fmt: skip
    torch.manual_seed(seed)
    Qwen2VLForConditionalGeneration(config).save_pretrained(folder)
    pixels = {"min_pixels": 56 * 56, "max_pixels": 112 * 112}
    Qwen2VLProcessor(
        image_processor=Qwen2VLImageProcessor(**pixels), video_processor=Qwen2VLVideoProcessor(**pixels),
        tokenizer=tokenizer, chat_template=_CHAT,
    ).save_pretrained(folder)  # fmt: skip
    return folder


def build_qwen3_vl(folder: Path, seed: int = 0) -> Path:
    """Save a random Qwen3-VL of about 0.1M parameters: interleaved M-RoPE, two layers that get deeper features."""
    import torch
    from transformers import Qwen2VLImageProcessor, Qwen3VLConfig, Qwen3VLForConditionalGeneration, Qwen3VLProcessor
    from transformers.models.qwen3_vl.video_processing_qwen3_vl import Qwen3VLVideoProcessor

    tokenizer = _byte_level_tokenizer()
    ids = tokenizer.convert_tokens_to_ids
    config = Qwen3VLConfig(
        text_config={
            "vocab_size": len(tokenizer), "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 3,
            "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 16, "max_position_embeddings": 2048,
            "rope_parameters": {"rope_type": "default", "mrope_section": [4, 2, 2], "mrope_interleaved": True,
                                "rope_theta": 10000.0},
            "bos_token_id": None, "eos_token_id": ids("<|im_end|>"), "pad_token_id": ids("<|endoftext|>"),
            "initializer_range": 0.3,
        },
        vision_config={"depth": 3, "hidden_size": 32, "intermediate_size": 64, "num_heads": 2, "patch_size": 14,
                       "spatial_merge_size": 2, "temporal_patch_size": 2, "out_hidden_size": 32,
                       "num_position_embeddings": 64, "deepstack_visual_indexes": [0, 1], "initializer_range": 0.3},
        image_token_id=ids("<|image_pad|>"), video_token_id=ids("<|video_pad|>"),
        vision_start_token_id=ids("<|vision_start|>"), vision_end_token_id=ids("<|vision_end|>"),
        tie_word_embeddings=False,
    )  # fmt: skip
    torch.manual_seed(seed)
    Qwen3VLForConditionalGeneration(config).save_pretrained(folder)
    size = {"shortest_edge": 56 * 56, "longest_edge": 112 * 112}
    Qwen3VLProcessor(
        image_processor=Qwen2VLImageProcessor(size=size, patch_size=14),
        video_processor=Qwen3VLVideoProcessor(size=size, patch_size=14), tokenizer=tokenizer, chat_template=_CHAT,
    ).save_pretrained(folder)  # fmt: skip
    return folder


def build_llava(folder: Path, seed: int = 0) -> Path:
    """Save a random LLaVA (CLIP + Llama) of about 0.1M parameters; a SentencePiece-like tokenizer with ``▁`` words."""
    import torch
    from transformers import CLIPImageProcessor, LlavaConfig, LlavaForConditionalGeneration, LlavaProcessor

    tokenizer = _metaspace_tokenizer()
    config = LlavaConfig(
        vision_config={"model_type": "clip_vision_model", "hidden_size": 32, "intermediate_size": 64,
                       "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 28, "patch_size": 14,
                       "projection_dim": 32},
        text_config={"model_type": "llama", "vocab_size": len(tokenizer), "hidden_size": 32, "intermediate_size": 64,
                     "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 2,
                     "max_position_embeddings": 2048, "initializer_range": 0.3},
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        vision_feature_select_strategy="default", vision_feature_layer=-1,
    )  # fmt: skip
    torch.manual_seed(seed)
    LlavaForConditionalGeneration(config).save_pretrained(folder)
    LlavaProcessor(
        image_processor=CLIPImageProcessor(size={"shortest_edge": 28}, crop_size={"height": 28, "width": 28}),
        tokenizer=tokenizer, patch_size=14, num_additional_image_tokens=1, vision_feature_select_strategy="default",
        chat_template=_CHAT,
    ).save_pretrained(folder)  # fmt: skip
    return folder


def _byte_level_tokenizer():
    from tokenizers import ByteLevelBPETokenizer
    from transformers import PreTrainedTokenizerFast

    bpe = ByteLevelBPETokenizer()
    bpe.train_from_iterator(_CORPUS, vocab_size=320, special_tokens=_QWEN_SPECIAL, show_progress=False)
    return PreTrainedTokenizerFast(
        tokenizer_object=bpe._tokenizer, eos_token="<|im_end|>", pad_token="<|endoftext|>",
        additional_special_tokens=_QWEN_SPECIAL[1:2] + _QWEN_SPECIAL[3:],
    )  # fmt: skip


def _metaspace_tokenizer():
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    alphabet = [chr(c) for c in range(33, 127)] + ["▁"]
    backend = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True))
    backend.pre_tokenizer = pre_tokenizers.Metaspace()
    backend.decoder = decoders.Metaspace()
    special = ["<unk>", "<s>", "</s>", "<pad>", "<image>"]
    byte_tokens = [f"<0x{value:02X}>" for value in range(256)]
    backend.train_from_iterator(
        _CORPUS,
        trainers.BpeTrainer(vocab_size=700, special_tokens=special + byte_tokens, initial_alphabet=alphabet,
                            show_progress=False),
    )  # fmt: skip
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, unk_token="<unk>", bos_token="<s>", eos_token="</s>", pad_token="<pad>",
        additional_special_tokens=["<image>"],
    )  # fmt: skip


BUILDERS = {"qwen2_vl": build_qwen2_vl, "qwen3_vl_nothink": build_qwen3_vl, "llava": build_llava}
"""Template -> its builder."""
