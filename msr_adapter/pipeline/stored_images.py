"""Whether images are what the data stage stored: each is compared with its digest in `items.parquet`.

Done before the first stage of a process that may show them, by all CPUs: a second or less for each gigabyte.
"""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from msr_adapter import schema
from msr_adapter.errors import LISTED, Problem, UserError, listed
from msr_adapter.files import file_digest
from msr_adapter.integrity import read_manifest
from msr_adapter.item_images import IMAGE_COLUMNS, images_of
from msr_adapter.system import cpu_count

_seen: set[tuple[Path, str]] = set()
"""Data stages whose images this process has compared, with the seals of their manifests."""


def require_unaltered_images(data: Path) -> None:
    """Raise `UserError` with every stored image that was overwritten; one that is gone is told by whoever reads it."""
    manifest = read_manifest(data)
    if not manifest or (data.resolve(), manifest.get("seal", "")) in _seen:
        return
    table = schema.read_table(data / "items.parquet", schema.ITEMS, IMAGE_COLUMNS)
    images = {image for row in images_of(table, data) for image in row}
    stored = sorted(images, key=lambda image: image.path)
    with ThreadPoolExecutor(cpu_count()) as pool:
        same = list(pool.map(lambda image: _is_same(image.path, image.digest), stored))
    found = f"changed by hand since the stage data stored it ({manifest['finished']})"
    step = "Put it back, or store all images again with `--force data`"
    problems = [
        Problem(str(image.path), "", found, "", step) for image, well in zip(stored, same, strict=True) if not well
    ]
    if problems:
        raise UserError(listed(problems[:LISTED], len(problems), str(data)))
    _seen.add((data.resolve(), manifest.get("seal", "")))


def _is_same(path: Path, digest: str) -> bool:
    try:
        return file_digest(path) == digest
    except OSError:
        return True
