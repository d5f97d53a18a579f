"""Photon transfer: covariances of pairs of flats, their model, gain, turn-off, tiles.

Model: Astier et al. 2019 (A&A 629, A36), Eq. 20; Eq. 16 for the variance alone. Signals are ADU above offset,
covariances ADU², lags [parallel, serial]; coefficients a and b are per electron. In the literature's a_ij the
first index is serial: its a01 is the parallel neighbour, here ``a[1, 0]``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache

import numpy as np

from calcamp.analysis.statistics import (
    NAN,
    ROUNDING,
    about,
    clip_factors,
    fit_linear,
    masked_covariance,
)
from calcamp.analysis.sums import BAND
from calcamp.analysis.tiles import TileScan, block_sums, expand, grow_places, strips, tile_means

FDR = 65536.0  # ADU above offset
#: A tile with a larger share of saturated pixels is left out as a whole: a mask would cut its histogram.
SATURATED_SHARE = 1e-3
#: Significance of a coefficient a at which its b can be told.
B_NEEDS = 10.0


# ---- one pair ---------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Pair:
    """What a pair of flats of one quadrant tells."""

    mu: float = field(metadata=about("ADU", "mean signal over the pixels used, both frames"))
    mu1: float = field(metadata=about("ADU", "of the first frame"))
    mu2: float = field(metadata=about("ADU", "of the second frame"))
    covariance: np.ndarray = field(
        metadata=about("ADU²", "per frame, at mean flux, clip corrected, [parallel, serial]")
    )
    err: np.ndarray = field(metadata=about("ADU²", "standard error for normal noise"))
    n: int = field(metadata=about("1", "pixels used"))
    clipped: int = field(metadata=about("1", "pixels left out by the clip, rims included"))
    moments: tuple[float, float, float] = field(
        metadata=about("1", "<mu^k>/<mu>^k over the tiles, k = 2, 3, 4: illumination is not uniform")
    )
    ks_p: float = field(
        metadata=about("1", "probability of the Kolmogorov-Smirnov test for a normal difference")
    )
    tile_mu: np.ndarray = field(metadata=about("ADU", "mean signal per tile"))
    tile_variance: np.ndarray = field(metadata=about("ADU²", "C00 per tile, as `covariance`"))
    tile_n: np.ndarray = field(metadata=about("1", "pixels used per tile, 0 where the tile is left out"))
    tiles_saturated: int = field(metadata=about("1", "tiles left out for saturation"))
    flag: str = field(default="", metadata=about("", "why there is no covariance, or what is odd"))

    @property
    def ratio(self) -> float:
        """Flux of the first frame over that of the second."""
        return self.mu1 / self.mu2 if self.mu2 else NAN


def measure_pair(
    first: np.ndarray,
    second: np.ndarray,
    edges: tuple[Sequence[int], Sequence[int]],
    mask: np.ndarray | None = None,
    saturated: np.ndarray | None = None,
    lags: int = 8,
    sigma: float = 5.5,
    max_ratio: float = 0.1,
    rng: np.random.Generator | None = None,
) -> Pair:
    """Covariances of the difference of two flats of one quadrant's image area.

    Both frames are scaled tile by tile to their mean flux; what differs by more than `sigma` is left out with its
    neighbours, and the result corrected for the clip. The scaling is undone for photon noise: C is that of a frame at
    the mean flux (exact for the Poisson part).

    Parameters
    ----------
    first, second : ndarray, shape (rows, columns)
        ADU above offset.
    edges : (row edges, column edges) of the tiles
    mask : ndarray of bool, optional
        True where a pixel of either frame is left out, saturated ones included.
    saturated : ndarray of bool, optional
        Saturated pixels of either frame: a tile with more than 0.1 % of them is left out.
    max_ratio : float
        Largest relative difference of the fluxes; a pair beyond it is not measured.
    """
    mean1, _, n1 = tile_means(first, edges, mask)
    mean2, _, n2 = tile_means(second, edges, mask)
    rows, columns = edges
    area = np.outer(np.diff(rows), np.diff(columns))
    good = (n1 > 0.2 * area) & (n2 > 0.2 * area) & (mean1 > 0) & (mean2 > 0)
    full = np.zeros(good.shape, bool)
    if saturated is not None:
        count = block_sums(saturated, edges)
        full = count > SATURATED_SHARE * area
        good &= ~full
    if good.sum() < 1:
        return _no_pair(mean1, mean2, n1, lags, int(full.sum()), "saturated" if full.any() else "no pixels")
    weight = np.where(good, n1, 0.0)
    mu1, mu2 = (float((np.where(good, m, 0.0) * weight).sum() / weight.sum()) for m in (mean1, mean2))
    if abs(mu1 - mu2) > max_ratio * 0.5 * (mu1 + mu2):
        text = f"fluxes differ by {100 * abs(mu1 / mu2 - 1):.1f} %"
        return _no_pair(mean1, mean2, n1, lags, int(full.sum()), text, (mu1, mu2))
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = 0.5 * (mean1 + mean2)
        factor1, factor2 = (np.where(good, mean / m, 0.0) for m in (mean1, mean2))
    bad = expand(~good, edges) > 0 if not good.all() else None
    if mask is not None and mask.any():
        bad = mask | bad if bad is not None else mask
    made = _difference(first, second, factor1, factor2, edges, bad)
    out, clipped, counts, variances, spread = _clip(made, mean, good, sigma)
    found = masked_covariance(made.image, out, lags)
    keep = 1.0 / clip_factors(float(sigma))[0] ** 2
    product = mu1 * mu2 / (0.5 * (mu1 + mu2)) ** 2
    per_tile = float(counts[good].mean())
    # Scaling each tile to one flux takes its mean from the difference, hence C00/n from every covariance.
    value = (found.value + found.value[0, 0] / per_tile) * keep * product
    err = np.maximum(found.err, 1e-30) * keep * product
    with np.errstate(invalid="ignore", divide="ignore"):
        tile_variance = 0.5 * variances * counts / np.maximum(counts - 1, 1) * keep * mean1 * mean2 / mean**2
    weight = np.where(good, counts, 0.0)
    weight /= weight.sum()
    level = np.where(good, mean, 0.0)
    mu = float((level * weight).sum())
    moments = tuple(float((weight * (level / mu) ** k).sum()) for k in (2, 3, 4))
    flag = ""
    if counts.sum() < 1e4:
        flag = "fewer than 10000 good pixels"
    return Pair(
        mu,
        mu1,
        mu2,
        value,
        err,
        int(found.n[0, 0]),
        clipped,
        moments,
        normality(made.image, out, spread, edges, rng),
        np.where(good, mean, NAN),
        np.where(good, tile_variance, NAN),
        np.where(good, counts, 0).astype(int),
        int(full.sum()),
        flag,
    )


def _no_pair(mean1, mean2, n, lags, saturated, flag, means=None) -> Pair:
    nothing = np.full((lags, lags), NAN)
    with np.errstate(invalid="ignore"):
        known = np.isfinite(mean1) & np.isfinite(mean2)
        mu1, mu2 = means or tuple(float(m[known].mean()) if known.any() else NAN for m in (mean1, mean2))
    shape = mean1.shape
    return Pair(
        0.5 * (mu1 + mu2),
        mu1,
        mu2,
        nothing,
        nothing,
        0,
        0,
        (NAN, NAN, NAN),
        NAN,
        np.full(shape, NAN),
        np.full(shape, NAN),
        np.zeros(shape, int),
        saturated,
        flag,
    )


def _difference(first, second, factor1, factor2, edges, bad) -> TileScan:
    """Difference of two frames scaled tile by tile; 0 where `bad`."""
    one, two = ([row for _, row in strips(f, edges)] for f in (factor1, factor2))
    buffer = np.empty((BAND, first.shape[1]), np.float32)

    def fill(rows, band, strip):
        other = buffer[: band.shape[0]]
        np.multiply(first[rows], one[strip], out=band)
        np.multiply(second[rows], two[strip], out=other)
        band -= other

    return TileScan(np.empty(first.shape, np.float32), edges, bad, fill)


def _clip(made: TileScan, mean, good, sigma: float):
    """(pixels left out, number clipped with their rims, pixels, variance and spread per tile).

    Windows follow the noise of each tile.
    """
    bad, image = made.bad, made.image
    sample = image[::5, ::5]
    sample = sample.reshape(-1) if bad is None else sample[~bad[::5, ::5]]
    low, high = np.percentile(sample, (15.87, 84.13)) if sample.size else (0.0, 1.0)
    level = np.where(good, mean, NAN)
    spread = 0.5 * (high - low) * np.sqrt(level / np.nanmean(level))
    reach = np.full(good.shape, np.inf)
    left = np.zeros(0, np.intp)
    for _ in range(3):
        window = np.nan_to_num(sigma * np.maximum(spread, 0.5))
        if (window < reach).any():
            reach = 0.8 * window  # from pass to pass windows change by less
            places = made.beyond(reach)
            tile, value = made.tile(places), np.abs(image.reshape(-1)[places])
        now = places[value > window.reshape(-1)[tile]]
        same = now.size == left.size
        left = now
        counts, variance = made.variance(left)
        spread = np.where(counts > 1, np.sqrt(variance), NAN)
        if same:
            break
    out = np.zeros(image.shape, np.bool_) if bad is None else bad.copy()
    if left.size:
        left = grow_places(left, image.shape)
        left = left[~out.reshape(-1)[left]]
        out.reshape(-1)[left] = True
    return out, left.size, *made.variance(left), spread


def normality(difference, out, spread, edges, rng=None, size: int = 10_000) -> float:
    """p-value of a Kolmogorov-Smirnov test on at most `size` pixels, each over the noise of its tile.

    A full quadrant would fail by rounding alone (decisions, 4).
    """
    from scipy.special import ndtr

    step = max(1, int(math.sqrt(difference.size / size)))
    start = 0 if rng is None else int(rng.integers(step))
    cut = (slice(start, None, step), slice(start, None, step))
    columns = np.repeat(np.nan_to_num(spread), np.diff(edges[1]), axis=1)[:, cut[1]]
    scale = np.repeat(columns.astype(np.float32), np.diff(edges[0]), axis=0)[cut[0]]
    keep = ~out[cut] & (scale > 0)
    z = difference[cut][keep] / scale[keep]
    n = z.size
    if n < 200:
        return NAN
    # ADU steps of the two frames are spread out, the test is for continuous values.
    cdf = ndtr(np.sort(z.astype(float)))
    index = np.arange(1, n + 1)
    distance = max(float((index / n - cdf).max()), float((cdf - (index - 1) / n).max()))
    lam = (math.sqrt(n) + 0.12 + 0.11 / math.sqrt(n)) * distance
    k = np.arange(1, 101)
    return float(np.clip(2.0 * np.sum((-1.0) ** (k - 1) * np.exp(-2.0 * (k * lam) ** 2)), 0.0, 1.0))


# ---- model ------------------------------------------------------------------------------------------
@lru_cache(maxsize=4)
def _folds(lags: int) -> np.ndarray:
    """|lag| for -lags+1 .. lags-1."""
    return np.abs(np.arange(1 - lags, lags))


def _transform(kernel: np.ndarray) -> np.ndarray:
    """Fourier transform of kernels [..., lags, lags] extended by parity; real, because they are even."""
    lags = kernel.shape[-1]
    size = 4 * lags
    fold = _folds(lags)
    wide = np.zeros((*kernel.shape[:-2], size, size))
    index = np.arange(1 - lags, lags) % size
    wide[..., index[:, None], index[None, :]] = kernel[..., fold[:, None], fold[None, :]]
    return np.fft.rfft2(wide).real


def _back(spectrum: np.ndarray, lags: int) -> np.ndarray:
    return np.fft.irfft2(spectrum, s=(4 * lags, 4 * lags))[..., :lags, :lags]


def coefficients(gain, a: np.ndarray, b: np.ndarray | None, noise: np.ndarray) -> np.ndarray:
    """Polynomial coefficients of C(mu) in ADU, shape (5, ..., lags, lags), for mu^0 to mu^4.

    Eq. 20 of Astier et al. 2019: C = mu/g [delta + a mu g + 2/3 (a*a + ab)(mu g)² + 1/6 (2 a*a*a + 5 a*(ab))(mu g)³]
    + n/g², ``*`` a convolution over all lags.

    Parameters
    ----------
    gain : float or ndarray, shape (...)
        e-/ADU.
    a, b : ndarray, shape (..., lags, lags)
        1/e-; `b` None is 0.
    noise : ndarray, shape (..., lags, lags)
        e-².
    """
    lags = a.shape[-1]
    gain = np.asarray(gain, float)[..., None, None]
    spectrum = _transform(a)
    second = spectrum**2
    third = 2.0 * spectrum**3
    if b is not None:
        product = _transform(a * b)
        second = second + product
        third = third + 5.0 * spectrum * product
    out = np.zeros((5, *a.shape))
    out[0] = noise / gain**2
    out[1, ..., 0, 0] = 1.0 / gain[..., 0, 0]
    out[2] = a
    out[3] = 2.0 / 3.0 * _back(second, lags) * gain
    out[4] = _back(third, lags) / 6.0 * gain**2
    return out


@lru_cache(maxsize=4)
def _unit(lags: int) -> tuple[np.ndarray, np.ndarray]:
    """(spectra of unit kernels, shape (lags², frequencies); matrix that leads from a spectrum back to the lags)."""
    k, size = lags * lags, 4 * lags
    spectra = _transform(np.eye(k).reshape(k, lags, lags)).reshape(k, -1)
    # A real, even spectrum: every frequency but the first and the middle column stands for two.
    weight = np.full((size, size // 2 + 1), 2.0)
    weight[:, [0, -1]] = 1.0
    copies = np.outer(*[np.where(np.arange(lags) == 0, 1.0, 2.0)] * 2).reshape(-1, 1)
    return spectra, spectra / copies * weight.reshape(-1) / size**2


def _gradient(theta: np.ndarray, lags: int, free: np.ndarray | None) -> np.ndarray:
    """Slopes of `coefficients` with gain, a, n and b, shape (5, parameters, lags²)."""
    gain, a, b, noise = _split(theta, lags, free)
    k = lags * lags
    spectra, back = _unit(lags)
    found = _transform(a).reshape(-1)
    product = _transform(a * b).reshape(-1) if b is not None else np.zeros_like(found)
    out = np.zeros((5, len(theta), k))
    middle = coefficients(gain, a, b, noise).reshape(5, k)
    out[0, 0], out[1, 0, 0] = -2 * middle[0] / gain, -1 / gain**2
    out[3, 0], out[4, 0] = middle[3] / gain, 2 * middle[4] / gain
    at_a, at_n = np.arange(1, 1 + k), np.arange(1 + k, 1 + 2 * k)
    out[2, at_a, at_a - 1] = 1.0
    out[0, at_n, at_n - 1 - k] = 1 / gain**2
    first = (spectra * found) @ back.T  # a * e
    out[3, at_a] = 2 / 3 * gain * 2 * first
    out[4, at_a] = gain**2 / 6 * ((spectra * (6 * found**2 + 5 * product)) @ back.T)
    if b is not None:
        flat_a, flat_b = a.reshape(-1), b.reshape(-1)
        out[3, at_a] += 2 / 3 * gain * np.diag(flat_b)
        out[4, at_a] += gain**2 / 6 * 5 * flat_b[:, None] * first
        at_b = np.arange(1 + 2 * k, len(theta))
        out[3, at_b, free] = 2 / 3 * gain * flat_a[free]
        out[4, at_b] = gain**2 / 6 * 5 * flat_a[free, None] * first[free]
    return out


def powers(mu: np.ndarray, moments: np.ndarray) -> np.ndarray:
    """<mu^k> for k = 0 to 4, shape (points, 5); `moments` <mu^k>/<mu>^k for k = 2, 3, 4."""
    mu = np.asarray(mu, float)
    m = np.concatenate([np.ones((len(mu), 2)), np.asarray(moments, float).reshape(len(mu), 3)], axis=1)
    return m * mu[:, None] ** np.arange(5)


@dataclass(frozen=True)
class CovarianceFit:
    """Fit of the covariance model; arrays are [parallel, serial]."""

    gain: float = field(metadata=about("e-/ADU", "conversion factor"))
    gain_err: float = field(metadata=about("e-/ADU", "standard error"))
    a: np.ndarray = field(metadata=about("1/e-", "coefficients a"))
    a_err: np.ndarray = field(metadata=about("1/e-", "standard errors"))
    b: np.ndarray | None = field(
        metadata=about("1/e-", "coefficients b, None when they are not part of the model")
    )
    b_err: np.ndarray | None = field(metadata=about("1/e-", "standard errors"))
    noise: np.ndarray = field(
        metadata=about("e-²", "n: covariances at zero signal, rounding of the ADC taken off n00")
    )
    noise_err: np.ndarray = field(metadata=about("e-²", "standard errors"))
    covariance: np.ndarray = field(metadata=about("mixed", "of gain, a (row by row), n, b"))
    chi2: float = field(metadata=about("1", "sum of squared normalised residuals, all lags"))
    dof: int = field(metadata=about("1", "degrees of freedom"))
    chi2_variance: float = field(
        metadata=about("1", "the same of the variances alone, per degree of freedom")
    )
    n: int = field(metadata=about("1", "pairs used"))
    n_rejected: int = field(metadata=about("1", "pairs rejected"))
    used: np.ndarray = field(metadata=about("1", "pairs used"))
    b_improvement: float = field(default=NAN, metadata=about("1", "chi2 that coefficients b would take off"))
    reason: str = field(default="", metadata=about("", "empty when the fit is good"))
    gain_err_common: float = field(
        default=0.0, metadata=about("e-/ADU", "share of gain_err from errors common to the pairs")
    )
    common: np.ndarray = field(
        default_factory=lambda: np.zeros(0), metadata=about("1", "fitted common errors, in standard errors")
    )

    @property
    def ok(self) -> bool:
        return not self.reason

    @property
    def read_noise(self) -> tuple[float, float, bool]:
        """(noise at zero signal in ADU, standard error, whether it is a limit); with less than two sigma a 95 % limit."""
        n, err = float(self.noise[0, 0]), float(self.noise_err[0, 0])
        if not n > 2.0 * err:
            return math.sqrt(max(n, 0.0) + 1.645 * err) / self.gain, NAN, True
        return math.sqrt(n) / self.gain, err / (2.0 * math.sqrt(n) * self.gain), False

    @property
    def sum_a(self) -> tuple[float, float]:
        """Sum of a over all lags, 1/e-, and its error: 0 where charge is conserved."""
        lags = self.a.shape[0]
        weight = np.outer(*[np.where(np.arange(lags) == 0, 1.0, 2.0)] * 2).reshape(-1)
        k = slice(1, 1 + lags * lags)
        variance = weight @ self.covariance[k, k] @ weight
        return float(weight @ self.a.reshape(-1)), math.sqrt(max(variance, 0.0))

    def model(self, mu: np.ndarray, moments: np.ndarray | None = None) -> np.ndarray:
        """C(mu), ADU², shape (points, lags, lags), rounding of the ADC included."""
        mu = np.atleast_1d(np.asarray(mu, float))
        moments = np.ones((len(mu), 3)) if moments is None else moments
        found = np.einsum(
            "pk,kij->pij", powers(mu, moments), coefficients(self.gain, self.a, self.b, self.noise)
        )
        found[:, 0, 0] += ROUNDING
        return found


class _Points:
    """What is fitted: signals, covariances, and how errors common to all pairs would change them."""

    def __init__(self, mu, moments, target, common):
        self.mu, self.target = mu, target
        self.moments = np.concatenate([np.ones((len(mu), 2)), moments.reshape(len(mu), 3)], axis=1)
        shift, stretch = common if common is not None else (np.zeros((0, len(mu))),) * 2
        self.shift, self.stretch = (np.asarray(v, float) for v in (shift, stretch))

    def __getitem__(self, keep) -> _Points:
        common = self.shift[:, keep], self.stretch[:, keep]
        return _Points(self.mu[keep], self.moments[keep, 2:], self.target[keep], common)

    @property
    def none(self) -> np.ndarray:
        """No common error."""
        return np.zeros(len(self.shift))

    def powers(self, nu: np.ndarray) -> np.ndarray:
        """<mu^k> of shape (points, 5) as the model needs it with common errors of `nu` standard errors.

        The model is stretched, not the data: to shrink data, and their noise with them, would always please chi2.
        """
        mu = self.mu + nu @ self.shift
        return self.moments * mu[:, None] ** np.arange(5) / (1.0 + nu @ self.stretch)[:, None]

    def slopes(self, nu: np.ndarray, middle: np.ndarray) -> np.ndarray:
        """Change of the model with `nu`: shape (axes, points, lags, lags); `middle` from `coefficients`."""
        mu, stretch = self.mu + nu @ self.shift, 1.0 + nu @ self.stretch
        k = np.arange(5)
        rise = self.moments * k * np.where(k > 0, mu[:, None] ** np.maximum(k - 1, 0), 0.0)
        rise = np.einsum("pk,kij->pij", rise / stretch[:, None], middle)
        model = np.einsum("pk,kij->pij", self.powers(nu), middle)
        stretch = self.stretch / stretch
        return self.shift[:, :, None, None] * rise[None] - stretch[:, :, None, None] * model[None]


def fit_covariances(
    mu: np.ndarray,
    covariance: np.ndarray,
    err: np.ndarray,
    moments: np.ndarray | None = None,
    *,
    with_b: bool | None = None,
    read_noise: tuple[float, float] | None = None,
    common: tuple[np.ndarray, np.ndarray] | None = None,
    sigma: float = 5.0,
    rejections: int = 3,
) -> CovarianceFit:
    """Fit Eq. 20 of Astier et al. 2019 to covariances of pairs below the turn-off.

    Parameters
    ----------
    mu : ndarray, shape (points,)
        ADU.
    covariance, err : ndarray, shape (points, lags, lags)
        ADU², per frame.
    moments : ndarray, shape (points, 3), optional
        Of the illumination, see `Pair`.
    with_b : bool, optional
        Whether the coefficients b are free. None: only where they take 143 off chi2.
    read_noise : (ADU, error), optional
        Noise of the overscan as a further measurement of n00.
    common : (shift, stretch), each of shape (axes, points), optional
        Independent errors common to all pairs, of one standard error: change of the signals (ADU) and relative
        change of the covariances, see `nonlinearity.Correction.directions`. They are fitted too, each known to be
        0 +- 1, so that the errors of gain and coefficients hold what the correction of linearity leaves open.
    sigma, rejections :
        A pair whose variance lies so far off is left out, at most so often.
    """
    mu, covariance, err = (np.asarray(v, float) for v in (mu, covariance, err))
    lags = covariance.shape[-1]
    moments = np.ones((len(mu), 3)) if moments is None else np.asarray(moments, float)
    finite = np.isfinite(mu) & np.isfinite(covariance).all(axis=(1, 2)) & (err > 0).all(axis=(1, 2))
    if len(np.unique(np.round(np.log(np.maximum(mu[finite], 1e-9)) * 20))) < 3:
        return _unfitted(lags, len(mu), f"{int(finite.sum())} pairs at fewer than 3 levels")
    used = finite.copy()
    start = _start(mu, covariance, err, moments, used)
    if start is None:
        return _unfitted(lags, len(mu), "no start: the variance does not grow with the signal")
    target = covariance.copy()
    target[:, 0, 0] -= ROUNDING
    points = _Points(np.where(finite, mu, 1.0), np.where(finite[:, None], moments, 1.0), target, common)
    nu, errors = points.none, err
    for _ in range(rejections + 1):
        found = _newton(points[used], errors[used], start, nu, lags, None, read_noise)
        if found is None:
            return _unfitted(lags, len(mu), "the fit does not converge")
        model = _evaluate(points.powers(found.nu), found.theta, lags, None)
        # Errors from the model, not from the data: a low variance must not weigh more.
        relative = err / np.maximum(covariance[:, :1, :1], 1e-9)
        errors = np.where(
            finite[:, None, None], relative * np.maximum(model[:, :1, :1] + ROUNDING, 1e-9), 1.0
        )
        pull = (target[:, 0, 0] - model[:, 0, 0]) / errors[:, 0, 0]
        spread = max(1.0, 1.4826 * float(np.median(np.abs(pull[used]))))
        keep = finite & (np.abs(pull) <= sigma * spread)
        if np.array_equal(keep, used) or keep.sum() < 3:
            break
        used, start, nu = keep, found.theta, found.nu
    best = _newton(points[used], errors[used], found.theta, found.nu, lags, None, read_noise)
    if best is None:
        return _unfitted(lags, len(mu), "the fit does not converge")
    improvement, free = NAN, None
    errors_a = np.sqrt(np.diag(best.matrix))[1 : 1 + lags * lags]
    known = np.flatnonzero(np.abs(best.theta[1 : 1 + lags * lags]) > B_NEEDS * errors_a)
    if with_b is not False and used.sum() >= 5 and known.size:
        longer = np.concatenate([best.theta, np.zeros(known.size)])
        other = _newton(points[used], errors[used], longer, best.nu, lags, known, read_noise)
        if other is not None:
            improvement = best.chi2 - other.chi2
            # seven sigma of what that many free coefficients take off by chance
            if with_b or improvement > known.size + 7.0 * math.sqrt(2.0 * known.size):
                best, free = other, known
    known_noise = read_noise is not None and read_noise[1] > 0
    return _result(
        best, lags, free, points[used], errors[used], used, int(finite.sum()), improvement, known_noise
    )


def _start(mu, covariance, err, moments, used) -> np.ndarray | None:
    """Gain, a and n from straight lines: C00/mu and C_ij/mu² against the signal."""
    lags = covariance.shape[-1]
    m2 = moments[:, 0]
    design = np.stack([np.ones_like(mu), mu, mu**2 * m2], axis=1)
    first = fit_linear(design[used], covariance[used, 0, 0] - ROUNDING, err[used, 0, 0], sigma=None)
    if not first.ok or first.parameters[1] <= 0:
        return None
    gain = 1.0 / first.parameters[1]
    a, noise = np.zeros((lags, lags)), np.zeros((lags, lags))
    weight = 1.0 / err[used] ** 2
    x = (mu**2 * m2)[used, None, None]
    y = covariance[used]
    s0, sx, sxx = weight.sum(0), (weight * x).sum(0), (weight * x * x).sum(0)
    sy, sxy = (weight * y).sum(0), (weight * x * y).sum(0)
    determinant = s0 * sxx - sx**2
    a = (s0 * sxy - sx * sy) / determinant
    noise = (sxx * sy - sx * sxy) / determinant * gain**2
    a[0, 0], noise[0, 0] = first.parameters[2], max(first.parameters[0], 0.01) * gain**2
    return np.concatenate([[gain], a.reshape(-1), noise.reshape(-1)])


def _split(theta: np.ndarray, lags: int, free: np.ndarray | None):
    """(gain, a, b, n) of parameters; `free` holds the lags, counted row by row, that have a b."""
    k = lags * lags
    shape = (*theta.shape[:-1], lags, lags)
    a = theta[..., 1 : 1 + k].reshape(shape)
    noise = theta[..., 1 + k : 1 + 2 * k].reshape(shape)
    b = None
    if free is not None:
        b = np.zeros((*theta.shape[:-1], k))
        b[..., free] = theta[..., 1 + 2 * k :]
        b = b.reshape(shape)
    return theta[..., 0], a, b, noise


def _evaluate(power, theta, lags, free) -> np.ndarray:
    made = coefficients(*_split(theta, lags, free))
    return (power @ made.reshape(5, -1)).reshape(len(power), lags, lags)


@dataclass(frozen=True)
class _Solution:
    """Of `_newton`."""

    theta: np.ndarray  # gain, a, n, b
    nu: np.ndarray  # common errors, in standard errors
    matrix: np.ndarray  # covariance of theta, common errors included
    gain_variance: float  # without them
    chi2: float  # common errors included


def _newton(points, err, theta, nu, lags, free, read_noise, iterations: int = 12) -> _Solution | None:
    """Gauss-Newton; None when it fails."""
    k, count, axes = lags * lags, len(theta), len(nu)
    theta, nu = theta.copy(), nu.copy()
    inverse = 1.0 / err
    previous = math.inf
    for _ in range(iterations):
        power = points.powers(nu)
        middle = coefficients(*_split(theta, lags, free))
        slopes = np.ascontiguousarray(_gradient(theta, lags, free).transpose(0, 2, 1)).reshape(5, -1)
        jacobian = (power @ slopes).reshape(-1, count)
        if axes:
            jacobian = np.concatenate([jacobian, points.slopes(nu, middle).reshape(axes, -1).T], axis=1)
        jacobian *= inverse.reshape(-1, 1)
        residual = ((points.target - np.einsum("pk,kij->pij", power, middle)) * inverse).reshape(-1)
        chi2 = float(residual @ residual + nu @ nu)
        normal, right = jacobian.T @ jacobian, jacobian.T @ residual
        at = np.arange(count, count + axes)
        normal[at, at] += 1.0
        right[at] -= nu
        if read_noise is not None and read_noise[1] > 0:
            # RON² = n00/g², a measurement beside the flats.
            slope = np.zeros(count + axes)
            slope[0] = -2 * theta[1 + k] / theta[0] ** 3
            slope[1 + k] = 1 / theta[0] ** 2
            width = 2 * read_noise[0] * read_noise[1]
            off = (read_noise[0] ** 2 - theta[1 + k] / theta[0] ** 2) / width
            normal += np.outer(slope, slope) / width**2
            right += slope * off / width
            chi2 += off**2
        scale = np.sqrt(np.diag(normal))
        if not (np.isfinite(scale).all() and (scale > 0).all()):
            return None
        scaled = normal / np.outer(scale, scale)
        try:
            move = np.linalg.solve(scaled, right / scale) / scale
        except np.linalg.LinAlgError:
            return None
        theta, nu = theta + move[:count], nu + move[count:]
        if not np.isfinite(theta).all() or theta[0] <= 0:
            return None
        if abs(previous - chi2) < 1e-4 * max(1.0, chi2 * 1e-3) and abs(move[0]) < 1e-7 * theta[0]:
            break
        previous = chi2
    try:
        matrix = (np.linalg.inv(scaled) / np.outer(scale, scale))[:count, :count]
        alone = matrix[0, 0]
        if axes:
            alone = (np.linalg.inv(scaled[:count, :count]) / np.outer(scale[:count], scale[:count]))[0, 0]
    except np.linalg.LinAlgError:
        return None
    residual = (points.target - _evaluate(points.powers(nu), theta, lags, free)) * inverse
    return _Solution(theta, nu, matrix, float(alone), float(np.square(residual).sum() + nu @ nu))


def _result(best, lags, free, points, err, used, finite, improvement, known_noise) -> CovarianceFit:
    theta, chi2 = best.theta, best.chi2
    gain, a, b, noise = _split(theta, lags, free)
    dof = int(used.sum()) * lags * lags - len(theta)
    residual = (points.target - _evaluate(points.powers(best.nu), theta, lags, free))[:, 0, 0] / err[:, 0, 0]
    # gain, a00 and, where the scans do not tell it, the noise
    variance_dof = max(int(used.sum()) - (2 if known_noise else 3), 1)
    chi2_variance = float(residual @ residual) / variance_dof
    # Residuals beyond the noise of the variances widen all errors alike.
    widen = max(1.0, chi2 / dof) if dof > 0 else 1.0
    if used.sum() > 5:
        widen = max(widen, chi2_variance if chi2_variance > 1 + 5 * math.sqrt(2 / variance_dof) else 1.0)
    matrix = best.matrix * widen
    _, a_err, b_err, noise_err = _split(np.sqrt(np.maximum(np.diag(matrix), 0.0)), lags, free)
    return CovarianceFit(
        float(gain),
        math.sqrt(matrix[0, 0]),
        a,
        a_err,
        b,
        b_err,
        noise,
        noise_err,
        matrix,
        chi2,
        dof,
        chi2_variance,
        int(used.sum()),
        finite - int(used.sum()),
        used,
        improvement,
        gain_err_common=math.sqrt(max(0.0, (best.matrix[0, 0] - best.gain_variance) * widen)),
        common=best.nu,
    )


def _unfitted(lags: int, points: int, reason: str) -> CovarianceFit:
    nothing = np.full((lags, lags), NAN)
    size = 1 + 2 * lags * lags
    return CovarianceFit(
        NAN, NAN, nothing, nothing, None, None, nothing, nothing, np.full((size, size), NAN), NAN, 0, NAN, 0, 0,
        np.zeros(points, bool), NAN, reason,
    )  # fmt: skip


# ---- variance alone -----------------------------------------------------------------------------------
@dataclass(frozen=True)
class VarianceFit:
    """Eq. 16 of Astier et al. 2019, or a quadratic, fitted to the variance."""

    gain: float = field(metadata=about("e-/ADU", "conversion factor"))
    gain_err: float = field(metadata=about("e-/ADU", "standard error"))
    a00: float = field(metadata=about("1/e-", "a00 of Eq. 16; of the quadratic, the coefficient of mu²"))
    a00_err: float = field(metadata=about("1/e-", "standard error"))
    n00: float = field(metadata=about("e-²", "variance at zero signal, rounding taken off"))
    n00_err: float = field(metadata=about("e-²", "standard error"))
    chi2_dof: float = field(metadata=about("1", "per degree of freedom"))
    n: int = field(metadata=about("1", "pairs used"))
    reason: str = field(default="", metadata=about("", "empty when the fit is good"))

    @property
    def ok(self) -> bool:
        return not self.reason


def variance_model(mu: np.ndarray, gain: float, a00: float, n00: float, m2=1.0) -> np.ndarray:
    """V(mu), ADU²: [exp(2 a00 mu g) - 1]/(2 g² a00) + n00/g² (Eq. 16); `m2` <mu²>/<mu>² of the illumination."""
    mu = np.asarray(mu, float)
    x = 2.0 * a00 * mu * gain
    with np.errstate(invalid="ignore", divide="ignore"):
        photons = np.where(
            np.abs(x) > 1e-8, np.expm1(x) / (2.0 * gain**2 * a00) if a00 else mu / gain, mu / gain
        )
    return photons + a00 * mu**2 * (np.asarray(m2) - 1.0) + n00 / gain**2


def fit_variance(mu, variance, err, m2=1.0, n00: float | None = None, iterations: int = 20) -> VarianceFit:
    """Fit Eq. 16 to variances (ADU²) by Gauss-Newton; `n00` fixes the noise, e-²."""
    mu, variance, err = (np.asarray(v, float) for v in (mu, variance, err))
    m2 = np.broadcast_to(np.asarray(m2, float), mu.shape)
    good = np.isfinite(mu) & np.isfinite(variance) & (err > 0)
    free = 3 if n00 is None else 2
    if good.sum() < free:
        return VarianceFit(NAN, NAN, NAN, NAN, NAN, NAN, NAN, int(good.sum()), f"{int(good.sum())} points")
    mu, y, e, m2 = mu[good], variance[good] - ROUNDING, err[good], m2[good]
    line = fit_linear(np.stack([mu, mu**2], axis=1), y, e, sigma=None)
    if not line.ok or line.parameters[0] <= 0:
        return VarianceFit(
            NAN, NAN, NAN, NAN, NAN, NAN, NAN, len(mu), "the variance does not grow with the signal"
        )
    theta = np.array([1 / line.parameters[0], min(line.parameters[1], -1e-9), 20.0 if n00 is None else n00])
    step = np.array([1e-5, 1e-10, 1e-3])
    for _ in range(iterations):
        model = variance_model(mu, *theta, m2)
        jacobian = np.stack(
            [
                (variance_model(mu, *(theta + step * (np.arange(3) == k)), m2) - model) / step[k]
                for k in range(free)
            ]
        )
        weighted = (jacobian / e).T
        fit = fit_linear(weighted, (y - model) / e, 1.0, sigma=None)
        if not fit.ok:
            return VarianceFit(NAN, NAN, NAN, NAN, NAN, NAN, NAN, len(mu), fit.reason)
        theta[:free] += fit.parameters
        if not theta[0] > 0:
            return VarianceFit(NAN, NAN, NAN, NAN, NAN, NAN, NAN, len(mu), "the fit does not converge")
        if abs(fit.parameters[0]) < 1e-8 * theta[0]:
            break
    residual = (y - variance_model(mu, *theta, m2)) / e
    dof = len(mu) - free
    errors = np.zeros(3)
    errors[:free] = fit.errors
    chi2 = float(residual @ residual) / dof if dof > 0 else NAN
    return VarianceFit(theta[0], errors[0], theta[1], errors[1], theta[2], errors[2], chi2, len(mu))


def fit_quadratic(mu, variance, err, low: float = 1000.0, high: float = 40000.0) -> VarianceFit:
    """V = n00/g² + mu/g + alpha mu², between `low` and `high` ADU: the predecessor's model, for comparison.

    It is biased: the true curve is not a parabola (analysis of flats, 3.4.8).
    """
    mu, variance, err = (np.asarray(v, float) for v in (mu, variance, err))
    inside = (mu >= low) & (mu <= high)
    fit = fit_linear(
        np.stack([np.ones_like(mu), mu, mu**2], axis=1)[inside],
        variance[inside] - ROUNDING,
        err[inside],
        sigma=5.0,
    )
    if not fit.ok or fit.parameters[1] <= 0:
        return VarianceFit(NAN, NAN, NAN, NAN, NAN, NAN, NAN, int(inside.sum()), fit.reason or "no rise")
    gain = 1.0 / fit.parameters[1]
    errors = fit.errors
    return VarianceFit(
        gain,
        errors[1] * gain**2,
        fit.parameters[2],
        errors[2],
        fit.parameters[0] * gain**2,
        errors[0] * gain**2,
        fit.chi2_dof,
        fit.n,
    )


# ---- turn-off -----------------------------------------------------------------------------------------
@dataclass(frozen=True)
class TurnOff:
    """Where the variance no longer follows."""

    level: float = field(metadata=about("ADU", "turn-off; the highest level seen to be good when `is_limit`"))
    err: float = field(metadata=about("ADU", "standard error: width of the bracket over sqrt(12)"))
    is_limit: bool = field(metadata=about("1", "not reached: the turn-off lies above `level`"))
    reason: str = field(metadata=about("", "what marks it"))


def find_turn_off(
    mu: np.ndarray,
    variance: np.ndarray,
    err: np.ndarray,
    ks_p: np.ndarray | None = None,
    m2: np.ndarray | float = 1.0,
    tiles: tuple[np.ndarray, np.ndarray, np.ndarray] | None = None,
    n00: float = 20.0,
) -> TurnOff:
    """Turn-off of a photon transfer curve, from points in any order.

    Levels are taken from below: the first whose variance falls short of Eq. 16, fitted to those under it, by five
    errors and 1 %; or from which the variance falls; or whose difference is not normal although its variance is
    short by three errors. Tiles, whose signals fill the gaps between levels, then narrow the bracket.

    Parameters
    ----------
    mu, variance, err : ndarray, shape (pairs,)
        ADU, ADU².
    ks_p : ndarray, optional
        p-values of normality.
    m2 : of the illumination
    tiles : (mu, variance, err) of tiles, optional
    n00 : expected noise, e-², for curves of few levels
    """
    levels = _levels(mu, variance, err, ks_p, m2)
    if len(levels) < 3:
        return TurnOff(NAN, NAN, False, f"{len(levels)} levels")
    good = [level for level in levels if level[0] < 0.45 * FDR]
    good = levels[: max(len(good), 2)]
    for level in levels[len(good) :]:
        array = np.array(good)
        fixed = n00 if len(good) < 5 else None
        fit = fit_variance(array[:, 0], array[:, 1], array[:, 2], array[:, 4], fixed)
        if not fit.ok:
            return TurnOff(NAN, NAN, False, fit.reason)
        expected = float(variance_model(level[0], fit.gain, fit.a00, fit.n00, level[4]))
        # The model is extrapolated: errors of gain and a00 at this level, strongly anti-correlated.
        reach = expected * abs(fit.a00_err * level[0] * fit.gain)
        short = (expected - level[1]) / expected
        width = math.hypot(level[2], reach) / expected
        odd = level[3] < 0.01 and short > max(3 * width, 0.005)
        if short > max(5 * width, 0.01) or odd or level[1] < good[-1][1] * 0.98:
            edge = TurnOff(
                0.5 * (good[-1][0] + level[0]),
                (level[0] - good[-1][0]) / math.sqrt(12),
                False,
                f"variance {100 * short:.1f} % below the model at {level[0]:.0f} ADU",
            )
            return _narrow(edge, fit, good[-1][0], level[0], tiles)
        good.append(level)
    return TurnOff(good[-1][0], NAN, True, "not reached")


def _levels(mu, variance, err, ks_p, m2) -> list[tuple]:
    """(mu, variance, error, least p, m2) of pairs of like signal, sorted."""
    mu, variance, err = (np.asarray(v, float) for v in (mu, variance, err))
    ks_p = np.full(len(mu), 1.0) if ks_p is None else np.asarray(ks_p, float)
    m2 = np.broadcast_to(np.asarray(m2, float), mu.shape)
    index = np.flatnonzero(np.isfinite(mu) & np.isfinite(variance) & (err > 0) & (mu > 0))
    index = index[np.argsort(mu[index])]
    groups: list[list[int]] = []
    for k in index:
        if groups and mu[k] < 1.03 * mu[groups[-1][0]]:
            groups[-1].append(k)
        else:
            groups.append([k])
    out = []
    for group in groups:
        w = 1.0 / err[group] ** 2
        mean = float(np.median(variance[group]))
        p = ks_p[group]
        p = float(np.nanmedian(p)) if np.isfinite(p).any() else 1.0
        out.append((float(mu[group].mean()), mean, float(1 / math.sqrt(w.sum())), p, float(m2[group].mean())))
    return out


def _narrow(edge: TurnOff, fit: VarianceFit, low: float, high: float, tiles) -> TurnOff:
    """The bracket narrowed by tiles, sixteen at a time in order of their signal."""
    if tiles is None:
        return edge
    mu, variance, err = (np.asarray(v, float).reshape(-1) for v in tiles)
    keep = np.isfinite(mu) & np.isfinite(variance) & (mu > 0.9 * low) & (mu < 1.15 * high)
    mu, variance, err = mu[keep], variance[keep], err[keep]
    if len(mu) < 48:
        return edge
    order = np.argsort(mu)
    mu, ratio = mu[order], variance[order] / variance_model(mu[order], fit.gain, fit.a00, fit.n00)
    relative = err[order] / variance[order]
    size = 16
    bins = [slice(k, k + size) for k in range(0, len(mu) - size + 1, size)]
    mean = np.array([np.median(ratio[b]) for b in bins])
    error = np.array([1.25 * math.sqrt(np.mean(relative[b] ** 2) / size) for b in bins])
    short = 1 - mean > np.maximum(4 * error, 0.01)
    # The last bin that is not short, all above it being short.
    above = np.flatnonzero(~short)
    last = int(above[-1]) if len(above) else -1
    if last < 0 or last == len(bins) - 1:
        return edge
    below, beyond = float(np.median(mu[bins[last]])), float(np.median(mu[bins[last + 1]]))
    return replace(edge, level=0.5 * (below + beyond), err=max(beyond - below, 1.0) / math.sqrt(12))


def bloom_threshold(mu, variance, consecutive: int = 5) -> tuple[float, bool]:
    """The predecessor's bloom level, ADU, and whether it is a limit.

    Residuals to a quadratic (2000 to 30000 ADU), threshold 10 times their median size there; the first point above
    30000 ADU that begins `consecutive` ones below it. Points are sorted, as the predecessor meant.
    """
    mu, variance = np.asarray(mu, float), np.asarray(variance, float)
    keep = np.isfinite(mu) & np.isfinite(variance)
    mu, variance = mu[keep], variance[keep]
    order = np.argsort(mu)
    mu, variance = mu[order], variance[order]
    inner = (mu > 2000) & (mu < 30000)
    fit = fit_quadratic(mu, variance, np.sqrt(np.maximum(variance, 1.0)), 1000.0, 40000.0)
    if inner.sum() < 4 or not fit.ok:
        return NAN, False
    residual = variance - (ROUNDING + fit.n00 / fit.gain**2 + mu / fit.gain + fit.a00 * mu**2)
    cut = -10.0 * float(np.median(np.abs(residual[inner])))
    low = (residual < cut) & (mu > 30000)
    for k in range(len(mu) - consecutive + 1):
        if low[k : k + consecutive].all():
            return float(mu[k]), False
    return float(mu[-1]), True


# ---- tiles ----------------------------------------------------------------------------------------------
def tile_gains(
    fit: CovarianceFit, mu: np.ndarray, variance: np.ndarray, n: np.ndarray, top: float = math.inf
):
    """Gain of each tile with a, b and n of the quadrant.

    Parameters
    ----------
    fit : CovarianceFit of the quadrant
    mu, variance : ndarray, shape (pairs, tiles)
        ADU, ADU² per frame.
    n : ndarray, shape (pairs, tiles)
        Pixels.
    top : float
        Turn-off, ADU: brighter points are left out.

    Returns
    -------
    gain, err, points : ndarray, shape (tiles,)
    """
    ok = np.isfinite(mu) & np.isfinite(variance) & (n > 100) & (mu < top)
    safe = np.where(ok, mu, 1.0)
    model = fit.model(safe.reshape(-1))[:, 0, 0].reshape(mu.shape)
    # V follows 1/g times a shape that hardly depends on g: one step of Newton from the quadrant's gain.
    other = replace(fit, gain=fit.gain * 1.001).model(safe.reshape(-1))[:, 0, 0].reshape(mu.shape)
    slope = (other - model) / (0.001 * fit.gain)
    err = model * np.sqrt(2.0 / np.maximum(n, 1))
    weight = np.where(ok, (slope / err) ** 2, 0.0)
    with np.errstate(invalid="ignore", divide="ignore"):
        total = weight.sum(axis=0)
        step = (np.where(ok, (variance - model) / slope, 0.0) * weight).sum(axis=0) / total
        return (
            np.where(total > 0, fit.gain + step, NAN),
            np.where(total > 0, 1.0 / np.sqrt(total), NAN),
            ok.sum(axis=0),
        )


def tile_turn_offs(fit: CovarianceFit, mu, variance, n, level, shape: tuple[int, int]):
    """Turn-off of each tile, its neighbours pooled: where the variance leaves the model of the quadrant.

    Parameters
    ----------
    fit : CovarianceFit of the quadrant
    mu, variance, n : ndarray, shape (pairs, tiles)
    level : ndarray, shape (pairs,)
        Pairs of like exposures have one number.
    shape : (tile rows, tile columns)

    Returns
    -------
    turn_off, is_limit : ndarray, shape (tiles,)
        ADU: midway from the last level that follows to the first that is short by 1 % and five errors; the brightest
        level, a lower limit, where none is. NaN in tiles with fewer than two levels.
    """
    ok = np.isfinite(mu) & np.isfinite(variance) & (n > 100)
    safe = np.where(ok, mu, 1.0)
    model = fit.model(safe.reshape(-1))[:, 0, 0].reshape(mu.shape)
    weight = np.where(ok, n, 0.0)
    ratio = np.where(ok, variance / model, 0.0)

    def pooled(values):
        padded = np.pad(values.reshape(-1, *shape), ((0, 0), (1, 1), (1, 1)))
        total = sum(padded[:, i : i + shape[0], j : j + shape[1]] for i in range(3) for j in range(3))
        return total.reshape(len(values), -1)

    counts, sums, own, signals = [], [], [], []
    for k in np.unique(level):
        here = level == k
        counts.append(weight[here].sum(axis=0))
        sums.append((weight * ratio)[here].sum(axis=0))
        own.append((weight * safe)[here].sum(axis=0))
        signals.append(np.average(safe[here][ok[here]]) if ok[here].any() else math.inf)
    order = np.argsort(signals)
    counts, sums, own = (np.array(v)[order] for v in (counts, sums, own))
    around, total = pooled(counts), pooled(sums)
    with np.errstate(invalid="ignore", divide="ignore"):
        short = 1.0 - total / around
        wide = np.maximum(5.0 * np.sqrt(2.0 / around), 0.01)
        place = own / counts
    value, limit = np.full(mu.shape[1], NAN), np.zeros(mu.shape[1], bool)
    for tile in range(mu.shape[1]):
        known = np.flatnonzero((counts[:, tile] > 0) & np.isfinite(short[:, tile]))
        if known.size < 2:
            continue
        signal, over = place[known, tile], short[known, tile] > wide[known, tile]
        over &= signal > 0.3 * FDR
        first = int(np.argmax(over)) if over.any() else -1
        limit[tile] = first < 1
        value[tile] = signal.max() if first < 1 else 0.5 * (signal[first - 1] + signal[first])
    return value, limit


# ---- limits (for tests and reports) ---------------------------------------------------------------------
def gain_limit(
    mu, pixels, gain: float, a00: float, n00: float, fixed_noise: bool = False
) -> dict[str, float]:
    """Least standard errors of an Eq. 16 fit (Cramer-Rao), from the truth.

    Parameters
    ----------
    mu : ndarray, shape (pairs,)
        ADU, below the turn-off.
    pixels : float
        Of a quadrant.

    Returns
    -------
    dict
        gain (relative), a00 (relative), n00 (e-²).
    """
    mu = np.asarray(mu, float)
    theta = np.array([gain, a00, n00])
    step = np.array([1e-5, abs(a00) * 1e-5 or 1e-12, 1e-3])
    base = variance_model(mu, *theta)
    err = (base + ROUNDING) * np.sqrt(2.0 / pixels)
    slopes = [
        (variance_model(mu, *(theta + step * (np.arange(3) == k))) - base) / step[k] / err
        for k in range(2 if fixed_noise else 3)
    ]
    matrix = np.linalg.inv(np.array(slopes) @ np.array(slopes).T)
    errors = np.sqrt(np.diag(matrix))
    return {
        "gain": errors[0] / gain,
        "a00": errors[1] / abs(a00),
        "n00": 0.0 if fixed_noise else float(errors[2]),
    }


def neighbour_limit(mu, pixels, gain: float, a00: float, n00: float, diagonal: bool = False) -> float:
    """Least standard error of a coefficient a off lag 0, its n free, 1/e- (Cramer-Rao), from the truth.

    C = a mu² + n/g² with an error of V/sqrt(pixels) per pair; lags off the axes come twice (+i, +j and +i, -j).
    Parameters as of `gain_limit`.
    """
    mu = np.asarray(mu, float)
    err = (variance_model(mu, gain, a00, n00) + ROUNDING) / math.sqrt(pixels * (2 if diagonal else 1))
    design = np.stack([mu**2, np.full(len(mu), 1.0 / gain**2)], axis=1) / err[:, None]
    return float(np.sqrt(np.linalg.inv(design.T @ design)[0, 0]))
