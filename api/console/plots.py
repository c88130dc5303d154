"""Plots: where a mark goes in a picture that is as wide as its cell. Sizes are shares of the width, so that nothing is
drawn anew on a narrow screen and no letter shrinks; every plot is a column of a table that says the same in words."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import log10
from typing import Any

from caseward.documents.numbers import Spread

SHORTEST, LONGEST = 0.01, 90 * 86400.0  # seconds: from a partner's quick answer to the most days that are counted
TICKS = ((0.1, "0.1 s"), (1.0, "1 s"), (60.0, "1 min"), (3600.0, "1 h"), (86400.0, "1 d"), (30 * 86400.0, "30 d"))
MILLISECONDS_BELOW, TENTHS_BELOW = 1, 10  # seconds


def place(seconds: float) -> float:
    """Where a duration stands on the scale, in per cent: each tenfold takes the same room."""
    bounded = min(max(seconds, SHORTEST), LONGEST)
    return round(100 * log10(bounded / SHORTEST) / log10(LONGEST / SHORTEST), 2)


@dataclass(frozen=True)
class Range:
    """The middle of a spread, from where to where most of it lies, and its end; in per cent of the width."""

    p50: float
    p90: float
    longest: float

    @property
    def width(self) -> float:
        """Of the bar between them; what is nothing is still to be seen."""
        return max(0.6, round(self.p90 - self.p50, 2))


def drawn(spread: Spread) -> Range | None:
    """The spread as marks; None where there is nothing to draw."""
    if spread.p50 is None or spread.p90 is None or spread.longest is None:
        return None
    return Range(place(spread.p50), place(spread.p90), place(spread.longest))


def part(value: float, values: Sequence[float]) -> float:
    """The bar of one value among others, in per cent; the largest fills the width."""
    most = max(values, default=0)
    return round(100 * value / most, 2) if most else 0.0


def duration(seconds: float | None) -> str:
    """A duration in the one unit that people would use."""
    if seconds is None:
        return "–"  # noqa: RUF001 - the dash that stands for nothing
    if seconds < MILLISECONDS_BELOW:
        return f"{seconds * 1000:.0f} ms"
    if seconds < TENTHS_BELOW:
        return f"{seconds:.1f} s"
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} s"


WORDS: dict[str, Any] = {
    "duration": duration,
    "drawn": drawn,
    "part": part,
    "ticks": [(place(at), words) for at, words in TICKS],
}
"""What the templates need of this."""
