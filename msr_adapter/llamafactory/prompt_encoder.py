"""Prompts to tokens exactly as LLaMA-Factory trains them: its template, its image plug-in, its collator.

Scoring and generation encode through this class, so that the prompt asked is, token for token, the prompt trained.
"""

import copy
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from msr_adapter.config.schema import ModelConfig
from msr_adapter.errors import StageError
from msr_adapter.generation.request import IMAGE_PLACEHOLDER
from msr_adapter.integrity import require_unaltered
from msr_adapter.llamafactory.fitting_weights import fitting_only, require_ranks
from msr_adapter.llamafactory.model_files import loading
from msr_adapter.llamafactory.model_weights import BASE, Weights, own_adapters
from msr_adapter.llamafactory.processed_images import ProcessedImages
from msr_adapter.llamafactory.template import load_template

if TYPE_CHECKING:
    from torch import Tensor

_SEQUENCE_KEYS = ("input_ids", "attention_mask", "position_ids")
_KNOWN_EXPANSIONS = 65_536


class Encoder:
    """Tokenizer, image processor and template of one model, set up as LLaMA-Factory does for training."""

    def __init__(
        self, model: ModelConfig, weights: Weights = BASE, *, device: str = "auto", expand_images: bool = True
    ) -> None:
        """Load tokenizer and processor of the base model (seconds; no weights).

        Without ``expand_images`` one token stands for each image, for an engine that puts in the others itself: no
        image is read then.

        Raises `UserError` for a missing or different LLaMA-Factory, and for a template that is unknown, not the
        model's own, or puts a thought before every answer.
        """
        self._weights, self._device = weights, device
        self._loaded = load_template(model)
        self.model = self._loaded.model
        self.template, self.tokenizer = self._loaded.template, self._loaded.tokenizer
        self.template.mm_plugin.expand_mm_tokens = expand_images
        self.processor = self._loaded.processor
        self._kept_images: ProcessedImages | None = None
        self._expansions: dict[str, str] = {}
        self._images_apart: bool | None = None
        """Whether several images of a prompt have the tokens that each has alone; None = not known yet."""
        self._label_words: dict[tuple[tuple[str, ...], ...], tuple[list[int], tuple[tuple[int, ...], ...]]] = {}

    @property
    def sees_images(self) -> bool:
        """Tell whether the template has image tokens."""
        return self.template.mm_plugin.image_token is not None

    @property
    def stop_ids(self) -> list[int]:
        """Return the tokens that end an answer under this template, ascending."""
        return sorted(token for token in self.template.get_stop_token_ids(self.tokenizer) if token is not None)

    @cached_property
    def frame(self) -> tuple[int, int]:
        """How many tokens the template puts before and after what a user says, where an answer would begin."""
        one, other = self.encode("a"), self.encode("0")
        before = next((place for place, pair in enumerate(zip(one, other, strict=False)) if pair[0] != pair[1]), 0)
        ends = zip(reversed(one[before:]), reversed(other[before:]), strict=False)
        return before, next((place for place, pair in enumerate(ends) if pair[0] != pair[1]), 0)

    def encode(self, prompt: str, images: Sequence[Path] = (), sides: Sequence[Sequence[str]] = ()) -> list[int]:
        """Return the token ids of one user turn up to where the answer begins; ``<image>`` stands for each image.

        ``sides`` are the label words of each choice. With them, the tokens that all label words begin with belong to
        the prompt too.
        """
        return self._pair(prompt, images, "")[0] + (self._told_apart(sides)[0] if sides else [])

    def row_length(self, prompt: str, images: Sequence[Path], answer: str) -> int:
        """Return the number of tokens of a training row: prompt, answer and end of sequence, before any cut."""
        source, target = self._pair(prompt, images, answer)
        # Such templates leave the end of sequence to LLaMA-Factory's data processor, which adds it to each row.
        return len(source) + len(target) + int(self.template.efficient_eos)

    def answer_ids(self, answer: str) -> list[int]:
        """Return all tokens that training reads after a prompt: the answer and the end of the turn."""
        ids = self._pair("?", (), answer)[1]
        return [*ids, self.tokenizer.eos_token_id] if self.template.efficient_eos else ids

    def scored_ids(self, answer: str, *, end: bool) -> list[int]:
        """Return the tokens of ``answer`` whose likelihood counts: those that training reads but for the turn's end.

        With ``end``, all of `answer_ids`. Where the template's text after an answer is one token with the answer's
        last letters, the end cannot be told apart and counts too.
        """
        whole, after = self.answer_ids(answer), self.answer_ids("")
        if end or not after or len(whole) <= len(after) or whole[-len(after) :] != after:
            return whole
        return whole[: -len(after)]

    def expansion(self, image: Path) -> str:
        """Return the text that stands for an image in a prompt: its tokens, by name. Processes the image."""
        return self._plugin_expand(IMAGE_PLACEHOLDER, [str(image)])

    def remember(self, expansions: Mapping[Path, str]) -> None:
        """Take over what `expansion` returned, here or in another process: these images are not processed again."""
        if len(self._expansions) + len(expansions) > _KNOWN_EXPANSIONS:
            self._expansions.clear()
        self._expansions |= {str(path): expansion for path, expansion in expansions.items()}

    def answer_tokens(self, choices: Sequence[str]) -> tuple[int, ...]:
        """Return the token that training teaches for each choice where they first differ, resolved by the template.

        Raises `StageError` when no single position tells all choices apart.
        """
        return tuple(tokens[0] for tokens in self.side_tokens([[choice] for choice in choices]))

    def side_tokens(self, sides: Sequence[Sequence[str]]) -> tuple[tuple[int, ...], ...]:
        """Return, for each side, the distinct tokens of its label words at the place where not all words agree.

        The token of a side's first word comes first. Raises `StageError` when words of two sides have the same token
        there.
        """
        return self._told_apart(sides)[1]

    def common_prefix(self, sides: Sequence[Sequence[str]]) -> list[int]:
        """Return the tokens that all label words begin with, mostly none; raises as `side_tokens` does."""
        return self._told_apart(sides)[0]

    def _told_apart(self, sides: Sequence[Sequence[str]]) -> tuple[list[int], tuple[tuple[int, ...], ...]]:
        """Return the tokens that all label words begin with, mostly none, and those of each side right after them.

        A tokenizer that writes every blank apart has the answers ` Yes` and ` No` begin with the same `▁`.
        """
        known = tuple(tuple(side) for side in sides)
        if known not in self._label_words:
            self._label_words[known] = self._tell_apart(known)
        return self._label_words[known]

    def _tell_apart(self, sides: Sequence[Sequence[str]]) -> tuple[list[int], tuple[tuple[int, ...], ...]]:
        """Return what `_told_apart` does, by encoding every label word as an answer."""
        written = [{word: self._pair("?", (), word)[1] for word in side} for side in sides]
        rows = [row for side in written for row in side.values()]
        places = range(min(map(len, rows)))
        shared = next((place for place in places if len({row[place] for row in rows}) > 1), len(places) - 1)
        tokens = tuple(tuple(dict.fromkeys(row[shared] for row in side.values())) for side in written)
        if len(set().union(*tokens)) < sum(map(len, tokens)):
            pairs = ", ".join(f"{word!r} -> {row}" for side in written for word, row in side.items())
            raise StageError(
                f"The answers begin with the same token under template {self.model.template}: {pairs}",
                "this tokenizer splits the answers into pieces, or the template puts fixed text before them",
                "choose a template without fixed text before the answer, or a model whose tokenizer knows both words",
            )
        return rows[0][:shared], tokens

    def keep_images(self) -> None:
        """From now on keep what is made of an image when its tokens are counted, for `pixels` to take: some memory."""
        self._kept_images = self._kept_images or ProcessedImages(self.template.mm_plugin)

    def pixels(self, images: Sequence[Path]) -> Mapping[str, "Tensor"]:
        """Return the model inputs of some images alone, as the image plug-in makes them: pixels, grids, sizes."""
        if self._kept_images and (kept := self._kept_images.take(images)):
            return kept
        plugin, count = self.template.mm_plugin, len(images)
        paths = [str(path) for path in images]
        found = plugin.get_mm_inputs(
            paths, [], [], [1] * count, [0] * count, [0] * count, [[] for _ in paths], self.processor
        )
        return dict(found)

    def resized_image(self, path: Path) -> Any:
        """Return an image (Pillow) as training hands it to the image processor: within the model's pixel limits."""
        limits = {
            "image_max_pixels": getattr(self.processor, "image_max_pixels", self.model.image_max_pixels),
            "image_min_pixels": getattr(self.processor, "image_min_pixels", self.model.image_min_pixels),
        }
        return self.template.mm_plugin._regularize_images([str(path)], **limits)["images"][0]

    def load_model(self) -> Any:
        """Load the weights for inference, adapters merged in order, in the model's dtype.

        A reward model comes with its value head, as `v_head`. Adapters of a quantised model stay beside it.
        """
        import torch
        from llamafactory.model import load_model

        require_unaltered([folder.parent for folder in self._weights.folders], whole=True)
        model_args, finetuning_args = map(copy.copy, (self._loaded.model_args, self._loaded.finetuning_args))
        if self._weights.full is not None:
            model_args.model_name_or_path = str(self._weights.full.resolve())
            model_args.model_revision = "main"
        require_ranks(on_top := own_adapters(self.model) + self._weights.adapters)
        adapters = [str(folder.resolve()) for folder in on_top]
        # Not among the arguments that are parsed: a comma in a path would split it.
        model_args.adapter_name_or_path = adapters or None
        model_args.device_map = self._device
        with loading("Weights", str(model_args.model_name_or_path)), fitting_only(self._weights.full):
            network = load_model(
                self.tokenizer, model_args, finetuning_args, is_trainable=False, add_valuehead=self._weights.reward
            )
        require_in_memory(network, str(model_args.model_name_or_path))
        if self.model.quantization != "none":
            # On a CPU with bfloat16 instructions bitsandbytes repacks 4-bit weights at the first forward pass that does
            # not train: scales are rounded, and widths that are no multiple of a block's 64 weights end in an error.
            for module in network.modules():
                if hasattr(module, "support_avx512bf16_for_cpu"):
                    module.support_avx512bf16_for_cpu = False
            return network
        # LLaMA-Factory loads the dtype of the checkpoint, whatever `infer_dtype` says.
        return network.to(getattr(torch, self.model.dtype))

    def collator(self, model: Any) -> Any:
        """Return LLaMA-Factory's own batch collator, padding on the left; ``model`` supplies the M-RoPE positions."""
        from llamafactory.data.collator import MultiModalDataCollatorForSeq2Seq

        tokenizer = copy.deepcopy(self.tokenizer)
        tokenizer.padding_side = "left"  # so that the last column is every row's last token
        return MultiModalDataCollatorForSeq2Seq(
            template=self.template, model=model, tokenizer=tokenizer, processor=self.processor
        )

    def _pair(self, prompt: str, images: Sequence[Path], answer: str) -> tuple[list[int], list[int]]:
        """Return the tokens of the user turn and of the answer, as LLaMA-Factory encodes one turn of a row."""
        paths = [str(path) for path in images]
        plugin = self.template.mm_plugin
        content = self._expand(prompt, paths)
        messages = [{"role": "user", "content": content}, {"role": "assistant", "content": answer}]
        source, target = self.template.encode_oneturn(self.tokenizer, messages)
        source, _ = plugin.process_token_ids(source, None, paths, [], [], self.tokenizer, self.processor)
        return source, target

    def _expand(self, prompt: str, paths: list[str]) -> str:
        """Replace placeholders by image tokens, which are remembered of each image, as items repeat."""
        # With other placeholders in the text, what stands for the image may depend on them: then nothing is remembered.
        first, *rest = prompt.split(IMAGE_PLACEHOLDER)
        if not paths or len(rest) != len(paths) or "{{" in prompt or "<video>" in prompt or "<audio>" in prompt:
            return self._plugin_expand(prompt, paths)
        if len(paths) > 1 and self._images_apart is False:
            return self._plugin_expand(prompt, paths)
        text = first + "".join(self._expansion(path) + after for path, after in zip(paths, rest, strict=True))
        if len(paths) > 1 and self._images_apart is None:
            # A family may number the images of a prompt, or look at them together: found out by the first such prompt.
            whole = self._plugin_expand(prompt, paths)
            self._images_apart = text == whole
            return whole
        return text

    def _expansion(self, path: str) -> str:
        """Return the tokens of an image by itself, by name."""
        if path not in self._expansions:
            if len(self._expansions) >= _KNOWN_EXPANSIONS:
                self._expansions.clear()
            self._expansions[path] = self._plugin_expand(IMAGE_PLACEHOLDER, [path])
        return self._expansions[path]

    def _plugin_expand(self, text: str, paths: list[str]) -> str:
        messages = [{"role": "user", "content": text}]
        expanded = self.template.mm_plugin.process_messages(messages, paths, [], [], self.processor)
        return str(expanded[0]["content"])


def require_in_memory(network: Any, name: str) -> None:
    """Raise `StageError` where parts of a model were left on a slower device for want of memory."""
    places = {str(place) for place in (getattr(network, "hf_device_map", None) or {}).values()}
    if len(places) > 1 and places & {"cpu", "disk"}:
        raise StageError(
            f"Weights of {name} do not fit in memory: parts of them would stay on {' and '.join(sorted(places))}",
            "the model is larger than the free memory of this machine's devices",
            "choose a smaller model, quantization: 4 or dtype: bfloat16, or a machine with more memory",
        )


def collate(collator: Any, prompts: Sequence[Sequence[int]], images: Sequence[Sequence[Path]]) -> dict[str, "Tensor"]:
    """Return one left-padded batch of model inputs on the CPU: ids, mask, positions and pixels.

    A batch without images loses the dummy image that LLaMA-Factory adds for distributed training.
    """
    features = [
        {"input_ids": list(ids), "attention_mask": [1] * len(ids), "labels": [-100] * len(ids),
         "images": [str(path) for path in paths]}
        for ids, paths in zip(prompts, images, strict=True)
    ]  # fmt: skip
    batch = dict(collator(features))
    batch.pop("labels")  # the collator wants them; with them the model would compute a loss
    batch.pop("rope_deltas", None)
    if any(images):
        return batch
    length = max(len(ids) for ids in prompts)
    return {name: batch[name][..., -length:] for name in _SEQUENCE_KEYS if name in batch}
