"""Each item of the catalogue gets its image, or what the policy for missing images says."""

from collections.abc import Sequence
from pathlib import Path

from msr_adapter.config.models import Images
from msr_adapter.data.audit import Audit, listed
from msr_adapter.data.corpus import Corpus
from msr_adapter.data.images import Find, Stored, covers_in, image_counts, store_all, store_placeholder
from msr_adapter.errors import Problem, UserError
from msr_adapter.progress import Reporter


def illustrate(
    ids: Sequence[str], corpus: Corpus, config: Images, out: Path, audit: Audit, reporter: Reporter
) -> list[Stored]:
    """Store the image of every item of the catalogue and apply the policy for those that have none.

    `UserError` with the first missing images and their number when the policy is `error`.
    """
    if corpus.shop is not None:
        find: Find = corpus.shop.draw
    elif config.folder is not None:
        find = covers_in(config.folder)
    else:
        return _without_folder(len(ids), config, out, audit)
    results = store_all(ids, find, config.max_pixels, out, reporter)
    for name, number in image_counts(results).items():
        audit.count(name, number)
    missing = [index for index, one in enumerate(results) if one.fault]
    if missing and config.missing == "error":
        raise UserError(_missing_images([(ids[i], results[i]) for i in missing], config))
    if missing:
        audit.find("warning", f"{len(missing):,} of {len(ids):,} items have no usable image ({_reasons(results)}) and "
                   f"are {_treated(config)}. Add the files to data.images.folder, or set data.images.missing: error "
                   "to stop instead.")  # fmt: skip
    return _with_policy(results, config, out, audit)


def _without_folder(number: int, config: Images, out: Path, audit: Audit) -> list[Stored]:
    audit.find("warning", f"No folder of images is given, so all {number:,} items are {_treated(config)}. "
               "Set data.images.folder to use pictures.")  # fmt: skip
    return _with_policy([Stored(fault="absent")] * number, config, out, audit)


def _with_policy(results: list[Stored], config: Images, out: Path, audit: Audit) -> list[Stored]:
    missing = sum(one.fault is not None for one in results)
    if config.missing == "text-only" or not missing:
        audit.count("items_text_only", missing)
        return results
    audit.count("items_placeholder", missing)
    grey = store_placeholder(config.max_pixels, out)
    return [grey if one.fault else one for one in results]


def _treated(config: Images) -> str:
    return "text only" if config.missing == "text-only" else "shown as a grey picture"


def _reasons(results: Sequence[Stored]) -> str:
    counts = image_counts(results)
    prefix = "images_missing_"
    return ", ".join(f"{name.removeprefix(prefix)}: {n:,}" for name, n in counts.items() if name.startswith(prefix))


def _missing_images(missing: list[tuple[str, Stored]], config: Images) -> list[Problem]:
    problems = [
        Problem(str(config.folder), item, f"image {(one.fault or '').replace('_', ' ')}",
                "data.images.missing: error wants an image for every item",
                "Add the file, or set data.images.missing to text-only or placeholder")
        for item, one in missing
    ]  # fmt: skip
    return listed(problems, len(problems), str(config.folder))
