"""Persistence: charge released by pixels that saturated, in the dark frames that follow.

Each later frame less the mean of the reference frames, pixel by pixel; the level of the pixels that saturated above
that of their surroundings, row by row, so that offsets, drifts and noise common to a row cancel. Traps that empty
with one time constant release N (exp(-t/tau) - exp(-(t+T)/tau)) in an exposure of T that starts t after the light.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np

from calcamp.analysis.statistics import NAN, Limit, about, clipped, upper_limit

DETECTION = 3.5  # sigma
_TAUS = np.geomspace(5.0, 2e5, 600)


@dataclass(frozen=True)
class Areas:
    """Classes of pixels of an image area after the saturating exposure."""

    saturated: np.ndarray = field(metadata=about("", "bool, full scale reached, not bad"))
    bright: np.ndarray = field(metadata=about("", "bool, above `bright` ADU but not saturated"))
    around: np.ndarray = field(metadata=about("", "bool, surroundings that give the background"))
    islands: int = field(metadata=about("1", "groups of touching saturated pixels"))


def classify(
    raw: np.ndarray,
    full_scale: int,
    bad: np.ndarray | None = None,
    bright: float = 55000.0,
    halo: int = 5,
    reach: int = 60,
    inner: int = 10,
) -> Areas:
    """Pixels that saturated, that came near, and the surroundings 10 to 60 px away.

    Parameters
    ----------
    raw : (rows, columns) uint16
        Image area of the saturating exposure.
    bad : bool array, optional
        Left out of all classes.
    halo : px by which pixels above `bright` are grown before the surroundings are taken.
    inner, reach : px, distances of the surroundings.
    """
    from scipy import ndimage

    full = raw >= full_scale
    near = raw > bright
    good = np.ones(raw.shape, bool) if bad is None else ~bad
    labels = ndimage.label(full, structure=np.ones((3, 3)))[1] if full.any() else 0
    if near.any():
        distance = ndimage.distance_transform_edt(~near)
        around = (distance > max(halo, inner)) & (distance <= reach) & good
    else:
        around = np.zeros(raw.shape, bool)
    return Areas(full & good, near & ~full & good, around, int(labels))


@dataclass(frozen=True)
class Released:
    """Level of the saturated pixels above their surroundings in one frame."""

    signal: float = field(metadata=about("ADU", "mean over the saturated pixels"))
    err: float = field(metadata=about("ADU", "from the scatter of the rows"))
    percentiles: tuple[float, float, float] = field(metadata=about("ADU", "25, 50, 75 % of the pixels"))
    background: float = field(metadata=about("ADU", "mean of the surroundings, frame less reference"))
    n: int = field(metadata=about("1", "saturated pixels used"))
    n_background: int = field(metadata=about("1", "pixels of the surroundings used"))


def measure(difference: np.ndarray, inside: np.ndarray, around: np.ndarray, sigma: float = 5.0) -> Released:
    """Signal of `inside` above `around` in a frame less its reference.

    Row by row: the mean inside less the mean around of the same row, weighted by their numbers of pixels. The
    scatter of the rows gives the error, whatever is common to a row.
    """
    nothing = Released(NAN, NAN, (NAN, NAN, NAN), NAN, 0, 0)
    if inside.sum() < 10 or around.sum() < 100:
        return nothing
    keeps = []
    for chosen in (inside, around):
        values = difference[chosen]
        centre = float(np.median(values))
        spread = 0.5 * float(np.subtract(*np.percentile(values, (84.134, 15.866))))
        keeps.append(chosen & (np.abs(difference - np.float32(centre)) <= sigma * max(spread, 1e-3)))
    number = [k.sum(axis=1).astype(float) for k in keeps]
    total = [np.where(k, difference, 0).sum(axis=1, dtype=np.float64) for k in keeps]
    use = (number[0] > 0) & (number[1] >= 5)
    if use.sum() < 3:
        return nothing
    step = total[0][use] / number[0][use] - total[1][use] / number[1][use]
    weight = 1.0 / (1.0 / number[0][use] + 1.0 / number[1][use])
    mean = float(weight @ step / weight.sum())
    scatter = float(weight @ np.square(step - mean)) / (use.sum() - 1)
    values = difference[keeps[0]]
    level = total[1].sum() / number[1].sum()
    return Released(
        mean,
        math.sqrt(scatter / weight.sum()),
        tuple(float(v) - level for v in np.percentile(values, (25, 50, 75))),
        float(level),
        int(number[0][use].sum()),
        int(number[1][use].sum()),
    )


def share(start, length, tau):
    """Share of the trapped charge that is released from `start` to `start + length` s after the light."""
    return np.exp(-np.asarray(start) / tau) - np.exp(-(np.asarray(start) + length) / tau)


@dataclass(frozen=True)
class Persistence:
    """Persistence of a quadrant."""

    first: Limit = field(metadata=about("e-/px", "charge in the first frame, with its 95 % interval"))
    significance: float = field(metadata=about("1", "of the first frame"))
    detected: bool = field(metadata=about("", f"at {DETECTION} sigma"))
    tau: float = field(metadata=about("s", "time constant, NaN when none is detected"))
    tau_err: float = field(metadata=about("s", "mean of the two sides of the 68 % interval"))
    trapped: float = field(metadata=about("e-/px", "charge trapped at the end of the light"))
    trapped_err: float = field(metadata=about("e-/px", "with the time constant left free"))
    chi2: float = field(metadata=about("1", "of the frames about the decay"))
    dof: int = field(metadata=about("1", "degrees of freedom"))
    reason: str = field(default="", metadata=about("", "why there is no time constant"))


def fit_decay(
    start: np.ndarray,
    length: np.ndarray,
    signal: np.ndarray,
    err: np.ndarray,
    common: float = 0.0,
) -> Persistence:
    """Amplitude and time constant of the release, or an upper limit.

    Parameters
    ----------
    start, length : (n,) s
        From the end of the light to the start of each frame, and its exposure time.
    signal, err : (n,) e-/px
        Total errors, the common part included.
    common : float
        Error that all frames share, e-/px: that of the reference.

    Returns
    -------
    Persistence
        For each tau of a grid the amplitude is linear (generalised least squares); the best tau is where chi²
        is least, its error from where chi² rises by 1.
    """
    start, length, signal, err = (np.asarray(v, float) for v in (start, length, signal, err))
    good = np.isfinite(signal) & (err > 0) & np.isfinite(start)
    if not good.any():
        return Persistence(upper_limit(NAN, NAN), NAN, False, NAN, NAN, NAN, NAN, NAN, 0, "nothing measured")
    order = np.flatnonzero(good)[np.argsort(start[good])]
    start, length, signal, err = (v[order] for v in (start, length, signal, err))
    first = upper_limit(float(signal[0]), float(err[0]))
    significance = float(signal[0] / err[0])
    if significance < DETECTION:
        return Persistence(first, significance, False, NAN, NAN, NAN, NAN, NAN, 0, "no persistence detected")
    if signal.size < 2:
        return Persistence(first, significance, True, NAN, NAN, NAN, NAN, NAN, 0, "one frame: no decay")
    common = min(common, 0.99 * float(err.min()))
    weight = np.linalg.inv(np.diag(err**2 - common**2) + common**2)
    chi2 = _profile(_TAUS, start, length, signal, weight)[0]
    best = int(np.argmin(chi2))
    fine = np.geomspace(_TAUS[max(best - 1, 0)], _TAUS[min(best + 1, _TAUS.size - 1)], 101)
    values = _profile(fine, start, length, signal, weight)
    k = int(np.argmin(values[0]))
    tau, least = float(fine[k]), float(values[0][k])
    low, high = _crossings(chi2, least + 1.0, best)
    if best in (0, _TAUS.size - 1) or not (math.isfinite(low) and math.isfinite(high)):
        reason = "the frames do not bound the time constant"
        return Persistence(first, significance, True, NAN, NAN, NAN, NAN, least, signal.size - 2, reason)
    # The amplitude with tau free: the range of amplitudes at the ends of the interval, and its own error.
    ends = _profile(np.array([low, high]), start, length, signal, weight)[1]
    trapped_err = math.hypot(math.sqrt(values[2][k]), 0.5 * abs(ends[1] - ends[0]))
    return Persistence(
        first,
        significance,
        True,
        tau,
        0.5 * (high - low),
        float(values[1][k]),
        trapped_err,
        least,
        signal.size - 2,
    )


def _profile(taus, start, length, signal, weight):
    """(chi2, amplitude, its variance) of each time constant."""
    model = share(start[None, :], length[None, :], taus[:, None])
    information = np.einsum("ti,ij,tj->t", model, weight, model)
    amplitude = model @ weight @ signal / np.maximum(information, 1e-300)
    residual = signal[None, :] - amplitude[:, None] * model
    chi2 = np.einsum("ti,ij,tj->t", residual, weight, residual)
    return chi2, amplitude, 1.0 / np.maximum(information, 1e-300)


def _crossings(chi2, level, best) -> tuple[float, float]:
    """Time constants to both sides of the best where chi² reaches `level`; NaN where it does not."""
    log = np.log(_TAUS)
    out = []
    for side in (slice(best, None, -1), slice(best, None)):
        values, places = chi2[side], log[side]
        above = np.flatnonzero(values > level)
        if not above.size or above[0] == 0:
            out.append(NAN)
            continue
        k = above[0]
        t = (level - values[k - 1]) / (values[k] - values[k - 1])
        out.append(float(np.exp(places[k - 1] + t * (places[k] - places[k - 1]))))
    return out[0], out[1]


def background(area: np.ndarray, outside: np.ndarray) -> tuple[float, float, int]:
    """(level, error, pixels) of an image area outside of what saturated; ADU above offset."""
    found = clipped(area, 5.0, mask=~outside, rounded=0)
    return float(found.mean), float(found.mean_err), int(found.n)
