"""What spots tell: best focus, brightness, growth with fluence, and the detector's part of their size."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace

import numpy as np

from calcamp.analysis.spots import FWHM
from calcamp.analysis.statistics import about, fit_linear

NAN = float("nan")


# ---- focus -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class FocusCurve:
    """Size of one spot against mirror position: S = S0 + k² (z - z0)², S = sigma²."""

    focus: float = field(metadata=about("mm", "z0, mirror position of least size"))
    focus_err: float = field(metadata=about("mm", ""))
    size: float = field(metadata=about("px^2", "S0"))
    size_err: float = field(metadata=about("px^2", ""))
    slope: float = field(metadata=about("px/mm", "k, sigma per mm far from focus"))
    slope_err: float = field(metadata=about("px/mm", ""))
    chi2_dof: float = field(metadata=about("1", ""))
    n: int = field(metadata=about("1", "positions used"))
    reason: str = field(default="", metadata=about("", "why it is no focus, empty when it is"))

    @property
    def fwhm(self) -> float:
        """px, at best focus."""
        return FWHM * math.sqrt(self.size) if self.size > 0 else NAN

    @property
    def fwhm_err(self) -> float:
        return FWHM**2 * self.size_err / (2.0 * self.fwhm) if self.size > 0 else NAN

    def at(self, z):
        """S, px², at mirror position `z`."""
        return self.size + self.slope**2 * (np.asarray(z, float) - self.focus) ** 2


def fit_focus(z: np.ndarray, size: np.ndarray, err: np.ndarray, sigma: float | None = 6.0) -> FocusCurve:
    """Fit the size squared of a spot against mirror position.

    Defocus adds a blur in proportion to the distance from focus, and blurs add in quadrature: the square of
    the size is a parabola, exactly for Gaussians, and the width a hyperbola. Errors are enlarged
    where chi2 says that they are too small (`honest`).

    Parameters
    ----------
    z : mm
    size, err : px², mean of the variances of the two axes (or of one) and its standard error.
    """
    z, size, err = (np.asarray(v, float) for v in (z, size, err))
    good = np.isfinite(z) & np.isfinite(size) & np.isfinite(err) & (err > 0)
    nothing = FocusCurve(NAN, NAN, NAN, NAN, NAN, NAN, NAN, int(good.sum()))
    if len(np.unique(z[good])) < 4:
        return _without(nothing, f"{len(np.unique(z[good]))} mirror positions, at least 4 needed")
    middle = float(np.average(z[good]))
    t = z - middle
    fit = honest(fit_linear(np.column_stack([np.ones_like(t), t, t * t]), size, err, sigma=sigma))
    if fit.reason:
        return _without(nothing, fit.reason)
    a, b, c = fit.parameters
    if c <= 0 or c < 3 * math.sqrt(fit.covariance[2, 2]):
        return _without(nothing, "no minimum: the size does not grow to both sides")
    t0 = -b / (2 * c)
    gradient_t0 = np.array([0.0, -1 / (2 * c), b / (2 * c * c)])
    gradient_s0 = np.array([1.0, -b / (2 * c), b * b / (4 * c * c)])
    s0 = a - b * b / (4 * c)
    curve = FocusCurve(
        middle + t0,
        math.sqrt(gradient_t0 @ fit.covariance @ gradient_t0),
        s0,
        math.sqrt(gradient_s0 @ fit.covariance @ gradient_s0),
        math.sqrt(c),
        math.sqrt(fit.covariance[2, 2]) / (2 * math.sqrt(c)),
        fit.chi2 / fit.dof if fit.dof > 0 else NAN,
        fit.n,
    )
    if not z[good].min() <= curve.focus <= z[good].max():
        return _without(curve, "the minimum lies outside the scan")
    if s0 <= 0:
        return _without(curve, "size below zero at the minimum")
    return curve


def honest(fit):
    """A fit whose errors are multiplied by sqrt(chi2/dof), where chi2 is beyond its 99 % point.

    Scaling wherever chi2/dof is above 1 would make errors of few points too large by a tenth on average.
    """
    if fit.reason or fit.dof <= 0:
        return fit
    spread = 2.0 / (9.0 * fit.dof)
    largest = fit.dof * (1.0 - spread + 2.326 * math.sqrt(spread)) ** 3  # Wilson and Hilferty 1931
    if fit.chi2 <= largest:
        return fit
    return replace(fit, covariance=fit.covariance * (fit.chi2 / fit.dof))


def _without(curve: FocusCurve, reason: str) -> FocusCurve:
    values = {name: getattr(curve, name) for name in curve.__dataclass_fields__}
    return FocusCurve(**{**values, "reason": reason})


def parabola_vison(z: np.ndarray, width: np.ndarray) -> tuple[float, float]:
    """(best position, width there) of an unweighted parabola in the width: the predecessor's estimator."""
    z, width = np.asarray(z, float), np.asarray(width, float)
    good = np.isfinite(z) & np.isfinite(width) & (width > 0)
    if len(np.unique(z[good])) < 3:
        return NAN, NAN
    middle = z[good].mean()
    c, b, a = np.polyfit(z[good] - middle, width[good], 2)
    return (middle - b / (2 * c), a - b * b / (4 * c)) if c > 0 else (NAN, NAN)


@dataclass(frozen=True)
class Surface:
    """Best focus over a CCD: value at its centre, tilt, curvature."""

    value: float = field(metadata=about("mm", "of the plane at the CCD's centre"))
    err: float = field(metadata=about("mm", ""))
    tilt_x: float = field(metadata=about("mm/kpx", "along FITS x, per 1000 px"))
    tilt_x_err: float = field(metadata=about("mm/kpx", ""))
    tilt_y: float = field(metadata=about("mm/kpx", ""))
    tilt_y_err: float = field(metadata=about("mm/kpx", ""))
    curvature: float = field(
        metadata=about("mm/kpx^2", "factor of the distance² from the centre, fitted beside")
    )
    curvature_err: float = field(metadata=about("mm/kpx^2", ""))
    scatter: float = field(metadata=about("mm", "of spots about the plane beyond their errors"))
    chi2_dof: float = field(metadata=about("1", "of the plane with the spots' own errors"))
    n: int = field(metadata=about("1", "spots used"))
    reason: str = field(default="", metadata=about("", "why there is none"))


def fit_surface(x, y, value, err, centre, clip: float = 4.0) -> Surface:
    """Plane through the spots' best positions, with the scatter that their errors do not explain.

    The scatter is found so that chi2 equals its expectation (Paule & Mandel 1982) and added to the errors in
    quadrature: without it the error of the plane would be that of a field without structure.

    Parameters
    ----------
    x, y : px, silicon; `centre` (x, y) of the CCD.
    value, err : mm.
    """
    x, y, value, err = (np.asarray(v, float) for v in (x, y, value, err))
    u, v = (x - centre[0]) / 1000.0, (y - centre[1]) / 1000.0
    good = np.isfinite(u) & np.isfinite(v) & np.isfinite(value) & np.isfinite(err) & (err > 0)
    nothing = Surface(*(NAN,) * 10, int(good.sum()))
    if good.sum() < 4:
        return Surface(
            *(NAN,) * 10, int(good.sum()), f"{int(good.sum())} spots with a focus, at least 4 needed"
        )
    # Outliers first, judged by their scatter about a robust plane.
    plane = np.column_stack([np.ones_like(u), u, v])
    first = fit_linear(plane[good], value[good], None, sigma=clip)
    if first.reason:
        return _with_reason(nothing, first.reason)
    keep = np.nonzero(good)[0][first.used]
    design, data, own = plane[keep], value[keep], err[keep]
    scatter = _extra_scatter(design, data, own)
    fit = fit_linear(design, data, np.hypot(own, scatter), sigma=None)
    own_fit = fit_linear(design, data, own, sigma=None)
    if fit.reason:
        return _with_reason(nothing, fit.reason)
    curvature = curvature_err = NAN
    radius2 = (u**2 + v**2)[keep]
    if len(keep) >= 6:
        bent = fit_linear(np.column_stack([design, radius2]), data, np.hypot(own, scatter), sigma=None)
        if not bent.reason:
            curvature, curvature_err = float(bent.parameters[3]), math.sqrt(bent.covariance[3, 3])
    errors = np.sqrt(np.diag(fit.covariance))
    p = fit.parameters
    return Surface(
        float(p[0]), float(errors[0]), float(p[1]), float(errors[1]), float(p[2]), float(errors[2]),
        curvature, curvature_err, scatter,
        own_fit.chi2 / own_fit.dof if own_fit.dof > 0 else NAN, len(keep),
    )  # fmt: skip


def _with_reason(surface: Surface, reason: str) -> Surface:
    values = {name: getattr(surface, name) for name in surface.__dataclass_fields__}
    return Surface(**{**values, "reason": reason})


def _extra_scatter(design: np.ndarray, data: np.ndarray, err: np.ndarray) -> float:
    """Scatter that brings chi2 of a linear fit to its degrees of freedom; 0 when the errors suffice."""
    dof = len(data) - design.shape[1]
    if dof <= 0:
        return 0.0

    def excess(tau: float) -> float:
        sigma = np.hypot(err, tau)
        x, y = design / sigma[:, None], data / sigma
        rest = y - x @ np.linalg.solve(x.T @ x, x.T @ y)
        return float(rest @ rest) - dof

    if excess(0.0) <= 0:
        return 0.0
    low, high = 0.0, float(np.std(data)) + float(err.max())
    for _ in range(60):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if excess(middle) > 0 else (low, middle)
    return 0.5 * (low + high)


def mean_with_scatter(values, errors) -> tuple[float, float, float, int]:
    """(weighted mean, its error, scatter beyond the errors, n) of values that may differ truly."""
    values, errors = np.asarray(values, float), np.asarray(errors, float)
    good = np.isfinite(values) & np.isfinite(errors) & (errors > 0)
    n = int(good.sum())
    if n == 0:
        return NAN, NAN, NAN, 0
    if n == 1:
        return float(values[good][0]), float(errors[good][0]), NAN, 1
    ones = np.ones((n, 1))
    scatter = _extra_scatter(ones, values[good], errors[good])
    fit = fit_linear(ones, values[good], np.hypot(errors[good], scatter), sigma=None)
    return float(fit.parameters[0]), math.sqrt(fit.covariance[0, 0]), scatter, n


@dataclass(frozen=True)
class Widths:
    """Widths of the spots of a CCD at one mirror position."""

    fwhm: float = field(metadata=about("px", "mean over the spots of the FWHM on their curves"))
    err: float = field(metadata=about("px", ""))
    scatter: float = field(metadata=about("px", "from spot to spot, beyond errors"))
    n: int = field(metadata=about("1", "spots"))


def widths_at(curves: list[FocusCurve], z: float, z_err: float = 0.0) -> Widths:
    """Mean FWHM of spots when the mirror is at `z`.

    The error is that of the mean over these spots: they are what is there, so what they truly differ by is
    given beside it and is no error.
    """
    width, err = [], []
    for curve in curves:
        if curve.reason or not curve.size > 0:
            continue
        size = float(curve.at(z))
        away = z - curve.focus
        variance = curve.size_err**2 + (2 * curve.slope**2 * away) ** 2 * (curve.focus_err**2 + z_err**2)
        variance += (2 * curve.slope * away**2 * curve.slope_err) ** 2
        # second order of the error in z: at the minimum there is no first
        variance += 2 * (curve.slope * z_err) ** 4
        width.append(FWHM * math.sqrt(size))
        err.append(FWHM * math.sqrt(variance) / (2 * math.sqrt(size)))
    if not width:
        return Widths(NAN, NAN, NAN, 0)
    _, _, scatter, n = mean_with_scatter(width, err)
    error = math.sqrt(sum(e * e for e in err)) / n
    return Widths(float(np.mean(width)), error, scatter, n)


def depth_of_focus(fwhm: float, slope: float, growth: float = 0.05) -> float:
    """mm to each side of best focus until the FWHM has grown by `growth`."""
    if not (fwhm > 0 and slope > 0):
        return NAN
    return fwhm / FWHM * math.sqrt((1 + growth) ** 2 - 1) / slope


# ---- brightness -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Rate:
    """Signal of a spot against exposure time: signal = rate (t + t0)."""

    rate: float = field(metadata=about("ADU/s", ""))
    rate_err: float = field(metadata=about("ADU/s", ""))
    offset: float = field(metadata=about("s", "t0, exposure beyond the commanded time; NaN when not fitted"))
    offset_err: float = field(metadata=about("s", ""))
    saturation: float = field(metadata=about("s", "commanded time at which the signal reaches the level"))
    saturation_err: float = field(metadata=about("s", ""))
    chi2_dof: float = field(metadata=about("1", ""))
    n: int = field(metadata=about("1", "exposures used"))
    reason: str = field(default="", metadata=about("", ""))


def fit_rate(time, signal, err, level: float, shared: float = 0.0) -> Rate:
    """Straight line of signal against exposure time, and when it reaches `level`.

    Parameters
    ----------
    time : s
    signal, err : ADU; frames that saturate are not given.
    shared : float
        Relative jitter of the exposure (shutter, lamp) added to the errors in quadrature.
    """
    time, signal, err = (np.asarray(v, float) for v in (time, signal, err))
    err = np.hypot(err, shared * np.abs(signal))
    good = np.isfinite(time) & np.isfinite(signal) & np.isfinite(err) & (err > 0)
    times = len(np.unique(time[good]))
    nothing = (NAN,) * 7
    if times == 0:
        return Rate(*nothing, 0, "no usable exposure")
    line = times >= 3
    design = np.column_stack([time, np.ones_like(time)]) if line else time[:, None]
    fit = honest(fit_linear(design, signal, err, sigma=6.0))
    if fit.reason or not fit.parameters[0] > 0:
        return Rate(*nothing, int(good.sum()), fit.reason or "the signal does not grow")
    rate = float(fit.parameters[0])
    covariance = fit.covariance
    if line:
        constant = float(fit.parameters[1])
        offset = constant / rate
        g = np.array([-constant / rate**2, 1 / rate])
        offset_err = math.sqrt(g @ covariance @ g)
        saturation = (level - constant) / rate
        g = np.array([-(level - constant) / rate**2, -1 / rate])
        saturation_err = math.sqrt(g @ covariance @ g)
    else:
        offset = offset_err = NAN
        saturation, saturation_err = level / rate, level / rate**2 * math.sqrt(covariance[0, 0])
    chi2 = fit.chi2 / fit.dof if fit.dof > 0 else NAN
    return Rate(
        rate, math.sqrt(covariance[0, 0]), offset, offset_err, saturation, saturation_err, chi2, fit.n
    )


# ---- size against fluence ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Growth:
    """Width of a spot against its peak: width = reference + slope (peak - pivot)."""

    slope: float = field(metadata=about("px/10kADU", ""))
    slope_err: float = field(metadata=about("px/10kADU", ""))
    width: float = field(metadata=about("px", "at the pivot"))
    width_err: float = field(metadata=about("px", ""))
    zero: float = field(metadata=about("px", "at zero signal"))
    zero_err: float = field(metadata=about("px", ""))
    chi2_dof: float = field(metadata=about("1", ""))
    n: int = field(metadata=about("1", "points used"))
    reason: str = field(default="", metadata=about("", ""))


def fit_growth(peak, width, err, pivot: float = 32768.0) -> Growth:
    """Weighted robust line of width (px) against peak (ADU); slope per 10 kADU, as the predecessor's."""
    peak, width, err = (np.asarray(v, float) for v in (peak, width, err))
    u = (peak - pivot) / 1e4
    good = np.isfinite(u) & np.isfinite(width) & np.isfinite(err) & (err > 0)
    if good.sum() < 6 or np.ptp(u[good]) < 1.0:
        return Growth(*(NAN,) * 7, int(good.sum()), "too few points, or all at one level")
    fit = honest(fit_linear(np.column_stack([np.ones_like(u), u]), width, err, sigma=5.0))
    if fit.reason:
        return Growth(*(NAN,) * 7, int(good.sum()), fit.reason)
    errors = np.sqrt(np.diag(fit.covariance))
    at_zero = np.array([1.0, -pivot / 1e4])
    return Growth(
        float(fit.parameters[1]),
        float(errors[1]),
        float(fit.parameters[0]),
        float(errors[0]),
        float(at_zero @ fit.parameters),
        math.sqrt(at_zero @ fit.covariance @ at_zero),
        fit.chi2 / fit.dof if fit.dof > 0 else NAN,
        fit.n,
    )


@dataclass(frozen=True)
class Kernel:
    """The detector's part of the width of spots."""

    fwhm: float = field(metadata=about("px", "total minus optics in quadrature, or a 95 % upper limit"))
    err: float = field(metadata=about("px", "NaN for a limit"))
    is_limit: bool = field(metadata=about("", ""))
    upper95: float = field(metadata=about("px", "one-sided 95 % upper limit"))


def kernel(total: float, total_err: float, optics: float | None, optics_err: float = 0.0) -> Kernel:
    """FWHM of the detector's kernel: sqrt(total² - optics²); without figures of the optics an upper limit.

    What is compatible with zero at 2 sigma is given as an upper limit too.
    """
    if not math.isfinite(total):
        return Kernel(NAN, NAN, False, NAN)
    square = total**2 - (optics or 0.0) ** 2
    square_err = 2 * math.hypot(total * total_err, (optics or 0.0) * optics_err)
    upper = math.sqrt(max(square, 0.0) + 1.645 * square_err)
    if optics is None or square < 2 * square_err:
        return Kernel(upper, NAN, True, upper)
    width = math.sqrt(square)
    return Kernel(width, square_err / (2 * width), False, upper)
