"""`msr fetch-images`: item images that are named by URL become files of a folder.

images_to_fetch  which URLs: those of the items that the data stage would keep
bucket_objects   objects of s3://, gs://, az://, by the environment's credentials
request          one URL -> the bytes of an image, with repetitions and limits
addresses        which hosts a request may connect to
folder           many URLs into one folder, resumed, with a report
"""

from msr_adapter.data.images.download.folder import fetch_into
from msr_adapter.data.images.download.images_to_fetch import WantedImages, wanted_images
from msr_adapter.data.images.download.request import DownloadPolicy

__all__ = ["DownloadPolicy", "WantedImages", "fetch_into", "wanted_images"]
