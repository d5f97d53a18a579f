"""Cross-talk between the twelve channels, from what spots of one channel leave in the others.

Channels are read in step: a ghost has the same canonical position as its source. Around each spot of any
channel a patch is cut from all twelve; what a victim shows there beyond its local level is a sum over the
other channels' signals times coefficients, of the same instant and of the neighbours along the read-out (lags).
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
    """Couplings of the eleven sources into one victim, arrays (12,): NaN for the victim itself and unseen sources.

    `coefficient` is what a victim shows of a source that stays as bright for some pixels, so the sum over the
    instants of the read-out: it does not depend on how wide the spots are, and is what steps of injected charge
    or flats show too. `same_pixel` is the slope of victim against source at the same instant alone, as the
    literature and the predecessor have it; the two differ where a coupling comes early or late.
    """

    coefficient: np.ndarray = field(metadata=about("1", "sum over the instants, ADU per ADU"))
    err: np.ndarray = field(metadata=about("1", ""))
    same_pixel: np.ndarray = field(metadata=about("1", "slope at the same instant, others not looked at"))
    same_pixel_err: np.ndarray = field(metadata=about("1", ""))
    early: np.ndarray = field(
        metadata=about("1", "part of the coefficient that comes before its source; NaN where it is weak")
    )
    early_err: np.ndarray = field(metadata=about("1", ""))
    late: np.ndarray = field(metadata=about("1", "part that comes after it; NaN where it is weak"))
    late_err: np.ndarray = field(metadata=about("1", ""))
    quadratic: np.ndarray = field(metadata=about("1/ADU", "change of the coefficient with the signal"))
    quadratic_err: np.ndarray = field(metadata=about("1/ADU", ""))
    noise: float = field(metadata=about("ADU", "standard deviation of what is left"))
    n: int = field(metadata=about("1", "pixels used"))
    clipped: int = field(metadata=about("1", "pixels left out as far from the fit"))
    reason: str = field(default="", metadata=about("", "why there is none"))


#: What is thought of the part of a coupling that comes one pixel early or late, rms, before it is measured.
#: It matters for weak couplings only: free, their neighbours' instants would more than double the errors.
LAG_PRIOR = 0.2


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
    """Fit the couplings into one victim to the patches of all frames.

    All sources are fitted together, each also shifted by up to `lags` pixels along the read-out, with a level
    of its own for each patch of each frame: spots of several channels overlap, and halos and background differ
    from place to place. Pixels farther than `clip` from the fit are left out of the next, until they stay the
    same: cosmic rays, hot and unstable pixels. Early and late parts have a prior about zero of `LAG_PRIOR` times the coupling, so
    that a strong coupling shows its own and a weak one is not drowned by what nobody could see.

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
    shifts = (0, *(shift for shift in range(-lags, lags + 1) if shift))
    # a source that shines only where the victim's own spots are cannot be told from them
    free = np.where(own[:, None], 0.0, np.nan_to_num(patches).max(axis=0))  # (patches, 12, s, s)
    lit = free.max(axis=(2, 3)) > least
    sources = [s for s in range(len(CHANNELS)) if s != victim and lit[:, s].any()]
    if not sources:
        return _nothing("no source is bright enough")
    columns = [(s, shift) for s in sources for shift in shifts]
    systems = [
        _patch_system(patches[:, j], victim, own[j], columns, lit[j], full, lags)
        for j in range(patches.shape[1])
    ]
    noise = float(np.median([_spread(s) for s in systems if s[0]] or [NAN]))
    # What no coupling can be goes before the first fit: a hot column would turn its answer, and that the next clip.
    keep = [s[3] & ~_beyond(s, clip * noise) for s in systems]
    clipped = 0
    for _ in range(_PASSES):
        normal = _Normal(len(columns))
        for (active, design, data, _, frames), good in zip(systems, keep, strict=True):
            normal.add(active, design, data, good, frames)
        solution, _ = normal.solve()
        if solution is None:
            return _nothing("sources cannot be told apart", normal.n)
        limit, before = clip * normal.robust, clipped
        keep = [s[3] & ~_far(s, solution, limit) for s in systems]
        clipped = sum(int((s[3] & ~good).sum()) for s, good in zip(systems, keep, strict=True))
        if clipped == before:
            break
    systems = [(*s[:3], good, s[4]) for s, good in zip(systems, keep, strict=True)]
    second = _Normal(len(columns))
    for system in systems:
        second.add(*system)
    return _couplings(second, systems, columns, sources, clipped)


#: Fits with pixels that are far from the one before left out.
_PASSES = 4
#: No coupling is larger: what stands out by more is a hot pixel or a cosmic ray.
_LARGEST = 2e-3


def _spread(system) -> float:
    """Noise of a patch from its median deviation; rounding in mind."""
    _, _, data, good, frames = system
    rest = np.abs(data - _group_median(data, good, frames))[good]
    return max(1.4826 * float(np.median(rest)), 0.8) if rest.size else 0.8


def _beyond(system, limit: float) -> np.ndarray:
    """Pixels farther from their frame's median than the largest coupling of what lies over them could make them."""
    _, design, data, good, frames = system
    if not design.size:
        return np.zeros(data.shape, bool)
    reach = limit + _LARGEST * np.maximum(design.max(axis=1), 0.0)
    return np.abs(data - _group_median(data, good, frames)) > reach


def _far(system, solution: np.ndarray, limit: float) -> np.ndarray:
    """Pixels far from a fit, in one frame or in the mean of all."""
    active, design, data, good, frames = system
    if not active:
        return np.zeros(data.shape, bool)
    rest = data - design @ solution[active]
    rest = rest - _group_median(rest, good, frames)
    return (np.abs(rest) > limit) | _standing(rest, good, frames, limit)


def _nothing(reason: str, n: int = 0, clipped: int = 0) -> Coupling:
    empty = np.full(len(CHANNELS), NAN)
    return Coupling(*(empty,) * 10, NAN, n, clipped, reason)


def _couplings(normal: _Normal, systems, columns, sources, clipped: int) -> Coupling:
    """Sums over the instants and their parts, from normal equations with each source and instant a column."""
    instant = [k for k, (_, shift) in enumerate(columns) if shift == 0]
    alone, alone_covariance = normal.solve(only=instant)
    _, covariance = normal.solve()  # the noise is that of the free fit
    if alone is None or covariance is None:
        return _nothing("sources cannot be told apart", normal.n, clipped)
    same_err = normal.noise * np.sqrt(np.diag(alone_covariance))
    # Noise alone makes a coupling of its error: a prior narrower than that would say what is not known.
    scale = LAG_PRIOR * np.hypot(alone, same_err)
    prior = np.array([0.0 if shift == 0 else 1 / scale[sources.index(s)] ** 2 for s, shift in columns])
    values, covariance = normal.solve(prior=normal.noise**2 * prior)
    if values is None:
        return _nothing("sources cannot be told apart", normal.n, clipped)
    covariance = normal.noise**2 * covariance
    quadratic, quadratic_err = _quadratic(systems, columns, sources, values, normal.noise)
    out = {name: np.full(len(CHANNELS), NAN) for name in list(Coupling.__dataclass_fields__)[:10]}
    for i, s in enumerate(sources):
        mine = [k for k, (source, _) in enumerate(columns) if source == s]
        block = covariance[np.ix_(mine, mine)]
        total = float(values[mine].sum())
        out["coefficient"][s], out["err"][s] = total, math.sqrt(block.sum())
        out["same_pixel"][s], out["same_pixel_err"][s] = alone[i], same_err[i]
        out["quadratic"][s], out["quadratic_err"][s] = quadratic[i], quadratic_err[i]
        if not abs(total) > 5.0 * out["err"][s]:
            continue  # parts of something that is hardly seen mean nothing
        for name, side in (("early", -1), ("late", 1)):
            part = np.array([float(np.sign(columns[k][1]) == side) for k in mine])
            share = float(part @ values[mine]) / total
            gradient = (part - share) / total
            out[name][s], out[f"{name}_err"][s] = share, math.sqrt(gradient @ block @ gradient)
    return Coupling(**out, noise=normal.noise, n=normal.n, clipped=clipped)


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

    def solve(self, only: list[int] | None = None, prior: np.ndarray | None = None):
        """(solution, its covariance for a noise of 1), of the columns `only`; None, None where there is none.

        `prior` is added to the diagonal: the variance of the noise over that of what is thought of each value.
        Without it and for all columns, the noise is worked out too.
        """
        at = np.arange(len(self.vector)) if only is None else np.asarray(only)
        matrix = self.matrix[np.ix_(at, at)] + (0.0 if prior is None else np.diag(prior))
        diagonal = np.diag(matrix)
        if self.n == 0 or self.dof <= 0 or (diagonal <= 0).any():
            return None, None
        weight = np.sqrt(diagonal)
        scaled = matrix / np.outer(weight, weight)
        if np.linalg.cond(scaled) > 1e10:
            return None, None
        covariance = np.linalg.inv(scaled) / np.outer(weight, weight)
        solution = covariance @ self.vector[at]
        if only is None and prior is None:
            self.noise = math.sqrt(max(self.square - float(self.vector @ solution), 0.0) / self.dof)
        return solution, covariance


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


def _quadratic(systems, columns, sources, values, noise):
    """Change of each coefficient with its source's signal, from what the fit leaves."""
    xx, xr = np.zeros(len(sources)), np.zeros(len(sources))
    for active, design, data, good, frames in systems:
        here = [(n, sources.index(columns[k][0])) for n, k in enumerate(active) if columns[k][1] == 0]
        if not here or not good.any():
            continue
        signal = design[:, [n for n, _ in here]]
        rest = data - design @ values[active]
        both, y = _centred(np.column_stack([signal**2, signal]), rest, good, frames)
        for n, (_, i) in enumerate(here):
            square, linear = both[:, n], both[:, len(here) + n]
            norm = float(linear @ linear)
            # what of the square is not already in the line
            x = square - linear * (float(square @ linear) / norm if norm > 0 else 0.0)
            xx[i] += float(x @ x)
            xr[i] += float(x @ y)
    with np.errstate(invalid="ignore", divide="ignore"):
        seen = xx > 0
        return np.where(seen, xr / xx, NAN), np.where(seen, noise / np.sqrt(xx), NAN)


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
