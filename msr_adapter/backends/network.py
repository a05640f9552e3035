"""What can be told from a loaded network without running it."""

from typing import Any


def without_adapters(network: Any) -> Any:
    """Return the model itself: adapters of a quantised one stay beside it, and hide what it has and takes."""
    return network.get_base_model() if hasattr(network, "get_base_model") else network


def rows_alike(network: Any) -> bool:
    """Tell whether every layer attends to all that came before: only then may rows of unlike length share a cache."""
    config = network.config.get_text_config()
    kinds = getattr(config, "layer_types", None)
    plain = set(kinds) == {"full_attention"} if kinds else getattr(config, "sliding_window", None) is None
    return plain and not getattr(network, "_is_stateful", False)


def longest_alike(network: Any) -> int | None:
    """Return up to how many tokens a prompt's beginning has the same positions in longer ones; None: however long."""
    config = network.config.get_text_config()
    rope = getattr(config, "rope_parameters", None) or {}
    if rope.get("rope_type") not in ("dynamic", "longrope"):
        return None
    return int(rope.get("original_max_position_embeddings") or config.max_position_embeddings)
