"""Each item of the catalogue gets its image, or what the policy for missing images says."""

from collections.abc import Mapping, Sequence

from msr_adapter.config.schema import ImagesConfig
from msr_adapter.data.audit.report import Audit
from msr_adapter.data.id_forms import shown
from msr_adapter.data.images.near_files import as_pairs, near_files, wanted_names
from msr_adapter.data.images.several import find_images
from msr_adapter.data.images.store import ImageStore, ItemImages, image_counts, store_all, store_placeholder
from msr_adapter.data.readers.items import FURTHER_IMAGE
from msr_adapter.data.readers.reader import Corpus
from msr_adapter.errors import Problem, UserError, listed, plural
from msr_adapter.progress import Reporter

_MISSING = "images_missing_"
_ADVICE = {
    "not_fetched": "they name a URL: run `msr fetch-images` with this pipeline to download the images",
    "no_folder": "they name a file: set data.images.folder to the folder that the paths start from",
    "outside": "they name or link to a file outside data.images.folder, which is never read: move the files into it",
    "broken": "the file does not decode to its end: replace it",
    "video": "it is a video: set data.images.frames, and data.images.max to as many at least, to use frames of it",
    "no_frames": "the file has no picture, or sound alone: replace it",
    "too_long": "too much of the file has to be decoded for its frames: write it with key frames, or make it shorter",
    "heic": "HEIC is read with the extra: pip install 'msr-adapter[heic]', or convert the files",
    "too_large": "the file is above data.images.max_file_mb or max_file_pixels: shrink it, or raise the limit",
}
"""What to do about a fault, where adding the file is not the answer."""


def attach_images(
    ids: Sequence[str], corpus: Corpus, store: ImageStore, audit: Audit, reporter: Reporter, unseen: Sequence[str] = ()
) -> list[ItemImages]:
    """Store the image of every item of ``ids``, then of ``unseen``, and apply the policy for those that have none.

    The latter, which nobody interacted with and no list has, are counted apart, and miss an image without an error.
    `UserError` with the first missing images of ``ids`` and their number when the policy is `error`.
    """
    config = store.limits
    if corpus.synthetic is None and config.folder is None and not _names_images(corpus):
        return _without_images(len(ids), store, audit) + _policy_apart(_absent(len(unseen)), store)
    everything = [*ids, *unseen]
    results = store_all(everything, find_images(everything, corpus, config), store, reporter)
    results, apart = results[: len(ids)], results[len(ids) :]
    for name, number in image_counts(results).items():
        audit.count(name, number)
    for fault in sorted({one.fault for one in results if one.fault}):
        audit.name(f"{_MISSING}{fault}", (ids[i] for i, one in enumerate(results) if one.fault == fault))
    strict = config.missing == "error"  # then every image that is named has to be there
    missing = [index for index, one in enumerate(results) if one.fault or (strict and one.refused)]
    near = _near([ids[i] for i in missing if results[i].fault == "absent"], corpus, config)
    if missing and config.missing == "error":
        raise UserError(_missing_images([(ids[i], results[i]) for i in missing], config, near))
    if missing:
        many = f"{len(missing):,} of {len(ids):,} items"
        audit.find("warning", f"{many} have no usable image ({_reasons(audit)}) and are {_treated(config)}. "
                   f"{_advice(results)}")  # fmt: skip
    _tell_near(near, audit)
    _tell_several(ids, results, config, audit)
    if frames := sum(image.frame for one in results for image in one.all):
        audit.find("info", f"{plural(frames, 'image')} are frames of videos or animations.")
    if several := sum(image.animated for one in results for image in one.all):
        audit.find("info", f"The first frame is used of {plural(several, 'image')} with several. data.images.frames "
                   "takes more of an animation.")  # fmt: skip
    if lacking := sum(one.fault is not None for one in apart):
        audit.count("unseen_images_missing", lacking)
        step = " `msr fetch-images --all` downloads those that they name by URL."
        audit.find("info", f"{lacking:,} of {plural(len(apart), 'item')} without an interaction have no usable image."
                   f"{step if any(one.fault == 'not_fetched' for one in apart) else ''}")  # fmt: skip
    # Where a missing image is an error, these do without.
    return _with_policy(results, store, audit) + (apart if config.missing == "error" else _policy_apart(apart, store))


def _names_images(corpus: Corpus) -> bool:
    """Return whether some item names an image."""
    columns = [] if corpus.items is None else [corpus.items[name] for name in corpus.items.columns
                                               if name == "image" or name.startswith(FURTHER_IMAGE)]  # fmt: skip
    return any(column.count() for column in columns)


def _tell_several(ids: Sequence[str], results: Sequence[ItemImages], config: ImagesConfig, audit: Audit) -> None:
    """Say which images of items that have others cannot be used, and which are not."""
    damaged = [index for index, one in enumerate(results) if one.path and one.refused]
    if damaged:
        audit.name("images_refused", (ids[index] for index in damaged))
        number = sum(len(results[index].refused) for index in damaged)
        faults = sorted({fault for index in damaged for fault in results[index].refused})
        audit.find("warning", f"{plural(number, 'image')} of items that have others cannot be used "
                   f"({', '.join(faults)}; such as of {ids[damaged[0]]!r}): these items show the others. "
                   f"{_advice([ItemImages(fault=fault) for fault in faults])}")  # fmt: skip
    if repeated := sum(one.repeated for one in results):
        audit.find("info", f"{plural(repeated, 'image')} left out: equal, byte for byte, to another one of the item.")
    if beyond := sum(one.left_out for one in results):
        audit.find("info", f"{plural(beyond, 'image')} left out: data.images.max is {config.max}.")


def _policy_apart(results: list[ItemImages], store: ImageStore) -> list[ItemImages]:
    return _with_policy(results, store, Audit())


def _absent(number: int) -> list[ItemImages]:
    return [ItemImages(fault="absent")] * number


def _without_images(number: int, store: ImageStore, audit: Audit) -> list[ItemImages]:
    config = store.limits
    if config.missing == "error":
        step = "Set data.images.folder, or data.images.missing to text-only or placeholder"
        raise UserError(Problem("", "data.images.folder", "not given, and no item names an image", "", step))
    audit.find("warning", f"No folder of images is given, so all {number:,} items are {_treated(config)}. "
               "Set data.images.folder to use images.")  # fmt: skip
    return _with_policy(_absent(number), store, audit)


def _with_policy(results: list[ItemImages], store: ImageStore, audit: Audit) -> list[ItemImages]:
    missing = sum(one.fault is not None for one in results)
    if store.limits.missing == "text-only" or not missing:
        audit.count("items_text_only", missing)
        return results
    audit.count("items_placeholder", missing)
    grey = store_placeholder(store)
    return [ItemImages(grey.path, grey.digest, grey.change) if one.fault else one for one in results]


def _treated(config: ImagesConfig) -> str:
    return "text only" if config.missing == "text-only" else "shown as a grey image"


def _reasons(audit: Audit) -> str:
    """Return how many images are missing for each reason, and an item of each: one damaged file is to be found."""
    reasons = []
    for name, (first, *_) in audit.named.items():
        if name.startswith(_MISSING):
            number = audit.counts[name]
            example = f"such as {first!r}" if number > 1 else repr(first)
            reasons.append(f"{name.removeprefix(_MISSING)}: {number:,} ({example})")
    return ", ".join(reasons)


def _advice(results: Sequence[ItemImages]) -> str:
    faults = sorted({one.fault for one in results if one.fault})
    steps = [f"{fault}: {_ADVICE[fault]}." for fault in faults if fault in _ADVICE]
    if any(fault not in _ADVICE for fault in faults):
        steps.append("Add the files to data.images.folder, or set data.images.missing: error to stop instead.")
    return " ".join(steps)


def _near(absent: Sequence[str], corpus: Corpus, config: ImagesConfig) -> dict[str, tuple[str, str]]:
    """Return item -> name and file that is nearly called so, of those for which no file was found."""
    if config.folder is None or not absent:
        return {}
    return near_files(config.folder, wanted_names(absent, corpus))


def _tell_near(near: Mapping[str, tuple[str, str]], audit: Audit) -> None:
    """Say which items have an image but for how it is called."""
    if not near:
        return
    audit.count("images_absent_but_for_their_form", len(near))
    audit.name("images_absent_but_for_their_form", near)
    have = "item without an image has a file" if len(near) == 1 else "items without an image have a file"
    audit.find("warning", f"{len(near):,} {have} that is nearly called so ({as_pairs(near).examples()}): names are "
               "compared as they are written, accents, zeros, case and suffix included. Rename the files, or give "
               "their paths in a column `image` of the items.", "near-ids")  # fmt: skip


def _missing_images(
    missing: list[tuple[str, ItemImages]], config: ImagesConfig, near: Mapping[str, tuple[str, str]]
) -> list[Problem]:
    where = str(config.folder or "")
    problems = [
        Problem(where, item, f"image {(one.fault or one.refused[0]).replace('_', ' ')}",
                "data.images.missing: error wants an image for every item",
                f"{_step(one, near.get(item))}, or set data.images.missing to text-only or placeholder")
        for item, one in missing
    ]  # fmt: skip
    return listed(problems, len(problems), where)


def _step(one: ItemImages, near: tuple[str, str] | None) -> str:
    if near is not None:
        return f"Rename {shown(near[1])}, which is nearly called so"
    advice = _ADVICE.get(one.fault or one.refused[0], "").partition(": ")[2]
    return advice[:1].upper() + advice[1:] if advice else "Add the file"
