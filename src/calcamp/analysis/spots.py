"""Measuring spots on stamps: adaptive moments, and the fit of a Gaussian integrated over pixels.

A stamp is a square of an image, ``[row y, column x]``, in the orientation of the CCD image, ADU above
offset. All functions take many stamps at once, shape (n, s, s). Widths are those of the light before the
pixel: ``xx``, ``yy``, ``xy`` are the elements of the Gaussian's covariance matrix, px², the pixel not
included. e1 = (xx - yy)/(xx + yy) is positive for elongation along the columns axis (FITS x), and
e2 = 2 xy/(xx + yy) along +x+y.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np

from calcamp.analysis.statistics import ROUNDING, about

NAN = float("nan")
FWHM = math.sqrt(8.0 * math.log(2.0))
PARAMETERS = ("flux", "x", "y", "xx", "yy", "xy", "background")
_ORDER = 5  # terms of Mehler's series in the correlation of the two axes
_LEAST_WIDTH = 0.04  # px²
_MOST_CORRELATION = 0.45
_NARROWEST = 0.35  # px², second moment of a weight
_PIXEL = 1.0 / 12.0  # variance of a pixel, px²
# The library's own error function: scipy.special takes longer to import than a CCD's fits take.
_erf = np.frompyfunc(math.erf, 1, 1)


# ---- stamps ------------------------------------------------------------------------------------------


def cut_stamps(
    frame: np.ndarray, x, y, radius: int, inside=None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Stamps of side 2 radius + 1 about the nearest pixel of each position.

    Parameters
    ----------
    frame : ndarray (rows, columns)
    x, y : array_like (n,)
        Positions, px; not finite: an empty stamp.
    inside : sequence of (slice rows, slice columns), optional
        Area of the frame that a stamp may take pixels of, one per position: its quadrant's image area.

    Returns
    -------
    stamps (n, s, s) float64, NaN outside; corners (n, 2) int of row and column of the first pixel; there (n,) bool.
    """
    x, y = np.asarray(x, float), np.asarray(y, float)
    side = 2 * radius + 1
    stamps = np.full((x.size, side, side), np.nan)
    corners = np.zeros((x.size, 2), int)
    there = np.zeros(x.size, bool)
    for k in range(x.size):
        if not (math.isfinite(x[k]) and math.isfinite(y[k])):
            continue
        row, column = math.floor(y[k] + 0.5) - radius, math.floor(x[k] + 0.5) - radius
        corners[k] = row, column
        rows, columns = (slice(0, frame.shape[0]), slice(0, frame.shape[1])) if inside is None else inside[k]
        top, left = max(rows.start, row), max(columns.start, column)
        bottom, right = min(rows.stop, row + side), min(columns.stop, column + side)
        if bottom > top and right > left:
            stamps[k, top - row : bottom - row, left - column : right - column] = frame[
                top:bottom, left:right
            ]
            there[k] = True
    return stamps, corners, there


@dataclass(frozen=True, eq=False)
class Background:
    """Level beside each spot."""

    level: np.ndarray = field(metadata=about("ADU", "clipped mean of the ring"))
    err: np.ndarray = field(metadata=about("ADU", "its standard error"))
    noise: np.ndarray = field(metadata=about("ADU", "standard deviation of the ring's pixels"))
    n: np.ndarray = field(metadata=about("1", "pixels used"))


def ring_background(stamps: np.ndarray, good: np.ndarray, inner: float, sigma: float = 4.0) -> Background:
    """Clipped mean of the pixels farther than `inner` px from the stamp's centre."""
    side = stamps.shape[1]
    at = np.arange(side) - side // 2
    ring = np.hypot(at[:, None], at[None, :]) >= inner
    values = np.where(good & ring, stamps, np.nan).reshape(len(stamps), -1)
    use = np.isfinite(values)
    level = _nanmedian(values)
    noise = 1.4826 * _nanmedian(np.abs(values - level[:, None]))
    noise = np.maximum(noise, 0.6)  # of integers: the median deviation may be 0
    for _ in range(6):
        use = np.isfinite(values) & (np.abs(values - level[:, None]) <= sigma * noise[:, None])
        n = use.sum(axis=1)
        safe = np.maximum(n, 1)
        level = np.where(n > 0, np.where(use, values, 0.0).sum(axis=1) / safe, NAN)
        spread = np.where(use, values - level[:, None], 0.0)
        noise = np.sqrt(np.square(spread).sum(axis=1) / np.maximum(n - 1, 1))
        noise = np.maximum(noise, 0.3)
    enough = n >= 20
    return Background(
        np.where(enough, level, NAN),
        np.where(enough, noise / np.sqrt(safe), NAN),
        np.where(enough, noise, NAN),
        n,
    )


def _nanmedian(values: np.ndarray) -> np.ndarray:
    """Median along the last axis; NaN where there is nothing."""
    empty = ~np.isfinite(values).any(axis=1)
    return np.where(empty, NAN, np.nanmedian(np.where(empty[:, None], 0.0, values), axis=1))


# ---- moments -----------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class SpotMoments:
    """Adaptive moments: second moments under an elliptical Gaussian weight that fits the spot itself."""

    flux: np.ndarray = field(metadata=about("ADU", "flux of the Gaussian that the moments describe"))
    x: np.ndarray = field(metadata=about("px", "in the stamp, from its first pixel"))
    y: np.ndarray = field(metadata=about("px", "in the stamp"))
    xx: np.ndarray = field(metadata=about("px^2", "pixel taken off"))
    yy: np.ndarray = field(metadata=about("px^2", "pixel taken off"))
    xy: np.ndarray = field(metadata=about("px^2", "positive along +x+y"))
    err: dict = field(metadata=about("as values", "standard errors by name, from the noise of the pixels"))
    peak: np.ndarray = field(
        metadata=about("ADU", "highest pixel within 3 px of the centre, above background")
    )
    converged: np.ndarray = field(metadata=about("", "bool"))

    @property
    def fwhm(self) -> np.ndarray:
        """px, sqrt((fwhm_x² + fwhm_y²)/2)."""
        return FWHM * np.sqrt(np.maximum((self.xx + self.yy) / 2.0, 0.0))

    @property
    def fwhm_err(self) -> np.ndarray:
        both = np.hypot(self.err["xx"], self.err["yy"]) / 2.0
        return FWHM**2 * both / (2.0 * np.maximum(self.fwhm, 1e-9))


def adaptive_moments(
    stamps: np.ndarray,
    good: np.ndarray,
    background: np.ndarray,
    variance: np.ndarray,
    iterations: int = 50,
    largest: float = 8.0,
) -> SpotMoments:
    """Adaptive moments of spots (Bernstein & Jarvis 2002; Hirata & Seljak 2003).

    The weight exp(-r' M^-1 r / 2) is moved and shaped until twice the weighted second moments equal M.
    Errors follow from the noise of the pixels, and from the weight's following the noise: near the solution
    a change of the weighted moments changes M four-fold.

    Parameters
    ----------
    stamps, good, variance : ndarray (n, s, s)
        ADU, True where usable, ADU² of each pixel.
    background : ndarray (n,)
        ADU, taken off.
    largest : float
        px, sigma beyond which a spot is not followed.
    """
    side = stamps.shape[1]
    at = np.arange(side, dtype=float)
    image = np.where(good, stamps - background[:, None, None], 0.0)
    image = np.where(np.isfinite(image), image, 0.0)
    n = len(image)
    # Start at the highest of the 3 x 3 medians: neither a hot pixel nor the track of a cosmic ray wins.
    start = _median_of_nine(image).reshape(n, -1).argmax(axis=1)
    y, x = (start // side).astype(float), (start % side).astype(float)
    matrix = np.tile(np.array([2.0, 2.0, 0.0]), (n, 1))  # xx, yy, xy
    found = np.isfinite(background) & (image.reshape(n, -1).max(axis=1) > 0)
    converged = np.zeros(n, bool)
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        for turn in range(iterations):
            k = np.nonzero(found & ~converged)[0]
            if not k.size:
                break
            s = _weighted(image[k], good[k], at, x[k], y[k], matrix[k])
            sane, done, x[k], y[k], matrix[k] = _follow(s, x[k], y[k], matrix[k], turn, largest, side)
            found[k], converged[k] = sane, done
        s = _weighted(image, good, at, x, y, matrix, variance)
    flux = 2.0 * s["sum"]  # a Gaussian under its own weight keeps half of its light
    xx, yy, xy = matrix[:, 0] - _PIXEL, matrix[:, 1] - _PIXEL, matrix[:, 2]

    def only(values):
        return np.where(found, values, NAN)

    err = {name: only(s[f"{name}_err"]) for name in ("flux", "x", "y", "xx", "yy", "xy")}
    # A cosmic ray beside the spot is no peak of it.
    beside = np.maximum(np.abs(at - x[:, None])[:, None, :], np.abs(at - y[:, None])[:, :, None]) > 3.0
    peak = np.where(good & ~(beside & found[:, None, None]), image, -np.inf).reshape(n, -1).max(axis=1)
    return SpotMoments(
        only(flux), only(x), only(y), only(xx), only(yy), only(xy), err,
        np.where(np.isfinite(peak), peak, NAN), converged & found,
    )  # fmt: skip


def _follow(s: dict, x, y, matrix, turn: int, largest: float, side: int):
    """One step of the weights: (still a spot, settled, x, y, matrix)."""
    step = np.stack([s["x"], s["y"]], axis=1)
    new = 2.0 * np.stack([s["xx"], s["yy"], s["xy"]], axis=1)
    # A spot that sits on one pixel would draw its weight together without end.
    new[:, :2] = np.maximum(new[:, :2], _NARROWEST)
    sane = (
        np.isfinite(new).all(axis=1)
        & (s["sum"] > 0)
        & (new[:, 0] * new[:, 1] > new[:, 2] ** 2)
        & (new[:, :2].max(axis=1) < largest**2)
    )
    change = np.abs(new - matrix).max(axis=1) / matrix[:, :2].mean(axis=1)
    done = sane & (change < 1e-4) & (np.abs(step).max(axis=1) < 1e-3)
    # Over-relaxed, as plain iteration halves the distance each time; then held back, as very narrow spots
    # jump between pixels.
    pace = 1.45 if turn < 15 else 0.6
    target = matrix + pace * (new - matrix)
    bad = (target[:, 0] * target[:, 1] <= target[:, 2] ** 2 + 0.01) | (target[:, :2].min(axis=1) < 0.1)
    target = np.where(bad[:, None], new, target)
    x = np.where(sane, np.clip(x + pace * step[:, 0], 0, side - 1), x)
    y = np.where(sane, np.clip(y + pace * step[:, 1], 0, side - 1), y)
    return sane, done, x, y, np.where(sane[:, None], target, matrix)


def _median_of_nine(image: np.ndarray) -> np.ndarray:
    """Median of each pixel and its eight neighbours; outside counts as 0."""
    wide = np.pad(image.astype(np.float32), ((0, 0), (1, 1), (1, 1)))
    side = image.shape[1]
    nine = np.stack([wide[:, i : i + side, j : j + side] for i in range(3) for j in range(3)])
    return np.partition(nine, 4, axis=0)[4]


def _weighted(image, good, at, x, y, matrix, variance=None) -> dict[str, np.ndarray]:
    """Weighted sums about (x, y); shift of the centroid for a Gaussian spot; errors with `variance`."""
    determinant = matrix[:, 0] * matrix[:, 1] - matrix[:, 2] ** 2
    ixx, iyy, ixy = matrix[:, 1] / determinant, matrix[:, 0] / determinant, -matrix[:, 2] / determinant
    dx, dy = at[None, None, :] - x[:, None, None], at[None, :, None] - y[:, None, None]
    weight = (
        np.exp(
            -0.5
            * (ixx[:, None, None] * dx**2 + iyy[:, None, None] * dy**2 + 2.0 * ixy[:, None, None] * dx * dy)
        )
        * good
    )
    light = image * weight
    total = light.sum(axis=(1, 2))
    mean = {
        "x": (light * dx).sum(axis=(1, 2)) / total,
        "y": (light * dy).sum(axis=(1, 2)) / total,
        "xx": (light * dx * dx).sum(axis=(1, 2)) / total,
        "yy": (light * dy * dy).sum(axis=(1, 2)) / total,
        "xy": (light * dx * dy).sum(axis=(1, 2)) / total,
    }
    out = {"sum": total, **mean}
    if variance is not None:
        noise = np.where(good, variance, 0.0) * weight**2
        out["flux_err"] = 2.0 * np.sqrt(noise.sum(axis=(1, 2)))
        for name, kernel, factor in (
            ("x", dx, 2.0),
            ("y", dy, 2.0),
            ("xx", dx * dx - mean["xx"][:, None, None], 4.0),
            ("yy", dy * dy - mean["yy"][:, None, None], 4.0),
            ("xy", dx * dy - mean["xy"][:, None, None], 4.0),
        ):
            out[f"{name}_err"] = factor * np.sqrt((noise * kernel**2).sum(axis=(1, 2))) / np.abs(total)
    return out


# ---- apertures ---------------------------------------------------------------------------------------


def aperture_flux(
    stamps, good, background: Background, x, y, radius: float, gain
) -> tuple[np.ndarray, np.ndarray]:
    """(flux, error), ADU, in a circle about each spot; pixels on the rim count in part.

    Error: photons of the spot, noise of the background in the aperture and of its level (which is taken off
    from every pixel). NaN where a pixel of the aperture is not usable.
    """
    at = np.arange(stamps.shape[1], dtype=float)
    distance = np.hypot(
        at[None, None, :] - np.asarray(x)[:, None, None], at[None, :, None] - np.asarray(y)[:, None, None]
    )
    share = np.clip(radius + 0.5 - distance, 0.0, 1.0)
    image = np.where(good, stamps - background.level[:, None, None], 0.0)
    flux = (share * image).sum(axis=(1, 2))
    area = share.sum(axis=(1, 2))
    whole = np.where(share > 0, good, True).all(axis=(1, 2)) & np.isfinite(background.level)
    variance = np.maximum(flux, 0.0) / gain + area * background.noise**2 + (area * background.err) ** 2
    return np.where(whole, flux, NAN), np.where(whole, np.sqrt(variance), NAN)


def box_width(stamps, good, background, x, y, half: float = 6.0) -> tuple[np.ndarray, np.ndarray]:
    """(FWHM x, FWHM y), px: 2.355 times the rms in a box that floats with the centroid, pixel and wings included.

    It is the predecessor's estimator, kept to compare with old reports.
    """
    at = np.arange(stamps.shape[1], dtype=float)
    image = np.where(good & np.isfinite(stamps), stamps - background[:, None, None], 0.0)
    x, y = np.array(x, float), np.array(y, float)
    with np.errstate(invalid="ignore", divide="ignore"):
        for _ in range(10):
            wx = np.clip(half + 0.5 - np.abs(at[None, :] - x[:, None]), 0.0, 1.0)
            wy = np.clip(half + 0.5 - np.abs(at[None, :] - y[:, None]), 0.0, 1.0)
            along_x = np.einsum("nij,ni,nj->nj", image, wy, wx)
            along_y = np.einsum("nij,ni,nj->ni", image, wy, wx)
            total = along_x.sum(axis=1)
            x, y = (along_x @ at) / total, (along_y @ at) / total
        spread_x = (along_x @ at**2) / total - x**2
        spread_y = (along_y @ at**2) / total - y**2
        return 2.355 * np.sqrt(spread_x), 2.355 * np.sqrt(spread_y)


# ---- the pixel-integrated Gaussian ------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class SpotFits:
    """Pixel-integrated Gaussians fitted to stamps: arrays (n,), NaN where a fit failed."""

    values: np.ndarray = field(metadata=about("as PARAMETERS", "(n, 7)"))
    covariance: np.ndarray = field(metadata=about("as PARAMETERS", "(n, 7, 7)"))
    chi2: np.ndarray = field(metadata=about("1", "sum of squared normalised residuals"))
    dof: np.ndarray = field(metadata=about("1", "degrees of freedom"))
    n_rejected: np.ndarray = field(metadata=about("1", "pixels left out as far from the model"))
    reason: tuple[str, ...] = field(metadata=about("", "why there is no fit, empty when there is"))

    def get(self, name: str) -> np.ndarray:
        """A parameter by name."""
        return self.values[:, PARAMETERS.index(name)]

    def err(self, name: str) -> np.ndarray:
        """Its standard error."""
        k = PARAMETERS.index(name)
        return np.sqrt(self.covariance[:, k, k])

    def derived(self) -> dict[str, np.ndarray]:
        """fwhm_x, fwhm_y, fwhm (px), r2 (px²), e1, e2 and their errors, pixel not included."""
        xx, yy, xy = (self.get(name) for name in ("xx", "yy", "xy"))
        size = xx + yy
        out = {}
        with np.errstate(invalid="ignore", divide="ignore"):
            gradients = {
                "fwhm_x": (FWHM * np.sqrt(xx), (FWHM / (2 * np.sqrt(xx)), 0.0, 0.0)),
                "fwhm_y": (FWHM * np.sqrt(yy), (0.0, FWHM / (2 * np.sqrt(yy)), 0.0)),
                "fwhm": (FWHM * np.sqrt(size / 2), (FWHM / (4 * np.sqrt(size / 2)),) * 2 + (0.0,)),
                "r2": (size, (1.0, 1.0, 0.0)),
                "e1": ((xx - yy) / size, (2 * yy / size**2, -2 * xx / size**2, 0.0)),
                "e2": (2 * xy / size, (-2 * xy / size**2, -2 * xy / size**2, 2 / size)),
            }
            block = self.covariance[:, 3:6, 3:6]
            for name, (value, gradient) in gradients.items():
                g = np.stack([np.broadcast_to(part, size.shape) for part in gradient], axis=1)
                out[name] = value
                out[f"{name}_err"] = np.sqrt(np.einsum("ni,nij,nj->n", g, block, g))
        return out


def _pixel_series(at, centre, variance, order: int) -> np.ndarray:
    """Integrals over pixels of the 0th to `order`th derivative of a normal density, shape (n, order + 1, s)."""
    sigma = np.sqrt(variance)[:, None]
    edges = np.concatenate([at - 0.5, at[-1:] + 0.5])
    t = (edges[None, :] - centre[:, None]) / sigma
    out = np.empty((len(centre), order + 1, at.size))
    out[:, 0] = 0.5 * np.diff(_erf(t * math.sqrt(0.5)).astype(float), axis=1)
    density = np.exp(-0.5 * t * t) / (sigma * math.sqrt(2.0 * math.pi))
    before, hermite = np.zeros_like(t), np.ones_like(t)  # He_-1, He_0
    for k in range(1, order + 1):
        # the (k-1)th derivative of the density is (-1/sigma)^(k-1) He_(k-1) density
        out[:, k] = np.diff((-1.0 / sigma) ** (k - 1) * hermite * density, axis=1)
        before, hermite = hermite, t * hermite - (k - 1) * before
    return out


def gaussian_model(values: np.ndarray, side: int, gradient: bool = False):
    """Pixel-integrated Gaussians on stamps, ADU.

    The correlation of the axes enters by Mehler's series, since d/d(xy) of a Gaussian is d²/dxdy: products of
    one-dimensional integrals, so thousands of stamps cost milliseconds. To 5 terms the error is below 1e-5
    of the peak for correlations to 0.2.

    Parameters
    ----------
    values : ndarray (n, 7)
        In the order of `PARAMETERS`.

    Returns
    -------
    ndarray (n, s, s), and with `gradient` also (n, 7, s, s).
    """
    at = np.arange(side, dtype=float)
    flux, x, y, xx, yy, xy, background = values.T
    sx = _pixel_series(at, x, xx, _ORDER + 2)
    sy = _pixel_series(at, y, yy, _ORDER + 2)
    powers = xy[:, None] ** np.arange(_ORDER) / np.array([math.factorial(k) for k in range(_ORDER)])

    def series(up_x: int, up_y: int) -> np.ndarray:
        left = sy[:, up_y : up_y + _ORDER] * powers[:, :, None]
        return np.matmul(left.transpose(0, 2, 1), sx[:, up_x : up_x + _ORDER])

    shape = series(0, 0)
    model = flux[:, None, None] * shape + background[:, None, None]
    if not gradient:
        return model
    f = flux[:, None, None]
    slopes = np.stack(
        [
            shape,
            -f * series(1, 0),
            -f * series(0, 1),
            0.5 * f * series(2, 0),
            0.5 * f * series(0, 2),
            f * series(1, 1),
            np.ones_like(shape),
        ],
        axis=1,
    )
    return model, slopes


def fit_gaussians(
    stamps: np.ndarray,
    good: np.ndarray,
    gain: float | np.ndarray,
    read_noise: float | np.ndarray,
    start: np.ndarray,
    *,
    radius: float = 12.0,
    reject: float = 6.0,
    tolerance: float = 0.05,
    iterations: int = 50,
    dark: float | np.ndarray = 0.0,
) -> SpotFits:
    """Fit a pixel-integrated Gaussian and a level to each stamp.

    Weights are those of the model (photons, read noise, rounding), renewed at each step: the estimating
    equations are then unbiased, which weights from the data are not. Pixels farther from the model than
    `reject` errors and `tolerance` of the model are left out once it has settled (cosmic rays).

    Parameters
    ----------
    stamps, good : ndarray (n, s, s)
        ADU above offset (or with it: the level is free, see `dark`).
    gain : e-/ADU, one or (n,).
    read_noise : ADU, one or (n,).
    start : ndarray (n, 7)
        In the order of `PARAMETERS`, in stamp coordinates.
    radius : float
        px, pixels farther from the start are not looked at; wide spots take 4 sigma if that is more.
    dark : float or ndarray (n,)
        ADU, part of the level that has no photon noise (offset that was not subtracted).
    """
    n, side = stamps.shape[:2]
    at = np.arange(side, dtype=float)
    gain, noise2, dark = (
        np.broadcast_to(np.asarray(v, float), (n,))[:, None, None]
        for v in (gain, np.square(read_noise) + ROUNDING, dark)
    )
    values = np.array(start, float)
    usable = np.isfinite(values).all(axis=1)
    values[~usable] = (1.0, side // 2, side // 2, 1.0, 1.0, 0.0, 0.0)
    _bound(values, side)
    reach = np.maximum(radius, 4.0 * np.sqrt(np.maximum(values[:, 3], values[:, 4])))
    distance = np.hypot(
        at[None, None, :] - values[:, 1, None, None], at[None, :, None] - values[:, 2, None, None]
    )
    use = good & np.isfinite(stamps) & (distance <= reach[:, None, None])
    data = np.where(use, stamps, 0.0)
    rejected = np.zeros(n, int)
    reason = np.where(usable, "", "no start values").astype(object)
    few = use.sum(axis=(1, 2)) < 20
    reason[few & usable] = "too few usable pixels"
    alive = usable & ~few
    state = _Fitting(data, use, gain, noise2, dark, values, alive)
    state.run(iterations)
    residual = state.residual()
    model = state.model
    variance = _variance(model, gain, noise2, dark)
    allowed = np.sqrt(
        reject**2 * variance + np.square(tolerance * np.maximum(model - values[:, 6, None, None], 0.0))
    )
    far = use & (np.abs(residual) > allowed)
    if far.any():
        rejected = far.sum(axis=(1, 2))
        state.use = use & ~far
        touched = alive & (rejected > 0)
        state.open = touched.copy()
        state.damping[touched] = 1e-3
        state.refresh()
        state.run(iterations)
    return state.result(reason, rejected)


def _variance(model, gain, noise2, dark):
    return np.maximum(model - dark, 0.0) / gain + noise2


def _bound(values: np.ndarray, side: int) -> None:
    """Keep parameters where the model is one."""
    values[:, 1:3] = np.clip(values[:, 1:3], -0.5, side - 0.5)
    values[:, 3:5] = np.clip(values[:, 3:5], _LEAST_WIDTH, (side / 2) ** 2)
    most = _MOST_CORRELATION * np.sqrt(values[:, 3] * values[:, 4])
    values[:, 5] = np.clip(values[:, 5], -most, most)


class _Fitting:
    """Scoring steps with damping, all stamps at once; those that are done stand still."""

    def __init__(self, data, use, gain, noise2, dark, values, alive):
        self.data, self.use, self.gain, self.noise2, self.dark = data, use, gain, noise2, dark
        self.values, self.alive = values, alive
        self.open = alive.copy()
        self.damping = np.full(len(values), 1e-3)
        self.side = data.shape[1]
        self.model = np.zeros_like(data)
        self.refresh()

    def refresh(self) -> None:
        self.model = gaussian_model(self.values, self.side)

    def residual(self) -> np.ndarray:
        return np.where(self.use, self.data - self.model, 0.0)

    def run(self, iterations: int) -> None:
        for _ in range(iterations):
            if not self.open.any():
                return
            self._step(np.nonzero(self.open)[0])

    def _normal(self, k):
        model, slopes = gaussian_model(self.values[k], self.side, gradient=True)
        variance = _variance(model, self.gain[k], self.noise2[k], self.dark[k])
        weight = np.where(self.use[k], 1.0 / variance, 0.0)
        residual = np.where(self.use[k], self.data[k] - model, 0.0)
        count = len(k)
        flat = slopes.reshape(count, 7, -1)
        weighted = flat * weight.reshape(count, 1, -1)
        matrix = np.matmul(weighted, flat.transpose(0, 2, 1))
        gradient = np.matmul(weighted, residual.reshape(count, -1, 1))[:, :, 0]
        return matrix, gradient, weight, residual

    def _step(self, k) -> None:
        matrix, gradient, weight, residual = self._normal(k)
        scale = np.sqrt(np.maximum(np.einsum("nii->ni", matrix), 1e-300))
        scaled = matrix / (scale[:, :, None] * scale[:, None, :])
        scaled = scaled + np.eye(7) * self.damping[k, None, None]
        step = np.linalg.solve(scaled, (gradient / scale)[:, :, None])[:, :, 0] / scale
        trial = self.values[k] + step
        _bound(trial, self.side)
        model = gaussian_model(trial, self.side)
        before = (weight * residual**2).sum(axis=(1, 2))
        after = (weight * np.where(self.use[k], self.data[k] - model, 0.0) ** 2).sum(axis=(1, 2))
        # A little worse is no step back: the weights move too.
        better = after <= before * (1.0 + 1e-9) + 1e-6
        taken = k[better]
        self.values[taken] = trial[better]
        self.model[taken] = model[better]
        self.damping[k] = np.where(better, np.maximum(self.damping[k] * 0.1, 1e-9), self.damping[k] * 10.0)
        small = (np.abs(step) * scale < 1e-3).all(axis=1) & better
        stuck = self.damping[k] > 1e6
        self.open[k[small | stuck]] = False

    def result(self, reason, rejected) -> SpotFits:
        k = np.nonzero(self.alive)[0]
        n = len(self.values)
        covariance = np.full((n, 7, 7), NAN)
        chi2, dof = np.full(n, NAN), np.zeros(n, int)
        if k.size:
            matrix, _, weight, residual = self._normal(k)
            scale = np.sqrt(np.maximum(np.einsum("nii->ni", matrix), 1e-300))
            scaled = matrix / (scale[:, :, None] * scale[:, None, :])
            bad = np.linalg.cond(scaled) > 1e12
            scaled[bad] = np.eye(7)
            covariance[k] = np.linalg.inv(scaled) / (scale[:, :, None] * scale[:, None, :])
            chi2[k] = (weight * residual**2).sum(axis=(1, 2))
            dof[k] = self.use[k].sum(axis=(1, 2)) - 7
            reason[k[bad]] = "parameters cannot be told apart"
        reason[self.open] = "no convergence"
        v = self.values
        for at, text in (
            ((v[:, 0] <= 0) | ~np.isfinite(v[:, 0]), "no light"),
            ((v[:, 3] <= _LEAST_WIDTH) | (v[:, 4] <= _LEAST_WIDTH), "narrower than a pixel can show"),
            ((v[:, 3:5].max(axis=1) >= (self.side / 4) ** 2), "wider than the stamp"),
            ((v[:, 1:3] <= 1) | (v[:, 1:3] >= self.side - 2), "centre at the stamp's edge"),
        ):
            at = at.any(axis=1) if at.ndim == 2 else at
            reason[at & (reason == "")] = text
        failed = reason != ""
        values = np.where(failed[:, None], NAN, v)
        covariance[failed] = NAN
        return SpotFits(values, covariance, chi2, dof, rejected, tuple(map(str, reason)))


def start_values(moments: SpotMoments, background: np.ndarray) -> np.ndarray:
    """Start of `fit_gaussians` from adaptive moments, (n, 7)."""
    return np.stack(
        [
            moments.flux,
            moments.x,
            moments.y,
            np.maximum(moments.xx, 0.1),
            np.maximum(moments.yy, 0.1),
            moments.xy,
            background,
        ],
        axis=1,
    )


def corrected(
    stamps: np.ndarray, good: np.ndarray, level: np.ndarray, gain: float, corrector, passes: int = 3
):
    """Stamps as the light made them: the brighter-fatter effect taken back, charge kept.

    Parameters
    ----------
    stamps, good : ndarray (n, s, s)
        ADU above offset; pixels that are not good take the level beside the spot.
    level : ndarray (n,)
        ADU, beside each spot.
    gain : e-/ADU
    corrector : `calcamp.analysis.brighter_fatter.Corrector` of the stamps' shape
        The kernel is the same in any orientation, as its mirror images are itself.
    """
    filled = np.where(good & np.isfinite(stamps), stamps, level[:, None, None])
    out = [
        corrector.correct(gain * (image - low), passes) / gain + low
        for image, low in zip(filled, level, strict=True)
    ]
    return np.where(np.isfinite(stamps), np.array(out, float).reshape(stamps.shape), np.nan)


def residual_trails(
    stamps, good, fits: SpotFits, gain, noise, dark, near: float = 0.5, far: float = 3.5, half: float = 2.5
) -> dict:
    """Asymmetry of what the fit leaves: light on the high side of each axis less that on the low side, over the flux.

    Bands from `near` to `far` px on either side of the centre, `half` px wide to each side across. A deferred
    charge shows as a trail along the read-out. Returns x, y (along the columns axis, along the rows axis) and errors.
    """
    side = stamps.shape[1]
    values = np.where(np.isfinite(fits.values), fits.values, 1.0)
    model = gaussian_model(values, side)
    at = np.arange(side, dtype=float)
    dx = at[None, None, :] - values[:, 1, None, None]
    dy = at[None, :, None] - values[:, 2, None, None]
    rest = np.where(good, stamps - model, 0.0)
    variance = _variance(
        model,
        np.asarray(gain, float)[:, None, None],
        np.square(np.nan_to_num(noise, nan=1.3))[:, None, None] + ROUNDING,
        np.nan_to_num(dark)[:, None, None],
    )
    out = {}
    for name, along, across in (("x", dx, dy), ("y", dy, dx)):
        band = (np.abs(across) <= half) & (np.abs(along) >= near) & (np.abs(along) <= far) & good
        out[name] = (np.sign(along) * band * rest).sum(axis=(1, 2)) / fits.get("flux")
        out[f"{name}_err"] = np.sqrt((band * variance).sum(axis=(1, 2))) / fits.get("flux")
    return out
