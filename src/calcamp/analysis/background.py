"""Smooth structure of an area: clipped box means, a low-order surface, a mesh that follows it.

Boxes cover the whole area (edges at round(k·size/n)), so a surface is interpolated, never extrapolated.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np

from calcamp.analysis.statistics import NAN, Fit, about, clip_factors, fit_linear


@dataclass(frozen=True)
class Boxes:
    """Clipped means in boxes; arrays [box row, box column]."""

    mean: np.ndarray = field(metadata=about("as input", "clipped mean, NaN without enough pixels"))
    err: np.ndarray = field(metadata=about("as input", "standard error of the mean, for white noise"))
    std: np.ndarray = field(metadata=about("as input", "clipped standard deviation, clip corrected"))
    n: np.ndarray = field(metadata=about("1", "pixels used"))
    rows: np.ndarray = field(metadata=about("px", "row edges"))
    columns: np.ndarray = field(metadata=about("px", "column edges"))

    @property
    def centres(self) -> tuple[np.ndarray, np.ndarray]:
        """(rows, columns) of the box centres; pixel centres are at integers."""
        return 0.5 * (self.rows[1:] + self.rows[:-1] - 1), 0.5 * (self.columns[1:] + self.columns[:-1] - 1)


def box_edges(size: int, number: int) -> np.ndarray:
    """Edges of `number` boxes over `size` pixels: round(k·size/number)."""
    return np.array([round(k * size / number) for k in range(number + 1)])


def box_means(
    image: np.ndarray,
    number: tuple[int, int],
    mask: np.ndarray | None = None,
    sigma: float = 4.0,
    iterations: int = 3,
) -> Boxes:
    """Clipped means of all boxes at once.

    The clip starts from the median and the spread of a sample of each box, so one bright pixel or a hot
    column does not bend it.

    Parameters
    ----------
    image : (rows, columns) float array
    number : (boxes along rows, boxes along columns)
    mask : bool array, optional
        True where a pixel is left out. NaN is left out too.
    sigma, iterations
        Clip about the box mean.
    """
    rows, columns = box_edges(image.shape[0], number[0]), box_edges(image.shape[1], number[1])
    shape = (len(rows) - 1, len(columns) - 1)
    mean, err, std, n = (np.full(shape, NAN) for _ in range(4))
    starts = [_sample_spread(image, mask, r0, r1, columns) for r0, r1 in pairwise(rows)]
    # On integers, or with few valid pixels, the spread of a sample can be 0 or a step off.
    spreads = np.array([spread for _, spread in starts])
    typical = float(np.nanmedian(spreads)) if np.isfinite(spreads).any() else 1.0
    factor, inflate, _ = clip_factors(float(sigma))
    for k, (r0, r1) in enumerate(pairwise(rows)):
        centre, spread = starts[k]
        spread = np.where(spread > 0.5 * typical, spread, typical if typical > 0 else 1.0)
        band = None if mask is None else mask[r0:r1]
        mean[k], std[k], n[k] = _clip_band(
            image[r0:r1], band, np.nan_to_num(centre), spread, columns, sigma, iterations, factor
        )
    with np.errstate(invalid="ignore", divide="ignore"):
        err = np.where(n > 1, std / np.sqrt(n) * inflate, NAN)
    return Boxes(mean, err, std, np.nan_to_num(n).astype(int), rows, columns)


def _clip_band(image, mask, centre, spread, columns, sigma, iterations, factor):
    """Clipped (mean, std, n) of the boxes of one band of rows; a band stays in the processor's cache.

    All passes but the last only find the window: rows that leave some 1000 pixels a box tell it well enough.
    """
    widths = np.diff(columns)
    whole, all_of_mask = image, mask
    thin = int(min(max(len(whole) * widths.min() // 1000, 1), 16, len(whole)))
    for left in reversed(range(iterations)):
        step = thin if left else 1
        image, mask = whole[::step], None if all_of_mask is None else all_of_mask[::step]
        deviation = image - np.repeat(centre, widths).astype(np.float32)
        aside = ~(np.abs(deviation) <= np.repeat(sigma * spread, widths).astype(np.float32))
        if mask is not None:
            aside |= mask
        deviation[aside] = 0
        n = image.shape[0] * widths - np.add.reduceat(np.count_nonzero(aside, axis=0), columns[:-1])
        ones = np.ones(image.shape[0], np.float32)
        with np.errstate(invalid="ignore", divide="ignore"):
            shift = np.add.reduceat((ones @ deviation).astype(np.float64), columns[:-1]) / n
            deviation *= deviation
            square = np.add.reduceat((ones @ deviation).astype(np.float64), columns[:-1]) / n
            variance = np.maximum(square - shift**2, 0) * n / (n - 1)
        std = np.sqrt(variance) / factor
        centre, spread = np.where(n > 0, centre + shift, centre), np.where(std > 0, std, spread)
    return np.where(n > 1, centre, NAN), np.where(n > 1, std, NAN), n


def _sample_spread(image, mask, r0, r1, columns) -> tuple[np.ndarray, np.ndarray]:
    """Median and half the 16-84 % distance of about 100 pixels of each box of a band."""
    height = int(min(11, r1 - r0))
    width = int(min(11, np.diff(columns).min()))
    at_rows = r0 + ((np.arange(height) + 0.5) / height * (r1 - r0)).astype(int)
    at_columns = columns[:-1, None] + ((np.arange(width) + 0.5) / width * np.diff(columns)[:, None]).astype(
        int
    )
    picked = image[at_rows[:, None], at_columns.reshape(-1)].astype(np.float64)
    if mask is not None:
        picked[mask[at_rows[:, None], at_columns.reshape(-1)]] = np.nan
    picked = np.sort(
        picked.reshape(height, -1, width).transpose(1, 0, 2).reshape(len(columns) - 1, -1), axis=1
    )
    valid = np.isfinite(picked).sum(axis=1)

    def order(share):
        rank = np.clip((share * (valid - 1) + 0.5).astype(int), 0, picked.shape[1] - 1)
        return np.where(valid > 0, picked[np.arange(len(picked)), rank], NAN)

    return order(0.5), 0.5 * (order(0.8413) - order(0.1587))


def interpolate_boxes(boxes: Boxes, shape: tuple[int, int]) -> np.ndarray:
    """Bilinear surface through the box means, float32; boxes without a value take their neighbours' mean.

    Outside the outermost centres the value of the nearest centre holds: nothing is extrapolated.
    """
    values = _fill(boxes.mean)
    at_rows, at_columns = boxes.centres
    return (
        _linear_weights(shape[0], at_rows)
        @ values.astype(np.float32)
        @ _linear_weights(shape[1], at_columns).T
    )


def _linear_weights(size: int, centres: np.ndarray) -> np.ndarray:
    """Matrix (size, centres) of linear interpolation."""
    weights = np.zeros((size, centres.size), dtype=np.float32)
    position = np.clip(np.arange(size), centres[0], centres[-1])
    left = np.clip(np.searchsorted(centres, position, side="right") - 1, 0, max(centres.size - 2, 0))
    if centres.size == 1:
        weights[:, 0] = 1
        return weights
    fraction = (position - centres[left]) / (centres[left + 1] - centres[left])
    weights[np.arange(size), left] = 1 - fraction
    weights[np.arange(size), left + 1] = fraction
    return weights


def _fill(values: np.ndarray) -> np.ndarray:
    """NaN boxes replaced by the mean of their known neighbours, outwards; 0 when nothing is known."""
    values = values.copy()
    while np.isnan(values).any():
        if np.isnan(values).all():
            return np.zeros_like(values)
        padded = np.pad(values, 1, constant_values=np.nan)
        around = np.stack(
            [
                padded[1 + i : padded.shape[0] - 1 + i, 1 + j : padded.shape[1] - 1 + j]
                for i in (-1, 0, 1)
                for j in (-1, 0, 1)
            ]
        )
        known = np.isfinite(around)
        count = known.sum(axis=0)
        mean = np.where(known, around, 0).sum(axis=0) / np.maximum(count, 1)
        replace = np.isnan(values) & (count > 0)
        values[replace] = mean[replace]
    return values


@dataclass(frozen=True)
class Surface:
    """Robust polynomial surface of an area, Legendre polynomials of u (rows) and v (columns) in -1..1."""

    terms: tuple[tuple[int, int], ...] = field(
        metadata=about("1", "degrees (rows, columns) of the coefficients")
    )
    fit: Fit = field(metadata=about("as input", "coefficients, covariance or the reason of failure"))
    shape: tuple[int, int] = field(metadata=about("px", "area: the surface is defined nowhere else"))
    rms: float = field(metadata=about("as input", "scatter of the boxes about the surface"))

    def evaluate(self) -> np.ndarray:
        """The surface on all pixels of the area, float32."""
        from numpy.polynomial.legendre import legvander

        degree = max(max(t) for t in self.terms)
        coefficients = np.zeros((degree + 1, degree + 1))
        for (i, j), value in zip(self.terms, self.fit.parameters, strict=True):
            coefficients[i, j] = value
        along = [legvander(_unit(np.arange(n), n), degree) for n in self.shape]
        return (along[0] @ coefficients @ along[1].T).astype(np.float32)

    def slopes(self) -> tuple[float, float, float, float]:
        """(along rows, its error, along columns, its error): linear terms, input unit per 1000 px."""
        errors = self.fit.errors
        out = []
        for axis, term in ((0, (1, 0)), (1, (0, 1))):
            k = self.terms.index(term)
            scale = 2000.0 / self.shape[axis]
            out += [float(self.fit.parameters[k] * scale), float(errors[k] * scale)]
        return tuple(out)


def _unit(position, size: int):
    """Pixel position to -1..1 over the edges of the area."""
    return (2 * np.asarray(position, float) + 1) / size - 1


def fit_surface(boxes: Boxes, shape: tuple[int, int], degree: int = 3) -> Surface:
    """Weighted, robust Legendre surface of total degree `degree` through box means.

    Boxes are left out beyond 5 standard errors (least-absolute start); errors are scaled up where the
    boxes scatter more than their noise, because real structure is not a polynomial.
    """
    from numpy.polynomial.legendre import legvander

    rows, columns = boxes.centres
    u, v = legvander(_unit(rows, shape[0]), degree), legvander(_unit(columns, shape[1]), degree)
    terms = tuple((i, j) for total in range(degree + 1) for i in range(total, -1, -1) for j in (total - i,))
    design = np.stack([np.outer(u[:, i], v[:, j]).ravel() for i, j in terms], axis=1)
    y, err = boxes.mean.ravel(), boxes.err.ravel()
    # A floor on the errors keeps the rejection from eating structure that is smooth but not polynomial.
    first = fit_linear(design, y, None)
    residual = y - design @ first.parameters if first.ok else np.full(y.shape, NAN)
    scatter = 1.4826 * float(np.nanmedian(np.abs(residual))) if np.isfinite(residual).any() else 0.0
    fit = fit_linear(design, y, np.maximum(err, scatter), scale_errors=True)
    residual = (y - design @ fit.parameters)[fit.used] if fit.ok else np.array([])
    rms = float(np.sqrt(np.mean(residual**2))) if residual.size else NAN
    return Surface(terms, fit, shape, rms)
