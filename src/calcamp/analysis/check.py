"""Statistics of a raw frame: levels, noise, lost and saturated pixels, slopes, stuck bits.

Everything comes from histograms of the uint16 pixels, so that medians and percentiles are exact and a full
frame costs one pass.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from calcamp.analysis.statistics import (
    NAN,
    ROUNDING,
    Clipped,
    about,
    clipped,
    fit_line,
    histogram,
    histogram_moments,
)
from calcamp.analysis.sums import bands, column_sums, row_sums
from calcamp.detector.arrays import quadrant_view
from calcamp.detector.dq import BADMASK
from calcamp.detector.geometry import QUADRANTS, REGIONS, Detector

_BINS = 65536
#: Clip of means and noise, standard deviations.
CLIP_SIGMA = 5.0
#: Lines averaged before a slope is fitted.
_LINES = 32


@dataclass(frozen=True)
class RegionStatistics:
    """One region of one quadrant, raw ADU."""

    clipped: Clipped = field(metadata=about("ADU", "clipped mean and noise, rounding removed"))
    median: float = field(metadata=about("ADU", "exact median (offset_vison), steps of 0.5"))
    plain_std: float = field(metadata=about("ADU", "unclipped standard deviation, ddof 0 (noise_vison)"))
    n: int = field(metadata=about("1", "unmasked pixels, before the clip"))
    minimum: int = field(metadata=about("ADU", "lowest value"))
    maximum: int = field(metadata=about("ADU", "highest value"))


@dataclass(frozen=True)
class Slopes:
    """Robust straight lines through the clipped line means of a region, ADU per 1000 px."""

    row: float = field(metadata=about("ADU/1000 px", "along increasing row"))
    row_err: float = field(metadata=about("ADU/1000 px", "standard error"))
    column: float = field(metadata=about("ADU/1000 px", "along increasing column"))
    column_err: float = field(metadata=about("ADU/1000 px", "standard error"))


@dataclass(frozen=True)
class QuadrantStatistics:
    """All regions of one quadrant and the counts over all its columns in the rows read."""

    regions: dict[str, RegionStatistics] = field(metadata=about("", "pre, img, ove, pov"))
    slopes: dict[str, Slopes] = field(metadata=about("", "pre and img"))
    level: float = field(metadata=about("ADU", "clipped mean of the image above that of the prescan"))
    level_err: float = field(metadata=about("ADU", "standard error of the level"))
    lost: int = field(metadata=about("1", "pixels at 0"))
    saturated: int = field(metadata=about("1", "pixels at full scale"))
    n: int = field(metadata=about("1", "pixels read"))
    bit_rates: tuple[float, ...] = field(metadata=about("1", "share of pixels with bit 0…15 set"))
    bits_tested: tuple[int, ...] = field(metadata=about("1", "bits that the spread of the data must toggle"))
    bits_stuck: tuple[int, ...] = field(metadata=about("1", "tested bits that never, or always, are set"))

    @property
    def lost_fraction(self) -> float:
        return self.lost / self.n if self.n else NAN

    @property
    def saturated_fraction(self) -> float:
        return self.saturated / self.n if self.n else NAN


@dataclass(frozen=True, eq=False)
class BadPixels:
    """Positions of pixels left out, found once for all frames of a CCD."""

    positions: dict[str, tuple[np.ndarray, np.ndarray]] = field(
        metadata=about("px", "canonical (rows, columns) per quadrant")
    )

    def inside(self, quadrant: str, rows: slice, columns: slice) -> tuple[np.ndarray, np.ndarray]:
        """Positions inside an area, counted from its corner."""
        row, column = self.positions[quadrant]
        keep = (row >= rows.start) & (row < rows.stop) & (column >= columns.start) & (column < columns.stop)
        return row[keep] - rows.start, column[keep] - columns.start


def find_bad(dq: np.ndarray, detector: Detector, bits: int = BADMASK) -> BadPixels:
    """Positions of the pixels with one of `bits` (or true, in a boolean mask) in a stored data-quality plane."""
    if dq.shape != detector.ccd_shape:
        raise ValueError(f"data quality of shape {dq.shape}, the CCD has {detector.ccd_shape}")
    bad = dq if dq.dtype == bool else (dq & np.uint32(bits)) != 0
    return BadPixels({q: np.nonzero(quadrant_view(bad, q, detector)) for q in QUADRANTS})


def frame_statistics(
    raw: np.ndarray,
    detector: Detector,
    vstart: int = 0,
    vend: int | None = None,
    dq: np.ndarray | BadPixels | None = None,
    sigma: float = CLIP_SIGMA,
    slopes: Sequence[str] = ("pre", "img"),
) -> dict[str, QuadrantStatistics]:
    """Statistics of the four quadrants of a raw frame.

    Parameters
    ----------
    raw : ndarray of uint16, shape ``detector.ccd_shape``
        Stored orientation, ADU.
    vstart, vend : int
        Rows commanded.
    dq : ndarray or BadPixels, optional
        uint32 bits, stored orientation, or what `find_bad` makes of them once for many frames: pixels with a
        bit of BADMASK are left out of the regions. Lost and saturated pixels and bits are counted over all
        pixels.
    sigma : float
        Clip of means and noise.
    slopes : sequence of str
        Regions whose slopes are fitted, pre and img (a third of the time).

    Returns
    -------
    dict of quadrant to QuadrantStatistics
        Regions without rows (``pov`` of a read that ends before) have n = 0 and NaN.
    """
    if raw.shape != detector.ccd_shape or raw.dtype != np.uint16:
        raise ValueError(f"expected uint16 of shape {detector.ccd_shape}, got {raw.dtype} of {raw.shape}")
    bad = find_bad(dq, detector) if isinstance(dq, np.ndarray) else dq
    return {q: _quadrant(raw, q, detector, vstart, vend, bad, sigma, slopes) for q in QUADRANTS}


def _quadrant(raw, quadrant, detector: Detector, vstart, vend, bad, sigma, slopes) -> QuadrantStatistics:
    view = quadrant_view(raw, quadrant, detector)
    parts = {name: detector.region(name, vstart, vend) for name in REGIONS}
    first, last = detector.read_rows(vstart, vend)
    everything = np.zeros(_BINS, np.int64)
    regions, out = {}, {}
    for name, (rows, columns) in parts.items():
        area = view[rows, columns]
        counts = histogram(area)
        everything += counts
        if bad is not None:
            # The masked pixels are few: count them apart instead of selecting the good ones.
            out[name] = bad.inside(quadrant, rows, columns)
            counts = counts - np.bincount(area[out[name]], minlength=_BINS)
        regions[name] = _region(counts, sigma)
    for rows, columns in _rest(parts, detector, first, last):
        everything += histogram(view[rows, columns])
    pre, img = regions["pre"].clipped, regions["img"].clipped
    tested, stuck, rates = stuck_bits(everything)
    return QuadrantStatistics(
        regions=regions,
        slopes={n: _slopes(view[parts[n]], out.get(n), regions[n], sigma) for n in slopes},
        level=img.mean - pre.mean,
        level_err=math.hypot(img.mean_err, pre.mean_err),
        lost=int(everything[0]),
        saturated=int(everything[detector.full_scale]),
        n=int(everything.sum()),
        bit_rates=rates,
        bits_tested=tested,
        bits_stuck=stuck,
    )


def _region(counts: np.ndarray, sigma: float) -> RegionStatistics:
    moments = histogram_moments(counts, sigma)
    return RegionStatistics(
        moments.clipped, moments.median, moments.plain_std, moments.n, moments.minimum, moments.maximum
    )


def _rest(parts, detector: Detector, first: int, last: int):
    """Areas of the rows read that no region covers (trimmed columns, corners of the parallel overscan)."""
    image_last = min(detector.image_rows, last)
    covered = sorted((parts[name][1].start, parts[name][1].stop) for name in ("pre", "img", "ove"))
    column = 0
    for start, stop in [*covered, (detector.columns, detector.columns)]:
        if start > column and image_last > first:
            yield slice(first, image_last), slice(column, start)
        column = stop
    rows, columns = parts["pov"]
    if rows.stop > rows.start:
        yield rows, slice(0, columns.start)
        yield rows, slice(columns.stop, detector.columns)


def _slopes(area: np.ndarray, out, region: RegionStatistics, sigma: float) -> Slopes:
    """Slopes of one region from winsorised line means; `out` are positions left out."""
    stats = region.clipped
    # a region that is saturated as a whole has pixels, but no mean
    if region.n < 100 or min(area.shape) < 2 or not math.isfinite(stats.mean):
        return Slopes(NAN, NAN, NAN, NAN)
    half = sigma * math.sqrt((0.0 if math.isnan(stats.std) else stats.std) ** 2 + ROUNDING) + 1.0
    low, high = max(0, math.floor(stats.mean - half)), min(_BINS - 1, math.ceil(stats.mean + half))
    # Limiting values instead of leaving them out keeps the sums one pass; outliers are few.
    limited = region.minimum < low or region.maximum > high
    origin = np.float32(round(stats.mean) if math.isfinite(stats.mean) else 0)
    sums = np.zeros(area.shape[0]), np.zeros(area.shape[1])
    for rows in bands(area.shape[0]):
        part = area[rows].astype(np.float32)
        if limited:
            np.clip(part, np.float32(low), np.float32(high), out=part)
        part -= origin  # near 0, so that float32 sums hold
        sums[0][rows] = row_sums(part)
        sums[1][:] += column_sums(part)
    fitted = []
    for axis in (0, 1):
        total = sums[axis]
        n = np.full(len(total), area.shape[1 - axis])
        if out is not None:
            left_out = np.clip(area[out], low, high) - float(origin)
            total -= np.bincount(out[axis], weights=left_out, minlength=len(total))
            n -= np.bincount(out[axis], minlength=len(total))
        with np.errstate(invalid="ignore", divide="ignore"):
            fitted += _slope(np.where(n > 0, total / n + float(origin), NAN))
    return Slopes(*fitted)


def _slope(mean: np.ndarray) -> list[float]:
    """(slope, error) per 1000 px through the clipped means of groups of lines.

    The error comes from the scatter of the groups about the line: lines may share noise.
    """
    width = max(1, min(_LINES, len(mean) // 8))
    groups = mean[: len(mean) // width * width].reshape(-1, width)
    if len(groups) < 4:
        return [NAN, NAN]
    value = clipped(groups, 4.0, axis=1).mean if width > 2 else np.nanmean(groups, axis=1)
    position = (np.arange(len(groups)) + 0.5) * width - 0.5
    fit = fit_line(position, value)
    return [1000.0 * float(fit.parameters[1]), 1000.0 * float(fit.errors[1])]


def stuck_bits(counts: np.ndarray) -> tuple[tuple[int, ...], tuple[int, ...], tuple[float, ...]]:
    """Bits of the converter that do not toggle although the data are spread enough.

    A bit of value 2^b changes within any interval of 2^b + 1 neighbouring values. It is tested when the
    0.13 to 99.87 % points are at least 2^(b+1) apart: then both states hold many pixels, unless it is stuck.
    High bits are not tested by a bias frame; rates of several frames can be added. Levels that stand apart (a flat and
    its scans) say nothing about the bits between them.

    Parameters
    ----------
    counts : ndarray, shape (65536,)
        Histogram. Pixels at 0 and full scale are not looked at.

    Returns
    -------
    tested, stuck : tuple of int
        Bit numbers, 0 the least.
    rates : tuple of float, 16 values
        Share of pixels with the bit set.
    """
    counts = counts.copy()
    counts[0] = counts[-1] = 0
    total = int(counts.sum())
    if total == 0:
        return (), (), (NAN,) * 16
    rates = tuple(
        float(counts.reshape(-1, 2, 1 << bit)[:, 1].sum(dtype=np.int64)) / total for bit in range(16)
    )
    cumulative = np.cumsum(counts)
    low, high = np.searchsorted(cumulative, (0.00135 * total, 0.99865 * total))
    tested = tuple(bit for bit in range(16) if high - low >= 1 << (bit + 1))
    stuck = tuple(bit for bit in tested if rates[bit] in (0.0, 1.0) and _filled(counts, bit))
    return tested, stuck, rates


def _filled(counts: np.ndarray, bit: int) -> bool:
    """Whether values lie closely enough over two states of a bit to tell that it does not toggle.

    Flats and injected lines stand far above the scans: nothing lies between, and no bit is to blame. A stuck bit
    leaves gaps of its own size only, so values are taken together across such gaps, not across wider ones.
    """
    width = 1 << bit
    values = np.flatnonzero(counts)
    # 16 levels more: in sparse histograms single levels are empty by chance.
    edges = np.flatnonzero(np.diff(values) > width + 16)
    for group in np.split(values, edges + 1):
        inner = counts[group[0] : group[-1] + 1]
        total = inner.sum()
        if total < 0.1 * counts.sum():
            continue
        cumulative = np.cumsum(inner)
        low, high = np.searchsorted(cumulative, (0.00135 * total, 0.99865 * total))
        if high - low < 2 * width:
            continue
        # A few dead pixels may bridge the way from the scans to a faint flat: both rims of a gap must be populated.
        window = max(width // 4, 1)
        least = 0.05 * total * window / (high - low)
        for k in np.flatnonzero(np.diff(group) > width):
            below, above = group[k] - group[0], group[k + 1] - group[0]
            rims = inner[max(0, below + 1 - window) : below + 1].sum(), inner[above : above + window].sum()
            if min(rims) >= least:
                return True
    return False
