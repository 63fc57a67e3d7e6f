"""Chance that depends on its name alone: taking something away leaves the rest as it was."""

from __future__ import annotations

import random
from bisect import bisect
from collections.abc import Sequence
from hashlib import blake2b


def chance(*name: object) -> random.Random:
    """A generator for everything that goes by this name, the history's seed first."""
    digest = blake2b("/".join(map(str, name)).encode(), digest_size=8).digest()
    return random.Random(int.from_bytes(digest))


def pick(weights: Sequence[tuple[str, float]], drawn: float) -> str | None:
    """The kind that a number from [0, 1) falls on; None where the weights leave room for none."""
    total = 0.0
    sums = [total := total + weight for _, weight in weights]
    position = bisect(sums, drawn)
    return weights[position][0] if position < len(weights) else None


def between(low: float, high: float, drawn: float) -> float:
    """A number from low to high, as often of one order of magnitude as of another."""
    return float(low * (high / low) ** drawn)
