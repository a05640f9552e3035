"""`msr fetch-images`: item images that are named by URL become files of a folder."""

from msr_adapter.data.images.download.folder import fetch_into
from msr_adapter.data.images.download.wanted import Policy, Wanted, wanted_images

__all__ = ["Policy", "Wanted", "fetch_into", "wanted_images"]
