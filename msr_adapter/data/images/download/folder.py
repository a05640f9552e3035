"""Many URLs into one folder: resumed, polite to each host, every failure listed."""

import asyncio
import contextlib
import csv
import os
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import httpx

from msr_adapter.data.images.decode import quiet_pillow
from msr_adapter.data.images.download.addresses import GuardedBackend, GuardedTransport, Resolve, resolve
from msr_adapter.data.images.download.bucket_objects import BucketObjects
from msr_adapter.data.images.download.request import Download, DownloadPolicy, FetchError, Sources, download
from msr_adapter.data.images.locate import (
    INDEX,
    DownloadedImage,
    item_of,
    line_of,
    read_downloads,
    safe_name,
    write_download_index,
)
from msr_adapter.errors import Problem, UserError
from msr_adapter.files import atomic_path, digest, sweep, write_json
from msr_adapter.progress import Reporter
from msr_adapter.redaction import redact
from msr_adapter.system import LockHeldError, cpu_count, locked

FAILURES = "fetch-failures.csv"
REPORT = "fetch-report.json"


@dataclass(frozen=True)
class DownloadFolder:
    """Where images go."""

    folder: Path
    own: frozenset[str]
    """Names of the files that earlier commands downloaded into it."""


_Done = Callable[[DownloadedImage], None]
_Queue = deque[tuple[str, list[str]]]


def fetch_into(
    folder: Path, wanted: Mapping[str, str], policy: DownloadPolicy, reporter: Reporter, resolve: Resolve = resolve
) -> dict[str, Any]:
    """Download ``wanted`` (`image_key` -> URL) into ``folder``, a `data.images.folder` to be; return the report.

    What is there already is skipped, what failed is tried again. Each image and each line of the index is whole, so
    that a killed process loses only what it was downloading.
    """
    with _locked(folder):
        _require_own_reports(folder)
        index = read_downloads(folder)
        mine = {INDEX, REPORT, FAILURES, *map(_file_name, wanted)}
        sweep(folder, lambda target: target in mine or target.rpartition(".")[0] in mine)
        todo = {item: url for item, url in wanted.items() if not _is_done(folder, index.get(item), url)}
        if todo:
            _fetch_and_log(folder, todo, index, policy, resolve, reporter)
        return _report(folder, {item: index[item] for item in wanted}, len(todo))


def _fetch_and_log(
    folder: Path, todo: Mapping[str, str], index: dict[str, DownloadedImage], policy: DownloadPolicy, resolve: Resolve,
    reporter: Reporter,
) -> None:  # fmt: skip
    """Download ``todo`` and put each outcome into ``index`` and at once into the file."""
    with quiet_pillow(), reporter.track("Images", len(todo)) as advance, (folder / INDEX).open("a") as log:
        log.write("\n")  # a killed process may have left half a line
        own = {one.file for one in index.values() if one.file}

        def done(one: DownloadedImage) -> None:
            index[one.key] = one
            log.write(line_of(one))
            log.flush()
            advance(1)

        asyncio.run(_fetch_all(DownloadFolder(folder, frozenset(own)), todo, policy, resolve, done))
    write_download_index(folder, index)


async def _fetch_all(
    place: DownloadFolder, todo: Mapping[str, str], policy: DownloadPolicy, resolve: Resolve, done: _Done
) -> None:
    slots = asyncio.Semaphore(policy.workers)
    transport = GuardedTransport(GuardedBackend(policy.allow_private, resolve), policy.workers)
    save = partial(_save, place, policy.overwrite)
    # Waiting for a free connection is no fault of a server, so it has no limit.
    timeout = httpx.Timeout(policy.read_s, connect=policy.connect_s, pool=None)
    with ThreadPoolExecutor(cpu_count()) as threads, ThreadPoolExecutor(policy.workers) as waiting:
        buckets = BucketObjects(waiting, policy.read_s)
        # Without the environment: a proxy would connect in our place, where no address is checked.
        async with httpx.AsyncClient(transport=transport, timeout=timeout, trust_env=False) as client:

            async def one(url: str, items: list[str]) -> list[DownloadedImage]:
                try:
                    got = await download(Sources(client, buckets), url, policy, slots, threads)
                except FetchError as error:
                    return [_outcome(key, url, reason=error.reason) for key in items]
                return await asyncio.get_running_loop().run_in_executor(threads, save, items, url, got)

            async def work(queue: _Queue) -> None:
                while queue:
                    for outcome in await one(*queue.popleft()):
                        done(outcome)

            async with asyncio.TaskGroup() as group:
                for queue in _by_host(todo).values():
                    for _ in range(min(policy.per_host, len(queue))):
                        group.create_task(work(queue))


def _by_host(todo: Mapping[str, str]) -> dict[str, _Queue]:
    """Return host -> its URLs, each with the items that name it."""
    items: dict[str, list[str]] = {}
    for item, url in todo.items():
        items.setdefault(url, []).append(item)
    queues: dict[str, _Queue] = {}
    for url, named_by in items.items():
        try:
            host = httpx.URL(url).host
        except httpx.InvalidURL:
            host = ""
        queues.setdefault(host, deque()).append((url, named_by))
    return queues


def _is_done(folder: Path, one: DownloadedImage | None, url: str) -> bool:
    return one is not None and one.url == url and one.file is not None and (folder / one.file).is_file()


def _save(place: DownloadFolder, overwrite: bool, items: list[str], url: str, got: Download) -> list[DownloadedImage]:
    """Write one file per item: the next run may give one of them another URL."""
    return [_save_one(place, overwrite, item, url, got) for item in items]


def _save_one(place: DownloadFolder, overwrite: bool, item: str, url: str, got: Download) -> DownloadedImage:
    """Write an item's file, unless another one that was not downloaded has its name."""
    name = _file_name(item) + got.suffix
    path = place.folder / name
    if os.path.lexists(path) and name not in place.own and not overwrite and not _holds(path, got.data):
        return _outcome(item, url, reason="own_file")
    with atomic_path(path) as temporary:
        temporary.write_bytes(got.data)
    return _outcome(item, url, file=name, bytes=len(got.data), digest=digest(got.data))


def _outcome(key: str, url: str, **found: Any) -> DownloadedImage:
    item, number = item_of(key)
    return DownloadedImage(item, url, number=number, **found)


def _file_name(key: str) -> str:
    """Return the name, without suffix, of an image's file: `+2` follows it where it is not the item's first."""
    item, number = item_of(key)
    return safe_name(item) + (f"+{number}" if number > 1 else "")  # no name of an item has a `+`


def _holds(path: Path, data: bytes) -> bool:
    """Say whether a file has these bytes: one that a killed command wrote and did not come to note, for one."""
    try:
        return path.stat().st_size == len(data) and path.read_bytes() == data
    except OSError:
        return False


def _require_own_reports(folder: Path) -> None:
    """Raise `UserError` where files of the reports' names are not those of an earlier download."""
    if (folder / INDEX).exists():
        return
    found = [Problem(str(folder / name), "", "exists, and no image was downloaded into this folder yet", "",
                     "Move it away, or choose another folder with --out")
             for name in (REPORT, FAILURES) if os.path.lexists(folder / name)]  # fmt: skip
    if found:
        raise UserError(found)


def _report(folder: Path, entries: Mapping[str, DownloadedImage], tried: int) -> dict[str, Any]:
    """Return the counts; write them and the list of failures, unless nothing was tried and they are there."""
    failed = [entries[item] for item in sorted(entries) if entries[item].file is None]
    report = {
        "wanted": len(entries),
        "there_already": len(entries) - tried,
        "fetched": tried - len(failed),
        "failed": len(failed),
        "reasons": dict(sorted(Counter(one.reason for one in failed).items())),
        "bytes": sum(one.bytes for one in entries.values()),
    }
    if not tried and (folder / FAILURES).exists():
        return report
    write_json(folder / REPORT, report)
    with atomic_path(folder / FAILURES) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows(
            [("item_id", "url", "reason"), *((f.item_id, redact(f.url), f.reason) for f in failed)]
        )
    return report


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Create the folder and hold its lock, which the kernel takes back from a killed process."""
    with contextlib.ExitStack() as stack:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            stack.enter_context(locked(folder / ".fetch.lock"))
        except LockHeldError as error:
            found = f"another `msr fetch-images` writes into it (process {error.holder.strip() or 'unknown'})"
            raise UserError(Problem(str(folder), "", found, "", "Wait for it to end")) from None
        except OSError as error:
            step = "Choose another with --out, or set data.images.folder"
            raise UserError(Problem(str(folder), "", f"cannot be written ({error.strerror})", "", step)) from error
        yield
