"""Cross-talk on the bench (ROE-TAB): steps of charge put into one channel at a time, all twelve read in step.

The source shows plateaus of a few levels; each victim's mean over the same pixels, read at the same instant,
is a straight line of the source's level. Levels are above those of the columns of the same row that get no
charge. Tables and matrices are those of `calcamp.analysis.crosstalk`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np

from calcamp.analysis.crosstalk import CHANNELS
from calcamp.analysis.point import honest
from calcamp.analysis.statistics import about, fit_linear

NAN = float("nan")


@dataclass(frozen=True, eq=False)
class Steps:
    """Plateaus of one source and what the twelve channels show there."""

    level: np.ndarray = field(metadata=about("ADU", "(n,) of the source"))
    mean: np.ndarray = field(metadata=about("ADU", "(12, n) of every channel over the same pixels"))
    err: np.ndarray = field(metadata=about("ADU", "(12, n) standard errors"))
    n: np.ndarray = field(metadata=about("1", "(n,) pixels"))


def above_background(quadrant: np.ndarray, first: int, last: int) -> np.ndarray:
    """A canonical quadrant less, row by row, the mean of the columns `first` to `last`, which get no charge; float32."""
    values = np.asarray(quadrant, dtype=np.float32)
    return values - values[:, first:last].mean(axis=1, keepdims=True)


def find_levels(source: np.ndarray, bins: int = 200, share: float = 3e-4) -> list[tuple[float, float]]:
    """Windows (low, high), ADU, about the plateaus of a source: peaks of its histogram.

    A window is 1 % of the level to each side, at least 100 ADU. `share` of the pixels must lie in a bin (1000 of a full
    quadrant).
    """
    counts, edges = np.histogram(source, bins)
    counts = np.where(counts >= max(share * source.size, 10), counts, 0)
    wide = np.pad(counts, 1)
    peaks = np.nonzero((counts > 0) & (counts >= wide[:-2]) & (counts > wide[2:]))[0]
    windows = []
    for k in peaks:
        near = source[(source >= edges[k]) & (source <= edges[k + 1])]
        level = float(np.median(near))
        for _ in range(5):  # a bin's edge may cut a plateau: move to the middle of what is there
            half = max(0.01 * abs(level), 100.0)
            level = float(np.mean(source[np.abs(source - level) <= half], dtype=float))
        half = max(0.01 * abs(level), 100.0)
        if windows and level - half < windows[-1][1]:
            continue  # the same plateau on both sides of a bin's edge
        windows.append((level - half, level + half))
    return windows


def measure_steps(
    channels: list[np.ndarray], source: int, background: int, clear: int = 2, clip: float = 4.0
) -> Steps:
    """Means of all channels over the plateaus of a source.

    Parameters
    ----------
    channels : twelve ndarray (rows, columns)
        ADU above the row's background, canonical, the columns that get charge.
    source : int
        Index in `CHANNELS`.
    background : int
        Columns that the background of a row is the mean of: its error is common to the row's pixels, and larger than
        that of their own mean.
    clear : int
        Pixels with another level within so many along the read-out are left out: what comes early or late
        would mix.
    clip : float
        Pixels farther from a channel's mean are left out, in standard deviations.
    """
    lit = channels[source]
    windows = find_levels(lit)
    number = np.full(lit.shape, -1, np.int16)
    for k, (low, high) in enumerate(windows):
        number[(lit >= low) & (lit <= high)] = k
    same = number >= 0
    for shift in range(1, clear + 1):
        same[:, shift:] &= number[:, shift:] == number[:, :-shift]
        same[:, :-shift] &= number[:, :-shift] == number[:, shift:]
    where = [np.flatnonzero(same & (number == k)) for k in range(len(windows))]
    where = [at for at in where if at.size >= 100]
    mean, err = np.full((len(CHANNELS), len(where)), NAN), np.full((len(CHANNELS), len(where)), NAN)
    for c, channel in enumerate(channels):
        flat = channel.reshape(-1)
        for k, at in enumerate(where):
            mean[c, k], spread, kept = _clipped(flat[at], clip)
            of_rows = np.bincount(at // lit.shape[1])
            own, common = 1.0 / max(kept, 1), float((of_rows / at.size) @ (of_rows / at.size)) / background
            # the background lies in the dark: in the source itself its noise is not that of the charge
            err[c, k] = spread * math.sqrt(own + (common if c != source else 0.0))
    return Steps(mean[source].copy(), mean, err, np.array([at.size for at in where], int))


def _clipped(values: np.ndarray, clip: float) -> tuple[float, float, int]:
    """(mean, standard deviation, number) of pixels, those far from the median left out."""
    middle = float(np.median(values))
    spread = max(1.4826 * float(np.median(np.abs(values - middle))), 0.3)
    near = values
    for _ in range(3):
        near = values[np.abs(values - middle) <= clip * spread]
        if near.size < 2:
            return NAN, NAN, 0
        middle, spread = float(near.mean(dtype=float)), max(float(near.std(dtype=float)), 0.3)
    return middle, spread, near.size


@dataclass(frozen=True, eq=False)
class Lines:
    """Straight lines of the victims against the source's level, arrays (12,); NaN for the source itself."""

    coefficient: np.ndarray = field(metadata=about("1", "slope"))
    err: np.ndarray = field(metadata=about("1", ""))
    at_largest: np.ndarray = field(metadata=about("1", "victim over source at the highest level"))
    at_largest_err: np.ndarray = field(metadata=about("1", ""))
    quadratic: np.ndarray = field(metadata=about("1/ADU", "of a parabola; NaN for fewer than four levels"))
    quadratic_err: np.ndarray = field(metadata=about("1/ADU", ""))
    chi2_dof: np.ndarray = field(metadata=about("1", "of the line"))
    n: int = field(metadata=about("1", "levels"))
    reason: str = field(default="", metadata=about("", "why there is none"))


def fit_steps(steps: Steps, source: int) -> Lines:
    """Weighted lines of each victim's mean against the level of the source.

    With three levels or more a constant is fitted beside: what columns with and without charge differ by. Errors
    are enlarged where chi2 says that they are too small.
    """
    empty = np.full(len(CHANNELS), NAN)
    bright = steps.level > 100.0
    if not bright.any():
        return Lines(*(empty,) * 7, len(steps.level), "no plateau above 100 ADU")
    out = {name: empty.copy() for name in list(Lines.__dataclass_fields__)[:7]}
    level = steps.level
    constant = [np.ones_like(level)] if len(level) >= 3 else []
    top = int(np.argmax(level))
    for v in range(len(CHANNELS)):
        if v == source:
            continue
        data, err = steps.mean[v], steps.err[v]
        line = honest(fit_linear(np.column_stack([level, *constant]), data, err, sigma=None))
        if line.reason:
            continue
        out["coefficient"][v] = line.parameters[0]
        out["err"][v] = math.sqrt(line.covariance[0, 0])
        out["chi2_dof"][v] = line.chi2 / line.dof if line.dof > 0 else NAN
        out["at_largest"][v] = (data[top] - (line.parameters[1] if constant else 0.0)) / level[top]
        out["at_largest_err"][v] = err[top] / level[top]
        if len(level) >= 4:
            bent = fit_linear(np.column_stack([level, *constant, level**2 / 65536.0]), data, err, sigma=None)
            if not bent.reason:
                out["quadratic"][v] = bent.parameters[-1] / 65536.0
                out["quadratic_err"][v] = math.sqrt(bent.covariance[-1, -1]) / 65536.0
    return Lines(**out, n=len(level))


@dataclass(frozen=True)
class Agreement:
    """Two matrices compared, pair by pair."""

    n: int = field(metadata=about("1", "pairs that both have"))
    rms: float = field(metadata=about("1", "of the differences"))
    chi2: float = field(metadata=about("1", "of the differences with both errors"))
    differing: tuple[str, ...] = field(metadata=about("", "source>victim, beyond 4 errors"))


def compare(one: tuple[np.ndarray, np.ndarray], other: tuple[np.ndarray, np.ndarray]) -> Agreement:
    """Compare (coefficients, errors) [source, victim] (12, 12) of two measurements."""
    away, err = one[0] - other[0], np.hypot(one[1], other[1])
    known = np.isfinite(away) & np.isfinite(err) & (err > 0)
    far = np.argwhere(known & (np.abs(away) > 4.0 * np.where(known, err, 1.0)))
    return Agreement(
        int(known.sum()),
        float(np.sqrt(np.mean(away[known] ** 2))) if known.any() else NAN,
        float(np.sum((away[known] / err[known]) ** 2)),
        tuple(f"{CHANNELS[s]}>{CHANNELS[v]}" for s, v in far),
    )
