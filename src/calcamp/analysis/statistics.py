"""Estimators shared by all families: moments of integer data, fits, limits, covariances, pairs, tiles.

Pixels are integers of 1 ADU. The median of integers is an integer or a half, and the median absolute
deviation of noise between 0.9 and 1.44 ADU is always 1; so levels are clipped means and noise is a
clipped standard deviation with the rounding taken out. Everywhere:

* a mask is true where a value is left out (as in ``numpy.ma``);
* errors are one standard deviation; NaN means not measured;
* a clip at ``sigma`` is corrected for what it removes from a normal distribution.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from functools import lru_cache
from itertools import pairwise
from statistics import NormalDist

import numpy as np

NAN = float("nan")
_NORMAL = NormalDist()
#: Variance of the rounding error of one integer value (Sheppard), ADU².
ROUNDING = 1.0 / 12.0
_SQRT2 = math.sqrt(2.0)
_BINS = 65536


def about(unit: str, description: str) -> dict[str, str]:
    """Metadata of a result field: its unit and its meaning."""
    return {"unit": unit, "description": description}


def _cdf(z: float) -> float:
    return 0.5 * math.erfc(-z / _SQRT2)


def _pdf(z: float) -> float:
    return math.exp(-0.5 * z * z) / math.sqrt(2.0 * math.pi) if abs(z) < 38 else 0.0


# ---- results -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Clipped:
    """Clipped mean and standard deviation. Floats, or arrays when an axis was asked for.

    With ``is_limit`` the noise is too small against the rounding step to be measured: `std` is then an
    upper limit (99.7 %) and its error NaN.
    """

    mean: float | np.ndarray = field(metadata=about("as input", "clipped mean"))
    mean_err: float | np.ndarray = field(metadata=about("as input", "standard error of the mean"))
    std: float | np.ndarray = field(
        metadata=about("as input", "standard deviation, corrected for the clip, rounding removed")
    )
    std_err: float | np.ndarray = field(metadata=about("as input", "standard error of std for normal noise"))
    n: int | np.ndarray = field(metadata=about("1", "values used"))
    n_clipped: int | np.ndarray = field(metadata=about("1", "values left out by the clip"))
    is_limit: bool = field(default=False, metadata=about("1", "std is an upper limit"))

    @property
    def clipped_fraction(self):
        """Share of the values that the clip left out, 0 to 1."""
        total = self.n + self.n_clipped
        if np.ndim(total):
            return np.divide(self.n_clipped, total, out=np.full(np.shape(total), NAN), where=total > 0)
        return self.n_clipped / total if total else NAN


@dataclass(frozen=True)
class Moments:
    """All that one histogram of integer data tells."""

    clipped: Clipped = field(metadata=about("ADU", "clipped mean and std, rounding removed"))
    median: float = field(metadata=about("ADU", "exact median, in steps of 0.5"))
    plain_mean: float = field(metadata=about("ADU", "mean of all values"))
    plain_std: float = field(
        metadata=about("ADU", "standard deviation of all values (ddof 0), rounding included")
    )
    minimum: int = field(metadata=about("ADU", "lowest value"))
    maximum: int = field(metadata=about("ADU", "highest value"))
    n: int = field(metadata=about("1", "values, before the clip"))
    percentiles: tuple[float, ...] = field(
        default=(), metadata=about("ADU", "the percentiles asked for, in that order")
    )


@dataclass(frozen=True)
class Fit:
    """Result of a least-squares fit: covariance, or the reason why there is none."""

    parameters: np.ndarray = field(metadata=about("as model", "best values, NaN where the fit failed"))
    covariance: np.ndarray = field(metadata=about("as model", "covariance matrix of the parameters"))
    chi2: float = field(metadata=about("1", "sum of squared normalised residuals of the points used"))
    dof: int = field(metadata=about("1", "degrees of freedom"))
    n: int = field(metadata=about("1", "points used"))
    n_rejected: int = field(metadata=about("1", "finite points left out as outliers"))
    used: np.ndarray = field(metadata=about("1", "which points were used"))
    reason: str = field(default="", metadata=about("", "empty when the fit is good, else why not"))

    @property
    def ok(self) -> bool:
        return not self.reason

    @property
    def errors(self) -> np.ndarray:
        """Standard errors of the parameters."""
        return np.sqrt(np.diag(self.covariance))

    @property
    def chi2_dof(self) -> float:
        return self.chi2 / self.dof if self.dof > 0 else NAN


@dataclass(frozen=True)
class Limit:
    """A quantity that cannot be negative: interval at `confidence`, a limit when it reaches 0."""

    value: float = field(metadata=about("as input", "the measured value, may be negative"))
    err: float = field(metadata=about("as input", "its standard error"))
    low: float = field(metadata=about("as input", "lower end of the interval, 0 when compatible with 0"))
    high: float = field(
        metadata=about("as input", "upper end of the interval, the upper limit when is_limit")
    )
    confidence: float = field(metadata=about("1", "probability content"))
    is_limit: bool = field(metadata=about("1", "the interval reaches 0: quote `high` as a limit"))


@dataclass(frozen=True)
class Covariances:
    """Covariances of a masked image; arrays are [lag_parallel, lag_serial]."""

    value: np.ndarray = field(
        metadata=about("as input²", "covariance per lag, averaged over (+i,+j) and (+i,-j)")
    )
    err: np.ndarray = field(metadata=about("as input²", "standard error for white normal noise"))
    n: np.ndarray = field(metadata=about("1", "pixel pairs"))
    mean: float = field(metadata=about("as input", "mean of the unmasked pixels, subtracted before"))


# ---- moments of integer data ---------------------------------------------------------------------


def histogram(values: np.ndarray, mask: np.ndarray | None = None) -> np.ndarray:
    """Counts of uint16 `values`, shape (65536,), int64; any shape and strides, in one pass.

    Rows are copied block-wise into one small buffer because ``bincount`` wants the machine's integers;
    masked pixels are counted apart and taken off, which is cheaper than selecting the good ones.
    """
    values = np.asarray(values)
    if values.dtype != np.uint16:
        raise TypeError(f"histogram counts uint16 values, not {values.dtype}")
    counts = np.zeros(_BINS, np.int64)
    if not values.size:
        return counts
    plane = values.reshape(-1, 1) if values.ndim < 2 else values.reshape(-1, values.shape[-1])
    if values.ndim < 2:
        plane = values.reshape(1, -1)
    step = max(1, 1 << 19 if plane.shape[1] == 0 else (1 << 19) // plane.shape[1])
    buffer = np.empty((min(step, len(plane)), plane.shape[1]), np.intp)
    for start in range(0, len(plane), step):
        block = plane[start : start + step]
        target = buffer[: len(block)]
        target[...] = block
        counts += np.bincount(target.reshape(-1), minlength=_BINS)
    if mask is not None:
        masked = values[np.broadcast_to(mask, values.shape)]
        if masked.size:
            counts -= np.bincount(masked, minlength=_BINS)
    return counts


def histogram_moments(
    values: np.ndarray, sigma: float = 5.0, percentiles: Iterable[float] = (), mask: np.ndarray | None = None
) -> Moments:
    """Median, percentiles and clipped moments of raw pixels from their histogram.

    Parameters
    ----------
    values : ndarray
        uint16 pixels of any shape, or 65536 counts (any integer type but uint16).
    sigma : float
        Clip, in standard deviations.
    percentiles : iterable of float
        0 to 100; exact order statistics (the lower of two neighbours is averaged with the higher only
        at the median).
    mask : ndarray of bool, optional
        True where a pixel is left out; only with pixels.

    Returns
    -------
    Moments
    """
    values = np.asarray(values)
    counts = histogram(values, mask) if values.dtype == np.uint16 else values
    if counts.shape != (_BINS,):
        raise ValueError(
            f"expected uint16 pixels or {_BINS} counts, got {values.dtype} of shape {values.shape}"
        )
    return _moments(counts, 0, sigma, tuple(percentiles), 1)


def _moments(
    counts: np.ndarray, first: int, sigma: float, percentiles: tuple[float, ...], rounded: int
) -> Moments:
    """Moments of integers `first` + index with these counts."""
    populated = np.flatnonzero(counts)
    if not populated.size:
        none = Clipped(NAN, NAN, NAN, NAN, 0, 0)
        return Moments(none, NAN, NAN, NAN, 0, 0, 0, (NAN,) * len(percentiles))
    low, high = int(populated[0]), int(populated[-1])
    table = _CountTable(counts[low : high + 1], first + low)
    mean, variance = table.moments(0, high - low)[1:]
    return Moments(
        clipped=_clip_counts(table, sigma, rounded),
        median=table.median(),
        plain_mean=mean,
        plain_std=math.sqrt(variance),
        minimum=table.first,
        maximum=first + high,
        n=table.total,
        percentiles=tuple(table.order(math.ceil(p / 100.0 * table.total)) for p in percentiles),
    )


class _CountTable:
    """Running sums over a histogram of integers, so that moments of any window cost nothing."""

    def __init__(self, counts: np.ndarray, first: int):
        self.first = first
        self.cumulative = np.cumsum(counts)
        self.total = int(self.cumulative[-1])
        # Integers near the bulk keep the sums exact.
        self.origin = int(np.searchsorted(self.cumulative, 0.5 * self.total))
        index = np.arange(len(counts), dtype=np.int64) - self.origin
        self.sum1 = np.cumsum(counts * index)
        self.sum2 = np.cumsum((counts * index * index).astype(np.float64))

    def moments(self, low: int, high: int) -> tuple[int, float, float]:
        """(n, mean, variance with ddof 0) of the values at indices low..high, both included."""
        low, high = max(low, 0), min(high, len(self.cumulative) - 1)
        if high < low:
            return 0, NAN, NAN
        before = (
            (0, 0, 0.0) if low == 0 else (self.cumulative[low - 1], self.sum1[low - 1], self.sum2[low - 1])
        )
        n = int(self.cumulative[high] - before[0])
        if n == 0:
            return 0, NAN, NAN
        mean = float(self.sum1[high] - before[1]) / n
        variance = max(float(self.sum2[high] - before[2]) / n - mean * mean, 0.0)
        return n, mean + self.origin + self.first, variance

    def distinct(self, low: int, high: int) -> np.ndarray:
        """Indices of the populated values in low..high."""
        steps = np.diff(
            self.cumulative[max(low, 0) : high + 1], prepend=self.cumulative[low - 1] if low > 0 else 0
        )
        return np.flatnonzero(steps) + max(low, 0)

    def order(self, rank: int) -> float:
        """The rank-th smallest value, counted from 1."""
        rank = min(max(rank, 1), self.total)
        return float(self.first + int(np.searchsorted(self.cumulative, rank)))

    def median(self) -> float:
        half = self.total // 2
        if self.total % 2:
            return self.order(half + 1)
        return 0.5 * (self.order(half) + self.order(half + 1))

    def robust(self) -> tuple[float, float]:
        """(centre, spread) of the bulk by a probit line: see `robust_std`."""
        probabilities = (0.02, 0.1587, 0.5, 0.8413, 0.98)
        ranks = [self.order(math.ceil(p * self.total)) for p in probabilities]
        if ranks[3] - ranks[1] > 40:  # rounding does not matter
            return ranks[2], 0.5 * (ranks[3] - ranks[1])
        for tail in (0.02, 1e-3, 0.0):
            edges, z, weight = self._probits(ranks[0], ranks[4], tail)
            if len(z) >= 2 and z[-1] - z[0] > 1e-3:
                w = weight / weight.sum()
                mean_z, mean_e = float(w @ z), float(w @ edges)
                slope = float(w @ ((z - mean_z) * (edges - mean_e))) / float(w @ (z - mean_z) ** 2)
                return mean_e - slope * mean_z, max(slope, 1e-3)
        return ranks[2], max(0.15, 0.5 * (ranks[3] - ranks[1]))

    def _probits(self, low: float, high: float, tail: float):
        """Upper edges of values, their normal quantiles and the weights of a straight line through them."""
        reach = 2 if tail == 0.02 else 4
        start = max(int(low) - self.first - reach, 0)
        stop = min(int(high) - self.first + reach, len(self.cumulative) - 1)
        below = self.cumulative[start : stop + 1] / self.total
        least = max(tail, 3.0 / self.total)
        keep = np.flatnonzero((below >= least) & (below <= 1.0 - least))
        fraction = below[keep]
        z = np.array([_NORMAL.inv_cdf(float(p)) for p in fraction])
        density = np.exp(-0.5 * z * z)
        return keep + start + self.first + 0.5, z, density**2 / (fraction * (1.0 - fraction))


def _clip_counts(table: _CountTable, sigma: float, rounded: int) -> Clipped:
    """Clipped moments of integers: the window is solved for the normal noise that was rounded into it."""
    if table.total < 2:
        return Clipped(table.moments(0, 0)[1], NAN, NAN, NAN, table.total, 0)
    (centre, spread), missed = table.robust(), False
    seen: set[tuple[float, float]] = set()
    last = len(table.cumulative) - 1
    for _ in range(60):
        # A value is kept when the noise that was rounded into it may lie within the clip.
        half = sigma * max(spread, 0.2) + 0.5
        edges = (math.ceil(centre - half) - 0.5, math.floor(centre + half) + 0.5)
        low, high = (
            max(round(edges[0] + 0.5) - table.first, 0),
            min(round(edges[1] - 0.5) - table.first, last),
        )
        n, mean, variance = table.moments(low, high)
        if n < 2:
            if missed:
                return Clipped(NAN, NAN, NAN, NAN, n, table.total - n)
            # Nearly all values are one (saturation): the line through the quantiles of the rest led astray.
            centre, spread, missed = table.median(), 0.2, True
            continue
        solution = _solve_window(table, low, high, edges, mean, variance, n, rounded)
        centre = solution.mean
        spread = 0.2 if solution.is_limit else math.sqrt(max(solution.total_std**2 - ROUNDING, 0.0))
        if edges in seen:
            break
        seen.add(edges)
    return solution.as_clipped(n, table.total - n)


@dataclass(frozen=True)
class _Solution:
    mean: float
    mean_err: float
    std: float
    std_err: float
    total_std: float  # rounding included
    is_limit: bool = False

    def as_clipped(self, n: int, n_clipped: int) -> Clipped:
        return Clipped(self.mean, self.mean_err, self.std, self.std_err, n, n_clipped, self.is_limit)


def _solve_window(table, low, high, edges, mean, variance, n, rounded) -> _Solution:
    """Normal noise whose rounded and truncated moments are (mean, variance)."""
    if rounded == 1 and variance < 1.0:
        values = table.distinct(low, high)
        if len(values) <= 2:
            return _unresolved(table, values, n)
    # Sample variance with ddof 1.
    variance *= n / (n - 1)
    if rounded == 1 and edges[1] - edges[0] <= 200:
        solved = _invert(mean, variance, edges, n, discrete=True)
        if solved:
            return solved
        if variance < 0.3:  # too few values off the main ones to tell the noise
            return _unresolved(table, table.distinct(low, high), n)
    solved = _invert(mean, variance, edges, n, discrete=False)
    if solved is None:  # not normal at all: the plain moments of the window
        std = math.sqrt(variance)
        solved = _Solution(mean, std / math.sqrt(n), std, std / math.sqrt(2 * n), std)
    clean = remove_quantisation(solved.total_std**2, rounded)
    std = math.sqrt(clean)
    scale = solved.total_std / std if std > 0 else NAN
    return replace(solved, std=std, std_err=solved.std_err * scale)


def _discrete_moments(mu: float, sigma: float, edges: tuple[float, float]):
    """(mean, variance, third and fourth central moment) of round(N(mu, sigma²)) inside the edges."""
    low, high = edges
    count = round(high - low)
    upper_tail = [0.5 * math.erfc((low + i - mu) / (sigma * _SQRT2)) for i in range(count + 1)]
    probability = -np.diff(upper_tail)
    total = probability.sum()
    if not total > 1e-12:
        return None
    probability /= total
    offsets = low + 0.5 + np.arange(count) - mu
    mean = float(probability @ offsets)
    centred = offsets - mean
    square = centred * centred
    return (
        mu + mean,
        float(probability @ square),
        float(probability @ (square * centred)),
        float(probability @ (square * square)),
    )


def _continuous_moments(mu: float, sigma: float, edges: tuple[float, float]):
    """As `_discrete_moments` for unrounded normal values."""
    a, b = (edges[0] - mu) / sigma, (edges[1] - mu) / sigma
    total = _cdf(b) - _cdf(a)
    if not total > 1e-12:
        return None
    a, b = max(a, -40.0), min(b, 40.0)
    fa, fb = _pdf(a), _pdf(b)
    # Raw moments of the truncated standard normal by recursion: m_k = (k-1) m_{k-2} - (b^{k-1} fb - a^{k-1} fa)/Z
    raw = [1.0, -(fb - fa) / total]
    for k in (2, 3, 4):
        raw.append((k - 1) * raw[k - 2] - (b ** (k - 1) * fb - a ** (k - 1) * fa) / total)
    m = raw[1]
    second = raw[2] - m * m
    third = raw[3] - 3 * m * raw[2] + 2 * m**3
    fourth = raw[4] - 4 * m * raw[3] + 6 * m * m * raw[2] - 3 * m**4
    return mu + sigma * m, sigma**2 * second, sigma**3 * third, sigma**4 * fourth


def _invert(mean: float, variance: float, edges, n: int, discrete: bool) -> _Solution | None:
    """Solve (mean, variance) of the window for (mu, sigma) by Newton; errors by the delta method."""
    model = _discrete_moments if discrete else _continuous_moments
    mu = mean
    sigma = math.sqrt(max(variance - (ROUNDING if discrete else 0.0), 0.02 if discrete else 1e-300))
    if not sigma > 0:
        return None
    width = edges[1] - edges[0]
    for _ in range(60):
        here = model(mu, sigma, edges)
        step = 1e-4 * sigma
        by_mu, by_sigma = model(mu + step, sigma, edges), model(mu, sigma + step, edges)
        if here is None or by_mu is None or by_sigma is None:
            return None
        a, c = (by_mu[0] - here[0]) / step, (by_mu[1] - here[1]) / step
        b, d = (by_sigma[0] - here[0]) / step, (by_sigma[1] - here[1]) / step
        determinant = a * d - b * c
        if not abs(determinant) > 1e-12:
            return None
        r0, r1 = mean - here[0], variance - here[1]
        dmu, dsigma = (d * r0 - b * r1) / determinant, (a * r1 - c * r0) / determinant
        dsigma = min(max(dsigma, -0.5 * sigma), sigma)
        mu += min(max(dmu, -sigma), sigma)
        sigma += dsigma
        if sigma > 2 * width or sigma < 0.02 * (1.0 if discrete else variance**0.5):
            return None
        if abs(dmu) < 1e-9 * sigma and abs(dsigma) < 1e-9 * sigma:
            break
    else:
        return None
    # Errors: covariance of the sample moments carried through the inverse Jacobian.
    _, m2, m3, m4 = here
    jacobian = np.array([[a, b], [c, d]])
    inverse = np.linalg.inv(jacobian)
    moments = np.array([[m2, m3], [m3, m4 - m2 * m2]]) / n
    covariance = inverse @ moments @ inverse.T
    total = math.sqrt(sigma * sigma + (ROUNDING if discrete else 0.0))
    return _Solution(mu, math.sqrt(covariance[0, 0]), sigma, math.sqrt(covariance[1, 1]), total)


def _unresolved(table: _CountTable, values: np.ndarray, n: int) -> _Solution:
    """One or two values hold all pixels: only an upper limit of the noise can be given."""
    tail = _NORMAL.inv_cdf(1.0 - min(3.0 / n, 0.4))
    if len(values) == 1:
        std = 0.5 / tail
        return _Solution(
            float(table.first + values[0]), math.sqrt(ROUNDING), std, NAN, math.sqrt(ROUNDING), True
        )
    # Two neighbouring values hold nearly all: their common edge is at z standard deviations.
    share = np.array([table.moments(v, v)[0] for v in values]) / n
    lower = int(np.argmax(share[:-1] + share[1:]))
    edge = table.first + 0.5 * float(values[lower] + values[lower + 1])
    gap = float(values[lower + 1] - values[lower])
    z = _NORMAL.inv_cdf(min(max(float(share[: lower + 1].sum()), 0.5 / n), 1.0 - 0.5 / n))
    std = gap / max(tail - abs(z), 0.5 * tail)
    # The mean lies between the edge (no noise) and edge - z std.
    err = math.hypot(abs(z) * std / math.sqrt(12.0), std / math.sqrt(n))
    return _Solution(edge - 0.5 * z * std, err, std, NAN, math.sqrt(std**2 + ROUNDING), True)


def remove_quantisation(variance, terms: int = 1):
    """Variance with the rounding of `terms` integer values taken out, never below 0.

    `terms` is 1 for raw pixels (1/12 ADU²) and 2 for the difference of two raw frames. For a difference
    the fringe of small noise is inverted too: with pixel levels spread over the rounding step,
    var(D) = 2 s² + 1/6 - sum_k exp(-4 pi² k² s²)/(pi² k²), which goes to 0 with s (Fourier series of the
    rounding error). Numbers or arrays, ADU².
    """
    values = np.maximum(np.asarray(variance, dtype=float) - terms * ROUNDING, 0.0)
    if terms == 2:
        target = np.asarray(variance, dtype=float)
        small = target < 1.5
        if np.any(small):
            values = np.where(small, _invert_difference(np.where(small, target, 1.5)), values)
    return values if np.ndim(variance) else float(values)


def _invert_difference(target: np.ndarray) -> np.ndarray:
    """2 s² for the variance of a difference of two rounded frames; bisection on a monotonic function."""
    k2 = np.arange(1, 6)[:, None] ** 2
    flat = np.atleast_1d(target).astype(float).ravel()
    low, high = np.zeros_like(flat), np.full_like(flat, 1.5)
    for _ in range(50):
        middle = 0.5 * (low + high)
        fringe = (np.exp(-2 * math.pi**2 * k2 * middle) / (math.pi**2 * k2)).sum(axis=0)
        # As long as no difference reaches a whole step its square has the mean of its modulus.
        model = np.where(middle < 0.03, np.sqrt(2 * middle / math.pi), middle + 2 * ROUNDING - fringe)
        above = model > flat
        high, low = np.where(above, middle, high), np.where(above, low, middle)
    return (0.5 * (low + high)).reshape(np.shape(target))


def robust_std(values: np.ndarray, mask: np.ndarray | None = None) -> float:
    """Robust standard deviation, valid on integers, rounding removed.

    Integers: the share of values up to k is the normal distribution at the edge k + 1/2, so its normal
    quantile is a straight line in k with slope 1/std, whatever the step; the line is fitted to the edges
    between 2 % and 98 %. Floats: half the distance between the 15.87 and 84.13 % points.
    """
    values = np.asarray(values)
    if values.dtype.kind in "iu":
        table = _integer_table(values, mask)
        return table.robust()[1] if table is not None and table.total > 1 else NAN
    if mask is not None:
        values = values[~np.broadcast_to(mask, values.shape)]
    values = values[np.isfinite(values)]
    if values.size < 2:
        return NAN
    low, high = np.percentile(values, (15.865525, 84.134475))
    return 0.5 * float(high - low)


def _integer_table(values: np.ndarray, mask: np.ndarray | None = None) -> _CountTable | None:
    """Histogram table of integers of any type, None when they spread too far for one."""
    if values.dtype == np.uint16 and values.size > 1 << 18:
        counts = histogram(values, mask)
        populated = np.flatnonzero(counts)
        if not populated.size:
            return _CountTable(counts[:1], 0)
        low, high = int(populated[0]), int(populated[-1])
        return _CountTable(counts[low : high + 1], low)
    if mask is not None:
        values = values[~np.broadcast_to(mask, values.shape)]
    if not values.size:
        return _CountTable(np.zeros(1, np.int64), 0)
    low, high = int(values.min()), int(values.max())
    if high - low > 1 << 22:
        return None
    return _CountTable(np.bincount(values.reshape(-1).astype(np.int64) - low), low)


# ---- clipped mean and standard deviation ---------------------------------------------------------


@lru_cache(maxsize=64)
def clip_factors(sigma: float) -> tuple[float, float, float]:
    """What a symmetric clip at `sigma` does to normal noise.

    Returns
    -------
    std_factor : float
        Standard deviation after over before (0.98658 at 3, 0.99946 at 4).
    mean_inflation : float
        Error of the clipped mean over std/sqrt(n), n values being kept.
    std_inflation : float
        Error of the corrected std over std/sqrt(2 n).
    """
    kept = _cdf(sigma) - _cdf(-sigma)
    edge = 2.0 * sigma * _pdf(sigma)
    ratio = 1.0 - edge / kept
    fourth = 3.0 - edge * (sigma**2 + 3.0) / kept  # E x^4 in the window
    # Information of the truncated normal per kept value: var(x) for the mean, var(x²) for log sigma.
    return math.sqrt(ratio), 1.0 / math.sqrt(ratio), math.sqrt(2.0 / (fourth - ratio**2))


def clipped(
    values: np.ndarray,
    sigma: float = 5.0,
    axis: int | tuple[int, ...] | None = None,
    mask: np.ndarray | None = None,
    *,
    rounded: int | None = None,
    scale: float | np.ndarray | None = None,
    iterations: int = 30,
) -> Clipped:
    """Iteratively clipped mean and standard deviation with errors.

    Parameters
    ----------
    values : ndarray
        Any shape. NaN and infinite values are left out.
    sigma : float
        Clip, in standard deviations about the mean; the result is corrected for what a clip takes from
        normal noise.
    axis : int or tuple of int, optional
        Reduce along these; results are arrays. None: one result, floats.
    mask : ndarray of bool, optional
        True where a value is left out; broadcast to `values`.
    rounded : int, optional
        How many rounded terms are in each value: 1 raw pixels (default for integers), 2 the difference of
        two raw frames, 0 none (default for floats). Their rounding variance is removed.
    scale : float or array, optional
        Known standard deviation, rounding included: the clip window is then ``sigma`` times this about the
        mean. Use it when few values are reduced (below about 15 the sample spread cannot find outliers).
        The reported `std` is still that of the sample.
    iterations : int
        At most so many passes.

    Returns
    -------
    Clipped
    """
    values = np.asarray(values)
    if rounded is None:
        rounded = 1 if values.dtype.kind in "iub" else 0
    if axis is not None:
        return _clipped_axis(values, sigma, axis, mask, rounded, scale, iterations)
    if scale is None and values.dtype.kind in "iu":
        table = _integer_table(values, mask)
        if table is not None:
            return _clip_counts(table, sigma, rounded) if table.total else Clipped(NAN, NAN, NAN, NAN, 0, 0)
    return _clipped_flat(values, sigma, mask, rounded, scale, iterations)


def _clipped_flat(values, sigma, mask, rounded, scale, iterations) -> Clipped:
    """Clipped moments of unrounded values, all together, a cache-sized block at a time."""
    if values.dtype.kind != "f":
        values = values.astype(np.float64)
    centre, spread = _start(values, mask)
    if not math.isfinite(centre):
        return Clipped(NAN, NAN, NAN, NAN, 0, 0)
    spread = spread if scale is None else float(scale)
    factor, inflate_mean, inflate_std = clip_factors(float(sigma))
    n = -1
    for _ in range(iterations):
        before = n
        n, finite, shift, square = _window_sums(values, mask, centre, sigma * spread)
        if n == 0:
            return Clipped(NAN, NAN, NAN, NAN, 0, finite)
        variance = max(square - shift * shift, 0.0) * (n / (n - 1) if n > 1 else NAN)
        std = math.sqrt(variance) / factor if variance >= 0 else NAN
        settled = (
            n == before
            and abs(shift) <= 1e-6 * spread
            and (scale is not None or abs(std - spread) <= 1e-6 * std)
        )
        centre += shift
        # Far from the centre the variance is the small difference of two large numbers: only move there.
        if scale is None and std > 0 and shift * shift <= 100 * variance:
            spread = std
        if settled or n == finite == before:
            break
    clean = math.sqrt(remove_quantisation(std**2, rounded)) if math.isfinite(std) else NAN
    err = std**2 / (clean * math.sqrt(2.0 * n)) * inflate_std if clean > 0 else (0.0 if clean == 0 else NAN)
    width = std if scale is None else float(scale)
    return Clipped(centre, width / math.sqrt(n) * inflate_mean, clean, err, n, finite - n)


def _start(values: np.ndarray, mask: np.ndarray | None) -> tuple[float, float]:
    """(median, half of the central 68 %) of a sample: the median of millions costs more than all the passes."""
    step = values.size // 5_000 | 1 if values.size > 10_000 else 1
    flat = values.reshape(-1) if values.flags.c_contiguous else None
    for stride in (step, 1):
        index = np.arange(0, values.size, stride)
        where = index if flat is not None else np.unravel_index(index, values.shape)
        sample = (values if flat is None else flat)[where]
        if mask is not None:
            sample = sample[~np.broadcast_to(mask, values.shape)[np.unravel_index(index, values.shape)]]
        sample = sample[np.isfinite(sample)].astype(np.float64)
        if sample.size > 1000 or stride == 1:
            break
    if not sample.size:
        return NAN, NAN
    low, middle, high = np.percentile(sample, (15.87, 50.0, 84.13))
    spread = 0.5 * float(high - low)
    return float(middle), spread if spread > 0 else float(np.std(sample))


def _window_sums(values: np.ndarray, mask, centre: float, half: float) -> tuple[int, int, float, float]:
    """(number within `half` of `centre`, finite number, their mean deviation, mean squared deviation)."""
    rows = values.reshape(1, -1) if values.ndim < 2 else values.reshape(-1, values.shape[-1])
    bad = None if mask is None else np.broadcast_to(mask, values.shape).reshape(rows.shape)
    n = finite = 0
    total = square = 0.0
    row_step = max(1, (1 << 16) // max(rows.shape[1], 1))
    column_step = 1 << 16 if rows.shape[0] == 1 else rows.shape[1]
    for row in range(0, rows.shape[0], row_step):
        for column in range(0, rows.shape[1], column_step):
            part = (slice(row, row + row_step), slice(column, column + column_step))
            deviation = np.subtract(rows[part], rows.dtype.type(centre)).reshape(-1)
            inside = np.abs(deviation) <= half
            good = deviation.size
            if bad is not None:
                out = bad[part].reshape(-1)
                inside &= ~out
                good -= int(np.count_nonzero(out | ~np.isfinite(deviation)))
            count = int(np.count_nonzero(inside))
            if count < deviation.size:
                if bad is None:
                    good -= int(np.count_nonzero(~np.isfinite(deviation)))
                deviation = deviation[inside]
            n, finite = n + count, finite + good
            total += float(deviation.sum(dtype=np.float64))
            square += float(np.dot(deviation, deviation))
    return n, finite, total / n if n else NAN, square / n if n else NAN


def _clipped_axis(values, sigma, axis, mask, rounded, scale, iterations) -> Clipped:
    axes = (axis,) if isinstance(axis, int) else tuple(axis)
    axes = tuple(a % values.ndim for a in axes)
    data = values.astype(np.float64)
    good = np.isfinite(data)
    if mask is not None:
        good &= ~np.broadcast_to(mask, values.shape)
    total = good.sum(axis=axes)
    factor, inflate_mean, inflate_std = clip_factors(float(sigma))
    with np.errstate(invalid="ignore", divide="ignore"):
        centre = _masked_median(data, good, axes)
        data = np.where(good, data - centre, 0.0)  # from here about the median, for precision
        position = np.zeros_like(centre)
        if scale is None:
            # A clip by the sample spread starts from the median deviation, widened for its step on integers.
            spread = 1.4826 * _masked_median(np.abs(data), good, axes)
            spread = np.hypot(spread, 0.5 if rounded else 0.0)
            spread = np.where(spread > 0, spread, np.sqrt(np.square(data).sum(axis=axes, keepdims=True)))
        else:
            spread = (
                np.broadcast_to(np.asarray(scale, dtype=float), centre.shape) if np.ndim(scale) else scale
            )
        keep, n = good, total
        for _ in range(iterations):
            window = sigma * spread
            chosen = good & (np.abs(data - position) <= window)
            n = chosen.sum(axis=axes, keepdims=True)
            mean = np.where(chosen, data, 0.0).sum(axis=axes, keepdims=True) / n
            deviation = np.where(chosen, data - mean, 0.0)
            variance = np.square(deviation).sum(axis=axes, keepdims=True) / (n - 1)
            std = np.sqrt(variance) / factor
            same = np.array_equal(chosen, keep)
            keep, position = chosen, mean
            if scale is None:
                spread = np.where(std > 0, std, spread)
            if same:
                break
        mean = np.squeeze(position + centre, axis=axes)
        std, n = np.squeeze(std, axis=axes), np.squeeze(n, axis=axes)
        clean = np.sqrt(remove_quantisation(np.square(std), rounded))
        std_err = np.where(clean > 0, np.square(std) / clean, 0.0) / np.sqrt(2.0 * (n - 1)) * inflate_std
        width = std if scale is None else np.broadcast_to(np.squeeze(np.asarray(scale)), std.shape)
        mean_err = width / np.sqrt(n) * inflate_mean
    empty = n < 1
    lonely = n < 2
    return Clipped(
        np.where(empty, NAN, mean),
        np.where(empty | (lonely if scale is None else False), NAN, mean_err),
        np.where(lonely, NAN, clean),
        np.where(lonely, NAN, std_err),
        n,
        total - n,
    )


def _masked_median(data: np.ndarray, good: np.ndarray, axes: tuple[int, ...]) -> np.ndarray:
    """Median along axes of the good values, NaN without any; dimensions kept."""
    if good.all():
        return np.median(data, axis=axes, keepdims=True)
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        return np.nanmedian(np.where(good, data, NAN), axis=axes, keepdims=True)


# ---- fits ----------------------------------------------------------------------------------------


def fit_linear(
    design: np.ndarray,
    y: np.ndarray,
    err: float | np.ndarray | None = None,
    *,
    sigma: float | None = 5.0,
    scale_errors: bool = False,
    iterations: int = 20,
) -> Fit:
    """Weighted least squares of ``y = design @ p`` with rejection of outliers.

    Parameters
    ----------
    design : ndarray, shape (n, k)
    y : ndarray, shape (n,)
        Points that are not finite (here or in `design` or `err`) are left out.
    err : float or ndarray, optional
        Standard errors. None: equal, taken from the residuals.
    sigma : float, optional
        Points farther than this from the fit are left out, starting from a least-absolute-deviation fit.
        None keeps all points.
    scale_errors : bool
        Multiply errors by sqrt(chi2/dof) where that is above 1.

    Returns
    -------
    Fit
        With `reason` set, and NaN parameters, when there are too few points or the design is degenerate.
    """
    design, y = np.atleast_2d(np.asarray(design, float)), np.asarray(y, float)
    count = design.shape[1]
    given = err is not None
    error = np.broadcast_to(np.asarray(err if given else 1.0, float), y.shape)
    finite = np.isfinite(y) & np.isfinite(design).all(axis=1) & np.isfinite(error) & (error > 0)
    if finite.sum() < count + (0 if given else 1):
        return _failed(count, finite, f"{int(finite.sum())} points for {count} parameters")
    norm = np.sqrt(np.mean(np.square(design[finite]), axis=0))
    norm = np.where(norm > 0, norm, 1.0)
    safe = np.where(finite, error, 1.0)
    matrix = np.where(finite[:, None], design, 0.0) / norm / safe[:, None]
    target = np.where(finite, y, 0.0) / safe
    used = finite.copy()
    if sigma is not None and finite.sum() > count + 2:
        used = _reject(matrix, target, finite, sigma, given, iterations)
    parameters, covariance, reason = _solve(matrix[used], target[used])
    if reason:
        return _failed(count, used, reason)
    residuals = target[used] - matrix[used] @ parameters
    chi2, dof = float(residuals @ residuals), int(used.sum()) - count
    if not given:
        truncation = clip_factors(float(sigma))[0] if sigma is not None else 1.0
        variance = chi2 / dof / truncation**2 if dof > 0 else NAN
        covariance, chi2 = covariance * variance, float(dof)
    elif scale_errors and dof > 0:
        covariance = covariance * max(1.0, chi2 / dof)
    return Fit(
        parameters / norm,
        covariance / np.outer(norm, norm),
        chi2,
        dof,
        int(used.sum()),
        int(finite.sum() - used.sum()),
        used,
    )


def _failed(count: int, used: np.ndarray, reason: str) -> Fit:
    nothing = np.full(count, NAN)
    return Fit(nothing, np.full((count, count), NAN), NAN, 0, int(used.sum()), 0, used, reason)


def _solve(matrix: np.ndarray, target: np.ndarray):
    """(parameters, covariance, reason) of unit-weight least squares by singular values."""
    u, s, vt = np.linalg.svd(matrix, full_matrices=False)
    if not s.size or s[-1] <= 1e-11 * s[0]:
        return None, None, "the points do not determine all parameters"
    inverse = vt.T / s
    return inverse @ (u.T @ target), inverse @ inverse.T, ""


def _reject(matrix, target, finite, sigma, given, iterations) -> np.ndarray:
    """Points kept: start from least absolute deviations, then clip about least squares until stable."""
    parameters = _solve(matrix[finite], target[finite])[0]
    if parameters is None:
        return finite
    # Among many points none can bend the fit enough to hide itself: start from least squares.
    residuals = np.abs(target[finite] - matrix[finite] @ parameters)
    spread = 1.4826 * float(np.median(residuals))
    if len(residuals) < 25 * matrix.shape[1] or float(residuals.max()) > 0.8 * sigma * (
        max(1.0, spread) if given else spread
    ):
        parameters = _least_absolute(matrix[finite], target[finite])
    used = finite
    for _ in range(iterations):
        residuals = target - matrix @ parameters
        # Median deviation, corrected for the parameters taken from the same points.
        inner = np.abs(residuals[used])
        spread = (
            1.4826 * float(np.median(inner)) * math.sqrt(len(inner) / max(len(inner) - matrix.shape[1], 1))
        )
        if given:
            spread = max(1.0, spread)
        spread = max(spread, 1e-12 * float(np.max(np.abs(target[finite]), initial=0.0)))
        keep = finite & (np.abs(residuals) <= sigma * spread)
        if keep.sum() <= matrix.shape[1]:
            return finite
        if np.array_equal(keep, used):
            break
        solved, _, reason = _solve(matrix[keep], target[keep])
        if reason:
            return keep
        used, parameters = keep, solved
    return used


def _least_absolute(matrix: np.ndarray, target: np.ndarray, iterations: int = 20) -> np.ndarray:
    """Least absolute deviations by reweighting; good enough to start a clip."""
    basis, triangle = np.linalg.qr(matrix)
    if not np.all(np.abs(np.diag(triangle)) > 1e-11 * np.abs(triangle[0, 0])):
        return np.linalg.lstsq(matrix, target, rcond=None)[0]
    rotated = basis.T @ target
    scale = float(np.abs(target).max()) or 1.0
    for _ in range(iterations):
        residuals = np.abs(target - basis @ rotated)
        middle = float(np.partition(residuals, len(residuals) // 2)[len(residuals) // 2])
        weighted = basis / np.maximum(residuals, max(1e-3 * middle, 1e-12 * scale))[:, None]
        update = np.linalg.solve(weighted.T @ basis, weighted.T @ target)
        moved = float(np.abs(update - rotated).max())
        rotated = update
        # Orthonormal columns have elements of 1/sqrt(n): this moves no residual by 1 % of the spread.
        if moved <= 0.01 * middle:
            break
    return np.linalg.solve(triangle, rotated)


def fit_line(x: np.ndarray, y: np.ndarray, err=None, **options) -> Fit:
    """Robust weighted straight line; parameters (intercept at x = 0, slope). Options as `fit_linear`."""
    return fit_polynomial(x, y, 1, err, **options)


def fit_polynomial(x: np.ndarray, y: np.ndarray, degree: int, err=None, **options) -> Fit:
    """Robust weighted polynomial; parameters in rising powers of x. Options as `fit_linear`."""
    x = np.asarray(x, float)
    return fit_linear(np.power.outer(x, np.arange(degree + 1)), y, err, **options)


# ---- jackknife, limits -----------------------------------------------------------------------------


def jackknife(estimator: Callable[[np.ndarray], float], samples: np.ndarray) -> tuple[float, float]:
    """Estimate and standard error by leaving out one sample of axis 0 at a time.

    The estimate is corrected for the bias of order 1/n (Quenouille); the error is that of the leave-one-out
    values times sqrt(n - 1) (Tukey). Works element-wise when the estimator returns an array.
    """
    samples = np.asarray(samples)
    n = len(samples)
    whole = np.asarray(estimator(samples), float)
    if n < 2:
        return (whole if whole.ndim else float(whole)), NAN
    keep = ~np.eye(n, dtype=bool)
    partial = np.array([estimator(samples[rows]) for rows in keep], float)
    mean = partial.mean(axis=0)
    value = n * whole - (n - 1) * mean
    error = np.sqrt((n - 1) / n * np.square(partial - mean).sum(axis=0))
    return (value, error) if whole.ndim else (float(value), float(error))


@lru_cache(maxsize=8)
def _feldman_cousins(confidence: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Acceptance interval [x1, x2] of each true value for a normal measure of a quantity >= 0."""
    central = _NORMAL.inv_cdf(0.5 + 0.5 * confidence)
    truth = np.concatenate([np.linspace(1e-4, 0.2, 60), np.linspace(0.21, central, 180)])
    low, high = [], []
    for mu in truth.tolist():
        # For x < 0 the best allowed truth is 0, hence the ratio exp(x mu - mu²/2); equal ratio fixes x2.
        a, b = -10.0 - 20.0 / mu, 0.0  # small truths accept almost every negative value
        for _ in range(80):
            x1 = 0.5 * (a + b)
            x2 = mu + math.sqrt(mu * mu - 2.0 * x1 * mu)
            if _cdf(x2 - mu) - _cdf(x1 - mu) > confidence:
                a = x1
            else:
                b = x1
        low.append(x1)
        high.append(x2)
    return truth, np.array(low), np.array(high)


def upper_limit(value: float, err: float, confidence: float = 0.95, method: str = "fc") -> Limit:
    """Interval of a quantity that is not negative, from a normal measure with known error.

    Parameters
    ----------
    value, err : float
        The measure, may be negative, and its standard error.
    confidence : float
    method : str
        ``fc`` (default): Feldman & Cousins 1998 (Phys. Rev. D 57, 3873). The same rule gives a limit or an
        interval, so its coverage is `confidence` for every truth, 0 included.
        ``cls``: upper limit only, value + err z(1 - alpha cdf(value/err)) (Read 2002); covers at least
        `confidence`, and does not shrink after a downward fluctuation.

    Returns
    -------
    Limit
        NaN ends when value or err is not finite or err is not positive.
    """
    if not (math.isfinite(value) and math.isfinite(err) and err > 0):
        return Limit(value, err, NAN, NAN, confidence, False)
    x = value / err
    if method == "cls":
        alpha = (1.0 - confidence) * max(_cdf(x), 1e-300)
        high = x - _NORMAL.inv_cdf(alpha) if alpha > 1e-16 else -math.log(1.0 - confidence) / max(-x, 1.0)
        return Limit(value, err, 0.0, high * err, confidence, True)
    if method != "fc":
        raise ValueError(f"method {method!r}: fc or cls")
    truth, x1, x2 = _feldman_cousins(confidence)
    central = _NORMAL.inv_cdf(0.5 + 0.5 * confidence)
    if x <= x1[0]:
        high = truth[0]
    else:
        high = float(np.interp(x, x1, truth)) if x < x1[-1] else x + central
    if x <= x2[0]:
        low = 0.0
    else:
        low = float(np.interp(x, x2, truth)) if x < x2[-1] else x - central
    return Limit(value, err, low * err, high * err, confidence, low == 0.0)


# ---- series, pairs -----------------------------------------------------------------------------------


def running_mean(
    values: np.ndarray, window: int, weights: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Running mean of an odd window along axis 0, NaN left out.

    Near the ends the window shrinks on both sides, so a slope is not bent there.

    Parameters
    ----------
    values : ndarray, shape (n,)
    window : int
        Odd.
    weights : ndarray, optional
        Not negative, e.g. inverse variances.

    Returns
    -------
    mean : ndarray, shape (n,)
        NaN where the window holds no value.
    weight : ndarray, shape (n,)
        Sum of the weights (the number of values without `weights`) in each window.
    """
    if window < 1 or window % 2 == 0:
        raise ValueError(f"window {window} is not odd")
    values = np.asarray(values, float)
    n = len(values)
    w = np.ones(n) if weights is None else np.array(weights, float)
    w[~np.isfinite(values)] = 0.0
    origin = float(np.median(values[w > 0])) if (w > 0).any() else 0.0
    filled = np.where(w > 0, values - origin, 0.0)
    index = np.arange(n)
    half = np.minimum(np.minimum(index, n - 1 - index), window // 2)
    sums = np.concatenate([[0.0], np.cumsum(filled * w)])
    counts = np.concatenate([[0.0], np.cumsum(w)])
    weight = counts[index + half + 1] - counts[index - half]
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = origin + (sums[index + half + 1] - sums[index - half]) / weight
    return np.where(weight > 1e-12 * max(float(w.max(initial=0.0)), 1e-300), mean, NAN), weight


def pairs(frames: Iterable, disjoint: bool = True) -> Iterator[tuple]:
    """Pairs of neighbouring frames, at most two of them held at a time.

    `disjoint`: (1, 2), (3, 4), …, whose differences are independent; otherwise (1, 2), (2, 3), … .
    """
    previous, have = None, False
    for frame in frames:
        if have:
            yield previous, frame
            if disjoint:
                previous, have = None, False
                continue
        previous, have = frame, True


# ---- covariances -------------------------------------------------------------------------------------


def _fast_length(least: int) -> int:
    """Smallest length >= `least` whose factors are 2, 3, 5, 7 and 11, even."""
    length = least + least % 2
    while True:
        rest = length
        for factor in (2, 3, 5, 7, 11):
            while rest % factor == 0:
                rest //= factor
        if rest == 1:
            return length
        length += 2


def masked_covariance(
    diff: np.ndarray,
    mask: np.ndarray | None = None,
    lags: int = 8,
    frames: int = 2,
    counts: np.ndarray | None = None,
) -> Covariances:
    """Covariances of an image with masked pixels, to `lags` x `lags`, by a float32 real FFT.

    C_ij = corr(w D)_ij / corr(w)_ij / frames, zero-padded, with w = 0 at masked pixels and the mean of the
    others subtracted; lags (+i,+j) and (+i,-j) are averaged with their numbers of pairs.

    Parameters
    ----------
    diff : ndarray, shape (rows, columns)
        Difference image (any unit). Values under the mask are not looked at, NaN may be there.
    mask : ndarray of bool, optional
        True where a pixel is left out. Clip before, in the image, never the products.
    lags : int
    frames : int
        2 for the difference of two like frames (the result is per frame), 1 for a single image.
    counts : ndarray, optional
        `pair_counts` of the mask, when many images share it: saves half of the time.

    Returns
    -------
    Covariances
        ``value[i, j]`` with i the parallel and j the serial lag.
    """
    rows, columns = diff.shape
    shape = (_fast_length(rows + lags), _fast_length(columns + lags))
    bad = np.zeros(0, np.intp) if mask is None else np.flatnonzero(mask)
    good, total = None if mask is None else ~mask, diff.size - bad.size
    work = diff.astype(np.float32)
    if bad.size:
        np.put(work, bad, 0.0)
    # Sums of rows are of single precision but pairwise, their total is double.
    mean = float(work.sum(axis=1).sum(dtype=np.float64)) / total if total else NAN
    work -= np.float32(mean)
    if bad.size:
        np.put(work, bad, 0.0)
    if total < 2:
        nothing = np.full((lags, lags), NAN)
        return Covariances(nothing, nothing, np.zeros((lags, lags)), mean)
    if counts is None:
        counts = _lag_counts(good, diff.shape, shape, lags)
    sums = _autocorrelation(work, shape, lags)
    value = sums[0] + sums[1]
    n = counts[0] + counts[1]
    for array in (value, n):  # lags on an axis are the same pairs twice
        array[0, :] *= 0.5
        array[1:, 0] *= 0.5
    with np.errstate(invalid="ignore", divide="ignore"):
        covariance = value / n / frames
        # Subtracting the sample mean takes C00/n from every covariance.
        covariance += covariance[0, 0] / total
        err = covariance[0, 0] / np.sqrt(n)
    err[0, 0] *= _SQRT2
    return Covariances(covariance, err, n, mean)


def _autocorrelation(work: np.ndarray, shape: tuple[int, int], lags: int) -> np.ndarray:
    """Sums of products at lags (+i, +j) and (+i, -j), shape (2, lags, lags)."""
    from scipy.fft import rfft2

    spectrum = rfft2(work, s=shape)
    power = np.square(spectrum.real)
    power += np.square(spectrum.imag)
    # Few lags are wanted: two small matrix products instead of a transform back.
    rows, half = power.shape
    angle = 2.0 * np.pi / rows * np.outer(np.arange(lags), np.arange(rows))
    along = np.concatenate([np.cos(angle), np.sin(angle)]).astype(np.float32)
    partial = (along @ power).astype(np.float64)
    weight = np.full(half, 2.0)  # the half spectrum stands for both halves, but not at its ends
    weight[0] = weight[-1] = 1.0  # the padded length is even
    partial *= weight / (shape[0] * shape[1])
    angle = 2.0 * np.pi / shape[1] * np.outer(np.arange(half), np.arange(lags))
    even, odd = partial[:lags] @ np.cos(angle), partial[lags:] @ np.sin(angle)
    return np.stack([even - odd, even + odd])


#: Missing pixels up to which pairs are counted one by one instead of by a Fourier transform.
_FEW = 4000


def _lag_counts(
    good: np.ndarray | None, size: tuple[int, int], shape: tuple[int, int], lags: int
) -> np.ndarray:
    """Numbers of good pixel pairs at each lag (+i, +j) and (+i, -j), to single precision."""
    if good is None:
        full = np.outer(size[0] - np.arange(lags), size[1] - np.arange(lags)).astype(float)
        return np.stack([full, full])
    bad = np.flatnonzero(~good)
    if bad.size <= _FEW:
        return _few_counts(bad, size, lags)
    return np.rint(_autocorrelation(good.astype(np.float32), shape, lags))


def _few_counts(bad: np.ndarray, size: tuple[int, int], lags: int) -> np.ndarray:
    """The same where few pixels are missing, `bad` their places in the flat image, sorted: pairs lost are counted."""
    (rows, columns), out = size, np.zeros((2, lags, lags))
    r, c = np.divmod(bad, columns)
    for side, sign in enumerate((1, -1)):
        for i in range(lags):
            for j in range(lags):
                second = (r < rows - i) & ((c < columns - j) if sign > 0 else (c >= j))
                first = (r >= i) & ((c >= j) if sign > 0 else (c < columns - j))
                partner = bad[second] + i * columns + sign * j
                at = np.searchsorted(bad, partner)
                at[at == bad.size] = 0
                both = np.count_nonzero(bad[at] == partner) if partner.size else 0
                lost = np.count_nonzero(second) + np.count_nonzero(first) - both
                out[side, i, j] = (rows - i) * (columns - j) - lost
    return out


def pair_counts(mask: np.ndarray, lags: int = 8) -> np.ndarray:
    """Numbers of good pixel pairs of a mask, to be given to `masked_covariance` again and again."""
    shape = (_fast_length(mask.shape[0] + lags), _fast_length(mask.shape[1] + lags))
    return _lag_counts(~mask, mask.shape, shape, lags)


# ---- tiles -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Tiles:
    """Clipped statistics of the tile grid; arrays [tile row, tile column]."""

    clipped: Clipped = field(metadata=about("as input", "clipped mean and std per tile"))
    rows: tuple[int, ...] = field(metadata=about("px", "row edges of the tiles in the image area"))
    columns: tuple[int, ...] = field(metadata=about("px", "column edges of the tiles in the image area"))


def tile_statistics(
    image: np.ndarray,
    edges: tuple[list[int], list[int]],
    mask: np.ndarray | None = None,
    sigma: float = 5.0,
    rounded: int | None = None,
) -> Tiles:
    """Clipped mean and std in tiles of an image area.

    Parameters
    ----------
    image : ndarray, shape (rows, columns)
        Image area (`detector.image_view`), integers or floats.
    edges : (row edges, column edges)
        ``detector.tile_edges()``.
    mask : ndarray of bool, optional
        True where a pixel is left out.
    sigma, rounded
        As `clipped`.
    """
    rows, columns = edges
    grid = [
        [
            clipped(
                image[r0:r1, c0:c1], sigma, mask=None if mask is None else mask[r0:r1, c0:c1], rounded=rounded
            )
            for c0, c1 in pairwise(columns)
        ]
        for r0, r1 in pairwise(rows)
    ]
    fields = ("mean", "mean_err", "std", "std_err", "n", "n_clipped")
    arrays = {name: np.array([[getattr(tile, name) for tile in line] for line in grid]) for name in fields}
    limit = any(tile.is_limit for line in grid for tile in line)
    return Tiles(Clipped(**arrays, is_limit=limit), tuple(rows), tuple(columns))
