"""`msr fetch-images`: item images that are named by URL become files of a folder."""

from msr_adapter.data.fetch.folder import fetch_into
from msr_adapter.data.fetch.policy import Policy
from msr_adapter.data.fetch.wanted import Wanted, wanted_images

__all__ = ["Policy", "Wanted", "fetch_into", "wanted_images"]
