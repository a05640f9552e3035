"""The scripted backend is deterministic, sensitive to the whole request, and counts."""

import math

from msr_adapter.backends import make_backend
from msr_adapter.backends.scripted import ScriptedBackend
from msr_adapter.config.schema import ModelConfig
from msr_adapter.generation.request import Request


def test_label_logprobs_are_probabilities_and_depend_on_the_prompt() -> None:
    asked = [Request("m", prompt, choices=("Yes", "No")) for prompt in ("a", "b")]
    first, second = (answer.choice_logprobs for answer in ScriptedBackend().complete(asked))
    assert first != second
    assert math.isclose(sum(map(math.exp, first)), 0.9)
    assert [answer.choice_logprobs for answer in ScriptedBackend().complete(asked)] == [first, second]


def test_text_follows_the_rule_within_its_budget() -> None:
    backend = ScriptedBackend(rule=lambda request: request.prompt.upper())
    short, long = backend.complete([Request("m", "one two", max_new_tokens=5), Request("m", "a b c", max_new_tokens=2)])
    assert (short.text, short.finish_reason, short.tokens_out) == ("ONE TWO", "stop", 2)
    assert (long.text, long.finish_reason, long.tokens_out) == ("A B", "length", 2)
    assert (backend.calls, backend.answered) == (1, [short.key, long.key])


def test_trained_and_untrained_differ_by_identity() -> None:
    model = ModelConfig(path="tiny", backend="scripted")
    assert make_backend(model).identity == ScriptedBackend().identity != ScriptedBackend(trained=True).identity
