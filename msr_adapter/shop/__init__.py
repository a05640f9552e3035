"""The generated shop: drawn covers, titles, and users whose true, noisy tastes are known."""

from msr_adapter.shop.covers import COVER_SIZE, draw_cover
from msr_adapter.shop.folder import write_shop
from msr_adapter.shop.shop import Shop, generate
from msr_adapter.shop.words import COLOURS, GENRES, MOTIFS, PATTERNS, Goods, sample_goods

__all__ = [
    "COLOURS", "COVER_SIZE", "GENRES", "MOTIFS", "PATTERNS", "Goods", "Shop", "draw_cover", "generate", "sample_goods",
    "write_shop",
]  # fmt: skip
