"""`msr fetch-images`: item images that are named by URL become files of a folder."""

from msr_adapter.data.images.download.folder import fetch_into
from msr_adapter.data.images.download.wanted import Policy, WantedImages, wanted_images

__all__ = ["Policy", "WantedImages", "fetch_into", "wanted_images"]
