"""The synthetic dataset: drawn images, titles, and users whose true, noisy preferences are known.

choices               how users choose among what they are shown, and how probable a choice is
dataset               generates items and log from a seed, writes them as a folder
drifting_preferences  what users like at each choice, where tastes drift
images                draws an item's image
user_preferences      what users like, and how they choose among everything
vocabulary            the words of images and titles
"""

from msr_adapter.synthetic.choices import Shopping
from msr_adapter.synthetic.dataset import SyntheticDataset, generate, write_dataset
from msr_adapter.synthetic.images import IMAGE_SIZE, draw_image
from msr_adapter.synthetic.vocabulary import COLOURS, GENRES, MOTIFS, PATTERNS, ItemFacets, sample_item_facets

__all__ = [
    "COLOURS", "GENRES", "IMAGE_SIZE", "MOTIFS", "PATTERNS", "ItemFacets", "Shopping", "SyntheticDataset",
    "draw_image", "generate", "sample_item_facets", "write_dataset",
]  # fmt: skip
