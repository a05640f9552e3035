"""Pieces of encoded prompts as model inputs: left-padded, every position explicit, image features in place of pixels.

Positions are passed because a model cannot derive those of a piece: it does not see the tokens before it.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from msr_adapter.arrays import Integers
from msr_adapter.backends.prefix_cache.compatibility import base_network
from msr_adapter.backends.prefix_cache.image_features import Features, FeatureStore, ImageFeatures
from msr_adapter.generation.request import Image

if TYPE_CHECKING:
    import torch

Inputs = dict[str, Any]


@dataclass
class Prompt:
    """An encoded prompt."""

    ids: Integers
    images: tuple[Image, ...]
    positions: Integers = field(default_factory=lambda: np.empty((0, 0), np.int64))
    """(axes, tokens), one axis or the four of M-RoPE. Empty until `Batches.inputs` has computed them."""

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True)
class Piece:
    """The tokens of a prompt from ``start`` up to, not including, ``stop``."""

    prompt: Prompt
    start: int
    stop: int

    def __len__(self) -> int:
        return self.stop - self.start


class Batches:
    """Makes model inputs from pieces of prompts. Positions are the model's own, computed over the whole prompt."""

    def __init__(self, network: Any, store: FeatureStore, pad_token: int) -> None:
        self._network, self._store, self._pad = network, store, pad_token
        self._image_token: Any = getattr(network.config, "image_token_id", None)
        bare = base_network(network)
        # A model with a head keeps its body in `model`, and M-RoPE models have the method in the body.
        holder = bare if hasattr(bare, "get_rope_index") else getattr(bare, "model", bare)
        self._rope: Any = getattr(holder, "get_rope_index", None)
        self._known: dict[tuple[object, ...], Integers] = {}

    def prompt(self, ids: Sequence[int], images: Sequence[Image]) -> Prompt:
        """Return a prompt without positions yet."""
        return Prompt(np.asarray(ids, np.int64), tuple(images))

    def key(self, prompt: Prompt, numbers: dict[tuple[str, ...], int]) -> Sequence[int]:
        """Return the tokens of a prompt, with a negative number for its image in place of each image token.

        ``numbers`` holds image digests -> their number; it is filled here and must be the same for all prompts that are
        compared.

        Every image is the same token over and over: without this, prompts with different images would seem to share
        a prefix.
        """
        ids: list[int] = prompt.ids.tolist()
        if not prompt.images:
            return ids
        shown = prompt.ids == self._image_token
        run = np.cumsum(shown & ~np.append(False, shown[:-1])) - 1
        # Where something stands between all images, each is known by itself, so that those of a history are shared in
        # front of any candidate's; a family that writes an image in several runs has its images known together.
        apart = int(run[-1]) + 1 == len(prompt.images)
        names = [(image.digest,) for image in prompt.images] if apart else [tuple(i.digest for i in prompt.images)]
        known = np.array([-1 - numbers.setdefault(name, len(numbers)) for name in names], np.int64)
        found: list[int] = np.where(shown, known[run if apart else np.zeros_like(run)], prompt.ids).tolist()
        return found

    def without_images(self, prompt: Prompt) -> Prompt:
        """Return a prompt of the same text alone."""
        return Prompt(prompt.ids[prompt.ids != self._image_token], ())

    def cuts(self, prompt: Prompt) -> tuple[int, int]:
        """Return two places to cut a prompt of more than a token, no image in two: near its end, and before its first
        image or in its middle."""
        shown = np.flatnonzero(prompt.ids == self._image_token)
        # Both pieces need a token: 1 at the earliest, and late falls back on early where images reach the end.
        early = max(1, int(shown[0]) if shown.size else len(prompt) // 2)
        late = max(early, len(prompt) - 4, int(shown[-1]) + 1 if shown.size else 0)
        return (late if late < len(prompt) else early), early

    def warm(self, prompts: Iterable[Prompt]) -> None:
        """Compute image features of ``prompts`` ahead where they can be kept; raises as `FeatureStore.find` does."""
        self._store.warm(image for prompt in prompts for image in prompt.images)

    def forget(self) -> bool:
        """Drop the image features that are kept on the device; return whether there were any."""
        return self._store.forget()

    def inputs(self, pieces: Sequence[Piece]) -> Inputs:
        """Return the left-padded inputs of ``pieces``: (rows, longest) and, of positions, (rows, longest) or, for
        M-RoPE, (4, rows, longest). Memory beside them: the features of their images.

        Raises what `FeatureStore.find` raises.
        """
        import torch

        shown = [piece for piece in pieces if self._needs_images(piece)]
        found = self._store.find(image for piece in shown for image in piece.prompt.images)
        width = max(map(len, pieces))
        ids = np.full((len(pieces), width), self._pad, np.int64)
        mask = np.zeros((len(pieces), width), np.int64)
        positions = np.zeros((1 if self._rope is None else 4, len(pieces), width), np.int64)
        for row, piece in enumerate(pieces):
            begin = width - len(piece)
            ids[row, begin:] = piece.prompt.ids[piece.start : piece.stop]
            mask[row, begin:] = 1
            positions[:, row, begin:] = self._positions_of(piece, found)
        if len(positions) == 1:
            positions = positions[0]
        device = self._network.device
        named = {"input_ids": ids, "attention_mask": mask, "position_ids": positions}
        made: Inputs = {name: torch.from_numpy(array).to(device) for name, array in named.items()}
        return made | self._shown(shown, found)

    def _needs_images(self, piece: Piece) -> bool:
        """Return whether a piece has image tokens, or M-RoPE positions that depend on images before it and are not
        computed yet."""
        if not piece.prompt.images:
            return False
        shown = np.flatnonzero(piece.prompt.ids[: piece.stop] == self._image_token)
        unknown = self._rope is not None and not piece.prompt.positions.size
        return bool(shown.size) and (unknown or bool(shown[-1] >= piece.start))

    def _shown(self, pieces: Sequence[Piece], found: Mapping[str, Features]) -> Inputs:
        """Return the features of the image tokens in ``pieces``, in order, as ``pixel_values``; {} without any."""
        parts: list[Features] = []
        slices: list[slice] = []
        for piece in pieces:
            places = np.flatnonzero(piece.prompt.ids == self._image_token)
            first, last = np.searchsorted(places, (piece.start, piece.stop)).tolist()
            begin = 0  # of the image's tokens among all image tokens of the prompt
            for features in (found[image.digest] for image in piece.prompt.images):
                end = begin + len(features.main)
                if first < end and begin < last:
                    parts.append(features)
                    slices.append(slice(max(first, begin) - begin, min(last, end) - begin))
                begin = end
        return {"pixel_values": ImageFeatures(parts, slices)} if parts else {}

    def _positions_of(self, piece: Piece, found: Mapping[str, Features]) -> Integers:
        """Return the positions of a piece, (axes, its tokens)."""
        prompt = piece.prompt
        if not prompt.positions.size:
            if self._rope is not None and any(image.digest not in found for image in prompt.images):
                return _counted(piece.stop)[:, piece.start :]  # it ends before the first image
            prompt.positions = self._positions(prompt, found)
        return prompt.positions[:, piece.start : piece.stop]

    def _positions(self, prompt: Prompt, found: Mapping[str, Features]) -> Integers:
        """Return the positions of a whole prompt, (axes, tokens).

        Those of M-RoPE depend on where images stand and on their grids, on nothing else, and asking the model for them
        is slow: its one answer serves all prompts of the same arrangement.
        """
        if self._rope is None:
            return np.arange(len(prompt), dtype=np.int64)[None]
        grids = [grid for image in prompt.images if (grid := found[image.digest].grid) is not None]
        places = np.flatnonzero(prompt.ids == self._image_token) if grids else np.empty(0, np.int64)
        starts = places[np.diff(places, prepend=-2) > 1]  # -2: an image at place 0 begins there too
        key = (tuple(starts.tolist()), len(places), *(tuple(grid[0].tolist()) for grid in grids))
        known = self._known.get(key)
        # What follows the last image counts on by ones, so that a longer prompt's positions begin with a shorter one's.
        if known is None or known.shape[1] < len(prompt):
            if len(self._known) >= _KNOWN_POSITIONS:
                self._known.clear()
            known = self._known[key] = self._ask_positions(prompt, grids)
        return known[:, : len(prompt)]

    def _ask_positions(self, prompt: Prompt, grids: "list[torch.Tensor]") -> Integers:
        """Return the M-RoPE positions of a prompt, (4, tokens), as the model's own code computes them."""
        import torch

        if not grids:  # `get_rope_index` of transformers 5 fails on text alone
            return _counted(len(prompt))
        ids = torch.from_numpy(prompt.ids)[None]
        asked = {"image_grid_thw": torch.cat(grids), "attention_mask": torch.ones_like(ids)}
        types = torch.eq(ids, self._image_token).int()
        axes = self._rope(ids, mm_token_type_ids=types, **asked)[0][:, 0].numpy()
        # As LLaMA-Factory's collator: the positions of the text come first, then time, height and width.
        return np.concatenate([axes[:1], axes])


def _counted(tokens: int) -> Integers:
    """Return the positions of text alone, (4, tokens)."""
    return np.tile(np.arange(tokens, dtype=np.int64), (4, 1))


_KNOWN_POSITIONS = 512
"""Arrangements of images in prompts whose positions are remembered."""
