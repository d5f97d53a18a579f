"""Smooth structure of an area: clipped box means, a low-order surface, a mesh that follows it.

Boxes cover the whole area (edges at round(k·size/n)), so a surface is interpolated, never extrapolated.
"""

from __future__ import annotations

from dataclasses import dataclass, field

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
    good = np.isfinite(image)
    if mask is not None:
        good &= ~mask
    work = np.where(good, image, np.float32(0)).astype(np.float32, copy=False)
    centre, spread = _sample_spread(work, good, rows, columns)
    factor, inflate, _ = clip_factors(float(sigma))
    heights, widths = np.diff(rows), np.diff(columns)

    def expand(boxes):
        return np.repeat(np.repeat(boxes.astype(np.float32), heights, axis=0), widths, axis=1)

    for _ in range(iterations):
        deviation = work - expand(centre)
        chosen = good & (np.abs(deviation) <= expand(sigma * spread))
        deviation *= chosen
        n = _block_sum(chosen.astype(np.float32), rows, columns)
        with np.errstate(invalid="ignore", divide="ignore"):
            shift = _block_sum(deviation, rows, columns) / n
            variance = (_block_sum(deviation * deviation, rows, columns) / n - shift**2) * n / (n - 1)
        std = np.sqrt(np.maximum(variance, 0)) / factor
        centre, spread = np.nan_to_num(centre + shift), np.where(std > 0, std, spread)
    with np.errstate(invalid="ignore", divide="ignore"):
        err = np.where(n > 1, std / np.sqrt(n) * inflate, NAN)
    return Boxes(np.where(n > 1, centre, NAN), err, np.where(n > 1, std, NAN), n.astype(int), rows, columns)


def _block_sum(values, rows, columns) -> np.ndarray:
    """Sums over boxes: first along columns in single precision, then in double."""
    partial = np.add.reduceat(values, columns[:-1], axis=1)
    return np.add.reduceat(partial.astype(np.float64), rows[:-1], axis=0)


def _sample_spread(work, good, rows, columns) -> tuple[np.ndarray, np.ndarray]:
    """Median and half the 16-84 % distance of about 100 pixels of each box."""
    samples = []
    for size, edges in ((work.shape[0], rows), (work.shape[1], columns)):
        count = int(min(11, np.diff(edges).min()))
        offset = (np.arange(count) + 0.5) / count
        samples.append(
            np.minimum((edges[:-1, None] + offset * np.diff(edges)[:, None]).astype(int), size - 1)
        )
    picked = work[samples[0].reshape(-1)[:, None], samples[1].reshape(-1)].astype(np.float64)
    valid = good[samples[0].reshape(-1)[:, None], samples[1].reshape(-1)]
    picked[~valid] = np.nan
    a, b = samples[0].shape, samples[1].shape
    picked = picked.reshape(a[0], a[1], b[0], b[1]).transpose(0, 2, 1, 3).reshape(a[0], b[0], -1)
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        low, centre, high = np.nanpercentile(picked, (16, 50, 84), axis=2)
    spread = 0.5 * (high - low)
    # Integers: the distance may be 0 or off by a step.
    whole = np.nanmedian(spread) if np.isfinite(spread).any() else 1.0
    spread = np.where(spread > 0.5 * whole, spread, whole) if whole > 0 else np.full(spread.shape, 1.0)
    return np.nan_to_num(centre), spread


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
