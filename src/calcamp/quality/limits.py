"""Limits as the judge reads them: plain data from a plan file, or the objects of `calcamp.config.limits`.

The resolved limits of a test travel as JSON from the plan to the judge, so nothing here needs pydantic.
Bounds are inclusive on both sides; None is an open end.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

#: Room for rounding: 13.2 - 13.0 is a little more than 0.2 in binary.
SLACK = 1e-9


def number(value) -> float | None:
    """A measured number, None when it was not measured (None, NaN, masked, text)."""
    if value is None or isinstance(value, (str, bool)):
        return None
    try:
        value = float(value)
    except (TypeError, ValueError):
        return None
    return None if math.isnan(value) else value


def side(value, low: float | None, high: float | None) -> int | None:
    """-1 below, 0 within (bounds included), 1 above, None when not measured."""
    value = number(value)
    if value is None:
        return None
    if low is not None and value < low - SLACK * max(1.0, abs(low)):
        return -1
    if high is not None and value > high + SLACK * max(1.0, abs(high)):
        return 1
    return 0


@dataclass(frozen=True)
class Limit:
    """A limit that holds for a test.

    ``mode`` is ``absolute``, or ``difference`` or ``factor`` with respect to a ``reference``, which a
    family knows how to make.
    """

    name: str
    low: float | None
    high: float | None
    unit: str = ""
    mode: str = "absolute"
    reference: str | None = None
    table: str = ""
    value: str = ""
    cell: tuple[str, ...] = ("ccd", "quadrant")
    flags: tuple[str, ...] = ()
    regions: tuple[str, ...] | None = None
    columns: tuple[int, ...] | None = None
    unpredicted: tuple[float | None, float | None] | None = None
    none_expected: tuple[float | None, float | None] | None = None
    parameters: dict = field(default_factory=dict)
    source: str = ""
    origin: str = "limits"

    def bounds(self, reference: float | None = None) -> tuple[float | None, float | None] | None:
        """Bounds of the value itself; None when the reference that they need is not known.

        A factor of a prediction of 0 is ``none_expected``, without a prediction ``unpredicted``, where
        the limits file gives these.
        """
        if self.mode == "absolute":
            return self.low, self.high
        reference = number(reference)
        if reference is None:
            return self.unpredicted
        if self.mode == "difference":
            return _add(self.low, reference), _add(self.high, reference)
        if reference == 0 and self.none_expected is not None:
            return self.none_expected
        return _times(self.low, reference), _times(self.high, reference)


def _add(bound, reference):
    return None if bound is None else reference + bound


def _times(bound, reference):
    return None if bound is None else reference * bound


@dataclass(frozen=True)
class Band:
    """Bounds of a house-keeping value: ``relative`` to the command, ``absolute``, or ``identity``."""

    type: str
    low: float | None = None
    high: float | None = None
    values: tuple = ()


@dataclass(frozen=True)
class HkLimit:
    """Limits of one house-keeping key; ``performance`` None is not judged (warm tests)."""

    key: str
    performance: Band | None
    safe: Band | None
    commanded: str | None = None
    unit: str = ""
    in_tests: bool = True
    source: str = ""

    def passes(self) -> dict[str, Band]:
        """Bands by pass: ``command``, ``performance``, ``safe``, those that exist."""
        found = {}
        if self.performance is not None:
            found["command" if self.performance.type == "relative" else "performance"] = self.performance
        if self.safe is not None:
            found["safe"] = self.safe
        return found


def _plain(thing) -> Mapping:
    return thing if isinstance(thing, Mapping) else thing.as_dict()


def read_limits(resolved: Mapping) -> dict[str, Limit]:
    """`Limit` by name from ``Limits.resolve(...)``, its objects or their JSON."""
    out = {}
    for name, item in resolved.items():
        data = {k: v for k, v in _plain(item).items() if k in Limit.__dataclass_fields__}
        data.setdefault("name", name)
        for key in ("cell", "flags", "regions", "columns", "unpredicted", "none_expected"):
            if data.get(key) is not None:
                data[key] = tuple(data[key])
        out[name] = Limit(**data)
    return out


def read_hk_limits(resolved: Mapping) -> dict[str, HkLimit]:
    """`HkLimit` by key from ``Limits.hk_limits(...)``, its objects or their JSON."""
    out = {}
    for key, item in resolved.items():
        data = _plain(item)
        out[key] = HkLimit(
            key,
            _band(data.get("performance")),
            _band(data.get("safe")),
            data.get("commanded"),
            data.get("unit", ""),
            data.get("in_tests", True),
            data.get("source", ""),
        )
    return out


def _band(data) -> Band | None:
    if data is None:
        return None
    if not isinstance(data, Mapping):
        data = data.model_dump() if hasattr(data, "model_dump") else vars(data)
    return Band(data["type"], data.get("low"), data.get("high"), tuple(data.get("values") or ()))
