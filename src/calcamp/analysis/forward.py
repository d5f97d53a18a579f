"""Forward model of a spot at several levels: diffraction, Gaussian blur that grows with the signal, pixels.

A real spot is a diffraction pattern blurred by the optics and by the diffusion of charge. The two Gaussians
cannot be told apart by one mirror position, so one blur is fitted, linear in the signal as the
brighter-fatter effect makes it: sigma² = blur² + growth F. Centre, flux and level of each stamp and the blur of
each level are found by scoring; the width of the diffraction pattern is scanned, and the posterior over it summed
with flat priors (the other parameters are normal to good accuracy, so nothing need be drawn at random).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np

from calcamp.analysis.spots import FWHM
from calcamp.analysis.statistics import ROUNDING, about, fit_linear

NAN = float("nan")
_OVER = 3
_AIRY = 1.02899  # FWHM of the Airy pattern over wavelength times focal ratio


@lru_cache(maxsize=4)
def _grid(side: int):
    """(pixels of the grid, frequencies along y, along x, the pixel's transfer along y, along x).

    Images are real: of the frequencies along x only those that fold onto the first half are needed.
    """
    # The light of a diffraction pattern reaches far: what a small grid would fold back makes it 0.003 px too wide.
    size = 2 ** math.ceil(math.log2(2.5 * side))
    fy = np.fft.fftfreq(size * _OVER, d=1.0 / _OVER)
    fx = fy.reshape(_OVER, size)[:, : size // 2 + 1].ravel()
    return size, fy, fx, np.sinc(fy), np.sinc(fx)


def _transfer(airy: float, side: int) -> np.ndarray:
    """Modulation transfer of a round pupil; 1 everywhere for a pattern of no width."""
    _, fy, fx, _, _ = _grid(side)
    if airy <= 0:
        return np.ones((fy.size, fx.size))
    s = np.clip(np.hypot(fy[:, None], fx[None, :]) * airy / _AIRY, 0.0, 1.0)
    return 2.0 / np.pi * (np.arccos(s) - s * np.sqrt(1.0 - s * s))


def _images(transfer, x: float, y: float, variance: float, side: int) -> np.ndarray:
    """(4, s, s): image of unit flux, and its derivatives by x, y and variance."""
    size, fy, fx, pixel_y, pixel_x = _grid(side)
    line_x = np.exp(-2.0 * np.pi**2 * variance * fx**2 - 2j * np.pi * fx * x) * pixel_x
    line_y = np.exp(-2.0 * np.pi**2 * variance * fy**2 - 2j * np.pi * fy * y) * pixel_y

    def folded(along_y, along_x):
        part = transfer * along_x[None, :]
        part *= along_y[:, None]
        return part.reshape(_OVER, size, _OVER, -1).sum(axis=(0, 2))

    curve_x, curve_y = -2.0 * np.pi**2 * fx**2, -2.0 * np.pi**2 * fy**2
    spectra = np.array(
        [
            folded(line_y, line_x),
            folded(line_y, -2j * np.pi * fx * line_x),
            folded(-2j * np.pi * fy * line_y, line_x),
            folded(curve_y * line_y, line_x) + folded(line_y, curve_x * line_x),
        ]
    )
    return np.fft.irfft2(spectra, s=(size, size))[:, :side, :side]


@dataclass(frozen=True)
class Posterior:
    """What the stamps of a spot say about its shape."""

    airy: float = field(metadata=about("px", "FWHM of the diffraction pattern, posterior mean"))
    airy_err: float = field(metadata=about("px", "posterior standard deviation"))
    blur: float = field(metadata=about("px", "FWHM of the Gaussian blur at no signal"))
    blur_err: float = field(metadata=about("px", ""))
    growth: float = field(
        metadata=about(
            "px^2/10kADU", "of the blur's sigma² per peak signal, were the spot centred on a pixel"
        )
    )
    growth_err: float = field(metadata=about("px^2/10kADU", ""))
    chi2_dof: float = field(metadata=about("1", "at the best width"))
    worst: float = field(metadata=about("1", "largest residual over its error"))
    n: int = field(metadata=about("1", "stamps"))
    reason: str = field(default="", metadata=about("", "why there is none, or that it is poor"))


def fit_spot(
    stamps: np.ndarray,
    good: np.ndarray,
    start: np.ndarray,
    gain: float,
    noise: float,
    widths=None,
) -> Posterior:
    """Posterior of diffraction width, blur and growth of one spot.

    Parameters
    ----------
    stamps, good : ndarray (n, s, s)
        ADU above offset, at several levels.
    start : ndarray (n, 5)
        flux, x, y, variance (px²), level of each stamp.
    widths : sequence of float
        Grid of the diffraction pattern's FWHM, px.
    """
    widths = np.linspace(0.0, 1.8, 7) if widths is None else np.asarray(widths, float)
    n = len(stamps)
    if n < 3:
        return Posterior(*(NAN,) * 8, n, f"{n} stamps, at least 3 needed")
    for _ in range(3):
        rows = []
        for width in widths:
            rows.append(_at_width(stamps, good, start, width, gain, noise))
            start = rows[-1]["values"]  # of the neighbour on the grid: near
        chi2 = np.array([r["chi2"] for r in rows])
        if not np.isfinite(chi2).all():
            return Posterior(*(NAN,) * 8, n, "no fit at some width")
        finer = _closer(widths, chi2)
        if finer is None:
            break
        widths = finer
    log = -0.5 * (chi2 - np.nanmin(chi2)) + 0.5 * np.log([max(r["volume"], 1e-300) for r in rows])
    weight = np.where(np.isfinite(log), np.exp(log - np.nanmax(log)), 0.0)
    weight, fine = _refined(widths, weight)
    airy = float(weight @ fine)
    airy_err = math.sqrt(max(float(weight @ (fine - airy) ** 2), 0.0) + (fine[1] - fine[0]) ** 2 / 12)

    def mixed(name: str, err: str) -> tuple[float, float]:
        value = np.interp(fine, widths, [r[name] for r in rows])
        spread = np.interp(fine, widths, [r[err] for r in rows])
        mean = float(weight @ value)
        return mean, math.sqrt(max(float(weight @ (spread**2 + (value - mean) ** 2)), 0.0))

    square, square_err = mixed("a", "a_err")
    growth, growth_err = mixed("b", "b_err")
    best = rows[int(np.nanargmin(chi2))]
    blur = FWHM * math.sqrt(square) if square > 0 else NAN
    chi2_dof = best["chi2"] / max(best["dof"], 1)
    poor = "poor fit" if chi2_dof > 4 or best["worst"] > 10 else ""
    return Posterior(
        airy,
        airy_err,
        blur,
        FWHM**2 * square_err / (2 * blur) if square > 0 else NAN,
        growth,
        growth_err,
        chi2_dof,
        best["worst"],
        n,
        (poor or _at_bound(airy, airy_err)) if square > 0 else "no blur is left",
    )


def _at_bound(airy: float, err: float) -> str:
    """Near the bound of the prior mean and deviation say little: the width is an upper limit."""
    return f"no diffraction seen, below {airy + 1.645 * err:.2g} px" if airy < 2.0 * err else ""


def _at_width(stamps, good, start, width: float, gain: float, noise: float) -> dict:
    transfer = _transfer(width, stamps.shape[1])
    made = [_fit_stamp(stamps[k], good[k], start[k], transfer, gain, noise) for k in range(len(stamps))]
    fitted = np.array([m["values"] for m in made])
    return {**_line(made), "values": np.where(np.isfinite(fitted).all(axis=1)[:, None], fitted, start)}


def _closer(widths: np.ndarray, chi2: np.ndarray) -> np.ndarray | None:
    """A grid of four errors to each side of the minimum, None when this one is fine enough."""
    best = int(np.argmin(chi2))
    k = min(max(best, 1), len(widths) - 2)
    c = np.polyfit(widths[k - 1 : k + 2] - widths[k], chi2[k - 1 : k + 2], 2)
    if c[0] <= 0:
        return None
    err = 1.0 / math.sqrt(c[0])
    if widths[1] - widths[0] <= 1.5 * err:
        return None
    middle = widths[k] - c[1] / (2 * c[0])
    # the parabola of a coarse grid is rough: leave room
    half = max(4.0 * err, 0.35 * (widths[1] - widths[0]))
    low = max(middle - half, 0.0)
    return np.linspace(low, max(middle + half, low + 2 * half), 7)


def _refined(widths: np.ndarray, weight: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(weights, widths) of the posterior on a finer grid: its logarithm is smooth."""
    fine = np.linspace(widths[0], widths[-1], 20 * (len(widths) - 1) + 1)
    log = np.interp(fine, widths, np.log(np.maximum(weight, 1e-200)))
    peak = int(np.argmax(weight))
    if 0 < peak < len(widths) - 1:
        # a parabola through the three highest: straight pieces would cut the top off
        near = slice(peak - 1, peak + 2)
        c = np.polyfit(widths[near], np.log(np.maximum(weight[near], 1e-200)), 2)
        inside = (fine >= widths[peak - 1]) & (fine <= widths[peak + 1])
        log = np.where(inside, np.polyval(c, fine), log)
    out = np.exp(log - log.max())
    return out / out.sum(), fine


def _fit_stamp(stamp, good, start, transfer, gain: float, noise: float, iterations: int = 25) -> dict:
    """Scoring fit of flux, centre, variance and level; variance and its error, chi2."""
    values = np.array(start, float)
    side = stamp.shape[0]
    use = good & np.isfinite(stamp)
    data = np.where(use, stamp, 0.0)
    for _ in range(iterations):
        image, dx, dy, dv = _images(transfer, values[1], values[2], values[3], side)
        model = values[0] * image + values[4]
        variance = np.maximum(model, 0.0) / gain + noise**2 + ROUNDING
        weight = np.where(use, 1.0 / variance, 0.0)
        slopes = np.stack(
            [image, values[0] * dx, values[0] * dy, values[0] * dv, np.ones_like(image)]
        ).reshape(5, -1)
        matrix = (slopes * weight.reshape(-1)) @ slopes.T
        residual = data - model
        try:
            covariance = np.linalg.inv(matrix)
        except np.linalg.LinAlgError:
            return {
                "values": start,
                **dict.fromkeys(("variance", "err", "chi2", "worst", "peak"), NAN),
                "dof": 0,
            }
        step = covariance @ (slopes @ (weight * residual).reshape(-1))
        values = values + step
        values[3] = min(max(values[3], 1e-3), 25.0)
        if (np.abs(step) < 1e-3 * np.sqrt(np.diag(covariance))).all():
            break
    chi2 = float((weight * residual**2).sum())
    # The blur grows with the charge, not with where the spot falls on the pixels.
    centred = _images(transfer, side // 2, side // 2, values[3], side)[0].max()
    return {
        "values": values,
        "variance": values[3],
        "err": math.sqrt(covariance[3, 3]),
        "chi2": chi2,
        "dof": int(use.sum()) - 5,
        "worst": float(np.sqrt((weight * residual**2).max())),
        "peak": values[0] * float(centred),
    }


def _line(made: list[dict]) -> dict:
    """Line of the stamps' variances against their peaks, and the total chi2."""
    variance, err = np.array([m["variance"] for m in made]), np.array([m["err"] for m in made])
    peak = np.array([m["peak"] for m in made]) / 1e4
    fit = fit_linear(np.column_stack([np.ones_like(peak), peak]), variance, err, sigma=None)
    nothing = dict.fromkeys(("a", "a_err", "b", "b_err", "chi2", "volume", "worst"), NAN)
    if fit.reason or not np.isfinite([m["chi2"] for m in made]).all():
        return {**nothing, "dof": 0}
    e = np.sqrt(np.diag(fit.covariance))
    return {
        "a": float(fit.parameters[0]),
        "a_err": float(e[0]),
        "b": float(fit.parameters[1]),
        "b_err": float(e[1]),
        "chi2": float(sum(m["chi2"] for m in made) + fit.chi2),
        "dof": sum(m["dof"] for m in made) + fit.dof,
        "volume": float(np.linalg.det(fit.covariance)) ** 0.5,
        "worst": max(m["worst"] for m in made),
    }
