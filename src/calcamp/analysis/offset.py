"""Electronic offset of a quadrant from its prescan and overscan pixels.

The offset of a row is the clipped *mean* of its scan pixels: the median of 21 integers moves in steps and
injects 0.4 ADU of row noise where the mean injects 0.27 (read noise 1.2 ADU). Where rows scatter no more than
their pixel noise explains, the row means are smoothed along the rows; the test is part of the result.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np

from calcamp.analysis.statistics import NAN, ROUNDING, about, clip_factors, clipped, running_mean
from calcamp.detector.geometry import Detector

METHODS = ("row", "median", "smooth", "none")
SCANS = ("pre", "ove", "both")
#: Windows of the running mean that are tried, rows, the smoothest first.
WINDOWS = (51, 31, 21, 11)
#: A trail along the overscan columns makes the overscan unusable above this, ADU, if also significant.
TRAIL_ADU = 0.05
_SIGNIFICANT = 5.0


@dataclass(frozen=True)
class RowMeans:
    """Clipped means of the scan pixels of each row, index 0 being canonical row 0 of the quadrant."""

    mean: np.ndarray = field(metadata=about("ADU", "clipped mean per row, NaN where not measured"))
    err: np.ndarray = field(metadata=about("ADU", "standard error per row"))
    n: np.ndarray = field(metadata=about("1", "pixels used per row"))
    noise: float = field(metadata=about("ADU", "pixel noise about the row means, rounding removed"))
    noise_err: float = field(metadata=about("ADU", "standard error of the noise"))
    pixel_std: float = field(metadata=about("ADU", "the same with rounding, what the errors are made of"))


@dataclass(frozen=True)
class SmoothTest:
    """May the row means be smoothed along rows?"""

    passed: bool = field(metadata=about("1", "rows scatter no more than their pixel noise explains"))
    window: int = field(metadata=about("rows", "widest running mean that follows the drift, 1 when none"))
    excess: float = field(
        metadata=about("1", "variance between neighbouring rows over the expected one, minus 1")
    )
    excess_err: float = field(metadata=about("1", "standard error of the excess for white noise"))
    row_noise: float = field(metadata=about("ADU", "noise common to a row, 0 when no excess"))
    row_noise_err: float = field(metadata=about("ADU", "its standard error"))
    reason: str = field(metadata=about("", "why the smoothing was refused, empty when passed"))


@dataclass(frozen=True)
class Offsets:
    """Offset of each canonical row of a quadrant, and how it was found."""

    offset: np.ndarray = field(metadata=about("ADU", "offset per row, NaN where not measured or not read"))
    err: np.ndarray = field(metadata=about("ADU", "standard error per row, common to all pixels of the row"))
    level: float = field(metadata=about("ADU", "mean offset of the image rows read"))
    level_err: float = field(metadata=about("ADU", "standard error of the level"))
    noise: float = field(metadata=about("ADU", "pixel noise in the scan, rounding removed"))
    noise_err: float = field(metadata=about("ADU", "standard error of the noise"))
    method: str = field(metadata=about("", "method used: row, median, smooth or none"))
    scan: str = field(metadata=about("", "scan used: pre, ove or both"))
    window: int = field(metadata=about("rows", "rows averaged: 1 for row, 0 for one offset of all rows"))
    test: SmoothTest | None = field(default=None, metadata=about("", "outcome of the smoothing test"))
    ove_usable: bool | None = field(
        default=None, metadata=about("1", "overscan without trail, None if not looked at")
    )
    ove_trail: float = field(default=NAN, metadata=about("ADU", "first minus last used overscan columns"))
    ove_trail_err: float = field(default=NAN, metadata=about("ADU", "standard error of the trail"))
    ove_minus_pre: float = field(default=NAN, metadata=about("ADU", "level of overscan minus prescan"))
    ove_minus_pre_err: float = field(default=NAN, metadata=about("ADU", "its standard error"))


def row_means(
    block: np.ndarray, mask: np.ndarray | None = None, sigma: float = 5.0, full_scale: int = 65535
) -> RowMeans:
    """Clipped mean of every row of a block of scan pixels.

    The clip uses the noise of the whole block: in one row an outlier hides itself in the row's own spread.

    Parameters
    ----------
    block : ndarray, shape (rows, columns)
        Raw pixels, ADU; integers lose their rounding variance in `noise`. Pixels of integer blocks at 0 or
        `full_scale` are left out as lost or railed.
    mask : ndarray of bool, optional
        True where a pixel is left out.
    """
    integer = block.dtype.kind in "iu"
    good = (block > 0) & (block < full_scale) if integer else np.isfinite(block)
    if mask is not None:
        good &= ~mask
    rows = len(block)
    if not good.any():
        return RowMeans(np.full(rows, NAN), np.full(rows, NAN), np.zeros(rows, int), NAN, NAN, NAN)
    origin = float(np.median(block[good]))
    data = block.astype(np.float64) - origin
    every = bool(good.all())
    if not every:
        data[~good] = 0.0
    mean, n, spread = _plain_row_means(data, good, every)
    edge = 0.5 if integer else 0.0
    deviation = np.abs(data - mean[:, None])
    suspect = ((deviation > sigma * spread + edge) & good).any(axis=1) | (n == 0)
    if suspect.any():
        good = good.copy()
        good[suspect] = _keep_near_median(data[suspect], good[suspect], sigma * spread + 2 * edge)
        data[~good] = 0.0
        mean, n, _ = _plain_row_means(data, good, False)
    residual = np.where(good, data - np.where(n > 0, mean, 0.0)[:, None], 0.0)
    dof = int(n.sum() - np.count_nonzero(n))
    factor = clip_factors(float(sigma))[0]
    pixel_std = math.sqrt(float(np.square(residual).sum()) / dof) / factor if dof > 0 else NAN
    noise = math.sqrt(max(pixel_std**2 - (ROUNDING if integer else 0.0), 0.0)) if dof > 0 else NAN
    with np.errstate(divide="ignore", invalid="ignore"):
        err = np.where(n > 0, pixel_std / np.sqrt(n), NAN)
    noise_err = pixel_std**2 / noise / math.sqrt(2.0 * dof) if noise > 0 else NAN
    return RowMeans(np.where(n > 0, mean + origin, NAN), err, n, noise, noise_err, pixel_std)


def _plain_row_means(data: np.ndarray, good: np.ndarray, every: bool):
    """(means, numbers, pixel spread from the median of the row variances) without a clip."""
    n = np.full(len(data), data.shape[1]) if every else good.sum(axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        mean = data.sum(axis=1) / n
        deviation = data - mean[:, None]
        if not every:
            deviation[~good] = 0.0
        variance = np.square(deviation).sum(axis=1) / (n - 1)
    usable = variance[n > 1]
    if not usable.size:
        return np.where(n > 0, mean, 0.0), n, NAN
    freedom = float(np.median(n[n > 1])) - 1.0
    # The median of chi-square with k degrees of freedom is k (1 - 2/(9k))^3 (Wilson and Hilferty).
    spread = math.sqrt(float(np.median(usable)) / (1.0 - 2.0 / (9.0 * freedom)) ** 3)
    return np.where(n > 0, mean, 0.0), n, spread


def _keep_near_median(data: np.ndarray, good: np.ndarray, half: float) -> np.ndarray:
    """Pixels within `half` of their row's median, then of the mean of those."""
    filled = np.where(good, data, NAN)
    some = good.any(axis=1)
    centre = np.zeros(len(data))
    if some.any():
        centre[some] = np.nanmedian(filled[some], axis=1)
    for _ in range(3):
        keep = good & (np.abs(data - centre[:, None]) <= half)
        n = keep.sum(axis=1)
        update = np.where(keep, data, 0.0).sum(axis=1) / np.maximum(n, 1)
        if np.allclose(update, centre, atol=1e-9):
            break
        centre = np.where(n > 0, update, centre)
    return keep


def smooth_test(rows: RowMeans) -> SmoothTest:
    """Test whether row means may be replaced by their running mean.

    Two questions. Do neighbouring rows differ by no more than sigma²/n (squared differences of successive
    rows, blind to drifts; variance 3/N for white noise, von Neumann 1941)? And which is the widest window
    whose running mean leaves residuals of the expected variance, without local bias?
    """
    mean, err = rows.mean, rows.err
    both = np.isfinite(mean[1:]) & np.isfinite(mean[:-1])
    count = int(both.sum())
    if count < 3 * WINDOWS[-1]:
        return SmoothTest(False, 1, NAN, NAN, NAN, NAN, f"only {count} pairs of neighbouring rows")
    normal = (mean[1:] - mean[:-1])[both] / np.hypot(err[1:], err[:-1])[both]
    variance = clipped(normal).std ** 2
    excess, excess_err = variance - 1.0, math.sqrt(3.0 / count)
    expected = float(np.nanmean(err) ** 2)
    row_noise = math.sqrt(max(excess, 0.0) * expected)
    row_noise_err = (
        0.5 * excess_err * expected / row_noise if row_noise > 0 else math.sqrt(excess_err * expected)
    )
    common = (excess, excess_err, row_noise, row_noise_err)
    if excess > 3.0 * excess_err:
        return SmoothTest(False, 1, *common, f"row noise of {row_noise:.3f} ADU")
    for window in WINDOWS:
        if _follows(mean, err, window):
            return SmoothTest(True, window, *common, "")
    return SmoothTest(False, 1, *common, f"the offset drifts within {WINDOWS[-1]} rows")


def _follows(mean: np.ndarray, err: np.ndarray, window: int) -> bool:
    """Whether the running mean leaves residuals as white noise would."""
    weights = _weights(mean, err)
    smooth, weight = running_mean(mean, window, weights)
    with np.errstate(invalid="ignore", divide="ignore"):
        variance = 1.0 / weights - 1.0 / weight
        normal = (mean - smooth) / np.sqrt(variance)
    wide = np.isfinite(normal) & (weight > 4.0 * np.median(weights))
    residual = clipped(normal[wide])
    if residual.n < 2 * window or residual.std**2 - 1.0 > 4.0 * math.sqrt(2.0 / residual.n):
        return False
    short = WINDOWS[-1]
    if window == short:
        return True
    # Local bias: the mean over few rows of what the smoothing left.
    inside = np.abs(np.where(np.isfinite(normal), normal, np.inf)) <= 5.0
    local, n = running_mean(np.where(inside, mean - smooth, NAN), short, weights)
    full = np.isfinite(local) & (n >= 0.9 * short * np.median(weights)) & (weight > 1.8 * n)
    if not full.any():
        return False
    scale = np.sqrt(1.0 / n[full] - 1.0 / weight[full])
    return bool(np.max(np.abs(local[full]) / scale) < _SIGNIFICANT)


def _weights(mean: np.ndarray, err: np.ndarray) -> np.ndarray:
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(np.isfinite(mean) & (err > 0), 1.0 / np.square(err), 0.0)


def smooth_rows(rows: RowMeans, window: int) -> tuple[np.ndarray, np.ndarray]:
    """Running mean of row means: (offset, error) per row.

    A row that jumps out of its neighbourhood by more than 5 sigma keeps its own mean and does not enter the
    others; a row without pixels gets the mean of its neighbours.
    """
    weights = _weights(rows.mean, rows.err)
    smooth, weight = running_mean(rows.mean, window, weights)
    with np.errstate(invalid="ignore"):
        deviation = np.abs(rows.mean - smooth)
    jump = np.zeros(len(weights), bool)
    for _ in range(3):
        inner = deviation[np.isfinite(deviation) & (weights > 0) & ~jump]
        if not inner.size:
            break
        spread = max(1.4826 * float(np.median(inner)), float(np.nanmin(rows.err)))
        update = np.isfinite(deviation) & (deviation > _SIGNIFICANT * spread)
        if np.array_equal(update, jump):
            break
        jump = update
        smooth, weight = running_mean(rows.mean, window, np.where(jump, 0.0, weights))
        deviation = np.abs(rows.mean - smooth)
    with np.errstate(divide="ignore"):
        err = 1.0 / np.sqrt(weight)
    own = jump | (~np.isfinite(smooth) & np.isfinite(rows.mean))
    return np.where(own, rows.mean, smooth), np.where(own, rows.err, np.where(np.isfinite(smooth), err, NAN))


def overscan_trail(
    quadrant: np.ndarray,
    detector: Detector,
    vstart: int = 0,
    vend: int | None = None,
    mask: np.ndarray | None = None,
) -> tuple[bool, float, float]:
    """Is the trimmed overscan free of charge trailed behind the image?

    Returns
    -------
    usable : bool
    trail, err : float
        Mean of the first three used columns minus the last three, ADU: bright or irradiated images release
        charge late, and it decays along the overscan.
    """
    rows, columns = detector.region("ove", vstart, vend)
    width = min(3, (columns.stop - columns.start) // 2)
    if width < 1 or rows.stop - rows.start < 2:
        return False, NAN, NAN
    ends = []
    for part in (slice(columns.start, columns.start + width), slice(columns.stop - width, columns.stop)):
        ends.append(clipped(quadrant[rows, part], mask=None if mask is None else mask[rows, part]))
    trail, err = ends[0].mean - ends[1].mean, math.hypot(ends[0].mean_err, ends[1].mean_err)
    if not math.isfinite(trail):
        return False, trail, err
    return not (abs(trail) > TRAIL_ADU and abs(trail) > _SIGNIFICANT * err), float(trail), float(err)


def measure_offsets(
    quadrant: np.ndarray,
    detector: Detector,
    method: str = "row",
    scan: str = "pre",
    vstart: int = 0,
    vend: int | None = None,
    mask: np.ndarray | None = None,
    sigma: float = 5.0,
) -> Offsets:
    """Offset of every row of a canonical quadrant.

    Parameters
    ----------
    quadrant : ndarray, shape ``detector.quadrant_shape``
        Raw pixels, ADU, canonical.
    method : str
        ``row``: mean of each row. ``smooth``: running mean along rows (11 to 51) where `smooth_test` allows
        it, else as ``row``. ``median``: one level for all rows (the clipped mean over the image rows; the
        name is the predecessor's). ``none``: 0 for every row; level and noise are measured all the same.
    scan : str
        ``pre``, ``ove`` or ``both``; trimmed as the detector says. With ``both`` the two are brought to a
        common level before the rows are averaged; an overscan with a trail is then left out.
    vstart, vend : int
        Rows commanded, as in `Detector.read_rows`.
    mask : ndarray of bool, optional
        True where a pixel is left out; quadrant shape.

    Returns
    -------
    Offsets
        Arrays have one entry per row of the quadrant.
    """
    if method not in METHODS:
        raise ValueError(f"offset method {method!r}: one of {', '.join(METHODS)}")
    if scan not in SCANS:
        raise ValueError(f"scan {scan!r}: one of {', '.join(SCANS)}")
    first, last = detector.read_rows(vstart, vend)
    extra: dict = {}
    if scan != "pre":
        usable, trail, trail_err = overscan_trail(quadrant, detector, vstart, vend, mask)
        extra = {"ove_usable": usable, "ove_trail": trail, "ove_trail_err": trail_err}
        scan = "pre" if scan == "both" and not usable else scan
    measured = {
        name: _scan_rows(quadrant, detector, name, first, last, mask, sigma)
        for name in (("pre", "ove") if scan == "both" else (scan,))
    }
    if scan == "both":
        rows, step, step_err = _join(measured["pre"], measured["ove"])
        extra |= {"ove_minus_pre": step, "ove_minus_pre_err": step_err}
    else:
        rows = measured[scan]
    image = slice(first, min(detector.image_rows, last))
    level, level_err = _level(rows, image)
    test, window = None, 1
    offset, err = rows.mean, rows.err
    if method == "none":
        offset, err, window = np.zeros(detector.rows), np.zeros(detector.rows), 0
    elif method == "median":
        offset, err, window = (
            np.where(np.arange(detector.rows) < last, level, NAN),
            np.full(detector.rows, level_err),
            0,
        )
        offset[:first] = NAN
    elif method == "smooth":
        inside = RowMeans(
            *(a[first:last] for a in (rows.mean, rows.err, rows.n)), rows.noise, rows.noise_err, NAN
        )
        test = smooth_test(inside)
        method, window = ("smooth", test.window) if test.passed else ("row", 1)
        if test.passed:
            offset, err = offset.copy(), err.copy()
            offset[first:last], err[first:last] = smooth_rows(inside, window)
    err = np.where(np.isfinite(offset), err, NAN)
    return Offsets(
        offset, err, level, level_err, rows.noise, rows.noise_err, method, scan, window, test, **extra
    )


def _scan_rows(quadrant, detector, scan, first, last, mask, sigma) -> RowMeans:
    """Row means of one scan over the rows read, padded to the rows of the quadrant."""
    columns = detector.region(scan)[1]
    block = quadrant[first:last, columns]
    found = row_means(block, None if mask is None else mask[first:last, columns], sigma, detector.full_scale)
    padded = []
    for values, fill in ((found.mean, NAN), (found.err, NAN), (found.n, 0)):
        whole = np.full(detector.rows, fill, dtype=values.dtype)
        whole[first:last] = values
        padded.append(whole)
    return RowMeans(*padded, found.noise, found.noise_err, found.pixel_std)


def _level(rows: RowMeans, part: slice) -> tuple[float, float]:
    """Mean offset over some rows and its error from the scatter of the rows."""
    mean = rows.mean[part]
    finite = np.isfinite(mean)
    count = int(finite.sum())
    if count == 0:
        return NAN, NAN
    weights = rows.n[part][finite]
    level = float(np.average(mean[finite], weights=weights))
    # Rows jumping or drifting are part of what the level is the mean of: the error is that of the pixels.
    return level, rows.pixel_std / math.sqrt(float(weights.sum()))


def _join(pre: RowMeans, ove: RowMeans) -> tuple[RowMeans, float, float]:
    """Rows of both scans about a common level; also overscan minus prescan and its error."""
    both = (pre.n > 0) & (ove.n > 0)
    if not both.any():
        return (pre if pre.n.sum() >= ove.n.sum() else ove), NAN, NAN
    difference = clipped(ove.mean[both] - pre.mean[both])
    step, step_err = float(difference.mean), float(difference.mean_err)
    share = float(ove.n.sum()) / float(ove.n.sum() + pre.n.sum())
    n = pre.n + ove.n
    with np.errstate(invalid="ignore", divide="ignore"):
        low = np.where(pre.n > 0, pre.mean + share * step, 0.0)
        high = np.where(ove.n > 0, ove.mean - (1.0 - share) * step, 0.0)
        mean = (low * pre.n + high * ove.n) / n
        variance = (pre.n * pre.pixel_std**2 + ove.n * ove.pixel_std**2) / np.square(n.astype(float))
    weight = np.array([pre.n.sum(), ove.n.sum()], float)
    noise, pixel_std = (
        math.sqrt(float(weight @ np.square([getattr(pre, name), getattr(ove, name)])) / weight.sum())
        for name in ("noise", "pixel_std")
    )
    noise_err = math.hypot(
        *(w / weight.sum() * scan.noise_err for w, scan in zip(weight, (pre, ove), strict=True))
    )
    return RowMeans(mean, np.sqrt(variance), n, noise, noise_err, pixel_std), step, step_err
