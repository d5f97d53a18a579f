"""Profiles along rows and columns, and small operations on masks, shared by the families."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np

from calcamp.analysis.statistics import NAN, about, clip_factors, clipped, histogram_moments


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
    bad = (area < low) | (area > high)
    if mask is not None:
        bad |= mask
    if area.dtype.kind == "f":
        bad |= ~np.isfinite(area)
    origin = 0.5 * (low + high) if math.isfinite(low + high) else 0.0
    deviation = area.astype(np.float32)
    deviation -= np.float32(origin)
    if bad.any():
        deviation[bad] = 0.0
        counts = [
            area.shape[1] - np.count_nonzero(bad, axis=1),
            area.shape[0] - np.count_nonzero(bad, axis=0),
        ]
    else:
        counts = [np.full(area.shape[0], area.shape[1]), np.full(area.shape[1], area.shape[0])]
    factor = clip_factors(float(sigma))[0]
    results = []
    # einsum reduces without temporaries of the squares.
    sums = (deviation.sum(axis=1, dtype=np.float64), deviation.sum(axis=0, dtype=np.float64))
    squares = (np.einsum("ij,ij->i", deviation, deviation), np.einsum("ij,ij->j", deviation, deviation))
    for n, total, square in zip(counts, sums, squares, strict=True):
        with np.errstate(divide="ignore", invalid="ignore"):
            mean = total / n
            variance = np.maximum(square.astype(float) / n - mean**2, 0.0) * n / (n - 1)
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
