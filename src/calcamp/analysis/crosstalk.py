"""Cross-talk between the twelve channels, from what spots of one channel leave in the others.

Channels are read in step: a ghost has the same canonical position as its source. Around each spot of any
channel a patch is cut from all twelve; what a victim shows there beyond its local level is a sum over the
other channels' signals times coefficients, also of the neighbouring pixels along the read-out (lags).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np

from calcamp.analysis.statistics import about

NAN = float("nan")
CHANNELS = tuple(f"{ccd}{quadrant}" for ccd in (1, 2, 3) for quadrant in "EFGH")
FULL_SCALE = 65536  # ADU


def cut_patches(quadrant: np.ndarray, rows: np.ndarray, columns: np.ndarray, radius: int) -> np.ndarray:
    """Patches (n, s, s) of a canonical quadrant about positions; NaN outside.

    Parameters
    ----------
    quadrant : ndarray (rows, columns)
        ADU above offset, scans included.
    rows, columns : int (n,)
    """
    side = 2 * radius + 1
    out = np.full((len(rows), side, side), np.nan, dtype=np.float32)
    height, width = quadrant.shape
    for k, (row, column) in enumerate(zip(rows, columns, strict=True)):
        top, left = row - radius, column - radius
        r0, c0, r1, c1 = max(0, top), max(0, left), min(height, top + side), min(width, left + side)
        if r1 > r0 and c1 > c0:
            out[k, r0 - top : r1 - top, c0 - left : c1 - left] = quadrant[r0:r1, c0:c1]
    return out


def nearer_to_others(centres: np.ndarray, radius: int) -> np.ndarray:
    """Pixels of each patch that belong to another one, which lies over it: nearer to that one's centre.

    Counted twice, they would make errors too small.

    Parameters
    ----------
    centres : int (n, 2), row and column

    Returns
    -------
    ndarray of bool (n, s, s)
    """
    at = np.arange(-radius, radius + 1)
    out = np.zeros((len(centres), 2 * radius + 1, 2 * radius + 1), bool)
    for j, centre in enumerate(centres):
        away = np.abs(centres - centre).max(axis=1)
        for k in np.nonzero((away <= 2 * radius) & (np.arange(len(centres)) != j))[0]:
            row, column = centres[k] - centre
            distance = (at[:, None] - row) ** 2 + (at[None, :] - column) ** 2
            inside = (np.abs(at - row) <= radius)[:, None] & (np.abs(at - column) <= radius)[None, :]
            own = at[:, None] ** 2 + at[None, :] ** 2
            out[j] |= inside & ((distance < own) | ((distance == own) & (k < j)))
    return out


def column_profile(quadrant: np.ndarray, rows: int = 256, reach: float = 8.0) -> np.ndarray:
    """Mean of about `rows` rows of each column, about the mean of all: the standing pattern of the columns.

    It stays the same from frame to frame, so it would show when noise has averaged out. Pixels farther than
    `reach` ADU from their column's median (spots, hot pixels) are left out.
    """
    part = np.asarray(quadrant[:: max(1, len(quadrant) // rows)], dtype=np.float32)
    near = np.abs(part - np.median(part, axis=0)) <= reach
    mean = np.where(near, part, 0.0).sum(axis=0) / np.maximum(near.sum(axis=0), 1)
    return mean - mean.mean()


@dataclass(frozen=True, eq=False)
class Coupling:
    """Coefficients of one victim: ADU in the victim per ADU in each source."""

    coefficient: np.ndarray = field(
        metadata=about("1", "(12,); NaN for the victim itself and unseen sources")
    )
    err: np.ndarray = field(metadata=about("1", "(12,)"))
    lag: np.ndarray = field(
        metadata=about("1", "(lags,) share that comes earlier or later, common to the sources")
    )
    lag_err: np.ndarray = field(metadata=about("1", "(lags,)"))
    shifts: tuple[int, ...] = field(metadata=about("px", "the lags; positive: later in the read-out"))
    noise: float = field(metadata=about("ADU", "standard deviation of what is left"))
    n: int = field(metadata=about("1", "pixels used"))
    clipped: int = field(metadata=about("1", "pixels left out as far from the fit"))
    quadratic: np.ndarray = field(metadata=about("1/ADU", "(12,) change of each coefficient with the signal"))
    quadratic_err: np.ndarray = field(metadata=about("1/ADU", "(12,)"))
    reason: str = field(default="", metadata=about("", "why there is none"))


#: What is thought of a lag's share before it is measured, rms: it matters for weak couplings only.
LAG_PRIOR = 0.1


def fit_victim(
    patches: np.ndarray,
    victim: int,
    own: np.ndarray,
    *,
    lags: int = 1,
    least: float = 250.0,
    full: float = 60_000.0,
    clip: float = 5.0,
) -> Coupling:
    """Fit the coefficients of one victim to the patches of all frames.

    All sources are fitted together, with a level of its own for each patch of each frame: spots of several
    channels overlap, and halos and background differ from place to place. First with each neighbouring pixel
    along the read-out as a source of its own; from that the lags' share, common to the victim's sources, then
    once more with it built in: a coefficient that is seen gets its lag from itself, a weak one is not made
    weaker by lags that nobody could see. Pixels farther than `clip` from the first fit are left out of the
    second: cosmic rays and unstable pixels.

    Parameters
    ----------
    patches : ndarray (frames, patches, 12, s, s)
        ADU above offset, canonical; NaN where there is nothing.
    victim : int
        Its index in `CHANNELS`.
    own : ndarray of bool (patches, s, s)
        Pixels to leave out: near the victim's own spots, or counted in another patch.
    lags : int
        Lags to each side.
    least : float
        ADU; a source that is nowhere brighter is not fitted.
    full : float
        ADU; pixels where a source is brighter are left out.
    """
    shifts = tuple(shift for shift in range(-lags, lags + 1) if shift)
    count = len(CHANNELS)
    # a source that shines only where the victim's own spots are cannot be told from them
    free = np.where(own[:, None], 0.0, np.nan_to_num(patches).max(axis=0))  # (patches, 12, s, s)
    lit = free.max(axis=(2, 3)) > least
    sources = [s for s in range(count) if s != victim and lit[:, s].any()]
    empty, none = np.full(count, NAN), np.full(len(shifts), NAN)
    if not sources:
        return Coupling(
            empty, empty, none, none, shifts, NAN, 0, 0, empty, empty, "no source is bright enough"
        )
    wide = [(s, shift) for s in sources for shift in (0, *shifts)]
    first = _Normal(len(wide))
    for j in range(patches.shape[1]):
        first.add(*_patch_system(patches[:, j], victim, own[j], wide, lit[j], full, lags))
    solution, covariance = first.solve()
    if solution is None:
        return Coupling(
            empty, empty, none, none, shifts, NAN, first.n, 0, empty, empty, "sources cannot be told apart"
        )
    lag, lag_covariance = _lag_shares(wide, solution, covariance, shifts, first.noise)
    lag_err = np.sqrt(np.diag(lag_covariance))
    lag_sum_err = math.sqrt(lag_covariance.sum())
    templates = [(s, 0) for s in sources]
    second, clipped, noise = _Normal(len(templates)), 0, first.robust
    systems = []
    for j in range(patches.shape[1]):
        active, design, data, good, frames = _patch_system(
            patches[:, j], victim, own[j], wide, lit[j], full, lags
        )
        if not active:
            continue
        rest = data - design @ solution[active]
        rest = rest - _group_median(rest, good, frames)
        far = good & ((np.abs(rest) > clip * noise) | _standing(rest, good, frames, clip * noise))
        clipped += int(far.sum())
        # fold the lags into one template per source
        here = [k for k, (s, _) in enumerate(templates) if lit[j][s]]
        columns = {wide[k]: design[:, n] for n, k in enumerate(active)}
        mixed = np.stack(
            [
                columns[templates[k][0], 0]
                + sum(r * columns[templates[k][0], shift] for r, shift in zip(lag, shifts, strict=True))
                for k in here
            ],
            axis=1,
        )
        second.add(here, mixed, data, good & ~far, frames)
        systems.append((here, mixed, data, good & ~far, frames))
    values, covariance = second.solve()
    if values is None:
        return Coupling(
            empty,
            empty,
            lag,
            lag_err,
            shifts,
            NAN,
            second.n,
            clipped,
            empty,
            empty,
            "sources cannot be told apart",
        )
    coefficient, err = empty.copy(), empty.copy()
    for k, (s, _) in enumerate(templates):
        coefficient[s] = values[k]
        # an error of the lag's share moves a coefficient by the overlap of neighbouring pixels
        through_lag = values[k] * _OVERLAP * lag_sum_err
        err[s] = math.hypot(second.noise * math.sqrt(covariance[k, k]), through_lag)
    quadratic, quadratic_err = _quadratic(systems, templates, values, second.noise)
    return Coupling(
        coefficient, err, lag, lag_err, shifts, second.noise, second.n, clipped, quadratic, quadratic_err
    )


#: Projection of a spot shifted by a pixel on the spot itself: exp(-1 / (4 sigma²)) for a FWHM of 2 px.
_OVERLAP = 0.7


class _Normal:
    """Normal equations, patch by patch."""

    def __init__(self, size: int):
        self.matrix, self.vector = np.zeros((size, size)), np.zeros(size)
        self.square, self.n, self.dof, self.spread = 0.0, 0, -size, []
        self.noise = NAN

    def add(self, active, design, data, good, frames) -> None:
        if not active or not good.any():
            return
        x, y = _centred(design, data, good, frames)
        self.matrix[np.ix_(active, active)] += x.T @ x
        self.vector[active] += x.T @ y
        self.square += float(y @ y)
        self.n += y.size
        self.dof += y.size - len(np.unique(frames[good]))
        self.spread.append(1.4826 * float(np.median(np.abs(y))))

    @property
    def robust(self) -> float:
        """Noise from the median deviation of the patches, which few hits do not move; rounding in mind."""
        return max(float(np.median(self.spread)), 0.8) if self.spread else NAN

    def solve(self):
        diagonal = np.diag(self.matrix)
        if self.n == 0 or self.dof <= 0 or (diagonal <= 0).any():
            return None, None
        weight = np.sqrt(diagonal)
        scaled = self.matrix / np.outer(weight, weight)
        if np.linalg.cond(scaled) > 1e10:
            return None, None
        covariance = np.linalg.inv(scaled) / np.outer(weight, weight)
        solution = covariance @ self.vector
        self.noise = math.sqrt(max(self.square - float(self.vector @ solution), 0.0) / self.dof)
        return solution, covariance


def _lag_shares(columns, solution, covariance, shifts, noise) -> tuple[np.ndarray, np.ndarray]:
    """(share of the coefficients that comes at each lag, covariance), common to all sources, with a prior about zero."""
    if not shifts:
        return np.zeros(0), np.zeros((0, 0))
    where = {column: k for k, column in enumerate(columns)}
    prior = np.eye(len(shifts)) / LAG_PRIOR**2
    weight, vector = np.zeros_like(prior), np.zeros(len(shifts))
    for source, at in columns:
        if at:
            continue
        k0, k = where[source, 0], [where[source, shift] for shift in shifts]
        inverse = np.linalg.inv(noise**2 * covariance[np.ix_(k, k)])
        # what noise alone makes of square and product is taken off
        weight += (solution[k0] ** 2 - noise**2 * covariance[k0, k0]) * inverse
        vector += inverse @ (solution[k0] * solution[k] - noise**2 * covariance[k0, k])
    if np.linalg.eigvalsh(weight).min() <= 0:
        return np.zeros(len(shifts)), np.linalg.inv(prior)
    joint = np.linalg.inv(weight + prior)
    return joint @ vector, joint


def _patch_system(
    patch: np.ndarray, victim: int, own: np.ndarray, columns: list, lit: np.ndarray, full: float, reach: int
):
    """(active columns, design, data, good, frame of each pixel) of one patch in all frames."""
    frames, _, side, _ = patch.shape
    data = patch[:, victim]
    active = [k for k, (s, _) in enumerate(columns) if lit[s]]
    if not active:
        return active, np.zeros((0, 0)), np.zeros(0), np.zeros(0, bool), np.zeros(0, int)
    sources = sorted({columns[k][0] for k in active})
    good = np.isfinite(data) & ~own[None]
    if sources:
        signal = patch[:, sources]
        good &= (np.isfinite(signal) & (signal < full)).all(axis=1)
    if reach:  # the neighbours along the read-out must be inside too
        good[:, :, :reach] = False
        good[:, :, side - reach :] = False
    design = np.empty((frames, side, side, len(active)))
    for n, k in enumerate(active):
        source, shift = columns[k]
        # a lag of +1: the victim follows one pixel later
        design[..., n] = np.roll(np.nan_to_num(patch[:, source]), shift, axis=2)
    number = np.broadcast_to(np.arange(frames)[:, None, None], data.shape)
    return (
        active,
        design.reshape(-1, len(active)),
        np.nan_to_num(data).reshape(-1).astype(float),
        good.reshape(-1),
        number.reshape(-1),
    )


def _group_median(values: np.ndarray, good: np.ndarray, frames: np.ndarray) -> np.ndarray:
    """Median of the good pixels of each frame, at every pixel."""
    count = int(frames.max()) + 1
    table = np.where(good, values, np.nan).reshape(count, -1)
    empty = ~np.isfinite(table).any(axis=1)
    middle = np.nanmedian(np.where(empty[:, None], 0.0, table), axis=1)
    return middle[frames]


def _standing(rest: np.ndarray, good: np.ndarray, frames: np.ndarray, level: float) -> np.ndarray:
    """Pixels whose mean over the frames stands out: warm ones, too faint for a single frame."""
    count = int(frames.max()) + 1
    table, use = rest.reshape(count, -1), good.reshape(count, -1)
    n = np.maximum(use.sum(axis=0), 1)
    mean = np.where(use, table, 0.0).sum(axis=0) / n
    return np.broadcast_to(np.abs(mean) > level / np.sqrt(n), table.shape).reshape(-1)


def _centred(design, data, good, frames):
    """Design and data of the good pixels with the mean of each frame's patch taken off."""
    x, y, group = design[good], data[good], frames[good]
    count = int(frames.max()) + 1
    n = np.maximum(np.bincount(group, minlength=count), 1)
    y = y - (np.bincount(group, y, minlength=count) / n)[group]
    x = (
        x
        - np.stack([np.bincount(group, x[:, k], minlength=count) / n for k in range(x.shape[1])], axis=1)[
            group
        ]
    )
    return x, y


def _quadratic(systems, templates, values, noise):
    """Change of each coefficient with its source's signal, from what the fit leaves."""
    value, err = np.full(len(CHANNELS), NAN), np.full(len(CHANNELS), NAN)
    xx, xr = np.zeros(len(templates)), np.zeros(len(templates))
    for here, design, data, good, frames in systems:
        rest = data - design @ values[here]
        both, y = _centred(np.column_stack([design**2, design]), rest, good, frames)
        half = len(here)
        for n, k in enumerate(here):
            square, linear = both[:, n], both[:, half + n]
            norm = float(linear @ linear)
            # what of the square is not already in the line
            x = square - linear * (float(square @ linear) / norm if norm > 0 else 0.0)
            xx[k] += float(x @ x)
            xr[k] += float(x @ y)
    for k, (source, _) in enumerate(templates):
        if xx[k] > 0:
            value[source], err[source] = xr[k] / xx[k], noise / math.sqrt(xx[k])
    return value, err


# ---- requirement ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class VictimSummary:
    """The two largest coefficients of a victim, and their bounds."""

    largest: float = field(metadata=about("1", "signed"))
    largest_err: float = field(metadata=about("1", ""))
    largest_source: str = field(metadata=about("", ""))
    largest_upper95: float = field(metadata=about("1", "upper 95 % bound of its size"))
    second: float = field(metadata=about("1", ""))
    second_err: float = field(metadata=about("1", ""))
    second_source: str = field(metadata=about("", ""))
    second_upper95: float = field(metadata=about("1", ""))
    significant: int = field(metadata=about("1", "coefficients seen"))


def summarise_victim(coefficient: np.ndarray, err: np.ndarray, significance: float = 3.0) -> VictimSummary:
    """Largest and second coefficient of a victim (12,), NaN where not measured."""
    known = np.nonzero(np.isfinite(coefficient) & np.isfinite(err))[0]
    order = known[np.argsort(-np.abs(coefficient[known]), kind="stable")]

    def part(rank: int):
        if order.size <= rank:
            return NAN, NAN, "", NAN
        k = order[rank]
        return float(coefficient[k]), float(err[k]), CHANNELS[k], float(abs(coefficient[k]) + 1.645 * err[k])

    seen = int((np.abs(coefficient[known]) > significance * err[known]).sum())
    return VictimSummary(*part(0), *part(1), seen)


def pair_strength(coefficient: float, err: float) -> dict[str, float]:
    """What a coefficient means: significance, upper 95 % bound of its size, effect of a source at full scale (ADU)."""
    known = math.isfinite(coefficient) and err > 0
    return {
        "significance": abs(coefficient) / err if known else NAN,
        "upper95": abs(coefficient) + 1.645 * err if known else NAN,
        "full_scale": FULL_SCALE * coefficient if known else NAN,
        "full_scale_err": FULL_SCALE * err if known else NAN,
    }


def victim_rows(coefficient: np.ndarray, err: np.ndarray, significance: float = 3.0) -> list[dict]:
    """One row per victim, from matrices [source, victim] (12, 12): its two largest coefficients and their bounds."""
    rows = []
    for v, victim in enumerate(CHANNELS):
        summary = summarise_victim(coefficient[:, v], err[:, v], significance)
        rows.append(
            {
                "ccd": int(victim[0]),
                "quadrant": victim[1],
                **{name: getattr(summary, name) for name in summary.__dataclass_fields__},
                "flag": "" if math.isfinite(summary.largest) else "not measured",
            }
        )
    return rows


@dataclass(frozen=True, eq=False)
class Combined:
    """Coefficients of several measurements together, arrays like theirs."""

    coefficient: np.ndarray = field(metadata=about("1", "weighted mean"))
    err: np.ndarray = field(metadata=about("1", ""))
    chi2: np.ndarray = field(metadata=about("1", "of the measurements about the mean"))
    n: np.ndarray = field(metadata=about("1", "measurements"))


def combine(matrices: list[tuple[np.ndarray, np.ndarray]]) -> Combined:
    """Mean of coefficients of several wavelengths, weighted by their errors.

    Electronic cross-talk does not know the colour: a chi2 well above the number of measurements less one means
    that what was seen is light, not electronics.

    Parameters
    ----------
    matrices : (coefficient, error) of each, of one shape; NaN where not measured.
    """
    values = np.array([m[0] for m in matrices], float)
    with np.errstate(invalid="ignore", divide="ignore"):
        weight = 1.0 / np.square(np.array([m[1] for m in matrices], float))
        weight = np.where(np.isfinite(values) & np.isfinite(weight), weight, 0.0)
        total = weight.sum(axis=0)
        mean = np.where(total > 0, (weight * np.nan_to_num(values)).sum(axis=0) / total, NAN)
        err = np.where(total > 0, 1.0 / np.sqrt(total), NAN)
        chi2 = (weight * np.square(np.nan_to_num(values) - np.nan_to_num(mean))).sum(axis=0)
    return Combined(mean, err, np.where(total > 0, chi2, NAN), (weight > 0).sum(axis=0))


#: 99.99 % points of chi2 for 1, 2, ... degrees of freedom: one chance in a hundred among 132 pairs.
_CHI2_LIMITS = (15.14, 18.42, 21.11, 23.51, 25.74, 27.86, 29.88, 31.83)


def differing(combined: Combined) -> np.ndarray:
    """Which coefficients differ between the measurements by more than chance."""
    limits = np.array((np.inf, *_CHI2_LIMITS))
    dof = np.clip(combined.n - 1, 0, len(_CHI2_LIMITS))
    return np.nan_to_num(combined.chi2) > limits[dof]
