"""What one model shares between prompts, whether it can be trusted with that, and how prompts are scored by it."""

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from msr_adapter.backends.prefix_cache.batch_sizer import BatchSizer
from msr_adapter.backends.prefix_cache.batches import Batches, Inputs, Prompt
from msr_adapter.backends.prefix_cache.compatibility import UnsharableError, stable_positions
from msr_adapter.backends.prefix_cache.forced_answers import answer_logprobs
from msr_adapter.backends.prefix_cache.image_features import FeatureStore, Pixels
from msr_adapter.backends.prefix_cache.prompt_grouping import Plan, make_plan
from msr_adapter.backends.prefix_cache.runner import Found, PlanRunner, Read, Reading
from msr_adapter.generation.scoring_stats import ScoringStats

if TYPE_CHECKING:
    import torch

Collate = Callable[[Prompt], Inputs]
"""Returns a prompt's inputs as training makes them: the reference."""

_IMAGES_PER_PASS = 16
_CPU_PREFIXES, _CPU_FEATURES = 2**30, 2**28
"""Bytes of keys and values, and of image features, on a CPU."""
_GPU_PREFIXES, _GPU_FEATURES = 0.3, 0.1
"""The same as shares of the memory that the weights leave free."""
_LEAST_SAVED = 0.1
"""Share of their tokens that rows must save to share a prefix: rows that continue one need a mask, with which attention
over long rows is slower (`benchmarks/score_gpu.py --shape tiny-llava-next`, 8% saved: 0.4x a plain pass)."""
_ENDS = -(2**30)
"""Number of the first end of a row, the others below: below those of images, which are few."""
_TOP = 20
"""Likeliest next tokens that are compared."""
_LARGEST_DIFFERENCE = {"float32": 1e-3, "half": 0.25}
"""Of log-probabilities: rounding stays far below, a wrong position or mask is far above."""


class PrefixCache:
    """Shares prefixes and image features among prompts of one model.

    It does so only once it has found, on a first prompt without and a first one with an image, that the model's answers
    stay the same: whether a family can be computed in pieces is nowhere stated, and an error would only change scores.
    """

    def __init__(
        self, network: Any, pixels: Pixels, collate: Collate, pad_token: int, batch_sizer: BatchSizer, refused: str = ""
    ) -> None:
        """``collate`` makes reference inputs; ``refused`` says why the network cannot share, if that is known."""
        self.stats = ScoringStats()
        self._network, self._collate = network, collate
        prefix_bytes, feature_bytes = _memory(network)
        self._store = FeatureStore(network, pixels, BatchSizer(_IMAGES_PER_PASS), feature_bytes, self.stats)
        self.batches = Batches(network, self._store, pad_token)
        self._runner = PlanRunner(network, self.batches, batch_sizer, prefix_bytes, self.stats)
        self._refusals: dict[bool, str] = {False: refused, True: refused} if refused else {}
        """Of prompts without (False) and with images: what was wrong when one was tried; "" = nothing."""
        self._stable_positions = stable_positions(network)
        if not refused:
            self._store.install()

    def refusal(self, prompts: Sequence[Prompt]) -> str:
        """Return why these prompts cannot be computed in pieces, with image features in place of pixels; "" = they can.

        Raises `torch.OutOfMemoryError` if one prompt alone does not fit.
        """
        if self._stable_positions is not None and (longest := max(map(len, prompts))) > self._stable_positions:
            return (
                f"its positions change with prompts of more than {self._stable_positions} tokens, and one has {longest}"
            )
        for shown in (False, True):
            found = next((prompt for prompt in prompts if bool(prompt.images) == shown), None)
            if found is not None and (wrong := self._tried(found)):
                return wrong
        return ""

    def refusal_of_text(self, prompt: Prompt) -> str:
        """Return why prompts cannot be computed in pieces even where no image is in them; "" = they can."""
        return self._tried(self.batches.without_images(prompt))

    def score(self, prompts: Sequence[Prompt], read: Read) -> Iterator[Found]:
        """Yield each prompt's number with what ``read`` takes from the logits after it, in any order.

        Raises `torch.OutOfMemoryError` if a prompt does not fit alone. Use only where there is no `refusal`.
        """
        numbers: dict[tuple[str, ...], int] = {}
        plan = make_plan([self.batches.key(prompt, numbers) for prompt in prompts], least_saved=_LEAST_SAVED)
        yield from self._run(plan, prompts, Reading.of_last(read))

    def likelihoods(
        self, prompts: Sequence[Prompt], answers: Sequence[Sequence[int]], batch_sizer: BatchSizer
    ) -> Iterator[Found]:
        """Yield each prompt's number with the log-probability of all tokens of its answer together, in any order.

        Answers are teacher-forced: the prompts' common prefixes are computed once, then each answer after its prompt's
        last token. ``batch_sizer`` bounds a pass, whose logits are of all its answers' tokens. Raises as `score`.
        """
        numbers: dict[tuple[str, ...], int] = {}
        ends: dict[tuple[int, ...], int] = {}
        keys, rows = [], []
        for prompt, answer in zip(prompts, answers, strict=True):
            # What follows a prompt counts as one token of its own, so that no answer's tokens are in a prefix: all of
            # them are read. The prompt's last token is part of it, as the logits after it are read too.
            key = list(self.batches.key(prompt, numbers))
            end = ends.setdefault((key[-1], *answer), len(ends))
            keys.append([*key[:-1], _ENDS - end])
            rows.append(self.batches.prompt([*prompt.ids.tolist(), *answer[:-1]], prompt.images))
        plan = make_plan(keys, least_saved=_LEAST_SAVED)

        def take(places: Sequence[int], logits: "torch.Tensor") -> list[tuple[float, ...]]:
            return [*answer_logprobs(logits, [answers[place] for place in places])]

        more = sum(len(answer) - 1 for answer in answers)
        self.stats.tokens_flat += more
        again = sum(len(answers[row]) - 1 for row in plan.duplicates)
        self.stats.tokens_planned += more - again
        self.stats.tokens_least += more - again
        yield from self._run(plan, rows, Reading(take, lambda row: len(answers[row])), batch_sizer)

    def _run(
        self, plan: Plan, prompts: Sequence[Prompt], reading: Reading, batch_sizer: BatchSizer | None = None
    ) -> Iterator[Found]:
        """Run a plan, answer for equal rows, and count."""
        answered: dict[int, tuple[float, ...]] = {}
        for row, values in self._runner.run(plan, prompts, reading, batch_sizer):
            answered[row] = values
            yield row, values
        yield from ((row, answered[original]) for row, original in plan.duplicates.items())
        shown = [image.digest for prompt in prompts for image in prompt.images]
        stats = self.stats
        stats.rows += len(prompts)
        stats.tokens_flat += plan.flat
        stats.tokens_planned += plan.planned
        stats.tokens_least += plan.least
        stats.images_shown += len(shown)
        stats.images_distinct += len(set(shown))

    def forget(self) -> None:
        """Drop the image features that are kept from call to call."""
        self._store.forget()

    def _tried(self, prompt: Prompt) -> str:
        """Return what was wrong with the first prompt with (or without) images: only that one is tried."""
        shown = bool(prompt.images)
        if shown not in self._refusals:
            self._refusals[shown] = self._try(prompt)
        return self._refusals[shown]

    def _try(self, prompt: Prompt) -> str:
        """Compute a prompt in one forward pass as training does, and in pieces; return why the answers differ, or "".

        If only the shortened last layer makes them differ, that layer is computed in full from then on.
        """
        import torch

        with torch.inference_mode():
            inputs = self._collate(prompt)
            expected = _logprobs(self._network(**inputs, use_cache=False, logits_to_keep=1).logits[:, -1])[0]
        last = self._runner.last_layer
        try:
            wrong = self._compare(prompt, expected)
            if wrong and last.trusted:
                last.trusted = False
                wrong = self._compare(prompt, expected)
                last.trusted = bool(wrong)  # it was not to blame
        except UnsharableError as error:
            return str(error)
        return wrong

    def _compare(self, prompt: Prompt, expected: "torch.Tensor") -> str:
        """Return why the answer in pieces is not ``expected``, the log-probabilities (vocabulary,); "" if it is."""
        import torch

        try:
            found = _logprobs(self._runner.trial_logits(prompt))
        except torch.OutOfMemoryError:
            return "the pieces of one prompt do not fit in memory together"
        except (OSError, UnsharableError):
            raise
        except Exception as error:  # whatever an unknown family does with inputs that it does not expect
            return f"it does not accept prompts in pieces ({type(error).__name__}: {str(error).partition(chr(10))[0]})"
        # The likeliest tokens alone: far down the vocabulary rounding is larger, and nothing is read there.
        top = expected.topk(min(_TOP, len(expected))).indices
        worst = float((found[:, top] - expected[top]).abs().max())
        allowed = _LARGEST_DIFFERENCE["float32" if self._network.dtype == torch.float32 else "half"]
        return "" if worst <= allowed else f"prompts in pieces get different answers (by {worst:.3g})"


def _logprobs(logits: "torch.Tensor") -> "torch.Tensor":
    return logits.float().log_softmax(-1)


def _memory(network: Any) -> tuple[int, int]:
    """Return the bytes that keys and values of prefixes, and image features, may take on the network's device."""
    import torch

    if network.device.type != "cuda":
        return _CPU_PREFIXES, _CPU_FEATURES
    free = torch.cuda.mem_get_info(network.device)[0]
    return int(_GPU_PREFIXES * free), int(_GPU_FEATURES * free)
