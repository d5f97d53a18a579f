"""Integral non-linearity: one fit of all channels, filters, exposures; lamp, shutter and background among the unknowns.

Model of a measured mean signal y of channel c in exposure e (analysis of flats, 4.4):

    y - S_c(y) = k_cf (1 + lamp(time) + l_e) (t_e + t0) + b_c

S is a cubic spline through its values at knots, S(0) = 0 and S(pivot) = 0: the pivot (25 % FDR) is the gauge in which
the gain is quoted too. The lamp's slow track is a polynomial, l_e its jitter, common to all channels.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from calcamp.analysis.splines import spline_matrix
from calcamp.analysis.statistics import NAN, about

FDR = 65536.0  # ADU above offset
PIVOT = 0.25  # FDR
#: Places of tiles about the mean of a quadrant, rms 1: the illumination is about a bowl.
SIX_NODES = np.array([-1.5, -0.9, -0.3, 0.3, 0.9, 1.5]) / math.sqrt(1.05)
#: Places of knots, FDR; those without a level near them are left out.
KNOTS = (0.005, 0.01, 0.02, 0.04, 0.08, 0.15, 0.25, 0.4, 0.55, 0.7, 0.8, 0.9, 1.0)


#: Relative error of a channel's signal beside photon noise and what repeats show: a spline follows a response no better.
CHANNEL_FLOOR = 7e-6


@dataclass(frozen=True)
class Correction:
    """Correction of non-linearity as a table: linear = y - S(y)."""

    signal: np.ndarray = field(metadata=about("ADU", "measured signal, rising from 0"))
    value: np.ndarray = field(metadata=about("ADU", "S"))
    err: np.ndarray = field(metadata=about("ADU", "standard error of S"))
    knots: np.ndarray = field(
        default_factory=lambda: np.zeros(0),
        metadata=about("ADU", "of the spline; none: errors hang together"),
    )
    covariance: np.ndarray = field(
        default_factory=lambda: np.zeros((0, 0)), metadata=about("ADU²", "of S at the knots")
    )

    @classmethod
    def from_rows(
        cls, rows: Sequence[Mapping], knots: np.ndarray | None = None, covariance: np.ndarray | None = None
    ) -> Correction | None:
        """From rows with signal, correction, correction_err; None without any. Knots and covariance of S there."""
        if not rows:
            return None
        array = np.array([[float(r[n]) for n in ("signal", "correction", "correction_err")] for r in rows])
        array = array[np.argsort(array[:, 0])]
        if not np.isfinite(array[:, 1]).all():
            return None
        known = () if knots is None or covariance is None else (np.asarray(knots), np.asarray(covariance))
        return cls(*array.T, *known)

    def directions(
        self, linear: np.ndarray, spread: np.ndarray | float = 0.0
    ) -> tuple[np.ndarray, np.ndarray]:
        """What one standard error of S does to signals and variances, along the axes of its covariance.

        Parameters
        ----------
        linear : ndarray, shape (points,)
            Corrected mean signals, ADU.
        spread : ndarray or float
            Relative rms of the illumination about each of them.

        Returns
        -------
        shift : ndarray, shape (axes, points)
            Change of the corrected signal, ADU: -S.
        stretch : ndarray, shape (axes, points)
            Relative change of variances and covariances: those of corrected pixels are (1 - dS/dy)² of the
            measured ones. The axes are independent of each other; there is none without a covariance.
        """
        linear = np.asarray(linear, float)
        if not len(self.knots):
            return np.zeros((0, len(linear))), np.zeros((0, len(linear)))
        size, axes = np.linalg.eigh(self.covariance)
        keep = size > 1e-12 * size[-1]
        axes = axes[:, keep] * np.sqrt(size[keep])
        measured = np.interp(linear, self.signal - self.value, self.signal)
        shift, stretch, total = 0.0, 0.0, 0.0
        for x in SIX_NODES:
            y = measured * (1.0 + np.asarray(spread) * x)
            step = 0.002 * y + 1.0
            slope = np.gradient(self.value, self.signal)
            basis = spline_basis(y, self.knots)
            derivative = (spline_basis(y + step, self.knots) - spline_basis(y - step, self.knots)) / (
                2 * step[:, None]
            )
            shift = shift - basis @ axes
            # the variance of a place goes with its signal
            weight = 1.0 + np.asarray(spread) * x
            change = derivative / (1.0 - np.interp(y, self.signal, slope))[:, None]
            stretch = stretch - 2.0 * (change @ axes) * np.broadcast_to(weight, y.shape)[:, None]
            total = total + weight
        return (shift / len(SIX_NODES)).T, (stretch / np.broadcast_to(total, linear.shape)[:, None]).T

    def apply(self, image: np.ndarray) -> np.ndarray:
        """Linear signal of an image, ADU above offset, float32. Beyond the table S keeps its last value."""
        steps = np.arange(0.0, self.signal[-1] + 1.0)
        table = np.interp(steps, self.signal, self.value).astype(np.float32)
        # S changes by far less than 0.01 ADU from one ADU to the next.
        index = np.nan_to_num(np.clip(image + np.float32(0.5), 0, len(table) - 1)).astype(np.int32)
        return image - table[index]


@dataclass(frozen=True)
class Frames:
    """Exposures of a non-linearity test; arrays per exposure, signals per exposure and channel."""

    time: np.ndarray = field(metadata=about("s", "of the exposure since the first, absolute: no wrap"))
    exptime: np.ndarray = field(metadata=about("s", "commanded"))
    group: np.ndarray = field(metadata=about("", "filter: like numbers have one flux"))
    level: np.ndarray = field(metadata=about("", "exposures of one level have one number"))
    signal: np.ndarray = field(metadata=about("ADU", "mean of the channel; NaN where it is not used"))
    err: np.ndarray = field(metadata=about("ADU", "standard error without lamp and shutter"))
    spread: np.ndarray = field(metadata=about("1", "relative rms of the tiles: illumination"))


@dataclass(frozen=True)
class Curve:
    """Non-linearity of one channel."""

    knots: np.ndarray = field(metadata=about("ADU", "measured signal"))
    value: np.ndarray = field(metadata=about("ADU", "S at the knots"))
    covariance: np.ndarray = field(metadata=about("ADU²", "of the values"))
    valid: tuple[float, float] = field(metadata=about("ADU", "range of the levels used"))
    background: float = field(metadata=about("ADU", "b"))
    background_err: float = field(metadata=about("ADU", "standard error"))
    flux: dict = field(metadata=about("ADU/s", "k per filter: (value, error)"))
    residual_rms: float = field(metadata=about("%", "of the means of the levels from 1 % FDR on"))
    residual_max: float = field(metadata=about("%", "largest, signed"))
    n: int = field(metadata=about("1", "exposures used"))
    flag: str = field(default="", metadata=about("", "why there is no curve, or what is odd"))

    def at(self, signal: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(S, standard error) at measured signals, ADU; NaN outside the valid range but for 0 to its start."""
        signal = np.asarray(signal, float)
        if not len(self.knots):
            return np.full(signal.shape, NAN), np.full(signal.shape, NAN)
        basis = spline_basis(signal, self.knots)
        value = basis @ self.value
        err = np.sqrt(np.maximum(np.einsum("...i,ij,...j->...", basis, self.covariance, basis), 0.0))
        outside = signal > self.valid[1] * (1 + 1e-9)
        return np.where(outside, NAN, value), np.where(outside, NAN, err)

    def nonlinearity(self, signal: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(100 (measured - linear)/linear, error), %."""
        value, err = self.at(signal)
        linear = np.asarray(signal, float) - value
        with np.errstate(invalid="ignore", divide="ignore"):
            return 100 * value / linear, 100 * err / linear

    def extreme(self, low: float = 0.01 * FDR) -> tuple[float, float, float]:
        """(signed extreme of the non-linearity in %, its error, where in ADU) from `low` to the end of the range."""
        if not len(self.knots) or self.valid[1] <= low:
            return NAN, NAN, NAN
        grid = np.linspace(max(low, self.valid[0]), self.valid[1], 400)
        z, err = self.nonlinearity(grid)
        k = int(np.nanargmax(np.abs(z)))
        return float(z[k]), float(err[k]), float(grid[k])


@dataclass(frozen=True)
class JointFit:
    """Non-linearity of all channels, and what is common to them."""

    curves: list[Curve] = field(metadata=about("", "per channel"))
    t0: float = field(metadata=about("s", "true minus commanded exposure time"))
    t0_err: float = field(metadata=about("s", "standard error"))
    lamp: np.ndarray = field(metadata=about("1", "of each exposure: track and jitter, 1 on the mean"))
    track: np.ndarray = field(metadata=about("1", "the slow part"))
    lamp_rms: float = field(metadata=about("1", "jitter of the lamp from exposure to exposure"))
    shutter_rms: float = field(metadata=about("s", "jitter of the shutter"))
    residual: np.ndarray = field(metadata=about("%", "of each exposure and channel about the model"))
    linear: np.ndarray = field(metadata=about("ADU", "signal after correction"))
    expected: np.ndarray = field(metadata=about("ADU", "by the model"))
    chi2_dof: float = field(metadata=about("1", "per degree of freedom"))
    overlap: int = field(metadata=about("1", "levels at which two filters meet"))
    flag: str = field(default="", metadata=about("", "empty, or why there is no fit"))


def spline_basis(signal: np.ndarray, knots: np.ndarray) -> np.ndarray:
    """Cubic spline through values at `knots` (0 is one, its value 0): shape (points, knots).

    Without a condition at its ends (not-a-knot): a response is straight neither at 0 nor where the levels end.
    """
    whole = np.concatenate([[0.0], knots])
    signal = np.asarray(signal, float)
    return spline_matrix(whole, np.clip(signal, 0.0, whole[-1]).reshape(-1))[:, 1:].reshape(*signal.shape, -1)


def choose_knots(levels: np.ndarray) -> np.ndarray:
    """Knots (ADU) that levels can carry: the standard places, each with a level of its own near it.

    The last knot is the highest level: nothing is extrapolated.
    """
    levels = np.sort(levels[np.isfinite(levels) & (levels > 0)])
    if len(levels) < 4:
        return np.zeros(0)
    free = list(levels)
    knots = []
    for place in KNOTS:
        x = place * FDR
        if place == PIVOT:
            if levels[0] < x < levels[-1]:
                knots.append(x)
            continue
        near = [v for v in free if abs(math.log(v / x)) < 0.35]
        if near:
            best = min(near, key=lambda v: abs(math.log(v / x)))
            free.remove(best)
            knots.append(min(x, levels[-1]))
    knots = [k for k in knots if k < 0.97 * levels[-1]]
    return np.array([*knots, levels[-1]])


def fit_nonlinearity(
    frames: Frames,
    prior: tuple[float, float] | None = None,
    *,
    track_degree: int = 2,
    lamp_floor: float = 5e-5,
    iterations: int = 8,
) -> JointFit:
    """Fit all channels together.

    Parameters
    ----------
    frames : Frames
        Exposures of time 0 are backgrounds; frames above the turn-off hold NaN.
    prior : (t0, error), s, optional
        From the shutter table.
    track_degree : int
        Of the polynomial in time that follows the lamp.
    lamp_floor : float
        Relative jitter of the lamp, at least.
    """
    signal = frames.signal
    exposures, channels = signal.shape
    lit = frames.exptime > 0
    nothing = np.full(signal.shape, NAN)

    def failed(reason):
        empty = Curve(
            np.zeros(0), np.zeros(0), np.zeros((0, 0)), (NAN, NAN), NAN, NAN, {}, NAN, NAN, 0, reason
        )
        ones = np.full(exposures, NAN)
        return JointFit(
            [empty] * channels, NAN, NAN, ones, ones, NAN, NAN, nothing, nothing, nothing, NAN, 0, reason
        )

    knots = []
    for c in range(channels):
        means = [
            np.nanmean(signal[frames.level == n, c])
            for n in np.unique(frames.level[lit])
            if np.isfinite(signal[frames.level == n, c]).any()
        ]
        found = choose_knots(np.array(means))
        knots.append(found if PIVOT * FDR in found else np.zeros(0))
    able = [c for c in range(channels) if len(knots[c]) >= 4]
    if not able:
        return failed("too few levels about the pivot")
    groups = np.unique(frames.group[lit & np.isfinite(signal[:, able]).any(axis=1)])
    problem = _Problem(frames, knots, able, groups, prior, track_degree)
    jitter, shutter = max(lamp_floor, 2e-4), 1e-4
    theta = problem.start()
    for k in range(iterations):
        theta, normal, chi2, dof = problem.step(theta, jitter, shutter)
        if theta is None:
            return failed("the fit does not converge")
        if k in (1, 3):
            jitter, shutter = problem.scatter(theta, lamp_floor)
            problem.channel = problem.channel_scatter(theta)
    return problem.result(theta, normal, chi2, dof, jitter, shutter)


class _Problem:
    """Design of the joint fit: parameters (S at free knots, ln k, b) per channel, t0, track, jitter per exposure."""

    def __init__(self, frames: Frames, knots, able, groups, prior, degree):
        self.frames, self.knots, self.able, self.groups, self.prior = frames, knots, able, groups, prior
        lit = frames.exptime > 0
        self.lit = lit
        time = frames.time - frames.time[lit].mean()
        span = max(float(np.ptp(frames.time[lit])) / 2, 1.0)
        # Polynomials of zero mean over the lit exposures: the flux k is that of the mean lamp.
        powers = np.stack([(time / span) ** (d + 1) for d in range(degree)], axis=1)
        self.track = np.where(lit[:, None], powers - powers[lit].mean(axis=0), 0.0)
        self.jittered = np.flatnonzero(lit & np.isfinite(frames.signal[:, able]).any(axis=1))
        self.offsets, at = {}, 0
        self.basis, self.free = {}, {}
        for c in able:
            self.free[c] = [k for k, x in enumerate(knots[c]) if x != PIVOT * FDR]
            self.offsets[c] = at
            at += len(self.free[c]) + len(groups) + 1
            self.basis[c] = self._basis(c)
        self.t0_at, self.track_at = at, at + 1
        self.jitter_at = self.track_at + degree
        self.count = self.jitter_at + len(self.jittered)
        self.degree = degree
        self.channel = 2e-5  # relative scatter of a channel from exposure to exposure, until it is measured

    def _basis(self, c):
        """Mean over the tiles of the spline's basis, shape (exposures, free knots)."""
        y = np.nan_to_num(self.frames.signal[:, c])
        spread = np.nan_to_num(self.frames.spread[:, c])
        total = sum(spline_basis(y * (1 + spread * x), self.knots[c]) for x in SIX_NODES) / len(SIX_NODES)
        return total[:, self.free[c]]

    def start(self) -> np.ndarray:
        theta = np.zeros(self.count)
        theta[self.t0_at] = self.prior[0] if self.prior else 0.0
        for c in self.able:
            for g, group in enumerate(self.groups):
                here = self.lit & (self.frames.group == group) & np.isfinite(self.frames.signal[:, c])
                here &= self.frames.signal[:, c] > 0
                if here.any():
                    t = self.frames.exptime[here] + theta[self.t0_at]
                    k = float(np.median(self.frames.signal[here, c] / t))
                    theta[self._k(c, g)] = math.log(max(k, 1e-6))
                else:
                    theta[self._k(c, g)] = NAN
        # A filter that a channel never saw has no flux: a fixed stand-in keeps the matrix regular.
        self.absent = np.isnan(theta)
        return np.nan_to_num(theta)

    def _k(self, c, g) -> int:
        return self.offsets[c] + len(self.free[c]) + g

    def _b(self, c) -> int:
        return self.offsets[c] + len(self.free[c]) + len(self.groups)

    def parts(self, theta, c):
        """(linear signal, photons, flux per s) of a channel in all exposures."""
        f = self.frames
        s = theta[self.offsets[c] : self.offsets[c] + len(self.free[c])]
        linear = f.signal[:, c] - self.basis[c] @ s
        flux = np.zeros(len(f.exptime))
        for g, group in enumerate(self.groups):
            flux[f.group == group] = math.exp(theta[self._k(c, g)])
        lamp = 1.0 + self.track @ theta[self.track_at : self.track_at + self.degree]
        lamp[self.jittered] += theta[self.jitter_at :]
        time = np.where(self.lit, f.exptime + theta[self.t0_at], 0.0)
        return linear, flux * lamp * time, flux * lamp

    def step(self, theta, jitter, shutter):
        f = self.frames
        rows, residuals = [], []
        for c in self.able:
            linear, photons, rate = self.parts(theta, c)
            use = np.isfinite(f.signal[:, c])
            err = np.hypot(f.err[:, c], self.channel * np.abs(f.signal[:, c]))
            block = np.zeros((len(f.exptime), self.count))
            n = len(self.free[c])
            block[:, self.offsets[c] : self.offsets[c] + n] = self.basis[c]
            for g, group in enumerate(self.groups):
                block[f.group == group, self._k(c, g)] = photons[f.group == group]
            block[:, self._b(c)] = 1.0
            block[:, self.t0_at] = np.where(self.lit, rate, 0.0)
            block[:, self.track_at : self.track_at + self.degree] = photons[:, None] * self.track
            block[self.jittered, self.jitter_at + np.arange(len(self.jittered))] = photons[self.jittered]
            residual = linear - photons - theta[self._b(c)]
            rows.append(block[use] / err[use, None])
            residuals.append(residual[use] / err[use])
        matrix, right = np.concatenate(rows), np.concatenate(residuals)
        normal, gradient = matrix.T @ matrix, matrix.T @ right
        chi2 = float(right @ right)
        width = np.hypot(jitter, shutter / np.maximum(f.exptime[self.jittered] + theta[self.t0_at], 1e-3))
        at = self.jitter_at + np.arange(len(self.jittered))
        normal[at, at] += 1 / width**2
        gradient[at] -= theta[at] / width**2
        chi2 += float(np.sum((theta[at] / width) ** 2))
        dof = len(right) - (self.count - len(self.jittered))
        if self.prior is not None:
            normal[self.t0_at, self.t0_at] += 1 / self.prior[1] ** 2
            gradient[self.t0_at] += (self.prior[0] - theta[self.t0_at]) / self.prior[1] ** 2
        for c in self.able:  # backgrounds are a few ADU: keeps them finite without exposures of time 0
            b = self._b(c)
            normal[b, b] += 1 / 30.0**2
            gradient[b] -= theta[b] / 30.0**2
        index = np.flatnonzero(self.absent)
        normal[index, index] += 1.0
        scale = np.sqrt(np.diag(normal))
        if not (np.isfinite(scale).all() and (scale > 0).all()):
            return None, None, NAN, 0
        try:
            move = np.linalg.solve(normal / np.outer(scale, scale), gradient / scale) / scale
        except np.linalg.LinAlgError:
            return None, None, NAN, 0
        theta = theta + move
        return (theta, normal, chi2, dof) if np.isfinite(theta).all() else (None, None, NAN, 0)

    def channel_scatter(self, theta) -> float:
        """Relative scatter of single channels among exposures of one level, beside photon noise and common jitter."""
        f, total, count = self.frames, 0.0, 0
        for c in self.able:
            linear, photons, _ = self.parts(theta, c)
            bright = self.lit & np.isfinite(linear) & (f.signal[:, c] > 0.02 * FDR)
            for level in np.unique(f.level[bright]):
                here = bright & (f.level == level)
                if here.sum() < 2:
                    continue
                ratio = linear[here] / (photons[here] + theta[self._b(c)])
                total += float(np.sum((ratio - ratio.mean()) ** 2))
                total -= float(np.sum((f.err[here, c] / photons[here]) ** 2)) * (1 - 1 / here.sum())
                count += int(here.sum()) - 1
        if not count or len(self.able) < 2:
            return 2e-5  # one channel: its scatter is taken for the lamp's
        # The jitter was fitted to the same channels: it took one in so many degrees of freedom.
        return math.hypot(math.sqrt(max(total, 0.0) / count / (1 - 1 / len(self.able))), CHANNEL_FLOOR)

    def scatter(self, theta, floor) -> tuple[float, float]:
        """(lamp jitter, shutter jitter) from what exposures of one level differ by."""
        f = self.frames
        jitter = np.zeros(len(f.exptime))
        jitter[self.jittered] = theta[self.jitter_at :]
        squares, times, weights = [], [], []
        for level in np.unique(f.level[self.jittered]):
            here = self.jittered[f.level[self.jittered] == level]
            if len(here) < 2:
                continue
            deviation = jitter[here] - jitter[here].mean()
            squares.append(float(np.sum(deviation**2)) / (len(here) - 1))
            times.append(float(f.exptime[here].mean()))
            weights.append(len(here) - 1)
        if not squares:
            return max(floor, 2e-4), 1e-4
        y, t, w = (np.array(v) for v in (squares, times, weights))
        lamp, shutter = max(float(np.average(y, weights=w)), floor**2), 0.0
        for _ in range(20):
            # Variance of a sample variance is 2 V²/(n - 1): weights from the model.
            model = lamp + shutter / t**2
            weight = w / model**2
            design = np.stack([np.ones(len(t)), 1 / t**2], axis=1)
            normal = (design * weight[:, None]).T @ design
            solved = np.linalg.lstsq(normal, (design * weight[:, None]).T @ y, rcond=None)[0]
            lamp, shutter = max(float(solved[0]), floor**2), max(float(solved[1]), 0.0)
        return math.sqrt(lamp), math.sqrt(shutter)

    def result(self, theta, normal, chi2, dof, jitter, shutter) -> JointFit:
        f = self.frames
        scale = np.sqrt(np.diag(normal))
        matrix = np.linalg.inv(normal / np.outer(scale, scale)) / np.outer(scale, scale)
        widen = max(1.0, chi2 / dof) if dof > 0 else 1.0
        matrix = matrix * widen
        residual, linear, expected = (np.full(f.signal.shape, NAN) for _ in range(3))
        curves = []
        for c in range(f.signal.shape[1]):
            if c not in self.able:
                curves.append(
                    Curve(
                        np.zeros(0),
                        np.zeros(0),
                        np.zeros((0, 0)),
                        (NAN, NAN),
                        NAN,
                        NAN,
                        {},
                        NAN,
                        NAN,
                        0,
                        "too few levels",
                    )
                )
                continue
            straight, photons, _ = self.parts(theta, c)
            total = photons + theta[self._b(c)]
            linear[:, c], expected[:, c] = straight, np.where(np.isfinite(straight), total, NAN)
            with np.errstate(invalid="ignore", divide="ignore"):
                residual[:, c] = np.where(self.lit, 100 * (straight / total - 1), NAN)
            curves.append(self._curve(c, theta, matrix, residual[:, c]))
        lamp = 1.0 + self.track @ theta[self.track_at : self.track_at + self.degree]
        track = lamp.copy()
        lamp[self.jittered] += theta[self.jitter_at :]
        lamp[~self.lit] = NAN
        return JointFit(
            curves,
            float(theta[self.t0_at]),
            math.sqrt(matrix[self.t0_at, self.t0_at]),
            lamp,
            track,
            jitter,
            shutter,
            residual,
            linear,
            expected,
            chi2 / dof if dof > 0 else NAN,
            self._overlap(),
        )

    def _curve(self, c, theta, matrix, residual) -> Curve:
        f, knots, free = self.frames, self.knots[c], self.free[c]
        value, covariance = np.zeros(len(knots)), np.zeros((len(knots), len(knots)))
        at = slice(self.offsets[c], self.offsets[c] + len(free))
        value[free] = theta[at]
        covariance[np.ix_(free, free)] = matrix[at, at]
        use = self.lit & np.isfinite(f.signal[:, c])
        flux = {}
        for g, group in enumerate(self.groups):
            k = self._k(c, g)
            if not self.absent[k]:
                flux[int(group)] = (math.exp(theta[k]), math.exp(theta[k]) * math.sqrt(matrix[k, k]))
        means = [
            float(np.mean(residual[use & (f.level == n)]))
            for n in np.unique(f.level[use])
            if f.signal[use & (f.level == n), c].mean() > 0.01 * FDR
        ]
        worst = max(means, key=abs, default=NAN)
        b = self._b(c)
        signal = f.signal[use, c]
        return Curve(
            knots,
            value,
            covariance,
            (float(signal.min()), float(knots[-1])),
            float(theta[b]),
            math.sqrt(matrix[b, b]),
            flux,
            float(np.sqrt(np.mean(np.square(means)))) if means else NAN,
            worst,
            int(use.sum()),
        )

    def _overlap(self) -> int:
        """Levels of the fainter filter inside the range of the brighter one, of the first channel."""
        f, c = self.frames, self.able[0]
        if len(self.groups) < 2:
            return 0
        use = self.lit & np.isfinite(f.signal[:, c])
        ranges = {g: f.signal[use & (f.group == g), c] for g in self.groups}
        faint, bright = sorted(ranges, key=lambda g: ranges[g].min())[:2]
        low, high = 0.97 * ranges[bright].min(), 1.03 * ranges[faint].max()
        levels = {
            n
            for n in np.unique(f.level[use & (f.group == faint)])
            if low <= f.signal[use & (f.level == n), c].mean() <= high
        }
        return len(levels)


# ---- tiles ------------------------------------------------------------------------------------------------
def tile_residuals(
    curve: Curve,
    means: np.ndarray,
    expected: np.ndarray,
    filters: np.ndarray,
    level: np.ndarray,
    background: np.ndarray | None = None,
    groups: int = 8,
    low: float = 300.0,
) -> list[dict]:
    """Residuals of tiles against their own signal: a check of the curve that needs no lamp and no shutter.

    In one exposure a bright and a dark tile have the same lamp and the same time, so the ratio of their linear signals
    is that of their illumination, at every level. The illumination of each tile is taken from all exposures of a
    filter; a wrong curve then shows as residuals that depend on the tile's signal within a level.

    Parameters
    ----------
    curve : Curve
        Of the channel.
    means : ndarray, shape (exposures, tiles), ADU
    expected : ndarray, shape (exposures,), ADU
        Of the joint fit, mean of the channel, background included.
    filters, level : ndarray, shape (exposures,)
    background : ndarray, shape (tiles,), optional
        Means of the tiles without light, ADU: the offset is not the same all over a quadrant.
    groups : int
        Tiles are put together by illumination into so many groups.
    low : float
        Fainter exposures are left out, ADU.

    Returns
    -------
    list of dict
        level, group (1 the darkest), illumination, signal (ADU), deviation, residual, residual_err (%), n.
    """
    correction, _ = curve.at(means)
    stray = np.full(means.shape[1], curve.background)
    if background is not None and np.isfinite(background).all():
        stray += background - background.mean()
    linear = means - correction - stray
    photons = expected - curve.background
    rows = []
    for name in np.unique(filters):
        mine = (filters == name) & np.isfinite(photons) & (photons > low)
        good = np.isfinite(linear[mine])
        if not good.any():
            continue
        light = np.where(good, photons[mine, None], 0.0).sum(axis=0)
        with np.errstate(invalid="ignore", divide="ignore"):
            # A sum of photons over a sum of photons: weights of photon noise.
            share = np.where(good, linear[mine], 0.0).sum(axis=0) / light
        seen = np.flatnonzero(light > 0)
        if seen.size < groups:
            continue
        parts = np.array_split(seen[np.argsort(share[seen])], groups)
        for number in np.unique(level[mine]):
            here = mine & (level == number)
            model = photons[here, None] * share + stray
            before = 100 * (means[here] / model - 1)
            after = 100 * ((linear[here] + stray) / model - 1)
            for k, tiles in enumerate(parts, 1):
                values = after[:, tiles]
                known = np.isfinite(values)
                n = int(known.sum())
                if n < 2:
                    continue
                rows.append(
                    {
                        "level": int(number),
                        "group": k,
                        "illumination": float(share[tiles].mean()),
                        "signal": float(means[here][:, tiles][known].mean()),
                        "deviation": float(before[:, tiles][known].mean()),
                        "residual": float(values[known].mean()),
                        "residual_err": float(values[known].std(ddof=1) / math.sqrt(n)),
                        "n": n,
                    }
                )
    return rows
