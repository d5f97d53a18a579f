"""Compliance cells: measured values grouped by keys and compared with their bounds.

A cell passes when every measured value lies within its bounds (both included), fails when one does not,
and is not measured (None) when there is no value, or no bounds to compare with. The value shown is the
worst one, so a red cell never shows a number that is inside its limits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from calcamp.quality.limits import number, side

Bounds = tuple[float | None, float | None]


@dataclass(frozen=True)
class Cell:
    """One cell.

    Attributes
    ----------
    check : str
        What was checked, e.g. ``offset``.
    keys : dict
        ccd, quadrant, column, region, spot, key ...: what the cell is about.
    ok : bool or None
    value : float or None
        The worst value: furthest outside, or nearest to a bound.
    mean, minimum, maximum : float or None
        Of the measured values.
    n, n_unmeasured, n_violating : int
    obsids : list of int
        Exposures outside the bounds.
    low, high : float or None
        Bounds of the worst value; None is an open end.
    """

    check: str
    keys: dict
    ok: bool | None
    value: float | None = None
    mean: float | None = None
    minimum: float | None = None
    maximum: float | None = None
    n: int = 0
    n_unmeasured: int = 0
    n_violating: int = 0
    obsids: list[int] = field(default_factory=list)
    low: float | None = None
    high: float | None = None
    unit: str = ""
    limit: str = ""
    reason: str = ""

    def as_dict(self) -> dict:
        """As in verdict.json: the keys stand beside check, ok, value ..."""
        return {
            "check": self.check,
            **self.keys,
            "ok": self.ok,
            "value": self.value,
            "low": self.low,
            "high": self.high,
            "obsids": self.obsids,
            "mean": self.mean,
            "min": self.minimum,
            "max": self.maximum,
            "n": self.n,
            "n_unmeasured": self.n_unmeasured,
            "n_violating": self.n_violating,
            "unit": self.unit,
            "limit": self.limit,
            "reason": self.reason,
        }


def excess(value: float, low: float | None, high: float | None) -> float:
    """How far outside the bounds, in units of their width; negative inside (distance to the nearer one)."""
    width = high - low if low is not None and high is not None else 0.0
    width = width or 1.0
    outside = [(low - value) / width] if low is not None else []
    outside += [(value - high) / width] if high is not None else []
    return max(outside) if outside else float("-inf")


def judge_cells(
    check: str,
    rows: Iterable[Mapping],
    value: str | Callable[[Mapping], float | None],
    by: Sequence[str],
    bounds: Bounds | Callable[[Mapping], Bounds | None],
    *,
    expected: Iterable[Mapping] = (),
    unit: str = "",
    limit: str = "",
) -> list[Cell]:
    """Group rows by the keys `by` and judge each group.

    Parameters
    ----------
    check
        Name of the check.
    rows
        Rows of a long table, None or NaN for not measured.
    value
        Column to judge, or a function of a row.
    by
        Keys of a cell; a row without one of them is left out of that key.
    bounds
        (low, high) for all rows, or a function of a row that may return None (nothing to compare with).
    expected
        Keys of cells that must exist: those without a row come out as not measured.
    """
    take = (lambda row: row.get(value)) if isinstance(value, str) else value
    bound = bounds if callable(bounds) else (lambda row: bounds)
    groups: dict[tuple, list] = {}
    keys_of: dict[tuple, dict] = {}
    for keys in expected:
        keys = {k: keys[k] for k in by if k in keys}
        groups.setdefault(tuple(keys.items()), [])
        keys_of[tuple(keys.items())] = keys
    for row in rows:
        keys = {k: row[k] for k in by if row.get(k) is not None}
        key = tuple(keys.items())
        groups.setdefault(key, []).append((row.get("obsid"), number(take(row)), bound(row)))
        keys_of[key] = keys
    return [_cell(check, keys_of[key], members, unit, limit) for key, members in groups.items()]


def _cell(check: str, keys: dict, members: list, unit: str, limit: str) -> Cell:
    measured = [(obsid, v, b) for obsid, v, b in members if v is not None]
    values = [v for _, v, _ in measured]
    compared = [(obsid, v, b) for obsid, v, b in measured if b is not None]
    violating = [(obsid, v, b) for obsid, v, b in compared if side(v, *b)]
    summary = {
        "n": len(values),
        "n_unmeasured": len(members) - len(values),
        "mean": sum(values) / len(values) if values else None,
        "minimum": min(values, default=None),
        "maximum": max(values, default=None),
        "unit": unit,
        "limit": limit,
    }
    if not compared:
        known = next((b for _, _, b in members if b is not None), (None, None))
        reason = "not measured" if not values else "nothing to compare with"
        shown = summary["mean"] if values else None
        return Cell(check, keys, None, shown, low=known[0], high=known[1], reason=reason, **summary)
    _, worst, (low, high) = max(violating or compared, key=lambda m: excess(m[1], *m[2]))
    return Cell(
        check,
        keys,
        not violating,
        worst,
        n_violating=len(violating),
        obsids=sorted({obsid for obsid, _, _ in violating if obsid is not None}),
        low=low,
        high=high,
        **summary,
    )


def all_ok(cells: Iterable[Cell]) -> bool | None:
    """False when a cell fails, None when none was measured, True otherwise."""
    states = [cell.ok for cell in cells]
    if False in states:
        return False
    return True if True in states else None
