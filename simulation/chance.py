"""Random numbers by name: leaving out one draw does not change any other."""

from __future__ import annotations

import random
from bisect import bisect
from collections.abc import Sequence
from hashlib import blake2b


def chance(*name: object) -> random.Random:
    """A generator seeded by a name, of which the seed of the history is the first part."""
    digest = blake2b("/".join(map(str, name)).encode(), digest_size=8).digest()
    return random.Random(int.from_bytes(digest))


def pick(weights: Sequence[tuple[str, float]], drawn: float) -> str | None:
    """The kind at a number from [0, 1); None beyond the sum of the weights."""
    total = 0.0
    sums = [total := total + weight for _, weight in weights]
    position = bisect(sums, drawn)
    return weights[position][0] if position < len(weights) else None


def between(low: float, high: float, drawn: float) -> float:
    """A number from low to high, with all orders of magnitude equally likely."""
    return float(low * (high / low) ** drawn)
