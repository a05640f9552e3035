"""What a server cannot mean is a failure with its reason."""

import httpx
import pytest

from msr_adapter.backends.http import GaveUpError
from msr_adapter.backends.logprobs import read_logprobs
from msr_adapter.generation import Completion, Request

ASKED = Request("model", "Will they?", choices=("Yes", "No"))
NAMES = [[frozenset({"Yes"})], [frozenset({"No"})]]
NAN = float("nan")


def read(*given: tuple[str, float]) -> Completion:
    top = [{"token": token, "logprob": value} for token, value in given]
    body = {"choices": [{"logprobs": {"content": [{"top_logprobs": top}]}}]}
    import json

    return read_logprobs(ASKED, httpx.Response(200, content=json.dumps(body)), NAMES)


@pytest.mark.parametrize(("given", "said"), [
    ([("Yes", 0.7), ("No", -2.0)], "above 0"),
    ([("Yes", NAN), ("No", -2.0)], "not a number"),
    ([("Yes", float("inf")), ("No", -2.0)], "not a number"),
    ([("Yes", -0.1), ("No", -0.2)], "sum to 1.7"),
    ([("Yes", -0.1)] * 10 + [("No", -2.0)], "sum to 9.1"),
    ([("Yes", -2.0), ("Yes", -2.0), ("No", -2.0)], "'Yes' appears several times"),
    ([("No", -2.0), ("No", -2.5), ("No", -3.0), ("Yes", -2.0)], "'No' appears several times"),
])  # fmt: skip
def test_impossible_alternatives_are_refused(given: list[tuple[str, float]], said: str) -> None:
    with pytest.raises(GaveUpError, match="impossible probabilities from the server") as caught:
        read(*given)
    assert said in str(caught.value)


def test_a_word_with_and_without_its_blank_and_broken_characters_are_possible() -> None:
    found = read(("Yes", -1.0), ("Yes", -3.0), ("\ufffd", -9.0), ("\ufffd", -9.0), ("No", -2.0), ("", -float("inf")))
    assert found.choice_logprobs[0] == pytest.approx(-0.873, abs=1e-3)
