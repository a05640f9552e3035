"""The generated shop: drawn covers, titles, and users whose true, noisy tastes are known."""

from msr_adapter.synthetic.dataset import SyntheticDataset, generate
from msr_adapter.synthetic.folder import write_shop
from msr_adapter.synthetic.images import COVER_SIZE, draw_image
from msr_adapter.synthetic.vocabulary import COLOURS, GENRES, MOTIFS, PATTERNS, Goods, sample_goods

__all__ = [
    "COLOURS", "COVER_SIZE", "GENRES", "MOTIFS", "PATTERNS", "Goods", "SyntheticDataset", "draw_image", "generate",
    "sample_goods", "write_shop",
]  # fmt: skip
