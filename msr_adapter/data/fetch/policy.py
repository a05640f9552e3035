"""How hard, how long and how much is tried for one URL."""

from dataclasses import dataclass

from msr_adapter.config.models import Images


@dataclass(frozen=True)
class Policy:
    """Limits of a download; times in seconds."""

    limits: Images
    """Bytes and pixels of an image."""
    workers: int = 16
    """Requests at a time."""
    per_host: int = 4
    """Requests at a time to one host, those that wait to be repeated included."""
    retries: int = 3
    """Repetitions of a request that may succeed later."""
    connect_s: float = 10.0
    read_s: float = 20.0
    """Longest silence of a server."""
    total_s: float = 120.0
    """Longest single try, whatever arrives."""
    backoff_s: float = 0.5
    """Mean wait before the first repetition; it doubles from one to the next."""
    longest_wait_s: float = 120.0
    """A server that asks for a longer wait (Retry-After) is not asked again."""
    redirects: int = 5
    allow_private: bool = False
    """Connect to private, loopback, link-local, multicast and reserved addresses too."""
    overwrite: bool = False
    """Replace a file of a picture's name that was not downloaded."""

    @property
    def max_bytes(self) -> int:
        """Largest body."""
        return self.limits.max_file_mb * 2**20
