"""Dark frames: dark current, its structure, hot pixels and columns, master dark.

All arrays are canonical quadrants [row, column] of prepared frames (offset removed, bias subtracted when
there is one), ADU. Dark current is the level of the image area above that of the overscan of the same rows:
both saw the same offset, and only the image pixels collected charge for the whole exposure.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from calcamp.analysis.background import box_edges, box_means, interpolate_boxes
from calcamp.analysis.bias import Pattern, fixed_pattern, stack_noise
from calcamp.analysis.chance import gamma_tail
from calcamp.analysis.cosmics import CosmicHits, find_cosmics
from calcamp.analysis.defects import (
    ColumnDefect,
    HotPixels,
    clusters,
    find_columns,
    find_hot_pixels,
    measure_hot_pixels,
)
from calcamp.analysis.statistics import NAN, Limit, about, clipped, upper_limit
from calcamp.analysis.sums import bands, column_sums, row_sums
from calcamp.detector.dq import DQ
from calcamp.detector.geometry import Detector

#: Boltzmann's constant, eV/K.
BOLTZMANN = 8.617333262e-5


def arrhenius(temperature: float, reference: float = 153.0, activation: float = 0.65) -> float:
    """Factor that takes a dark current at `temperature` (K) to `reference` (K).

    exp(−E/k (1/T_ref − 1/T)), E in eV.
    """
    return math.exp(-activation / BOLTZMANN * (1 / reference - 1 / temperature))


# ---- levels of one exposure ---------------------------------------------------------------------------


@dataclass(frozen=True)
class Level:
    """Levels of a prepared quadrant; ADU."""

    signal: float = field(metadata=about("ADU", "image minus overscan, same rows"))
    signal_err: float = field(metadata=about("ADU", "from the scatter of the rows"))
    img_minus_pre: float = field(metadata=about("ADU", "image minus prescan, same rows"))
    img_minus_pre_err: float
    ove_minus_pre: float
    ove_minus_pre_err: float
    n: int
    n_left_out: int


def measure_level(
    quadrant: np.ndarray,
    detector: Detector,
    noise: float,
    mask: np.ndarray | None = None,
    vstart: int = 0,
    vend: int | None = None,
    sigma: float = 5.0,
    background: np.ndarray | None = None,
) -> Level:
    """Clipped mean of the image area above the overscan and the prescan of the same rows.

    Row by row, so that offsets and noise common to a row cancel; the scatter of the row differences gives
    the error, row-correlated noise included. The image is clipped about a smooth background, so structure
    is not mistaken for outliers.

    Parameters
    ----------
    quadrant : (rows, columns) float32
        Prepared quadrant, whole.
    noise : float
        Standard deviation of a pixel, rounding included, ADU.
    mask : bool array of the quadrant, optional
        True where a pixel is left out.
    background : array of the rows read of the image area, optional
        Smooth background to clip about; measured from the frame when it is not given.
    """
    sums, left_out, used = {}, 0, 0
    for name in ("pre", "img", "ove"):
        region = detector.region(name, vstart, vend)
        part = quadrant[region]
        out = None if mask is None else mask[region]
        if name == "img" and background is not None:
            area = detector.region(name, vstart, vend, trimmed=False)
            top, trim = (cut.start - whole.start for cut, whole in zip(region, area, strict=True))
            centre = background[top : top + part.shape[0], trim : trim + part.shape[1]]
            cut = np.float32(sigma * noise)
        else:
            centre, cut = _centre(part, noise, sigma, out)
        sums[name], number = _clipped_rows(part, centre, cut, out)
        n = part.shape[1] - number
        if name == "img":
            left_out, used = int(number.sum()), int(n.sum())
    out = []
    for a, b in (("img", "ove"), ("img", "pre"), ("ove", "pre")):
        difference = clipped(sums[a] - sums[b], sigma, rounded=0)
        out += [difference.mean, difference.mean_err]
    return Level(*out, used, left_out)


def _clipped_rows(part, centre, cut, mask) -> tuple[np.ndarray, np.ndarray]:
    """(means of the rows within the clip, NaN where most is clipped; numbers left out)."""
    mean, number = np.full(part.shape[0], NAN), np.zeros(part.shape[0], int)
    structured = np.ndim(centre) > 0
    for rows in bands(part.shape[0]):
        level = centre[rows] if structured else centre
        values = part[rows] - level
        bad = ~(np.abs(values) <= cut)
        if mask is not None:
            bad |= mask[rows]
        at = np.flatnonzero(bad)
        row = at // values.shape[1]
        values.reshape(-1)[at] = 0
        number[rows] = np.bincount(row, minlength=len(values))
        n = part.shape[1] - number[rows]
        # the background under what is left out must not count either
        if structured:
            base = row_sums(level) - np.bincount(row, level[row, at % values.shape[1]], len(values))
        else:
            base = float(centre) * n
        with np.errstate(invalid="ignore", divide="ignore"):
            mean[rows] = np.where(n > 0.3 * part.shape[1], (row_sums(values) + base) / n, NAN)
    return mean, number


def _centre(part, noise, sigma, mask) -> tuple[float | np.ndarray, np.float32]:
    """Centre and half width of the clip of a region: smooth in the image, flat in a scan."""
    if min(part.shape) < 128:
        rough = clipped(part, sigma, mask=mask, rounded=0)
        return np.float32(rough.mean), np.float32(sigma * max(rough.std, noise))
    boxes = box_means(part, (4, 4), mask, iterations=2)
    if np.nanmax(boxes.mean) - np.nanmin(boxes.mean) < 0.3 * noise:
        return np.float32(np.nanmean(boxes.mean)), np.float32(sigma * noise)
    return interpolate_boxes(boxes, part.shape), np.float32(sigma * noise)


# ---- dark current ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class DarkCurrent:
    """Dark current of a quadrant."""

    signal: float = field(metadata=about("ADU", "mean signal of an exposure"))
    signal_err: float = field(metadata=about("ADU", "statistical, with that of the bias product"))
    rate_adu_h: float = field(metadata=about("ADU/pixel/h", "signal over exposure time"))
    rate: float = field(metadata=about("e-/pixel/h", "times the gain"))
    rate_err: float = field(metadata=about("e-/pixel/h", "statistical, with the gain's error"))
    systematic: float = field(
        metadata=about(
            "e-/pixel/h", "from the offset of the image against the scans; with a bias what is below zero"
        )
    )
    limit: Limit = field(metadata=about("e-/pixel/h", "95 %; statistical and systematic error together"))
    chi2_dof: float = field(metadata=about("1", "of the exposures about their mean"))
    scatter: float = field(metadata=about("ADU", "standard deviation of the signal over the exposures"))
    reason: str = field(
        default="", metadata=about("", "why the number is not to be trusted, empty otherwise")
    )


#: Exposures scatter more than their errors tell when chance does as much in fewer cases: their scatter counts then.
_CHANCE = 1e-3
#: Errors below zero from which a dark current is no fluctuation: something else moved by as much.
_BELOW_ZERO = 4.0


def dark_current(
    levels: Sequence[Level],
    exptimes: Sequence[float],
    gain: float,
    gain_err: float | None = None,
    bias_err: float | None = None,
    structure: float = 0.0,
) -> DarkCurrent:
    """Dark current from the levels of all exposures.

    Parameters
    ----------
    levels : sequence of Level
    exptimes : sequence of float
        Seconds, one per level.
    gain, gain_err : float
        e-/ADU.
    bias_err : float, optional
        Error of the image minus overscan level of the bias product that was subtracted, ADU. None: no bias
        was subtracted, and the offset of the image area against the scans is not known. Its size is then
        stated as systematic error: what is seen of steps between the areas (overscan minus prescan and image
        minus prescan, added) and the image's own `structure`, in quadrature. The signal is then mostly an
        upper limit: a dark test alone cannot tell such a step from dark current.
    structure : float
        Rms of the structure of the image area on the scale of tiles, ADU; used without a bias only.

    Notes
    -----
    Exposures that disagree beyond chance widen the error by the root of χ² per degree of freedom. A current that is
    negative beyond its error shows by how much the step between image and scans moved since the bias: that is then
    the systematic error.
    """
    good = [
        (level, t) for level, t in zip(levels, exptimes, strict=True) if math.isfinite(level.signal) and t > 0
    ]
    if not good:
        return DarkCurrent(NAN, NAN, NAN, NAN, NAN, NAN, upper_limit(NAN, NAN), NAN, NAN)
    signals = np.array([level.signal for level, _ in good])
    # The noise of a subtracted bias is in the scatter of the rows of every exposure, and the same in all:
    # it is counted once, below.
    own = np.array([level.signal_err for level, _ in good]) ** 2 - (bias_err or 0.0) ** 2
    errors = np.sqrt(np.maximum(own, 0.25 * np.array([level.signal_err for level, _ in good]) ** 2))
    times = np.array([t for _, t in good])
    # signal_k = rate t_k + a common offset error: weighted mean of the rates
    weights = (times / errors) ** 2
    rates = signals / times
    rate = float(weights @ rates / weights.sum())
    err = float(1 / math.sqrt(weights.sum()))
    dof = len(good) - 1
    chi2 = float((((rates - rate) * times / errors) ** 2).sum())
    if dof and gamma_tail(dof / 2, chi2 / 2) < _CHANCE:
        err *= math.sqrt(chi2 / dof)
    if bias_err is not None:
        err = math.hypot(err, bias_err * float(weights @ (1 / times) / weights.sum()))
    mean_time = float(times.mean())
    systematic = 0.0
    if bias_err is None:
        # Steps of the electronics between prescan, image and overscan look like signal. Their size is unknown;
        # what is seen of them bounds it: overscan minus prescan plus image minus prescan, both taken whole.
        scans = float(np.mean([level.ove_minus_pre for level, _ in good]))
        image = float(np.mean([level.signal + level.ove_minus_pre for level, _ in good]))
        systematic = math.hypot(abs(scans) + abs(image), structure) / mean_time
    reason = ""
    if rate < -_BELOW_ZERO * math.hypot(err, systematic):
        reason = (
            f"{-rate * mean_time:.2g} ADU below zero: the image area moved against the scans since the bias"
        )
        systematic = math.hypot(systematic, rate)
    scale = gain * 3600
    value = rate * scale
    statistical = math.hypot(err * scale, value * (gain_err or 0.0) / gain)
    limit = upper_limit(value, math.hypot(statistical, systematic * scale))
    return DarkCurrent(
        rate * mean_time,
        err * mean_time,
        rate * 3600,
        value,
        statistical,
        systematic * scale,
        limit,
        chi2 / dof if dof else NAN,
        float(np.std(signals, ddof=1)) if dof else NAN,
        reason,
    )


def bias_level_error(
    error: np.ndarray, detector: Detector, vstart: int = 0, vend: int | None = None
) -> float:
    """Error of the image minus overscan level of a bias product, from its error plane (quadrant), ADU."""
    total = 0.0
    for name in ("img", "ove"):
        part = error[detector.region(name, vstart, vend)]
        total += float(np.nanmean(np.square(part, dtype=np.float64))) / max(part.size, 1)
    return math.sqrt(total)


# ---- the whole analysis of a quadrant ---------------------------------------------------------------------


@dataclass(frozen=True)
class MasterDark:
    """Mean of like darks without cosmic rays; arrays of the whole quadrant."""

    mean: np.ndarray = field(metadata=about("ADU", "float32, NaN without a valid exposure"))
    count: np.ndarray = field(metadata=about("1", "exposures used, uint8"))
    dq: np.ndarray = field(metadata=about("bits", "uint32 data quality"))
    noise: float = field(
        metadata=about("ADU", "of a good image pixel of one prepared frame, rounding included")
    )
    gain: float = field(metadata=about("e-/ADU", ""))
    level: float = field(
        default=0.0, metadata=about("ADU", "of the image area, whose shot noise is in `noise`")
    )
    bias_error: np.ndarray | None = field(
        default=None, metadata=about("ADU", "error of the bias that was taken off, None without")
    )

    @property
    def err(self) -> np.ndarray:
        """Standard error, float32, ADU; made when it is asked for."""
        return self.write_err(np.empty_like(self.mean))

    def write_err(self, out: np.ndarray) -> np.ndarray:
        """Standard error from noise, charge above the level and the bias taken off, NaN without a valid exposure.

        Written to `out`, which `mean` may be.
        """
        for rows in bands(len(out)):
            variance = np.maximum(self.mean[rows] - np.float32(self.level), np.float32(0))
            variance *= np.float32(1 / self.gain)
            variance += np.float32(self.noise**2)
            variance /= np.maximum(self.count[rows], 1)
            if self.bias_error is not None:
                variance += np.square(np.nan_to_num(self.bias_error[rows]))
            np.sqrt(variance, out=out[rows])
        out[self.count == 0] = np.nan
        return out


@dataclass(frozen=True)
class QuadrantDark:
    """Everything that the darks tell about a quadrant."""

    master: MasterDark
    noise: float = field(metadata=about("ADU", "of a pixel of one prepared frame, rounding included"))
    levels: tuple[Level, ...]
    current: DarkCurrent
    cosmics: CosmicHits
    hot: HotPixels = field(metadata=about("", "image area"))
    columns: tuple[ColumnDefect, ...] = field(metadata=about("", "image area"))
    n_clusters: int = field(metadata=about("1", "groups of at least two touching hot pixels"))
    n_unstable: int = field(metadata=about("1", "pixels of the image area that are not repeatable"))
    dsnu: Pattern = field(metadata=about("ADU", "non-uniformity of the good pixels, noise removed"))
    percentiles: dict[float, float] = field(metadata=about("ADU", "of the image area of the master"))
    histogram: tuple[np.ndarray, np.ndarray] = field(metadata=about("ADU, 1", "bin centres and counts"))
    tiles: tuple[np.ndarray, np.ndarray, np.ndarray] = field(
        metadata=about("ADU", "signal above the overscan, error, pixels; [tile row, tile column]")
    )
    row_err: float = field(
        default=0.0,
        metadata=about("ADU", "error that the pixels of a row of the master share, of offset and row noise"),
    )


PERCENTILES = (5.0, 50.0, 95.0, 99.0, 99.9)
HISTOGRAM_BIN_ADU = 0.5


def analyse_quadrant(
    frames: Sequence[np.ndarray],
    exptimes: Sequence[float],
    detector: Detector,
    gain: float,
    gain_err: float | None = None,
    *,
    mask: np.ndarray | None = None,
    invalid: Sequence[np.ndarray] | None = None,
    bias_error: np.ndarray | None = None,
    vstart: int = 0,
    vend: int | None = None,
    cosmic_sigma: float = 5.0,
    cosmic_grow: int = 1,
    hot_sigma: float = 5.0,
    hot_rate: float = 0.05,
    column_sigma: float = 7.0,
    background_box: int = 64,
) -> QuadrantDark:
    """Analyse the prepared darks of one quadrant.

    Parameters
    ----------
    frames : sequence of (rows, columns) float32
        Prepared frames, whole quadrant, canonical; exposure times should agree to a few per cent.
    exptimes : sequence of float
        Seconds.
    gain, gain_err : float
        e-/ADU.
    mask : bool array of the quadrant, optional
        Known bad pixels: left out of levels and statistics, not of the master.
    invalid : sequence of int arrays, optional
        Per frame, flat indices of saturated or lost pixels.
    bias_error : array of the quadrant, optional
        Error plane of the bias that was subtracted; None when none was.
    cosmic_sigma, cosmic_grow, hot_sigma, column_sigma : float
        Cuts.
    hot_rate : float
        e-/s; hot pixels exceed this and `hot_sigma`.
    """
    noise = (
        stack_noise(frames, detector.region("img", vstart, vend))
        if len(frames) > 1
        else _single_noise(frames, detector, vstart, vend)
    )
    mean_time = float(np.mean(exptimes))
    hot_level = hot_rate * mean_time / gain
    cosmics = find_cosmics(frames, noise, gain, cosmic_sigma, cosmic_grow, invalid, hot_level)
    excluded = [
        np.union1d(a, b) if len(b) else a
        for a, b in zip(cosmics.pixels, invalid or [()] * len(frames), strict=True)
    ]
    mean, count = _mean_without(frames, excluded)
    image = detector.region("img", vstart, vend, trimmed=False)
    area = mean[image]
    known = None if mask is None else mask[image]
    background = interpolate_boxes(box_means(area, _grid(area.shape, background_box), known), area.shape)
    residual = area - background
    typical = noise / math.sqrt(len(frames))
    columns = tuple(
        find_columns(residual, typical, max(0.5 * hot_level, 0.0) if gain else 0.0, column_sigma, mask=known)
    )
    in_columns = np.zeros(area.shape, bool)
    for defect in columns:
        in_columns[defect.first : defect.last + 1, defect.column] = True
    # against the error of a pixel with all exposures first, then of the few that are left against their own
    hot_at = find_hot_pixels(residual, typical, hot_level, hot_sigma, in_columns)
    row, column = np.divmod(hot_at, area.shape[1])
    own_err = noise / np.sqrt(np.maximum(count[image][row, column], 1))
    hot_at = hot_at[residual[row, column] > hot_sigma * own_err]
    in_image = [_to_area(e, mean.shape, image) for e in excluded]
    bias_area = None if bias_error is None else bias_error[image]
    in_frames = [f[image] for f in frames]
    hot = measure_hot_pixels(hot_at, in_frames, background, noise, gain, in_image, bias_error=bias_area)
    dq, bad, n_clusters, n_unstable = _quality(
        area.shape, columns, hot, _to_area(cosmics.unstable, mean.shape, image), count[image]
    )
    if known is not None:
        bad = bad | known
    whole_dq = np.full(mean.shape, int(DQ.NON_IMAGE), np.uint32)
    whole_dq[image] = dq
    levels = tuple(_levels(frames, excluded, bad, mask, image, detector, noise, vstart, vend, background))
    dsnu, row_means = _dsnu(frames, excluded, bad, image, noise, bias_area)
    row_err, tile_err = _shared_errors(row_means, noise, bias_area, area.shape, detector)
    tiles = _tiles(mean, bad, detector, vstart, vend, tile_err)
    structure = float(np.nanstd(tiles[0])) if np.isfinite(tiles[0]).any() else 0.0
    bias_err = None if bias_error is None else bias_level_error(bias_error, detector, vstart, vend)
    current = dark_current(levels, exptimes, gain, gain_err, bias_err, structure)
    percentiles, histogram = _distribution(area, levels)
    return QuadrantDark(
        MasterDark(mean, count, whole_dq, noise, gain, _level(levels), bias_error), noise, levels, current,
        cosmics, hot, columns, n_clusters, n_unstable, dsnu, percentiles, histogram, tiles, row_err,
    )  # fmt: skip


def _single_noise(frames, detector, vstart, vend) -> float:
    return clipped(frames[0][detector.region("ove", vstart, vend)], 5.0, rounded=0).std


def _grid(shape, box) -> tuple[int, int]:
    return tuple(max(1, round(size / box)) for size in shape)


def _to_area(pixels: np.ndarray, shape, area) -> np.ndarray:
    """Flat indices of the quadrant as flat indices of an area of it."""
    rows, columns = np.divmod(np.asarray(pixels, dtype=np.intp), shape[1])
    height, width = area[0].stop - area[0].start, area[1].stop - area[1].start
    r, c = rows - area[0].start, columns - area[1].start
    inside = (r >= 0) & (r < height) & (c >= 0) & (c < width)
    return r[inside] * width + c[inside]


def _mean_without(frames, excluded) -> tuple[np.ndarray, np.ndarray]:
    """Mean and number of the valid values per pixel."""
    total = np.empty(frames[0].shape, np.float32)
    for rows in bands(len(total)):
        np.add(frames[0][rows], frames[1][rows] if len(frames) > 1 else 0, out=total[rows])
        for frame in frames[2:]:
            total[rows] += frame[rows]
    count = np.full(total.shape, len(frames), np.uint8)
    flat, number = total.reshape(-1), count.reshape(-1)
    touched = np.unique(np.concatenate([*excluded, np.empty(0, np.intp)])).astype(np.intp)
    # added up again without the excluded values: taking a bright hit off a sum loses digits
    values = np.stack([np.asarray(f).reshape(-1)[touched] for f in frames]).astype(np.float64)
    for k, out in enumerate(excluded):
        values[k, np.isin(touched, out)] = np.nan
    valid = np.isfinite(values)
    flat[touched] = np.where(valid, values, 0).sum(axis=0)
    number[touched] = valid.sum(axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        total /= count
    return total, count


def _quality(shape, columns, hot, unstable, count) -> tuple[np.ndarray, np.ndarray, int, int]:
    """DQ plane of the image area, its defects as a bool plane, numbers of clusters and of unstable pixels."""
    dq = np.zeros(shape, np.uint32)
    for defect in columns:
        bits = (
            DQ.BAD_COL
            | (DQ.BRIGHT_COL if defect.level > 0 else 0)
            | (DQ.PARTIAL_COL if defect.partial else 0)
        )
        dq[defect.first : defect.last + 1, defect.column] |= np.uint32(bits)
    flat = dq.reshape(-1)
    pixels = hot.row * shape[1] + hot.column
    flat[pixels] |= np.uint32(DQ.HOT)
    flat[pixels[~hot.repeatable]] |= np.uint32(DQ.UNSTABLE)
    flat[unstable] |= np.uint32(DQ.UNSTABLE)
    n_unstable = np.union1d(pixels[~hot.repeatable], unstable).size  # some are found in both ways
    outside = pixels[(flat[pixels] & np.uint32(DQ.BAD_COL)) == 0]
    groups = clusters(outside, shape)
    flat[outside[groups.members()]] |= np.uint32(DQ.CLUSTER)
    dq[count == 0] |= np.uint32(DQ.COSMIC)
    return dq, dq != 0, groups.number(), n_unstable


def _levels(frames, excluded, bad, mask, image, detector, noise, vstart, vend, background):
    """Level of each exposure, defects and cosmic rays left out."""
    base = np.zeros(frames[0].shape, bool) if mask is None else mask.copy()
    base[image] |= bad
    for frame, out in zip(frames, excluded, strict=True):
        flat = base.reshape(-1)
        before = flat[out]
        flat[out] = True
        yield measure_level(frame, detector, noise, base, vstart, vend, background=background)
        flat[out] = before


def _level(levels) -> float:
    """Of the image area above the prescan, mean of the exposures; 0 when none has one."""
    known = [level.img_minus_pre for level in levels if math.isfinite(level.img_minus_pre)]
    return sum(known) / len(known) if known else 0.0


def _shared_errors(row_means, noise, bias_error, shape, detector) -> tuple[float, float]:
    """(of a row, of a row of tiles): error of the master that all their pixels share, ADU.

    Offset and row noise, from what the frames' row means differ by, white noise taken off. The bias that was
    subtracted has the same from as many frames as its error tells.
    """
    number = len(row_means)
    if number < 2:
        return 0.0, 0.0
    share = 1 / number
    if bias_error is not None:
        share += float(np.nanmedian(np.square(bias_error[::16, ::16], dtype=np.float64))) / noise**2
    edges = np.unique(box_edges(shape[0], detector.tiles[0]))
    by_tile = np.add.reduceat(row_means, edges[:-1], axis=1) / np.diff(edges)
    out = []
    for means, pixels in ((row_means, shape[1]), (by_tile, shape[1] * shape[0] / by_tile.shape[1])):
        rest = means - means.mean(axis=1, keepdims=True)
        rest -= rest.mean(axis=0)
        variance = float(np.square(rest).sum()) / ((number - 1) * max(means.shape[1] - 1, 1))
        out.append(math.sqrt(max(variance - noise**2 / pixels, 0.0) * share))
    return out[0], out[1]


def _tiles(mean, bad, detector, vstart, vend, shared):
    """Clipped means of the tiles of the image area above the overscan; `shared` is the error of a row of tiles."""
    rows, columns = detector.region("img", vstart, vend, trimmed=False)
    area = mean[rows, columns]
    boxes = box_means(area, detector.tiles, bad, sigma=4.0)
    ove = clipped(mean[detector.region("ove", vstart, vend)], 5.0, rounded=0)
    return boxes.mean - ove.mean, np.hypot(boxes.err, math.hypot(ove.mean_err, shared)), boxes.n


def _dsnu(frames, excluded, bad, image, noise, bias_error) -> tuple[Pattern, np.ndarray]:
    """(non-uniformity of the good pixels, means of the rows of each frame).

    Mean product of different exposures, no noise in it. The noise of a subtracted bias is the same in all exposures:
    its mean square is taken out.
    """
    shape = frames[0].shape
    out = bad.copy()
    for pixels in excluded:
        out.reshape(-1)[_to_area(pixels, shape, image)] = True
    views = [frame[image] for frame in frames]
    first = clipped(views[0][::8, ::8], 5.0, rounded=0)
    level, reach = np.float32(first.mean), np.float32(6 * noise)
    rows = np.zeros((len(frames), bad.shape[0]))
    columns = np.zeros((len(frames), bad.shape[1]))
    power = 0.0
    for part in bands(bad.shape[0]):
        block = np.stack([view[part] for view in views])
        block -= level
        aside = out[part]
        aside |= ~(np.maximum(block.max(axis=0), -block.min(axis=0)) <= reach)
        block.reshape(len(frames), -1)[:, np.flatnonzero(aside)] = 0
        total = block.sum(axis=0)
        power += float(np.vdot(total, total)) - float(np.vdot(block, block))
        for k, values in enumerate(block):
            rows[k, part] = row_sums(values) / values.shape[1]
            columns[k] += column_sums(values)
    columns /= bad.shape[0]
    good = int(out.size - np.count_nonzero(out))
    pattern = fixed_pattern(power, good, rows, columns, noise**2)
    if bias_error is None or not math.isfinite(pattern.fixed):
        return pattern, rows
    return _less_bias_noise(pattern, bias_error), rows


def _less_bias_noise(pattern: Pattern, bias_error: np.ndarray) -> Pattern:
    from dataclasses import replace

    extra = float(np.nanmean(np.square(bias_error, dtype=np.float64)))
    values = {}
    for name in ("fixed", "residual"):
        value, err = getattr(pattern, name), getattr(pattern, f"{name}_err")
        variance = value**2 - extra
        # 2 % on the noise of the bias product is an honest guess of how well its error plane is known
        variance_err = math.hypot(2 * value * err, 0.04 * extra)
        values[name] = math.sqrt(max(variance, 0.0))
        values[f"{name}_err"] = min(
            variance_err / (2 * values[name]) if values[name] else math.inf, math.sqrt(variance_err)
        )
    return replace(pattern, **values)


def _distribution(area, levels):
    """Percentiles and histogram of the master above the overscan level, ADU."""
    shifts = [level.img_minus_pre - level.signal for level in levels]
    if not np.isfinite(shifts).any():
        return dict.fromkeys(PERCENTILES, NAN), (np.empty(0), np.empty(0, np.intp))
    shift = float(np.nanmean(shifts))
    parts = 10  # of a bin of the figure: the percentiles need finer ones
    width = HISTOGRAM_BIN_ADU / parts
    low, high = -20.0, 130.0
    bins = int((high - low) / width)
    # bin 0 is below the range, the last above it, and one more takes what is not a number
    counts = np.zeros(bins + 3, np.intp)
    for rows in bands(area.shape[0]):
        index = (area[rows] - np.float32(low + shift)) * np.float32(1 / width)
        index += np.float32(1)
        np.clip(index, 0, bins + 1, out=index)
        index[np.isnan(index)] = bins + 2
        counts += np.bincount(index.astype(np.intp).ravel(), minlength=bins + 3)
    counts = counts[:-1]
    cumulative = np.cumsum(counts)
    edges = low + width * np.arange(bins + 1)
    wanted = {p: p / 100 * cumulative[-1] for p in PERCENTILES}
    percentiles = {p: float(np.interp(target, cumulative[: bins + 1], edges)) for p, target in wanted.items()}
    beyond = [p for p, target in wanted.items() if not cumulative[0] < target < cumulative[bins]]
    if beyond:  # of the histogram's range
        exact = np.nanpercentile(area, beyond) - shift
        percentiles |= dict(zip(beyond, exact.tolist(), strict=True))
    coarse = counts[1:-1].reshape(-1, parts).sum(axis=1)
    centres = low + HISTOGRAM_BIN_ADU * (np.arange(coarse.size) + 0.5)
    return percentiles, (centres, coarse)
