"""Lines of growth curves for tests."""

from collections.abc import Sequence

import numpy as np

from registry.growth import Line


def make_line(x: Sequence[float], values: Sequence[float], verdicts: Sequence[str] = (), margin: float = 0.05) -> Line:
    """Points with intervals of `margin` on both sides."""
    at, value = np.array(x, dtype=np.float64), np.array(values, dtype=np.float64)
    numbers = np.arange(at.size)
    return Line(
        protocol_key="",
        protocol={},
        x=at,
        step=numbers,
        tokens=at,
        value=value,
        low=value - margin,
        high=value + margin,
        n=np.full(at.size, 200),
        verdict=list(verdicts) or [""] * at.size,
        evaluation=numbers,
    )
