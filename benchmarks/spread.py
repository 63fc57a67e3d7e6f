"""Medians with their spread."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import median, quantiles


@dataclass(frozen=True)
class Spread:
    """A median and the quartiles around it.

    Parameters
    ----------
    median, low, high : float
        The second, first and third quartile.
    """

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Iterable[float]) -> Spread:
        """Return the spread of one or more values."""
        given = list(values)
        if len(given) == 1:
            return cls(given[0], given[0], given[0])
        low, _, high = quantiles(given, n=4, method="inclusive")
        return cls(median(given), low, high)

    def as_json(self) -> dict[str, float]:
        """Return the numbers with three digits after the point."""
        return {name: round(value, 3) for name, value in vars(self).items()}


def ratios(measured: Sequence[float], base: Sequence[float]) -> Spread:
    """Return the spread of the quotients of values that were measured one after the other."""
    return Spread.of(value / other for value, other in zip(measured, base, strict=True))
