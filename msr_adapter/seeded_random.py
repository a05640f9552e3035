"""Seeded randomness without a state: a number depends on (seed, purpose, id, counter) and on nothing else.

So a draw for one user never changes with the order of rows, with other users, or with how work is cut into chunks.
"""

import hashlib
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from msr_adapter.arrays import Integers

Bits = NDArray[np.uint64]

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def hash_ids(ids: Iterable[str]) -> Bits:
    """Return 64 bits per id, the same on every machine (BLAKE2b)."""
    joined = bytearray()
    for one in ids:
        joined += hashlib.blake2b(one.encode(), digest_size=8).digest()
    return np.frombuffer(joined, dtype="<u8").astype(np.uint64)


def mix(bits: Bits) -> Bits:
    """Scramble 64-bit values: the finaliser of SplitMix64 (Steele, Lea and Flood, 2014)."""
    # Products wrap at 64 bits, as they should; of arrays NumPy does so without a warning.
    bits = (bits ^ (bits >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    bits = (bits ^ (bits >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return bits ^ (bits >> np.uint64(31))


def keyed(bits: Bits, seed: int, purpose: str) -> Bits:
    """Return independent bits for a ``purpose`` under ``seed``."""
    return mix(bits ^ hash_ids([f"{seed}/{purpose}"]))


def stream(keys: Bits, counter: NDArray[np.integer]) -> Bits:
    """Return number ``counter`` of each key's stream (SplitMix64 as a counter-based generator)."""
    return mix(keys + (counter.astype(np.uint64) + np.uint64(1)) * _GOLDEN)


def below(bits: Bits, bound: NDArray[np.integer] | int) -> Integers:
    """Map bits to integers in [0, bound), ``bound`` < 2**32; the bias is below bound / 2**32."""
    return (((bits >> np.uint64(32)) * np.asarray(bound).astype(np.uint64)) >> np.uint64(32)).astype(np.int64)


def draw(ids: Integers, wanted: int, seed: int, purpose: str = "validation users") -> Integers:
    """Return at most ``wanted`` of ``ids``, ascending. Whoever wants more gets the same and others."""
    if len(ids) <= wanted:
        return ids
    order = np.argsort(keyed(hash_ids(map(str, ids.tolist())), seed, purpose), kind="stable")
    return np.sort(ids[order[:wanted]])


def seeded_order(ids: Iterable[str], seed: int, purpose: str) -> Integers:
    """Return a seeded permutation of ``ids`` (given sorted and distinct)."""
    return np.argsort(keyed(hash_ids(ids), seed, purpose), kind="stable")
