"""Star lock: where the point sources of a known pattern are in an image.

Sources are found on a coarse image, measured on the full one, and matched with the pattern by pairs: two
stars of the pattern laid on two sources fix a similarity transform (scale, rotation, shift), and the right
one lays many others on sources too. All pairs are tried, so nothing is random. Positions are silicon (phys)
coordinates, px; the transform turns and scales about the CCD's centre, counter-clockwise positive, from
pattern to image.
"""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass, field

import numpy as np

from calcamp.analysis.statistics import about

NAN = float("nan")


# ---- detection ------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Sources:
    """Sources found in an area of an image, brightest first."""

    x: np.ndarray = field(metadata=about("px", "column in the area"))
    y: np.ndarray = field(metadata=about("px", "row in the area"))
    flux: np.ndarray = field(metadata=about("ADU", "above the local level"))
    width: np.ndarray = field(metadata=about("px", "sigma, mean of the axes"))
    elongation: np.ndarray = field(metadata=about("1", "longer over shorter axis"))
    sharpness: np.ndarray = field(metadata=about("1", "share of the flux in the highest pixel"))

    def __len__(self) -> int:
        return self.x.size

    def where(self, keep: np.ndarray) -> Sources:
        return Sources(*(getattr(self, name)[keep] for name in self.__dataclass_fields__))


def find_sources(
    area: np.ndarray,
    bad: np.ndarray | None = None,
    *,
    threshold: float = 10.0,
    least: float = 30.0,
    binning: int = 4,
    most: int = 60,
    radius: int = 9,
) -> Sources:
    """Sources in the image area of a quadrant: the quick look.

    Means of `binning` x `binning` pixels are searched for local maxima, as spots far out of focus stand out
    better there and it is 16 times less to search; each is then measured on the full image.

    Parameters
    ----------
    area : ndarray (rows, columns)
        ADU, with offset or without.
    bad : ndarray of bool, optional
        Pixels to leave out (replaced by the area's level).
    threshold : float
        In standard deviations of the coarse image, local.
    least : float
        ADU per pixel of the coarse image, at least.
    most : int
        Brightest so many are measured.
    """
    level = _level(area)
    if bad is not None and bad.any():
        area = np.where(bad, np.asarray(round(level), area.dtype), area)
    coarse = _binned(area, binning)
    middle = float(np.median(coarse))
    noise = 1.4826 * float(np.median(np.abs(coarse - middle)))
    rows, columns = _local_maxima(coarse, middle + max(threshold * noise, least), most)
    at = (np.stack([columns, rows]) + 0.5) * binning - 0.5
    return _measured(area, *at, radius)


def find_sources_again(
    area: np.ndarray,
    bad: np.ndarray | None = None,
    *,
    threshold: float = 10.0,
    least: float = 30.0,
    fwhm: float = 2.2,
    most: int = 60,
    radius: int = 5,
) -> Sources:
    """Sources in the image area of a quadrant: the thorough look, with a matched filter (photutils).

    It sees stars that the quick look loses: close to something brighter, or faint. It takes ten times as long,
    and photutils alone takes longer to start than a whole lock, so it is for frames that do not lock at once.

    Parameters
    ----------
    area, bad, most : as for `find_sources`.
    threshold : float
        In standard deviations of the pixels.
    least : float
        ADU, peak of a source, at least.
    fwhm : float
        px, of the filter.
    """
    from photutils.detection import DAOStarFinder

    level = _level(area)
    work = np.asarray(area, dtype=np.float32) - np.float32(level)
    if bad is not None:
        work[bad] = 0.0
    sample = work[:: max(1, len(work) // 256)]
    noise = 1.4826 * float(np.median(np.abs(sample - np.median(sample))))
    finder = DAOStarFinder(
        threshold=max(threshold * max(noise, 0.6), least),
        fwhm=fwhm,
        n_brightest=most,
        sharpness_range=(0.2, 0.95),
        roundness_range=(-1.5, 1.5),
        min_separation=0,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that nothing was found is an answer, not a fault
        found = finder(work, mask=bad)
    if found is None:
        return _no_sources()
    return _measured(work, np.asarray(found["x_centroid"]), np.asarray(found["y_centroid"]), radius)


def _level(area: np.ndarray) -> float:
    """Median of every tenth row and column or so."""
    rows, columns = area.shape
    return float(np.median(area[:: max(1, rows // 200), :: max(1, columns // 200)]))


def _binned(area: np.ndarray, binning: int) -> np.ndarray:
    """Means of `binning` x `binning` pixels, float32."""
    rows, columns = (size // binning for size in area.shape)
    kind = np.uint32 if area.dtype.kind == "u" else np.float64
    summed = area[: rows * binning, : columns * binning].reshape(rows, binning, -1).sum(axis=1, dtype=kind)
    total = sum(summed[:, k::binning] for k in range(1, binning)) + summed[:, ::binning]
    return total.astype(np.float32) / np.float32(binning**2)


def _local_maxima(image: np.ndarray, cut: float, most: int, reach: int = 2) -> tuple[np.ndarray, np.ndarray]:
    """(rows, columns) of the pixels above `cut` that are highest within `reach`, the highest `most`."""
    above = np.argwhere(image > cut)
    if len(above) > 50_000:  # a lit frame: only its highest pixels could be told from each other
        above = above[np.argsort(-image[tuple(above.T)], kind="stable")[:50_000]]
    wide = np.pad(image, reach, constant_values=-np.inf)
    window = np.arange(2 * reach + 1)
    around = wide[above[:, 0, None, None] + window[:, None], above[:, 1, None, None] + window[None, :]]
    value = image[tuple(above.T)]
    top = above[value >= around.max(axis=(1, 2))] if len(above) else above
    order = np.argsort(-image[tuple(top.T)], kind="stable")[:most]
    return top[order, 0], top[order, 1]


def _no_sources() -> Sources:
    return Sources(*(np.zeros(0) for _ in Sources.__dataclass_fields__))


def _measured(area: np.ndarray, x: np.ndarray, y: np.ndarray, radius: int) -> Sources:
    """Centroids and second moments of the light about each position, level beside it taken off."""
    from calcamp.analysis.spots import cut_stamps

    if not len(x):
        return _no_sources()
    stamps, corners, _ = cut_stamps(area, x, y, radius)
    side = stamps.shape[1]
    at = np.arange(side, dtype=float)
    distance = np.hypot(at[:, None] - radius, at[None, :] - radius)
    ring = np.where(distance >= radius - 1, stamps, np.nan)
    with np.errstate(invalid="ignore", divide="ignore"):
        flat = ring.reshape(len(ring), -1)
        empty = ~np.isfinite(flat).any(axis=1)
        level = np.nanmedian(np.where(empty[:, None], 0.0, flat), axis=1)
        light = _without_lonely(np.nan_to_num(stamps - level[:, None, None]))
        peak = light.reshape(len(light), -1).max(axis=1)
        light = np.where(light > 0.03 * peak[:, None, None], light, 0.0)
        flux = light.sum(axis=(1, 2))
        cx, cy = (light.sum(axis=1) @ at) / flux, (light.sum(axis=2) @ at) / flux
        xx = (light.sum(axis=1) @ at**2) / flux - cx**2
        yy = (light.sum(axis=2) @ at**2) / flux - cy**2
        xy = np.einsum("nij,i,j->n", light, at, at) / flux - cx * cy
    half = np.hypot((xx - yy) / 2, xy)
    long, short = np.maximum((xx + yy) / 2 + half, 0.0), np.maximum((xx + yy) / 2 - half, 0.0)
    found = Sources(
        corners[:, 1] + cx,
        corners[:, 0] + cy,
        flux,
        np.sqrt((long + short) / 2),
        np.sqrt(long / np.maximum(short, 1e-3)),
        peak / np.maximum(flux, 1e-9),
    )
    found = found.where(np.isfinite(found.x) & np.isfinite(found.y) & (flux > 0))
    found = found.where(np.argsort(-found.flux, kind="stable"))
    return found.where(_first_of_each(found.x, found.y, 3.0))


def _without_lonely(light: np.ndarray) -> np.ndarray:
    """Stamps with pixels that stand alone (hot pixels) replaced by their neighbours' mean.

    The pixel that a spot of 1.5 px is centred on has 2.5 times its neighbours' light; four times is no spot.
    """
    wide = np.pad(light, ((0, 0), (1, 1), (1, 1)), mode="edge")
    beside = np.stack([wide[:, :-2, 1:-1], wide[:, 2:, 1:-1], wide[:, 1:-1, :-2], wide[:, 1:-1, 2:]])
    lonely = light > 4.0 * np.maximum(beside.max(axis=0), 10.0)
    return np.where(lonely, beside.mean(axis=0), light)


def _first_of_each(x: np.ndarray, y: np.ndarray, apart: float) -> np.ndarray:
    """True for positions that are not within `apart` px of an earlier one."""
    keep = np.ones(x.size, bool)
    for k in range(1, x.size):
        keep[k] = not (np.hypot(x[:k][keep[:k]] - x[k], y[:k][keep[:k]] - y[k]) < apart).any()
    return keep


def star_like(
    sources: Sources, elongation: float = 2.0, widths=(0.35, 6.0), sharpest: float = 0.75
) -> np.ndarray:
    """Which sources can be spots: neither hot pixels nor tracks of cosmic rays."""
    return (
        (sources.elongation < elongation)
        & (sources.width > widths[0])
        & (sources.width < widths[1])
        & (sources.sharpness < sharpest)
    )


# ---- the transform ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Similarity:
    """x' = centre + scale R(rotation) (x - centre) + shift."""

    centre: tuple[float, float] = field(metadata=about("px", "of the CCD, silicon coordinates"))
    scale: float = field(metadata=about("1", ""))
    rotation: float = field(metadata=about("rad", "counter-clockwise positive"))
    shift: tuple[float, float] = field(metadata=about("px", "of the CCD's centre"))
    covariance: np.ndarray | None = field(
        default=None, compare=False, metadata=about("", "of shift x, shift y, scale, rotation")
    )

    def __call__(self, xy: np.ndarray) -> np.ndarray:
        """Image positions of pattern positions (n, 2)."""
        c, s = self.scale * math.cos(self.rotation), self.scale * math.sin(self.rotation)
        u = np.asarray(xy, float) - np.asarray(self.centre)
        return np.stack([c * u[:, 0] - s * u[:, 1], s * u[:, 0] + c * u[:, 1]], axis=1) + (
            np.asarray(self.centre) + np.asarray(self.shift)
        )


def fit_similarity(pattern: np.ndarray, image: np.ndarray, centre) -> tuple[Similarity, np.ndarray]:
    """Least-squares similarity between matched positions (n, 2); (transform, residuals (n, 2)).

    Errors of the parameters come from the residuals.
    """
    u, v = np.asarray(pattern, float) - centre, np.asarray(image, float) - centre
    n = len(u)
    # linear in (c, s, tx, ty): x' = c x - s y + tx, y' = s x + c y + ty
    design = np.zeros((2 * n, 4))
    design[:n] = np.stack([u[:, 0], -u[:, 1], np.ones(n), np.zeros(n)], axis=1)
    design[n:] = np.stack([u[:, 1], u[:, 0], np.zeros(n), np.ones(n)], axis=1)
    target = np.concatenate([v[:, 0], v[:, 1]])
    (c, s, tx, ty), *_ = np.linalg.lstsq(design, target, rcond=None)
    residual = (target - design @ np.array([c, s, tx, ty])).reshape(2, n).T
    scale, rotation = math.hypot(c, s), math.atan2(s, c)
    covariance = None
    if n > 2:
        normal = np.linalg.inv(design.T @ design) * float((residual**2).sum()) / (2 * n - 4)
        jacobian = np.array(
            [[0, 0, 1, 0], [0, 0, 0, 1], [c / scale, s / scale, 0, 0], [-s / scale**2, c / scale**2, 0, 0]]
        )
        covariance = jacobian @ normal @ jacobian.T
    return Similarity(
        tuple(map(float, centre)), scale, rotation, (float(tx), float(ty)), covariance
    ), residual


def affine_residual(pattern: np.ndarray, image: np.ndarray) -> float:
    """rms residual per axis, px, of an affine transform (6 parameters); NaN for fewer than 4 points."""
    n = len(pattern)
    if n < 4:
        return NAN
    design = np.column_stack([pattern, np.ones(n)])
    solution, *_ = np.linalg.lstsq(design, image, rcond=None)
    return float(np.sqrt(((image - design @ solution) ** 2).sum() / (2 * n - 6)))


# ---- the lock ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Tolerances:
    """What counts as a lock."""

    shift: float = 1000.0  # px, both signs
    rotation: float = math.radians(2.0)
    scale: float = 0.02
    match: float = 8.0  # px between a star and its place, at first
    residual: float = 4.0  # px rms of the stars, at most
    least: int = 8  # stars matched, at least
    missing: int = 3  # stars of the silicon without a source, at most
    search: float = (
        1.6  # transforms are looked for this much farther, so that a report can say what was found
    )


@dataclass(frozen=True, eq=False)
class Lock:
    """Result of matching a pattern with sources."""

    transform: Similarity | None = field(metadata=about("", "None when none was found"))
    source: np.ndarray = field(metadata=about("", "index of each star's source, -1 without"))
    expected: np.ndarray = field(
        metadata=about("px", "(n, 2), where each star should be; NaN without transform")
    )
    position: np.ndarray = field(metadata=about("px", "(n, 2), where it is, NaN when missing"))
    outside: np.ndarray = field(metadata=about("", "bool: expected beside the silicon"))
    residual: np.ndarray = field(metadata=about("px", "(n, 2), position minus expected"))
    rms: float = field(metadata=about("px", "rms residual per axis"))
    affine_rms: float = field(metadata=about("px", "the same of an affine transform"))
    ok: bool = field(metadata=about("", "within all tolerances"))
    reason: str = field(metadata=about("", "why not"))

    @property
    def matched(self) -> int:
        return int((self.source >= 0).sum())

    @property
    def missing(self) -> int:
        """Stars that should be on the silicon and are not."""
        return int(((self.source < 0) & ~self.outside).sum())


def lock(
    pattern: np.ndarray,
    found: np.ndarray,
    centre,
    on_silicon,
    tolerances: Tolerances | None = None,
) -> Lock:
    """Match a pattern with sources.

    Parameters
    ----------
    pattern : ndarray (n, 2)
        Nominal positions, px.
    found : ndarray (m, 2)
        Positions of sources, the likeliest first.
    centre : (x, y)
        Of the CCD.
    on_silicon : callable
        (n, 2) positions → bool: whether a star there can be seen.
    """
    limits = tolerances or Tolerances()
    n = len(pattern)
    best = _best_start(pattern, found, np.asarray(centre, float), limits) if len(found) >= 2 else None
    if best is None:
        nothing = np.full((n, 2), NAN)
        return Lock(
            None, np.full(n, -1), nothing, nothing, np.zeros(n, bool), nothing, NAN, NAN, False,
            f"{len(found)} sources found, no transform lays the pattern on them",
        )  # fmt: skip
    transform, match = best
    residual = np.zeros((0, 2))
    tolerance = limits.match
    for _ in range(10):
        pairs = match >= 0
        transform, residual = fit_similarity(pattern[pairs], found[match[pairs]], centre)
        # Real patterns scatter: stay within a few times that, and within the tolerance.
        spread = 1.4826 * float(np.median(np.abs(residual))) if pairs.sum() > 4 else tolerance
        tolerance = min(limits.match, max(8.0 * spread, 2.0))
        new = _match(transform(pattern), found, tolerance)
        if (new == match).all():
            break
        match = new
        if (match >= 0).sum() < 3:
            break
    return _judged(pattern, found, transform, match, on_silicon, limits)


def _judged(pattern, found, transform, match, on_silicon, limits: Tolerances) -> Lock:
    pairs = match >= 0
    expected = transform(pattern)
    position = np.full_like(expected, NAN)
    position[pairs] = found[match[pairs]]
    residual = position - expected
    number = int(pairs.sum())
    rms = float(np.sqrt(np.nansum(residual**2) / max(2 * number - 4, 1))) if number else NAN
    outside = ~on_silicon(expected) & ~pairs
    missing = int((~pairs & ~outside).sum())
    turn, scale, shift = math.degrees(transform.rotation), transform.scale, math.hypot(*transform.shift)
    reasons = [
        text
        for bad, text in (
            (
                number < limits.least,
                f"{number} of {len(pattern)} stars matched, at least {limits.least} needed",
            ),
            (missing > limits.missing, f"{missing} stars missing, at most {limits.missing} allowed"),
            (
                abs(transform.rotation) > limits.rotation,
                f"rotation {turn:+.2f} deg, at most {math.degrees(limits.rotation):g}",
            ),
            (abs(scale - 1) > limits.scale, f"scale {scale:.4f}, at most {limits.scale:g} from 1"),
            (shift > limits.shift, f"shift {shift:.0f} px, at most {limits.shift:g}"),
            (
                number >= 3 and rms > limits.residual,
                f"stars scatter by {rms:.1f} px rms, at most {limits.residual:g}",
            ),
        )
        if bad
    ]
    return Lock(
        transform,
        match,
        expected,
        position,
        outside,
        residual,
        rms if number > 2 else NAN,
        affine_residual(pattern[pairs], found[match[pairs]]),
        not reasons,
        "; ".join(reasons),
    )


def _match(expected: np.ndarray, found: np.ndarray, tolerance: float) -> np.ndarray:
    """Index of the nearest source of each star within `tolerance`, each source given once; -1 without."""
    distance = np.hypot(expected[:, None, 0] - found[None, :, 0], expected[:, None, 1] - found[None, :, 1])
    match = distance.argmin(axis=1)
    near = distance[np.arange(len(expected)), match]
    match = np.where(near <= tolerance, match, -1)
    for source in np.unique(match[match >= 0]):
        rivals = np.nonzero(match == source)[0]
        if rivals.size > 1:
            match[rivals] = -1
            match[rivals[near[rivals].argmin()]] = source
    return match


def _best_start(pattern, found, centre, limits: Tolerances):
    """(transform, match) of the pair of stars and pair of sources that agree with most other stars."""
    n, m = len(pattern), len(found)
    i, j = np.triu_indices(n, 1)
    a, b = (index.ravel() for index in np.nonzero(~np.eye(m, dtype=bool)))
    p = (pattern[:, 0] - centre[0]) + 1j * (pattern[:, 1] - centre[1])
    s = (found[:, 0] - centre[0]) + 1j * (found[:, 1] - centre[1])
    # Long bases first: they fix rotation and scale best; the longest 60 are enough for a lock with few stars.
    length = np.abs(p[j] - p[i])
    order = np.argsort(-length, kind="stable")
    best, best_key = None, (2, -np.inf)
    widest_turn, widest_scale = limits.search * limits.rotation, limits.search * limits.scale
    ba = s[b] - s[a]
    for i_, j_ in zip(i[order], j[order], strict=True):
        ratio = ba / (p[j_] - p[i_])
        likely = (np.abs(np.abs(ratio) - 1) <= widest_scale) & (np.abs(np.angle(ratio)) <= widest_turn)
        if not likely.any():
            continue
        factor = ratio[likely]
        shift = s[a[likely]] - factor * p[i_]
        near = np.abs(shift) <= limits.search * limits.shift
        factor, shift = factor[near], shift[near]
        if not factor.size:
            continue
        placed = factor[:, None] * p[None, :] + shift[:, None]
        distance = np.abs(placed[:, :, None] - s[None, None, :])
        gap = distance.min(axis=2)
        # Two stars fix the transform with an error of their own scatter, so the tolerance is doubled here.
        hit = gap <= 2.0 * limits.match
        number = hit.sum(axis=1)
        cost = -(np.where(hit, gap, 0.0) ** 2).sum(axis=1) / np.maximum(number, 1) - 1e-6 * np.abs(shift)
        k = int(np.lexsort((-cost, -number))[0])
        key = (int(number[k]), float(cost[k]))
        if key > best_key and number[k] >= 3:
            best_key = key
            best = (factor[k], shift[k], distance[k].argmin(axis=1), hit[k])
        if best_key[0] >= min(n, m, n - 1) or (best_key[0] >= 0.85 * n and -best_key[1] < limits.match**2):
            break
    if best is None:
        return None
    factor, shift, nearest, hit = best
    transform = Similarity(
        tuple(map(float, centre)),
        abs(factor),
        float(np.angle(factor)),
        (float(shift.real), float(shift.imag)),
    )
    match = np.where(hit, nearest, -1)
    unique, first = np.unique(match, return_index=True)
    only = np.full(n, -1)
    only[first[unique >= 0]] = unique[unique >= 0]
    return transform, only
