"""Readiness of a warm CCD: ramp of the dark current, injected lines, flat light, spots.

Quadrants are raw or offset-subtracted frames, canonical. At room temperature dark current draws a ramp along the
rows of every forward read-out; everything else is measured on top of it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np

from calcamp.analysis.statistics import NAN, about, clipped, fit_line
from calcamp.detector.geometry import Detector

#: What a frame is.
ROLES = ("BIAS_RVS", "BIAS_RV", "RAMP", "CHINJ", "FLAT", "PNT")
SKIPPED_ROWS = 10  # at the head of the ramp: settling
SKIPPED_LINES = 3  # after the ends of a block of injected lines: first line, spill


def role(keys: dict) -> str:
    """What a frame is, from what was commanded (EXP-LOG names); empty when it is none of `ROLES`."""
    mode = str(keys.get("rdmode") or "")
    if mode == "rwd_bas_vs":
        return "BIAS_RVS"
    if mode == "rwd_bas_v":
        return "BIAS_RV"
    if _number(keys.get("chinj")):
        return "CHINJ"
    # The EXP-LOG does not hold the shutter: a time is one of light unless the script says otherwise.
    lit = _number(keys.get("exptime")) > 0 and _number(keys.get("shuttr", 1))
    if lit:
        return "PNT" if str(keys.get("source") or "flat").strip().lower() == "point" else "FLAT"
    return "RAMP" if _number(keys.get("exptime")) == 0 else ""


def _number(value) -> float:
    try:
        return float(value)
    except (TypeError, ValueError):
        return 0.0


@dataclass(frozen=True)
class RowLevels:
    """Level of each image row above the prescan of the same row."""

    level: np.ndarray = field(metadata=about("ADU", "clipped mean of the row"))
    err: np.ndarray = field(metadata=about("ADU", "its standard error"))
    saturated: np.ndarray = field(metadata=about("1", "share of the pixels at full scale"))


def row_levels(raw: np.ndarray, detector: Detector, bad: np.ndarray | None = None) -> RowLevels:
    """Levels of the image rows of a raw quadrant.

    Parameters
    ----------
    raw : (rows, columns) uint16, canonical
    bad : bool array of the quadrant, optional
        True where a pixel is left out.
    """
    rows, columns = detector.region("img")
    area = raw[rows, columns]
    saturated = (area >= detector.full_scale).mean(axis=1)
    work = area.astype(np.float32)
    centre = np.median(work[:, ::2], axis=1, keepdims=True)
    work -= centre
    spread = 1.4826 * np.median(np.abs(work[:, ::4]), axis=1, keepdims=True)
    keep = np.abs(work) <= np.maximum(5 * spread, 3.0)
    if bad is not None:
        keep &= ~bad[rows, columns]
    n = np.maximum(keep.sum(axis=1), 1)
    mean = np.where(keep, work, 0).sum(axis=1) / n + centre[:, 0]
    prescan = clipped(raw[rows, detector.region("pre")[1]].astype(np.float32), 4.0, axis=1)
    err = np.hypot(np.maximum(spread[:, 0], 0.3) / np.sqrt(n), np.nan_to_num(prescan.mean_err))
    return RowLevels((mean - prescan.mean).astype(float), err.astype(float), saturated)


@dataclass(frozen=True)
class Ramp:
    """Straight line through the levels of the rows."""

    slope: float = field(metadata=about("ADU/row", "rise per row"))
    slope_err: float = field(metadata=about("ADU/row", "standard error, scatter about the line included"))
    start: float = field(metadata=about("ADU", "level at row 0"))
    start_err: float = field(metadata=about("ADU", "standard error"))
    n: int = field(metadata=about("1", "rows used"))
    reason: str = field(default="", metadata=about("", "why there is no slope"))

    def at(self, rows: np.ndarray) -> np.ndarray:
        return self.start + self.slope * np.asarray(rows, float)


def fit_ramp(levels: RowLevels) -> Ramp:
    """Slope of the ramp from its unsaturated rows."""
    rows = np.arange(levels.level.size, dtype=float)
    use = (rows >= SKIPPED_ROWS) & (levels.saturated < 0.01) & np.isfinite(levels.level)
    if use.sum() < 20:
        return Ramp(NAN, NAN, NAN, NAN, int(use.sum()), "fewer than 20 rows below saturation")
    fit = fit_line(rows[use], levels.level[use], levels.err[use], scale_errors=True)
    if not fit.ok:
        return Ramp(NAN, NAN, NAN, NAN, int(use.sum()), fit.reason)
    (start, slope), (start_err, slope_err) = fit.parameters, fit.errors
    return Ramp(float(slope), float(slope_err), float(start), float(start_err), fit.n)


@dataclass(frozen=True)
class Injected:
    """Injected lines above the lines without injection."""

    level: float = field(metadata=about("ADU", "mean of the blocks"))
    err: float = field(
        metadata=about("ADU", "standard error, from the lines without injection and the blocks")
    )
    significance: float = field(metadata=about("1", "level over error"))
    n: int = field(metadata=about("1", "blocks"))
    reason: str = field(default="", metadata=about("", "why there is no level"))


def injected_lines(levels: RowLevels, on: int, off: int) -> Injected:
    """Level of blocks of `on` injected lines, each against the lines without injection about it.

    The ramp is taken off with a robust line through the lines without injection.
    """
    rows = np.arange(levels.level.size)
    place = rows % (on + off)
    lit = (place >= 1) & (place < on) & (levels.saturated < 0.01)
    dark = (place >= on + SKIPPED_LINES) & (levels.saturated < 0.01)
    if on < 2 or dark.sum() < 20 or lit.sum() < 2:
        return Injected(NAN, NAN, NAN, 0, "no lines with and without injection below saturation")
    fit = fit_line(rows[dark].astype(float), levels.level[dark], levels.err[dark], scale_errors=True)
    if not fit.ok:
        return Injected(NAN, NAN, NAN, 0, fit.reason)
    above = levels.level - (fit.parameters[0] + fit.parameters[1] * rows)
    blocks = [above[lit & (rows // (on + off) == k)] for k in range(rows.size // (on + off) + 1)]
    means = np.array([b.mean() for b in blocks if b.size >= on // 2])
    scatter = float(np.std(above[dark], ddof=1)) / math.sqrt(max(int(lit.sum()), 1))
    between = float(np.std(means, ddof=1)) / math.sqrt(means.size) if means.size > 1 else 0.0
    level = float(means.mean())
    # Between blocks the level itself may differ: that is no doubt about its presence.
    err = max(scatter, min(between, 0.1 * abs(level)))
    return Injected(level, err, level / err if err > 0 else NAN, int(means.size))


def flat_level(levels: RowLevels, ramp: Ramp | None) -> tuple[float, float]:
    """(level, error) of flat light above the ramp, from the unsaturated rows; ADU.

    Without a ramp frame the first rows are taken, where the ramp has not risen yet.
    """
    rows = np.arange(levels.level.size)
    use = (levels.saturated < 0.01) & (rows >= SKIPPED_ROWS) & np.isfinite(levels.level)
    if ramp is None or not math.isfinite(ramp.slope):
        use &= rows < 64
        above = levels.level
    else:
        above = levels.level - ramp.at(rows)
    if not use.any():
        # All rows saturated: there is light, and at least so much of it.
        bright = levels.saturated >= 0.01
        return (float(np.nanmedian(levels.level[bright])), NAN) if bright.any() else (NAN, NAN)
    found = clipped(above[use], 5.0)
    return float(found.mean), float(found.mean_err)


def find_spots(area: np.ndarray, reference: np.ndarray | None, most: int = 5):
    """Spots in the image area of a quadrant: `calcamp.analysis.lock.Sources`, at most `most`, brightest first.

    Parameters
    ----------
    area : (rows, columns) float32, ADU
    reference : the same without light, optional
        The frame of the ramp: takes off the ramp and the trails of hot pixels. Without it each row's median
        is taken off.
    """
    from calcamp.analysis.lock import find_sources, star_like

    work = area - reference if reference is not None else area
    work = work - np.median(work[:, ::2], axis=1, keepdims=True)
    found = find_sources(work, threshold=10.0, least=40.0)
    found = found.where(star_like(found))
    if len(found):
        # The sources of the pattern are alike; what is far fainter is something else.
        found = found.where(found.flux > 0.15 * np.median(found.flux[:most]))
    return found.where(np.arange(len(found)) < most)
