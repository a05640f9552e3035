"""A PostgreSQL of the machine, started on loopback for the tests that want a real one."""

import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.server_process import free_port

PASSWORD = "canary-Of-Postgres-7741"
"""Stands in no file, log or message."""
_PLACES = (Path("/usr/lib/postgresql/15/bin"), Path("/usr/local/bin"))


def _programs() -> tuple[str, str]:
    found = []
    for name in ("initdb", "postgres"):
        there = [str(folder / name) for folder in _PLACES if (folder / name).exists()]
        found.append(shutil.which(name) or (there[0] if there else ""))
    if not all(found):
        pytest.skip("needs PostgreSQL: initdb and postgres")
    return found[0], found[1]


@contextmanager
def postgres() -> Iterator[str]:
    """Yield the address of an empty database, with a password in it; skips where there is no PostgreSQL."""
    initdb, server = _programs()
    user = "nobody" if os.geteuid() == 0 else None  # PostgreSQL refuses to run as root
    folder = Path(tempfile.mkdtemp(prefix="msr-postgres-"))
    try:
        if user is not None:
            shutil.chown(folder, user)
        secret = folder / "password"
        secret.write_text(PASSWORD)
        secret.chmod(0o644)
        made = subprocess.run(
            [initdb, "-D", str(folder / "data"), "-U", "shop", "-A", "scram-sha-256", f"--pwfile={secret}", "-N"],
            user=user, capture_output=True, text=True, timeout=120, check=False, cwd=folder,
        )  # fmt: skip
        if made.returncode:
            pytest.skip(f"PostgreSQL cannot be initialised: {made.stderr.strip().splitlines()[-1:]}")
        port = free_port()
        command = [server, "-D", str(folder / "data"), "-p", str(port), "-h", "127.0.0.1", "-k", str(folder), "-F"]
        log = (folder / "log").open("wb")
        process = subprocess.Popen(
            [*command, "-c", "max_connections=10"], user=user, stdout=log, stderr=log, cwd=folder
        )
        try:
            _wait(port, process)
            yield f"postgresql://shop:{PASSWORD}@127.0.0.1:{port}/postgres"
        finally:
            process.terminate()
            process.wait(timeout=30)
            log.close()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _wait(port: int, process: "subprocess.Popen[bytes]") -> None:
    for _ in range(300):
        if process.poll() is not None:
            pytest.skip("PostgreSQL does not start here")
        with socket.socket() as one:
            one.settimeout(1)
            if one.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.1)
    pytest.skip("PostgreSQL does not start here in time")
