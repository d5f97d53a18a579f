"""Stray light: rate of signal in an image area from a long exposure less a short one."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np

from calcamp.analysis.background import box_means
from calcamp.analysis.statistics import NAN, about, clipped


@dataclass(frozen=True)
class Light:
    """Rate of light in a quadrant."""

    rate: float = field(metadata=about("ADU/s", "clipped mean of the difference over its time"))
    err: float = field(metadata=about("ADU/s", "standard error from the scatter of the rows"))
    tiles: np.ndarray = field(metadata=about("ADU/s", "[tile row, tile column]"))
    tiles_err: np.ndarray = field(metadata=about("ADU/s", "standard errors for white noise"))
    n: int = field(metadata=about("1", "pixels"))


def measure(
    difference: np.ndarray, seconds: float, tiles: tuple[int, int] = (8, 8), bad: np.ndarray | None = None
) -> Light:
    """Rate of light from the difference of two prepared frames.

    Parameters
    ----------
    difference : (rows, columns) float32, ADU
        Image area of the long less that of the short exposure, both above the prescan.
    seconds : difference of the exposure times.
    bad : bool array, optional
        Pixels left out. Cosmic rays and spots are clipped.
    """
    if not seconds > 0:
        shape = np.full(tiles, NAN)
        return Light(NAN, NAN, shape, shape, 0)
    boxes = box_means(difference, tiles, bad)
    rows = clipped(difference, 4.0, axis=1, mask=bad, rounded=0)
    # Light that falls off over the rows is no noise: take the error from neighbouring rows.
    steps = np.diff(np.asarray(rows.mean))
    steps = steps[np.isfinite(steps)]
    noise = 1.4826 * float(np.median(np.abs(steps))) / math.sqrt(2) if steps.size else NAN
    mean = float(np.nanmean(rows.mean))
    count = int(np.isfinite(np.asarray(rows.mean)).sum())
    err = noise / math.sqrt(max(count, 1))
    return Light(
        mean / seconds,
        err / seconds,
        boxes.mean / seconds,
        boxes.err / seconds,
        int(np.sum(rows.n)),
    )
