"""Tables in buckets and on the web: copied once for each version, in constant memory, and then read like any file.

`s3://`, `gs://`, `az://` go through PyArrow's file systems, `https://` through httpx; credentials and endpoints are
those that the environment gives. Several passes read a table, and a remote one may change between them. Of a folder
each Parquet part is copied by itself: those that are known are not fetched again.
"""

import os
import urllib.parse
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from functools import lru_cache, partial
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

import httpx

from msr_adapter.config.schema.tables import REMOTE_SCHEMES
from msr_adapter.data.readers.local_copies import called, folder_of, local_copy, version_folder
from msr_adapter.errors import Problem, UserError, collecting, plural
from msr_adapter.files import digest, write_json
from msr_adapter.filesystem import parse_json, read_bytes
from msr_adapter.redaction import quoted, redact

_CHUNK = 2**23
_TIMEOUT = 60.0
_PARTS = (".parquet",)
_KNOWN = "parts.json"
"""The parts of a folder as they were last, beside its copies."""
_STEP = "Check the address, and the credentials in the environment (AWS_*, GOOGLE_*, AZURE_*)"


@dataclass(frozen=True)
class RemotePart:
    """A file of a bucket or the web."""

    key: str
    """Where it lies, as its file system calls it."""
    name: str
    """From the folder that was asked for, or the file's own."""
    size: int
    version: str
    """An ETag where there is one, else size and time."""


def remote_address(path: Path) -> str | None:
    """Return the address that a path of the config stands for, None for a file of this machine.

    A path holds an address with one slash less: `s3:/bucket/log.parquet`.
    """
    scheme = path.parts[0].removesuffix(":") if path.parts and path.parts[0].endswith(":") else ""
    return f"{scheme}://{'/'.join(path.parts[1:])}" if scheme in REMOTE_SCHEMES else None


def remote_version(address: str) -> str:
    """Return what identifies the data at an address; `UserError` where there is none, or it cannot be reached."""
    return digest([[part.name, part.version] for part in _parts(address)])


def identity_of(path: Path) -> Path | str | None:
    """Return a file of this machine as it is, and the version of a remote one; None = it is not there."""
    address = remote_address(path)
    if address is None:
        return path
    if redact(address) != address:  # refused by who checks it, and written nowhere
        return None
    try:
        return f"{address} {remote_version(address)}"
    except UserError:  # told by who checks it
        return None


def remote_problems(paths: Iterable[Path], setting: str) -> list[Problem]:
    """Return which addresses cannot be read; nothing is copied."""
    problems: list[Problem] = []
    for address in filter(None, map(remote_address, paths)):
        if redact(address) != address:
            step = "Give credentials in the environment"
            problems.append(Problem("", setting, "an address with a secret in it", "one without", step))
            continue
        with collecting(problems):
            remote_version(address)
    return problems


def fetched(address: str, tell: Callable[[str, bool], None] = lambda text, lost: None) -> Path:
    """Return a copy of the file or folder at an address, made now or before.

    ``tell`` is told of a folder which parts were fetched, and whether some are others than they were.
    """
    parts = _parts(address)
    if len(parts) == 1 and parts[0].name == PurePosixPath(parts[0].key).name and not address.endswith("/"):
        [part] = parts
        return local_copy(address, part.version, part.name, lambda target: _copy(address, part, [], target))
    versions, known = {part.name: part.version for part in parts}, _known_parts(address)
    folder = version_folder(folder_of(address), remote_version(address))
    copied: list[RemotePart] = []
    for part in parts:
        writes = partial(_copy, address, part, copied)
        copy = local_copy(f"{address}/{part.name}", part.version, PurePosixPath(part.name).name, writes)
        place = folder / part.name
        if not place.exists():
            place.parent.mkdir(parents=True, exist_ok=True)
            place.hardlink_to(copy)
    called(folder, address)
    write_json(folder_of(address) / _KNOWN, versions)
    size = sum(max(part.size, 0) for part in copied)
    tell(f"{address}: of {plural(len(parts), 'part')}, {len(copied):,} ({size / 2**20:,.1f} MB) came new; the others "
         "were copied before.", False)  # fmt: skip
    changed = sum(versions.get(name, version) != version for name, version in known.items())
    gone = len(known.keys() - versions.keys())
    if changed or gone:
        tell(f"{address}: since it was read last, {plural(changed, 'part')} changed and {plural(gone, 'part')} went; "
             "rows are read as they are now.", True)  # fmt: skip
    return folder


def _known_parts(address: str) -> dict[str, str]:
    """Return name -> version of the parts that were there when the folder was read last."""
    with suppress(OSError, ValueError):
        found = parse_json(read_bytes(folder_of(address) / _KNOWN))
        return found if isinstance(found, dict) else {}
    return {}


@lru_cache(maxsize=32)
def _parts(address: str) -> tuple[RemotePart, ...]:
    """List what lies at an address, once in the life of a process: its stages must see the same."""
    with _explaining(address):
        parts = tuple(_of_the_web(address) if address.startswith("http") else _of_a_bucket(address))
    if not parts:
        raise UserError(Problem(address, "", "nothing is there", "a file, or a folder of Parquet", _STEP))
    return parts


def _of_the_web(address: str) -> Iterator[RemotePart]:
    with httpx.Client(follow_redirects=True, timeout=_TIMEOUT) as client:
        answer = client.head(address)
        answer.raise_for_status()
        size = int(answer.headers.get("content-length", -1))
        version = answer.headers.get("etag") or f"{size} {answer.headers.get('last-modified', '')}"
        yield RemotePart(address, PurePosixPath(urllib.parse.urlsplit(address).path).name or "file", size, version)


def _of_a_bucket(address: str) -> Iterator[RemotePart]:
    from pyarrow.fs import FileSelector, FileType

    system, key = file_system(address)
    found = system.get_file_info(key)
    if found.type == FileType.File:
        yield _part(system, found, PurePosixPath(key).name)
    elif found.type == FileType.Directory:
        below = system.get_file_info(FileSelector(key, recursive=True))
        for one in sorted(below, key=lambda info: info.path):
            if one.type == FileType.File and one.path.endswith(_PARTS):
                yield _part(system, one, one.path.removeprefix(key).lstrip("/"))


def _part(system: Any, info: Any, name: str) -> RemotePart:
    with system.open_input_stream(info.path, buffer_size=0, compression=None) as stream:
        known = {key.lower(): value for key, value in (stream.metadata() or {}).items()}
    tag = known.get("version-id") or known.get("etag") or f"{info.size} {info.mtime_ns}".encode()
    return RemotePart(info.path, name, info.size, tag.decode("utf-8", "replace"))


def file_system(address: str, silence_s: float | None = None) -> tuple[Any, str]:
    """Return the file system of an address of a bucket, and what the address is called in it.

    Credentials and endpoints are the environment's. With ``silence_s``, the longest silence of a service, it repeats no
    request by itself (Azure's library takes no such number).
    """
    from pyarrow import fs

    more: dict[str, Any] = {}
    scheme, _, key = address.partition("://")
    key = key.rstrip("/")
    if scheme == "s3":
        endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
        where = urllib.parse.urlsplit(endpoint) if endpoint else None
        if where is not None:
            more |= {"endpoint_override": where.netloc, "scheme": where.scheme}
        region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
        if region is None and where is not None:
            region = "us-east-1"
        if silence_s is not None:
            more |= {"request_timeout": silence_s, "connect_timeout": silence_s,
                     "retry_strategy": fs.AwsStandardS3RetryStrategy(max_attempts=1)}  # fmt: skip
        return fs.S3FileSystem(region=region, **more), key
    if scheme in ("gs", "gcs"):
        if silence_s is not None:
            more["retry_time_limit"] = timedelta(seconds=silence_s)
        emulator = os.environ.get("STORAGE_EMULATOR_HOST", "").rpartition("://")[2]
        if emulator:
            return fs.GcsFileSystem(endpoint_override=emulator, scheme="http", anonymous=True, **more), key
        return fs.GcsFileSystem(**more), key
    return fs.AzureFileSystem(os.environ.get("AZURE_STORAGE_ACCOUNT", "")), key


def _copy(address: str, part: RemotePart, copied: list[RemotePart], target: Path) -> None:
    """Copy a part, and note that it was."""
    with _explaining(address), target.open("wb") as out:
        size = _copy_from_the_web(part, out) if address.startswith("http") else _copy_from_a_bucket(address, part, out)
    if part.size >= 0 and size != part.size:
        found = f"{size:,} bytes came of {part.size:,}"
        raise UserError(Problem(address, "", found, "a whole file", "Run the command again"))
    copied.append(part)


def _copy_from_the_web(part: RemotePart, out: BinaryIO) -> int:
    with (
        httpx.Client(follow_redirects=True, timeout=_TIMEOUT) as client,
        client.stream("GET", part.key, headers={"accept-encoding": "identity"}) as answer,
    ):
        answer.raise_for_status()
        return sum(out.write(data) for data in answer.iter_raw(_CHUNK))


def _copy_from_a_bucket(address: str, part: RemotePart, out: BinaryIO) -> int:
    system, _ = file_system(address)
    size = 0
    with system.open_input_stream(part.key, compression=None) as stream:
        while data := stream.read(_CHUNK):
            size += out.write(data)
    return size


@contextmanager
def _explaining(address: str) -> Iterator[None]:
    """Turn what a file system raises inside into a `UserError` without secrets."""
    try:
        yield
    except (OSError, httpx.HTTPError, httpx.InvalidURL, ValueError) as error:
        raise UserError(Problem(address, "", f"cannot be read: {quoted(error)}", "", _STEP)) from None
