"""Profiles along rows and columns, and small operations on masks, shared by the families."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np

from calcamp.analysis.statistics import NAN, about, clip_factors, clipped, histogram_moments
from calcamp.analysis.sums import bands, column_sums, row_sums


@dataclass(frozen=True)
class Profile:
    """Clipped mean of each line of an area against the position of the line."""

    position: np.ndarray = field(metadata=about("px", "index of the line in the area"))
    value: np.ndarray = field(metadata=about("as input", "mean of the line, NaN without pixels"))
    err: np.ndarray = field(metadata=about("as input", "standard error of the mean"))
    std: np.ndarray = field(metadata=about("as input", "standard deviation in the line, rounding included"))
    n: np.ndarray = field(metadata=about("1", "pixels used"))


def profiles(
    area: np.ndarray,
    mask: np.ndarray | None = None,
    sigma: float = 5.0,
    window: tuple[float, float] | None = None,
) -> tuple[Profile, Profile]:
    """Profile over rows (value against row) and over columns (value against column) of an area.

    One clip serves both: pixels outside `window` are left out. By default that is `sigma` standard deviations
    about the mean of the whole area, structure included, which keeps the structure and drops cosmic rays and
    hot pixels. About 10 ms for a raw quadrant.

    Parameters
    ----------
    area : ndarray, shape (rows, columns)
        Raw (uint16) or float pixels.
    mask : ndarray of bool, optional
        True where a pixel is left out.
    window : (low, high), optional
        Values kept, both included.

    Returns
    -------
    (rows, columns) : tuple of Profile
    """
    if window is None:
        window = clip_window(area, mask, sigma)
    low, high = window
    origin = np.float32(0.5 * (low + high) if math.isfinite(low + high) else 0.0)
    rows, columns = area.shape
    sums, squares = (np.zeros(rows), np.zeros(columns)), (np.zeros(rows), np.zeros(columns))
    counts = (np.full(rows, columns), np.full(columns, rows))
    for band in bands(rows):
        values = area[band]
        bad = ~((values >= low) & (values <= high))  # NaN too
        if mask is not None:
            bad |= mask[band]
        deviation = values.astype(np.float32)
        deviation -= origin
        at = np.flatnonzero(bad)
        if at.size:
            deviation.reshape(-1)[at] = 0.0
            counts[0][band] -= np.bincount(at // columns, minlength=len(values))
            counts[1][...] -= np.count_nonzero(bad, axis=0)
        sums[0][band] = row_sums(deviation)
        sums[1][...] += column_sums(deviation)
        deviation *= deviation
        squares[0][band] = row_sums(deviation)
        squares[1][...] += column_sums(deviation)
    factor = clip_factors(float(sigma))[0]
    results = []
    for n, total, square in zip(counts, sums, squares, strict=True):
        with np.errstate(divide="ignore", invalid="ignore"):
            mean = total / n
            variance = np.maximum(square / n - mean**2, 0.0) * n / (n - 1)
            std = np.where(n > 1, np.sqrt(variance) / factor, NAN)
            results.append(
                Profile(np.arange(len(n)), np.where(n > 0, mean + origin, NAN), std / np.sqrt(n), std, n)
            )
    return results[0], results[1]


def clip_window(area: np.ndarray, mask: np.ndarray | None = None, sigma: float = 5.0) -> tuple[float, float]:
    """Values within `sigma` standard deviations (rounding included) of the clipped mean of an area."""
    if area.dtype == np.uint16:
        result = histogram_moments(area, sigma, mask=mask).clipped
    else:
        result = clipped(area, sigma, mask=mask)
    if not math.isfinite(result.mean):
        return -math.inf, math.inf
    half = sigma * result.std + (0.5 if area.dtype.kind in "iu" else 0.0)
    return result.mean - half, result.mean + half


def grow_mask(mask: np.ndarray, pixels: int = 1) -> np.ndarray:
    """Mask grown by `pixels` in all eight directions; a new array."""
    grown = mask.copy()
    for _ in range(pixels):
        before = grown.copy()
        grown[1:] |= before[:-1]
        grown[:-1] |= before[1:]
        before = grown.copy()
        grown[:, 1:] |= before[:, :-1]
        grown[:, :-1] |= before[:, 1:]
    return grown


def rebin(area: np.ndarray, edges: tuple[list[int], list[int]], mask: np.ndarray | None = None) -> np.ndarray:
    """Plain mean in the boxes between row and column edges, masked pixels left out; NaN for empty boxes."""
    rows, columns = (np.asarray(e[:-1]) for e in edges)
    inside = area[edges[0][0] : edges[0][-1], edges[1][0] : edges[1][-1]].astype(np.float64)
    rows, columns = rows - rows[0], columns - columns[0]
    good = (
        np.ones(inside.shape, bool)
        if mask is None
        else ~mask[edges[0][0] : edges[0][-1], edges[1][0] : edges[1][-1]]
    )
    inside[~good] = 0.0

    def sums(array):
        return np.add.reduceat(np.add.reduceat(array, rows, axis=0), columns, axis=1)

    with np.errstate(divide="ignore", invalid="ignore"):
        return sums(inside) / sums(good.astype(np.float64))
