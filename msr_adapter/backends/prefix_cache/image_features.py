"""What the vision tower makes of an image: computed once per distinct image, used in every prompt that shows it.

A model's own forward pass places the features among the tokens, and those of deeper layers too (Qwen3-VL), in ways that
differ by family. So that none of it is repeated here, the pass is handed `ImageFeatures` in place of pixels, and the
model's `get_image_features` is replaced by one that returns them as they are.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from msr_adapter.backends.prefix_cache.batch_sizer import BatchSizer
from msr_adapter.backends.prefix_cache.compatibility import UnsharableError, base_network
from msr_adapter.generation.request import Image
from msr_adapter.generation.scoring_stats import ScoringStats

if TYPE_CHECKING:
    import torch

Pixels = Callable[[Sequence[Path]], "Mapping[str, torch.Tensor]"]
"""Takes image files and returns their model inputs: pixels, and grids or sizes where a family has them."""

_KNOWN_INPUTS = {"pixel_values", "image_grid_thw", "image_sizes"}
_GRID = "image_grid_thw"


@dataclass(frozen=True)
class Features:
    """One image as the language model sees it."""

    main: "torch.Tensor"
    """(tokens, width)"""
    deeper: "tuple[torch.Tensor, ...]"
    """The same for each of the first decoder layers, where the family adds some."""
    grid: "torch.Tensor | None"
    """(1, 3): patches along time, height and width, where positions depend on them."""

    @property
    def nbytes(self) -> int:
        """Memory on the device."""
        return sum(part.nbytes for part in (self.main, *self.deeper))


class ImageFeatures:
    """The features of all images of a batch, in order; passed to the model as ``pixel_values``."""

    def __init__(self, parts: Sequence[Features], pieces: Sequence[slice]) -> None:
        """Take of each of ``parts`` the tokens of its slice."""
        import torch

        self.main = torch.cat([part.main[piece] for part, piece in zip(parts, pieces, strict=True)])
        self.count = len(parts)
        self.deeper = [
            torch.cat([part.deeper[level][piece] for part, piece in zip(parts, pieces, strict=True)])
            for level in range(len(parts[0].deeper))
        ]

    def stacked(self) -> "torch.Tensor":
        """Return the features as (images, tokens, width), as families have them whose images are of one size."""
        # A piece may hold a part of an image's tokens; then all of them go as one image, whose tokens the model counts.
        alike = len(self.main) % self.count == 0
        return self.main.reshape(self.count if alike else 1, -1, self.main.shape[-1])

    def size(self, _: int = 0) -> int:
        """Return the number of tokens: LLaVA-NeXT tests with it that pixels are not empty."""
        return len(self.main)


class FeatureStore:
    """Keeps image features by digest. Memory: at most ``budget`` bytes on the device (the least recently used go
    first), and those of the images that one call of `find` asks for."""

    def __init__(self, network: Any, pixels: Pixels, batch_sizer: BatchSizer, budget: int, stats: ScoringStats) -> None:
        bare = base_network(network)
        self._model = getattr(bare, "model", bare)
        self._device = network.device
        self._pixels, self._batch_sizer, self._budget, self._stats = pixels, batch_sizer, budget, stats
        self._kept: OrderedDict[str, Features] = OrderedDict()
        self._held = self._largest = 0
        self._original: Callable[..., Any] | None = getattr(self._model, "get_image_features", None)
        self._form: tuple[type, bool] | None = None

    def install(self) -> None:
        """Replace the model's `get_image_features` by one that takes `ImageFeatures` as well as pixels."""
        if self._original is not None:
            self._model.get_image_features = self._get_image_features

    def warm(self, images: Iterable[Image]) -> None:
        """Compute the missing features ahead, in passes as full as can be, unless they would not all fit the budget.

        The largest image so far is taken for the size of each.

        Raises what `find` raises.
        """
        wanted = {image.digest: image for image in images}
        if len(wanted) * self._largest <= self._budget:
            self.find(wanted.values())

    def find(self, images: Iterable[Image]) -> dict[str, Features]:
        """Return the features of ``images`` by digest, computing those that are not kept.

        Raises `UnsharableError` if the family's image inputs or outputs are not known, `OSError` for a file that cannot
        be read.
        """
        wanted = {image.digest: image for image in images}
        found = {digest: self._kept[digest] for digest in wanted if digest in self._kept}
        for digest in found:
            self._kept.move_to_end(digest)
        missing = [image for digest, image in wanted.items() if digest not in found]
        for piece, made in self._batch_sizer.each(missing, lambda _: 1, self._encode):
            found.update(zip((image.digest for image in piece), made, strict=True))
        for image in missing:
            self._keep(image.digest, found[image.digest])
        return found

    def forget(self) -> bool:
        """Drop the features that are kept; return whether there were any."""
        held = bool(self._kept)
        self._kept.clear()
        self._held = 0
        return held

    def _encode(self, images: Sequence[Image]) -> list[Features]:
        """Return the features of images, encoded in one pass; `UnsharableError` if their inputs are not known."""
        import torch

        if self._original is None:
            raise UnsharableError("its vision tower cannot be run on its own")
        inputs = dict(self._pixels([image.path for image in images]))
        if unknown := set(inputs) - _KNOWN_INPUTS:
            raise UnsharableError(f"its images come with unknown inputs: {', '.join(sorted(unknown))}")
        placed = {name: value.to(self._device) for name, value in inputs.items()}
        with torch.inference_mode():
            output = self._original(**placed)
        self._stats.images_encoded += len(images)
        return self._split(output, inputs.get(_GRID), len(images))

    def _split(self, output: Any, grids: "torch.Tensor | None", count: int) -> list[Features]:
        """Return the features of each of ``count`` images from the tower's output for all of them."""
        import torch

        main, deeper = getattr(output, "pooler_output", None), getattr(output, "deepstack_features", None) or []
        if main is None or len(main) != count:
            raise UnsharableError("its vision tower does not say which features belong to which image")
        self._form = (type(output), isinstance(main, torch.Tensor))
        lengths = [len(part) for part in main]
        levels = [torch.split(level, lengths) for level in deeper]
        # Copies: a view would keep the features of the whole batch alive.
        deep = [tuple(level[at].clone() for level in levels) for at in range(count)]
        return [
            Features(part.clone(), deep[at], None if grids is None else grids[at : at + 1])
            for at, part in enumerate(main)
        ]

    def _keep(self, digest: str, features: Features) -> None:
        self._kept[digest] = features
        self._held += features.nbytes
        self._largest = max(self._largest, features.nbytes)
        while self._held > self._budget:
            self._held -= self._kept.popitem(last=False)[1].nbytes

    def _get_image_features(self, pixel_values: Any, *args: Any, **kwargs: Any) -> Any:
        """Stand in for the model's method: encode pixels as it does, and return `ImageFeatures` as its output."""
        if not isinstance(pixel_values, ImageFeatures):
            assert self._original is not None
            return self._original(pixel_values, *args, **kwargs)
        assert self._form is not None
        kind, stacked = self._form
        made = kind()  # some families add what is not among its fields afterwards
        made.pooler_output = pixel_values.stacked() if stacked else [pixel_values.main]
        if pixel_values.deeper:
            made.deepstack_features = pixel_values.deeper
        return made
