"""Random numbers that depend on seed and name alone, never on the order of calls."""

from __future__ import annotations

import hashlib


def draw(seed: int, purpose: str, name: str) -> float:
    """A number in [0, 1), uniform over names; draws for different purposes are independent.

    The first 53 bits of SHA-256 over ``seed:purpose:name``.
    """
    digest = hashlib.sha256(f"{seed}:{purpose}:{name}".encode()).digest()
    return (int.from_bytes(digest[:8], "big") >> 11) / 2**53
