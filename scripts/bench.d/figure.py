"""A measured figure, with its budget and how it was come by."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Figure:
    """One number. `budget` is its upper bound (or lower, for rates), None where there is none."""

    name: str
    value: float | None
    unit: str
    how: str
    budget: float | None = None
    is_floor: bool = False
    """The budget is what must at least be reached."""
    detail: Mapping[str, object] = field(default_factory=dict)

    def to_json(self) -> dict[str, object]:
        return {
            "name": self.name,
            "value": None if self.value is None else significant(self.value),
            "unit": self.unit,
            "budget": None if self.budget is None else significant(self.budget),
            "is_within": self.is_within(),
            "how": self.how,
            "detail": dict(self.detail),
        }

    def is_within(self) -> bool | None:
        if self.value is None or self.budget is None:
            return None
        return self.value >= self.budget if self.is_floor else self.value <= self.budget


def significant(value: float) -> float:
    """Four digits that mean something."""
    return float(f"{value:.4g}")


def spread(samples: Sequence[float]) -> dict[str, float]:
    """Minimum, median, 95th and 99th percentile, maximum and count of samples."""
    ordered = sorted(samples)
    return {
        "min": significant(ordered[0]),
        "p50": significant(percentile(ordered, 50)),
        "p95": significant(percentile(ordered, 95)),
        "p99": significant(percentile(ordered, 99)),
        "max": significant(ordered[-1]),
        "samples": len(ordered),
    }


def percentile(samples: Sequence[float], percent: int) -> float:
    """The nearest sample at or above that share of all samples: never one that was not seen."""
    ordered = sorted(samples)
    return ordered[max(0, -(-len(ordered) * percent // 100) - 1)]


def median(samples: Sequence[float]) -> float:
    return statistics.median(samples)
