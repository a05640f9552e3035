"""Candidate scoring with random weights of real size on a GPU: what prompts share computed once, against plain passes.

Shapes: LLaVA-NeXT-7B (images of 672 x 672) and Qwen2.5-VL-7B (448 x 448: 256 tokens), in bfloat16. Prompts are token
ids: 20 tokens of head, a user summary of 200, a title of 30, a question of 50 between user and item and 10 tokens that
close the turn, all 21 items candidates of every user; no processor is timed. Baselines: generate(30) and generate(2) in
batches of 6, one forward pass per prompt in batches that fit. The scores must agree within what bfloat16 leaves
(0.5 in log-odds; 1e-4 in float32).

    python benchmarks/score_gpu.py [--shape NAME] [--users 5] [--json]

`tiny` and `tiny-llava-next` run anywhere and only show that the benchmark itself works.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from msr_adapter.backends.huggingface import fit_device
from msr_adapter.backends.prefix_cache.batch_sizer import BatchSizer
from msr_adapter.backends.prefix_cache.batches import Prompt
from msr_adapter.backends.prefix_cache.prefix_cache import PrefixCache
from msr_adapter.generation.request import Image

SIZE, HEAD, SUMMARY, TITLE, QUESTION, END = 21, 20, 200, 30, 50, 10
BASELINE_BATCH = 6
YES, NO, PAD = 11, 12, 10


@dataclass(frozen=True)
class Shape:
    """A model's size, and one image as its vision tower takes it."""

    build: Callable[[], Any]
    pixels: Callable[[torch.Generator], dict[str, torch.Tensor]]
    dtype: torch.dtype


def _qwen(text: Mapping[str, Any], vision: Mapping[str, Any]) -> Any:
    from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

    tokens = {"image_token_id": 5, "video_token_id": 6, "vision_start_token_id": 7, "vision_end_token_id": 8}
    return Qwen2_5_VLForConditionalGeneration(Qwen2_5_VLConfig(text_config=text, vision_config=vision, **tokens))


def _qwen_7b() -> Any:
    rope = {"rope_type": "default", "mrope_section": [16, 24, 24], "rope_theta": 1e6}
    text = {"vocab_size": 152064, "hidden_size": 3584, "intermediate_size": 18944, "num_hidden_layers": 28,
            "num_attention_heads": 28, "num_key_value_heads": 4, "rope_parameters": rope}  # fmt: skip
    vision = {"depth": 32, "hidden_size": 1280, "intermediate_size": 3420, "num_heads": 16, "out_hidden_size": 3584}
    return _qwen(text, vision)


def _qwen_tiny() -> Any:
    rope = {"rope_type": "default", "mrope_section": [2, 3, 3], "rope_theta": 1e6}
    text = {"vocab_size": 500, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
            "num_attention_heads": 2, "num_key_value_heads": 2, "rope_parameters": rope}  # fmt: skip
    vision = {"depth": 2, "hidden_size": 32, "intermediate_size": 64, "num_heads": 2, "out_hidden_size": 32,
              "fullatt_block_indexes": [1]}  # fmt: skip
    return _qwen(text, vision)


def _llava_7b() -> Any:
    vision = {"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24, "num_attention_heads": 16,
              "projection_dim": 768}  # fmt: skip
    return _llava({"vocab_size": 32064}, vision)


def _llava_tiny() -> Any:
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    return _llava({"vocab_size": 500, "num_key_value_heads": 2, **sizes}, {"projection_dim": 32, **sizes})


def _llava(text: Mapping[str, Any], vision: Mapping[str, Any]) -> Any:
    from transformers import CLIPVisionConfig, LlavaNextConfig, LlavaNextForConditionalGeneration, MistralConfig

    pinpoints = [[336, 672], [672, 336], [672, 672], [1008, 336], [336, 1008]]
    config = LlavaNextConfig(
        vision_config=CLIPVisionConfig(image_size=336, patch_size=14, **vision),
        text_config=MistralConfig(sliding_window=None, **text), image_token_index=5, image_grid_pinpoints=pinpoints,
    )  # fmt: skip
    return LlavaNextForConditionalGeneration(config)


def _patches(side: int) -> Callable[[torch.Generator], dict[str, torch.Tensor]]:
    return lambda generator: {
        "pixel_values": torch.randn(side * side, 3 * 2 * 14 * 14, generator=generator),
        "image_grid_thw": torch.tensor([[1, side, side]]),
    }


def _tiles(generator: torch.Generator) -> dict[str, torch.Tensor]:
    return {
        "pixel_values": torch.randn(1, 5, 3, 336, 336, generator=generator),
        "image_sizes": torch.tensor([[672, 672]]),
    }


SHAPES = {
    "llava-next-7b": Shape(_llava_7b, _tiles, torch.bfloat16),
    "qwen2.5-vl-7b": Shape(_qwen_7b, _patches(32), torch.bfloat16),
    "tiny": Shape(_qwen_tiny, _patches(8), torch.float32),
    "tiny-llava-next": Shape(_llava_tiny, _tiles, torch.float32),
}


class Ways:
    """One model and the ways of scoring the same prompts; each call starts with nothing remembered."""

    def __init__(self, shape: Shape, device: str) -> None:
        before = torch.get_default_dtype()
        torch.set_default_dtype(shape.dtype)
        torch.manual_seed(0)
        with torch.device(device):
            self.network = shape.build().eval()
        torch.set_default_dtype(before)
        self.network.generation_config.eos_token_id = None
        self.network.generation_config.pad_token_id = PAD
        self._shape, self._device = shape, device
        self._seen: dict[str, dict[str, torch.Tensor]] = {}
        self.prefix_cache = PrefixCache(
            self.network, self.pixels, lambda prompt: self._inputs([prompt]), PAD, self._batch_sizer()
        )
        self.image_tokens = len(self.prefix_cache._store.find([_image(0)])["0"].main)

    def _batch_sizer(self) -> BatchSizer:
        room = BatchSizer(256)
        fit_device(room, self.network)
        return room

    def pixels(self, paths: Sequence[Path]) -> dict[str, torch.Tensor]:
        """Return the inputs of images, whose names are seeds."""
        for path in paths:
            if path.name not in self._seen:
                generator = torch.Generator().manual_seed(int(path.name))
                self._seen[path.name] = self._shape.pixels(generator)
        found = [self._seen[path.name] for path in paths]
        joined = {name: torch.cat([one[name] for one in found]) for name in found[0]}
        return {
            name: value.to(self._shape.dtype) if value.is_floating_point() else value for name, value in joined.items()
        }

    def prompts(self, order: str, users: int) -> list[Prompt]:
        """Return users x `SIZE` prompts, user by user."""
        generator = np.random.default_rng(0)

        def text(count: int) -> list[int]:
            return generator.integers(20, 400, count).tolist()

        head, question, end = text(HEAD), text(QUESTION), text(END)
        summaries = [text(int(SUMMARY * generator.uniform(0.7, 1.3))) for _ in range(users)]
        items = [[7, *[5] * self.image_tokens, 8, *text(int(TITLE * generator.uniform(0.7, 1.3)))] for _ in range(SIZE)]
        made = []
        for summary in summaries:
            for number, item in enumerate(items):
                first, second = (summary, item) if order == "users" else (item, summary)
                middle = first + question + second
                made.append(self.prefix_cache.batches.prompt(head + middle + end, (_image(number),)))
        return made

    def plain(self, prompts: Sequence[Prompt]) -> list[float]:
        """Return log p(yes) - log p(no) from one forward pass per prompt, sorted by length, in batches that fit."""
        order = sorted(range(len(prompts)), key=lambda at: -len(prompts[at]))
        margins = np.empty(len(prompts))
        for part, found in self._batch_sizer().each(
            order, lambda at: len(prompts[at]), lambda part: self._pass(prompts, part)
        ):
            margins[list(part)] = found
        return list(margins.tolist())

    def generate(self, prompts: Sequence[Prompt], new_tokens: int) -> list[float]:
        """Return the same from the first step of a generation of ``new_tokens`` tokens, in batches of 6."""
        margins: list[float] = []
        for start in range(0, len(prompts), BASELINE_BATCH):
            inputs = self._inputs(prompts[start : start + BASELINE_BATCH])
            with torch.inference_mode():
                output = self.network.generate(
                    **inputs, do_sample=False, min_new_tokens=new_tokens, max_new_tokens=new_tokens,
                    output_logits=True, return_dict_in_generate=True,
                )  # fmt: skip
            margins += _margins(output.logits[0])
        return margins

    def ours(self, prompts: Sequence[Prompt]) -> list[float]:
        """Return the same as the score stage does."""
        self.prefix_cache.forget()
        found = dict(self.prefix_cache.score(prompts, lambda logits: [(margin,) for margin in _margins(logits)]))
        return [found[row][0] for row in range(len(prompts))]

    def _pass(self, prompts: Sequence[Prompt], part: Sequence[int]) -> list[float]:
        with torch.inference_mode():
            inputs = self._inputs([prompts[at] for at in part])
            return _margins(self.network(**inputs, use_cache=False, logits_to_keep=1).logits[:, -1])

    def _inputs(self, prompts: Sequence[Prompt]) -> dict[str, torch.Tensor]:
        width = max(map(len, prompts))
        ids = torch.full((len(prompts), width), PAD)
        mask = torch.zeros((len(prompts), width), dtype=torch.long)
        for row, prompt in enumerate(prompts):
            ids[row, width - len(prompt) :] = torch.from_numpy(prompt.ids)
            mask[row, width - len(prompt) :] = 1
        inputs = {"input_ids": ids, "attention_mask": mask}
        inputs |= self.pixels([image.path for prompt in prompts for image in prompt.images])
        if "image_grid_thw" in inputs:
            inputs["mm_token_type_ids"] = (ids == 5).int()
        return {name: value.to(self._device) for name, value in inputs.items()}


def _image(number: int) -> Image:
    return Image(Path(str(number)), str(number))


def _margins(logits: torch.Tensor) -> list[float]:
    logprobs = logits.float().log_softmax(-1)
    return (logprobs[:, YES] - logprobs[:, NO]).tolist()


def measure(ways: Ways, order: str, users: int, repeats: int) -> dict[str, Any]:
    """Check that all ways agree, then time them in turns."""
    prompts = ways.prompts(order, users)
    if refusal := ways.prefix_cache.refusal(prompts):
        raise SystemExit(f"score_gpu: the model is not trusted with sharing: {refusal}")
    before = ways.prefix_cache.stats.counts()
    ours, plain = ways.ours(prompts), ways.plain(prompts)
    counts = {name: value - before[name] for name, value in ways.prefix_cache.stats.counts().items()}
    worst = float(np.abs(np.subtract(ours, plain)).max())
    assert worst < (1e-4 if ways._shape.dtype == torch.float32 else 0.5), f"scores differ by {worst}"
    ranks = [np.argsort(np.reshape(margins, (users, SIZE)), axis=1)[:, ::-1][:, :5] for margins in (ours, plain)]
    same = float(np.mean([len(set(a) & set(b)) / 5 for a, b in zip(*ranks, strict=True)]))
    timed: dict[str, Callable[[], object]] = {
        "ours": lambda: ways.ours(prompts), "plain": lambda: ways.plain(prompts),
        "generate(2)": lambda: ways.generate(prompts, 2), "generate(30)": lambda: ways.generate(prompts, 30),
    }  # fmt: skip
    seconds: dict[str, list[float]] = {name: [] for name in timed}
    for _ in range(repeats):
        for name, way in timed.items():
            _wait(ways)
            started = time.perf_counter()
            way()
            _wait(ways)
            seconds[name].append(time.perf_counter() - started)
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    return {
        "order": order, "tokens": int(np.mean([len(prompt) for prompt in prompts])), "seconds": medians,
        "ratios": {name: medians[name] / medians["ours"] for name in timed if name != "ours"}, "counts": counts,
        "tokens_over_tree": counts["tokens_processed"] / counts["tokens_least"],
        "tokens_over_flat": counts["tokens_processed"] / counts["tokens_flat"],
        "worst_difference": worst, "same_of_top_5": same,
    }  # fmt: skip


def _wait(ways: Ways) -> None:
    if ways.network.device.type == "cuda":
        torch.cuda.synchronize()


def main() -> None:
    """Print a table, and with ``--json`` one JSON object as the last line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=SHAPES, action="append", help="default: both 7B shapes")
    parser.add_argument("--users", type=int, default=5, help="each meets the same 21 items")
    parser.add_argument("--repeats", type=int, default=3, help="medians are over this many")
    parser.add_argument("--json", action="store_true", help="one JSON object as the last line")
    options = parser.parse_args()
    chosen = options.shape or ["llava-next-7b", "qwen2.5-vl-7b"]
    if not torch.cuda.is_available() and not all(name.startswith("tiny") for name in chosen):
        print("score_gpu: no GPU here, nothing was measured")
        return
    device = "cuda" if torch.cuda.is_available() else "cpu"
    hardware = torch.cuda.get_device_name() if device == "cuda" else "CPU"
    found = []
    for name in chosen:
        ways = Ways(SHAPES[name], device)
        print(f"{name} on {hardware}: {ways.image_tokens} tokens an image")
        for order in ("users", "items"):
            one = measure(ways, order, options.users, options.repeats)
            ratios = ", ".join(f"{way} {ratio:.1f}x" for way, ratio in one["ratios"].items())
            print(f"  {order} first: {one['tokens']} tokens a prompt, {one['tokens_over_flat']:.0%} processed, "
                  f"{one['tokens_over_tree']:.3f} of the tree; ours {one['seconds']['ours']:.2f} s, faster than "
                  f"{ratios}; scores within {one['worst_difference']:.1e}, {one['same_of_top_5']:.0%} of the top 5 "
                  f"the same")  # fmt: skip
            found.append({"shape": name, "hardware": hardware, **one})
        del ways
        if device == "cuda":
            torch.cuda.empty_cache()
    if options.json:
        print(json.dumps({"workload": f"score on {hardware}: {options.users} users x {SIZE}", "cases": found,
                          "ratio": found[0]["ratios"]["generate(30)"]}))  # fmt: skip


if __name__ == "__main__":
    main()
