"""Defects of an area: hot (or dead) pixels, whole and partial columns, groups of touching pixels.

Works on any map that is flat but for defects: a dark minus its background, or a flat response minus 1.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from calcamp.analysis.background import box_means, interpolate_boxes
from calcamp.analysis.chance import gamma_tail
from calcamp.analysis.cosmics import group_labels
from calcamp.analysis.statistics import about, clipped, running_mean


def local_background(image: np.ndarray, mask: np.ndarray | None = None, box: int = 64) -> np.ndarray:
    """Smooth background of an image: clipped means of boxes of about `box` px, bilinear between, float32."""
    number = tuple(max(1, round(size / box)) for size in image.shape)
    return interpolate_boxes(box_means(image, number, mask), image.shape)


@dataclass(frozen=True)
class ColumnDefect:
    """A run of rows of one column whose level differs from the neighbouring columns."""

    column: int = field(metadata=about("px", "canonical column in the area"))
    first: int = field(metadata=about("px", "first row"))
    last: int = field(metadata=about("px", "last row, included"))
    level: float = field(metadata=about("as input", "clipped mean above the neighbours"))
    level_err: float = field(metadata=about("as input", "its standard error"))
    significance: float = field(metadata=about("1", "level over error of the run when it was found"))
    partial: bool = field(metadata=about("1", "starts or ends inside the array"))

    @property
    def length(self) -> int:
        return self.last - self.first + 1


def find_columns(
    residual: np.ndarray,
    noise: float,
    threshold: float = 0.0,
    sigma: float = 7.0,
    neighbours: int = 10,
    mask: np.ndarray | None = None,
    least: int = 20,
) -> list[ColumnDefect]:
    """Hot and cold columns, whole or partial.

    Values are cut at 3 sigma about the typical column first, so that single hot pixels do not make a
    column. Means of blocks of rows are compared with the median of the columns to either side; in each
    column the run of blocks of largest significance is sought (a run of n blocks of mean z has z √n), and its
    ends are set to the row by the change of the cumulative sum. What is found is taken out and the search
    repeated, so a column may hold several runs; a run with a gap is divided.

    Parameters
    ----------
    residual : (rows, columns) float array
        Map minus its background.
    noise : float
        Standard deviation of a pixel.
    threshold : float
        Least difference from the neighbours, either sign, in units of `residual`.
    sigma : float
        Least significance. Some 10⁶ runs are tried, so 5.5 is the level of chance.
    neighbours : int
        Columns to either side that are compared with.
    mask : bool array, optional
        True where a pixel is left out.
    least : int
        Least length, rows.
    """
    rows, columns = residual.shape
    # Saturating at 3 sigma keeps a column's sum finite and single pixels harmless; a run of bright pixels is
    # then at most 3 sigma per pixel, which is plenty for any run worth the name.
    cut = np.float32(3 * noise)
    size = max(8, min(64, rows // 32))
    edges = np.arange(0, rows, size)
    sums, count = np.empty((2, edges.size, columns), np.float32)
    for k, top in enumerate(edges):
        block, good = _cut_off(residual, mask, slice(top, top + size), slice(None), cut)
        sums[k] = np.ones(len(block), np.float32) @ block
        count[k] = len(block) if good is None else np.count_nonzero(good, axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        means = sums / count
    means -= _side_medians(means, neighbours)
    scale = noise * 0.995 / np.sqrt(np.maximum(count, 1))  # clip at 3 sigma takes 0.5 % of the spread
    z = np.where(count > 0.3 * size, means / scale, 0.0)
    found: list[ColumnDefect] = []
    # No run of a column is more significant than the root of its sum of squares: most need not be searched.
    significant = np.flatnonzero(np.einsum("ij,ij->j", z, z) > sigma**2)
    runs = np.zeros(columns, int), np.zeros(columns, int), np.zeros(columns)
    for _ in range(6):
        for known, new in zip(runs, _best_runs(z[:, significant]), strict=True):
            known[significant] = new
        significant = np.flatnonzero(runs[2] > sigma)
        if not significant.size:
            break
        for column in _strong_enough(z, scale, runs, significant, size, least, min(threshold, float(cut))):
            top, bottom, strength = int(runs[0][column]), int(runs[1][column]), float(runs[2][column])
            span = int(edges[top]), int(min(edges[bottom] + size, rows))
            defect = _measure(residual, mask, cut, column, *span, size, neighbours, noise, strength)
            if defect is None:
                z[top : bottom + 1, column] = 0.0
                continue
            z[defect.first // size : defect.last // size + 1, column] = 0.0
            if abs(defect.level) > threshold and defect.length >= least:
                found.append(defect)
    return sorted(_join(found), key=lambda d: (d.column, d.first))


def _cut_off(residual, mask, rows, columns, cut) -> tuple[np.ndarray, np.ndarray | None]:
    """(float32 part of the map, cut at ±`cut`, 0 where it is not good; where it is good, None when everywhere)."""
    part = residual[rows, columns]
    good = np.isfinite(part)
    if mask is not None:
        good &= ~mask[rows, columns]
    work = np.clip(part, -cut, cut, dtype=np.float32)
    if good.all():
        return work, None
    work[~good] = 0
    return work, good


def _strong_enough(z, scale, runs, columns, size, least, threshold) -> list[int]:
    """Of `columns`, those whose run may reach `threshold`; the level of the other runs is taken out of `z`.

    A pattern of columns far below the threshold is significant in hundreds of columns: their ends are of no
    interest, a brighter run inside one of them still is.
    """
    first, last = runs[0][columns], runs[1][columns]
    row = np.arange(len(z))[:, None]
    inside = (row >= first) & (row <= last)
    blocks = last - first + 1
    level = np.where(inside, z[:, columns] * scale[:, columns], 0).sum(axis=0, dtype=float) / blocks
    # the run may fill its blocks at the ends in part only
    highest = np.abs(level) * blocks * size / np.maximum(least, (blocks - 2) * size)
    strong = highest > 0.7 * threshold
    weak = columns[~strong]
    z[:, weak] -= np.where(inside[:, ~strong], level[~strong] / scale[:, weak], 0).astype(z.dtype)
    return columns[strong].tolist()


def _side_medians(means: np.ndarray, neighbours: int) -> np.ndarray:
    """Median of the columns to either side, the column itself left out; at an edge those inside count twice."""
    padded = np.pad(np.nan_to_num(means), ((0, 0), (neighbours, neighbours)), mode="reflect")
    windows = np.lib.stride_tricks.sliding_window_view(padded, 2 * neighbours + 1, axis=1)
    around = np.delete(windows, neighbours, axis=2)
    around.sort(axis=2)  # for so few values several times faster than numpy's median, which selects
    return 0.5 * (around[..., neighbours - 1] + around[..., neighbours])


def _best_runs(z: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Per column: first and last block of the run of largest |sum|/√length, and that significance."""
    blocks, columns = z.shape
    sums = np.vstack([np.zeros((1, columns)), np.cumsum(z, axis=0)])
    best = np.zeros(columns)
    first, last = np.zeros(columns, int), np.zeros(columns, int)
    for length in range(1, blocks + 1):
        strength = np.abs(sums[length:] - sums[:-length]) / math.sqrt(length)
        at = strength.argmax(axis=0)
        value = strength[at, np.arange(columns)]
        # of equal runs the longer one, which is why >= is not >: noise does not favour length
        better = value > best
        best[better], first[better], last[better] = value[better], at[better], at[better] + length - 1
    return first, last, best


def _measure(
    residual, mask, cut, column, start, stop, size, neighbours, noise, strength
) -> ColumnDefect | None:
    """Refine the ends of a run and measure its level."""
    rows = len(residual)
    first = max(column - neighbours, 0)
    around, good = _cut_off(residual, mask, slice(None), slice(first, column + neighbours + 1), cut)
    own = around[:, column - first]
    valid = np.ones(rows, bool) if good is None else good[:, column - first]
    if good is not None:
        around[~good] = np.nan
    reference = np.nan_to_num(_row_medians(np.delete(around, column - first, axis=1)))
    reference, _ = running_mean(reference, min(101, rows - 1 + rows % 2))
    series = np.where(valid, own - reference, 0.0)
    # Without its half blocks at the ends, which may lie outside; a run of one (last, short) block is taken whole.
    inner = slice(start + size // 2, stop - size // 2) if stop - start > size else slice(start, stop)
    half = 0.5 * float(np.mean(series[inner]))
    start, stop = _edge(series, half, start, stop, size)
    start, stop = _larger_part(series, start, stop, noise)
    if stop <= start:
        return None
    inside = start + np.flatnonzero(valid[start:stop])
    values = residual[inside, column] - reference[inside]
    if values.size < 3:
        return None
    level = clipped(values.astype(float), 4.0, rounded=0)
    err = max(level.mean_err, noise / math.sqrt(max(level.n, 1))) if level.n > 1 else noise
    partial = start > 0 or stop < rows
    return ColumnDefect(int(column), int(start), int(stop - 1), level.mean, err, strength, bool(partial))


def _row_medians(values: np.ndarray) -> np.ndarray:
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        return np.nanmedian(values, axis=1)


def _edge(series, half, start, stop, size) -> tuple[int, int]:
    """Rows [start, stop) that maximise the sum of (value − half level) in the direction of the level.

    For a step in white noise that is the maximum-likelihood place of the two changes.
    """
    direction = 1.0 if half >= 0 else -1.0
    low, high = max(start - 2 * size, 0), min(stop + 2 * size, series.size)
    gain = np.concatenate([[0.0], np.cumsum(direction * (series[low:high] - half))])
    middle = (start + stop) // 2 - low
    begin = int(np.argmin(gain[: middle + 1]))
    end = middle + int(np.argmax(gain[middle:]))
    return low + begin, low + end


def _larger_part(series, start, stop, noise) -> tuple[int, int]:
    """The more significant side of a gap, when the run has one: a stretch lower than the run by 6 sigma."""
    part = series[start:stop]
    if part.size < 10:
        return start, stop
    level = float(part.mean())
    sums = np.concatenate([[0.0], np.cumsum(np.sign(level) * (0.5 * level - part))])
    # largest rise of the running sum: the stretch that looks least like the run
    lowest = np.minimum.accumulate(sums)
    end = int(np.argmax(sums - lowest))
    begin = int(np.argmin(sums[: end + 1]))
    if end <= begin:
        return start, stop
    deficit = abs(float((level - part[begin:end]).sum())) / (noise * math.sqrt(end - begin))
    if deficit < 6:
        return start, stop
    left, right = part[:begin], part[end:]
    weight = [abs(float(side.sum())) / math.sqrt(side.size) if side.size else 0.0 for side in (left, right)]
    return (start, start + begin) if weight[0] >= weight[1] else (start + end, stop)


def _join(found: list[ColumnDefect]) -> list[ColumnDefect]:
    """One of several overlapping runs of a column: the most significant."""
    kept: list[ColumnDefect] = []
    for defect in sorted(found, key=lambda d: -d.significance):
        if not any(
            d.column == defect.column and d.first <= defect.last and defect.first <= d.last for d in kept
        ):
            kept.append(defect)
    return kept


@dataclass(frozen=True)
class HotPixels:
    """Hot pixels of an area; arrays of equal length, hottest first."""

    row: np.ndarray = field(metadata=about("px", "canonical row in the image area"))
    column: np.ndarray = field(metadata=about("px", "canonical column in the image area"))
    level: np.ndarray = field(metadata=about("ADU", "above the local background, in the exposure time"))
    level_err: np.ndarray = field(metadata=about("ADU", "read and shot noise, error of the bias taken off"))
    n: np.ndarray = field(metadata=about("1", "exposures used"))
    repeatable: np.ndarray = field(metadata=about("1", "exposures agree within noise"))
    chi2: np.ndarray = field(metadata=about("1", "of the exposures about their mean, per degree of freedom"))

    def rates(self, exptime: float) -> tuple[np.ndarray, np.ndarray]:
        """Rate and its error, ADU/s."""
        return self.level / exptime, self.level_err / exptime


def find_hot_pixels(
    residual: np.ndarray,
    error: np.ndarray,
    threshold: float,
    sigma: float = 5.0,
    mask: np.ndarray | None = None,
) -> np.ndarray:
    """Flat indices of pixels above `threshold` and above `sigma` errors.

    Parameters
    ----------
    residual : (rows, columns), ADU
        Master dark minus its local background.
    error : (rows, columns) or float, ADU
        Error of a pixel without signal.
    threshold : float
        ADU; the rate limit times the exposure time.
    mask : bool array, optional
        True where a pixel is left out.
    """
    hot = residual > np.maximum(np.float32(threshold), np.float32(sigma) * error)
    if mask is not None:
        hot &= ~mask
    return np.flatnonzero(hot)


def measure_hot_pixels(
    pixels: np.ndarray,
    frames: Sequence[np.ndarray],
    background: np.ndarray,
    noise: float,
    gain: float,
    excluded: Sequence[np.ndarray] | None = None,
    chance: float = 1e-6,
    bias_error: np.ndarray | None = None,
) -> HotPixels:
    """Levels of hot pixels from all exposures, and whether the exposures agree.

    Parameters
    ----------
    pixels : int array
        Flat indices.
    frames : sequence of (rows, columns) arrays, ADU
        Prepared like exposures.
    background : (rows, columns), ADU
    noise : float
        Of a pixel at the background in one frame, its shot noise included, ADU.
    gain : float
        e-/ADU, for the shot noise of what is above the background.
    excluded : sequence of int arrays, optional
        Per frame, flat indices hit by cosmic rays or invalid.
    chance : float
        A pixel is not repeatable when stable pixels scatter as much in this share of cases.
    bias_error : (rows, columns), ADU, optional
        Error of the bias that was taken off, the same in all exposures.
    """
    rows, columns = np.divmod(pixels, background.shape[1])
    values = (
        np.stack([np.asarray(f)[rows, columns] for f in frames]).astype(float)
        if pixels.size
        else np.empty((len(frames), 0))
    )
    for k, out in enumerate(excluded or ()):
        values[k, np.isin(pixels, out)] = np.nan
    good = np.isfinite(values)
    n = good.sum(axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = np.where(good, values, 0).sum(axis=0) / n
        level = mean - background[rows, columns]
        variance = noise**2 + np.maximum(level, 0) / gain
        # 1 % of the level: shutter, temperature and gain are not steadier than that
        variance_total = variance + (0.01 * mean) ** 2
        chi2 = np.where(good, (values - mean) ** 2, 0).sum(axis=0) / variance_total
        dof = np.maximum(n - 1, 1)
        repeatable = n < 2
        for k in np.unique(dof):
            repeatable |= (dof == k) & (gamma_tail(k / 2, chi2 / 2) > chance)
        level_err = np.sqrt(variance / n)
    if bias_error is not None:
        level_err = np.hypot(level_err, np.nan_to_num(bias_error[rows, columns]))
    order = np.argsort(-level, kind="stable")
    return HotPixels(*(a[order] for a in (rows, columns, level, level_err, n, repeatable, chi2 / dof)))


@dataclass(frozen=True)
class Clusters:
    """Groups of touching defective pixels."""

    labels: np.ndarray = field(metadata=about("1", "group of each pixel, same order as the input"))
    sizes: np.ndarray = field(metadata=about("px", "pixels per group"))

    def members(self, least: int = 2) -> np.ndarray:
        """Which pixels belong to a group of at least `least`."""
        return self.sizes[self.labels] >= least if self.labels.size else np.empty(0, bool)

    def number(self, least: int = 2) -> int:
        return int((self.sizes >= least).sum())


def clusters(pixels: np.ndarray, shape: tuple[int, int]) -> Clusters:
    """Group flat indices that touch, corners included."""
    labels = group_labels(np.asarray(pixels), shape)
    return Clusters(labels, np.bincount(labels) if labels.size else np.empty(0, int))


def old_rule_columns(bad: np.ndarray, least: int = 200) -> np.ndarray:
    """Columns with at least `least` bad pixels, adjacent or not: the predecessor's rule."""
    return np.flatnonzero(np.count_nonzero(bad, axis=0) >= least)
