"""What can be told of a network without running it: whether its prompts can be computed in pieces at all.

What cannot be told is tried: see `PrefixCache.refusal`.
"""

from typing import Any


class UnsharableError(Exception):
    """The images of this family reach the model in a way that prefix sharing does not know."""


def base_network(network: Any) -> Any:
    """Return the model inside PEFT's wrapper, or ``network`` where there is none.

    Adapters of a quantised model cannot be merged, so that PEFT's wrapper stays around the model; it hides the model's
    attributes and the arguments of its `forward`.
    """
    return network.get_base_model() if hasattr(network, "get_base_model") else network


def why_unsharable(network: Any, *, last_logits_only: bool) -> str:
    """Return why prompts of ``network`` cannot share prefixes, or "" if nothing speaks against it.

    ``last_logits_only`` says whether its `forward` takes ``logits_to_keep``.
    """
    if not attends_to_all(network):
        return "not all of its layers attend to all earlier tokens"
    # The logits of all positions of a pass would take gigabytes at a vocabulary of 150,000.
    return "" if last_logits_only else "it computes the logits of every position"


def attends_to_all(network: Any) -> bool:
    """Return whether every layer attends to all tokens before: only then may rows of different length share a cache.

    Shorter rows are padded. A sliding window would count the padding as distance, and a recurrent state would have
    read it.
    """
    config = network.config.get_text_config()
    kinds = getattr(config, "layer_types", None)
    full = set(kinds) == {"full_attention"} if kinds else getattr(config, "sliding_window", None) is None
    return full and not getattr(network, "_is_stateful", False)


def stable_positions(network: Any) -> int | None:
    """Return up to how many tokens a prefix has the same positions whatever follows it; None: however many.

    Dynamic and long RoPE rescale all positions once a prompt is longer than the model was trained for.
    """
    config = network.config.get_text_config()
    rope = getattr(config, "rope_parameters", None) or {}
    if rope.get("rope_type") not in ("dynamic", "longrope"):
        return None
    return int(rope.get("original_max_position_embeddings") or config.max_position_embeddings)
