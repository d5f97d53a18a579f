"""Flats: stacks with outliers left out, illumination, pixel response with its noise removed, lamp, saturation time."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np

from calcamp.analysis.ptc import FDR
from calcamp.analysis.splines import spline_matrix
from calcamp.analysis.statistics import NAN, about, fit_linear
from calcamp.analysis.sums import BAND, bands
from calcamp.analysis.tiles import ColumnScan, TileScan, area_mean, block_sums, strips, tile_means

#: Relative signal below which a pixel does not answer to light.
DEAD = 0.5


# ---- stacks -----------------------------------------------------------------------------------------
#: Differences of neighbouring frames that give the noise of a frame.
NOISE_PAIRS = 5


@dataclass
class Stack:
    """Sums of like flats of one quadrant, in two halves, each frame at the flux of the first.

    Cosmic rays are what stands out against the median of the first three frames. Nothing else is kept, so memory
    does not grow with the number of frames.
    """

    edges: tuple
    sigma: float = 6.0
    flux: float = NAN  # ADU, of the first frame
    signal: list = field(default_factory=list)  # ADU, of each frame
    sums: list = field(default_factory=list)  # per half
    counts: list = field(default_factory=list)  # per half
    rejected: int = 0
    _first: list = field(default_factory=list)
    _reference: np.ndarray | None = None
    _noise: np.ndarray | None = None  # ADU, of a frame, per tile
    _variances: list = field(default_factory=list)
    _last: tuple | None = None  # frame before, its mask
    _number: int = 0

    def add(self, image: np.ndarray, mask: np.ndarray | None) -> tuple[float, np.ndarray]:
        """Add a frame (ADU above offset); returns its signal, ADU, and tile means over it."""
        mean, _, n = tile_means(image, self.edges, mask)
        signal = area_mean(mean, n, self.edges)
        self.signal.append(signal)
        if not (math.isfinite(signal) and signal > 0):
            return signal, mean
        if not math.isfinite(self.flux):
            self.flux = signal
        factor = np.float32(self.flux / signal)
        if self._reference is None:
            self._first.append((image * factor, mask))
            if len(self._first) == 3:
                self._settle()
        else:
            self._accumulate(image, factor, mask)
            self._follow(image, factor, mask)
        return signal, mean / signal

    def _settle(self) -> None:
        """Reference, noise and first sums from the frames held back."""
        frames = [frame for frame, _ in self._first]
        if len(frames) >= 3:
            a, b, c = frames
            self._reference = np.maximum(np.minimum(a, b), np.minimum(np.maximum(a, b), c))
        elif len(frames) == 2:
            self._reference = np.minimum(*frames)
        else:
            self._reference = frames[0]
        for one, two in pairwise(self._first):
            self._noise_of(one[0] - two[0], one[1], two[1])
        self._noise = self._spread()
        for frame, mask in self._first:
            self._accumulate(frame, np.float32(1.0), mask)
        self._last, self._first = self._first[-1], []

    def _follow(self, image, factor, mask) -> None:
        """Noise from the difference to the frame before, for the first frames."""
        if len(self._variances) >= NOISE_PAIRS:
            self._last = None
            return
        scaled = image * factor
        self._noise_of(scaled - self._last[0], self._last[1], mask)
        self._last = (scaled, mask)

    def _noise_of(self, difference, mask1, mask2) -> None:
        bad = mask1 if mask2 is None or mask1 is mask2 else mask2 if mask1 is None else mask1 | mask2
        scan = TileScan(difference, self.edges, bad)
        _, variance = scan.variance()
        for _ in range(2):
            _, variance = scan.variance(scan.beyond(5.5 * np.sqrt(np.nan_to_num(variance, nan=1.0))))
        self._variances.append(0.5 * variance)

    def _spread(self) -> np.ndarray | None:
        return np.sqrt(np.mean(self._variances, axis=0)) if self._variances else None

    def _accumulate(self, image, factor, mask) -> None:
        """Add a frame to its half; what stands out against the reference is taken off again."""
        half = self._number % 2
        while len(self.sums) < 2:
            self.sums.append(np.zeros(image.shape, np.float32))
            self.counts.append(np.zeros(image.shape, np.uint8))
        total, found = self.sums[half], []
        buffer = np.empty((BAND, image.shape[1]), np.float32)
        for cut, window in strips(self._windows(), self.edges):
            scan = ColumnScan(image.shape[1])
            for rows in bands(cut.stop, cut.start):
                band = buffer[: rows.stop - rows.start]
                np.multiply(image[rows], factor, out=band)
                total[rows] += band
                if self._noise is not None:
                    band -= self._reference[rows]
                    scan.extremes(band)
            odd = scan.columns(window)
            if odd.size:
                deviation = image[cut, odd] * factor - self._reference[cut, odd]
                row, column = np.nonzero(np.abs(deviation) > window[odd])
                found.append((row + cut.start) * image.shape[1] + odd[column])
        bright = np.concatenate(found) if found else np.zeros(0, np.intp)
        out = np.zeros(0, np.intp) if mask is None else np.flatnonzero(mask)
        if bright.size and out.size:
            bright = bright[~mask.reshape(-1)[bright]]
        self.rejected += bright.size
        self.counts[half] += 1
        out = np.concatenate([out, bright])
        if out.size:
            total.reshape(-1)[out] -= image.reshape(-1)[out] * factor
            self.counts[half].reshape(-1)[out] -= 1
        self._number += 1

    def _windows(self) -> np.ndarray:
        """Largest deviation from the reference that is noise, ADU per tile."""
        if self._noise is None:
            return np.full((len(self.edges[0]) - 1, len(self.edges[1]) - 1), np.inf)
        inner = len(self._variances) > 1  # a median of three has a noise of its own
        return np.nan_to_num(self.sigma * self._noise * (1.3 if inner else 1.5), nan=1e9)

    def finish(self) -> StackResult:
        """Means of the halves and of all; NaN where no frame had a value."""
        if self._reference is None and self._first:
            self._settle()
        shape = (self.edges[0][-1], self.edges[1][-1])
        while len(self.sums) < 2:
            self.sums.append(np.zeros(shape, np.float32))
            self.counts.append(np.zeros(shape, np.uint8))
        noise = self._spread()
        return StackResult(
            self.sums[0],
            self.sums[1],
            self.counts[0],
            self.counts[1],
            np.full((len(self.edges[0]) - 1, len(self.edges[1]) - 1), NAN) if noise is None else noise,
            self.flux,
            len([s for s in self.signal if math.isfinite(s)]),
            self.rejected,
        )


@dataclass(frozen=True)
class StackResult:
    """Two half stacks of one quadrant."""

    sum1: np.ndarray = field(metadata=about("ADU", "first half"))
    sum2: np.ndarray = field(metadata=about("ADU", "second half"))
    count1: np.ndarray = field(metadata=about("1", "frames per pixel"))
    count2: np.ndarray = field(metadata=about("1", "frames per pixel"))
    noise: np.ndarray = field(metadata=about("ADU", "of a pixel of one frame, per tile"))
    flux: float = field(metadata=about("ADU", "mean signal that frames were brought to"))
    frames: int = field(metadata=about("1", "frames"))
    rejected: int = field(metadata=about("1", "pixels left out as cosmic rays"))

    @property
    def count(self) -> np.ndarray:
        return self.count1.astype(np.int16) + self.count2

    def mean(self) -> np.ndarray:
        n = self.count
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.where(n > 0, (self.sum1 + self.sum2) / n, np.float32(NAN))

    def halves(self) -> tuple[np.ndarray, np.ndarray]:
        with np.errstate(invalid="ignore", divide="ignore"):
            return tuple(
                np.where(n > 0, s / n, np.float32(NAN))
                for s, n in ((self.sum1, self.count1), (self.sum2, self.count2))
            )


# ---- illumination -------------------------------------------------------------------------------------
def illumination_model(image: np.ndarray, mask: np.ndarray | None = None, box: int = 25) -> np.ndarray:
    """Smooth surface through the means of boxes, float32: illumination and response larger than a box.

    Means of good pixels (masked ones, and those beyond 30 % of the box, left out); a cubic spline between the
    centres of the boxes, which reach to the edges of the image. Boxes without pixels take their neighbours' mean.
    """
    rows, columns = (
        np.unique(np.linspace(0, n, max(n // box, 4) + 1).round().astype(int)) for n in image.shape
    )
    good = np.isfinite(image)
    if mask is not None:
        good &= ~mask
    filled = np.where(good, image, np.float32(0.0))

    boxes = (rows, columns)
    number, total = block_sums(good, boxes), block_sums(filled, boxes)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = total / number
    for i, (cut, level) in enumerate(strips(np.nan_to_num(mean), boxes)):
        odd = good[cut] & (np.abs(filled[cut] - level) > np.float32(0.3) * level)
        left = np.flatnonzero(odd)
        if left.size:
            box = np.repeat(np.arange(len(columns) - 1), np.diff(columns))[left % odd.shape[1]]
            number[i] -= np.bincount(box, minlength=len(columns) - 1)
            total[i] -= np.bincount(box, filled[cut].reshape(-1)[left], len(columns) - 1)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = total / number
    mean = _fill(np.where(number > 0, mean, NAN))
    if not np.isfinite(mean).all():
        return np.full(image.shape, NAN, np.float32)
    centres = [0.5 * (e[1:] + e[:-1]) - 0.5 for e in (rows, columns)]
    mean, down = _to_edges(mean, centres[0], image.shape[0])
    mean, across = _to_edges(mean.T, centres[1], image.shape[1])
    along, over = (
        spline_matrix(nodes, np.arange(size)) for nodes, size in zip((down, across), image.shape, strict=True)
    )
    # Splines of a grid are those of its rows and columns; about the mean, single precision is enough.
    middle = float(mean.mean())
    rest = (along @ (mean.T - middle)).astype(np.float32) @ over.T.astype(np.float32)
    return rest + np.float32(middle)


def _to_edges(grid: np.ndarray, centres: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Grid with a row more at both edges of the image, along axis 0, by parabolas through three boxes; its places."""

    def beyond(x, nodes, values):
        a, b, c = nodes
        one = (x - b) * (x - c) / ((a - b) * (a - c))
        two = (x - a) * (x - c) / ((b - a) * (b - c))
        three = (x - a) * (x - b) / ((c - a) * (c - b))
        return one * values[0] + two * values[1] + three * values[2]

    low, high = -0.5, size - 0.5
    first = beyond(low, centres[:3], grid[:3])
    last = beyond(high, centres[-3:], grid[-3:])
    return np.vstack([first, grid, last]), np.concatenate([[low], centres, [high]])


def _fill(grid: np.ndarray) -> np.ndarray:
    """NaN replaced by the mean of their neighbours, from the rim of the holes inwards."""
    grid = grid.copy()
    for _ in range(sum(grid.shape)):
        holes = ~np.isfinite(grid)
        if not holes.any() or holes.all():
            break
        padded = np.pad(grid, 1, constant_values=NAN)
        around = np.stack(
            [padded[i : i + grid.shape[0], j : j + grid.shape[1]] for i in range(3) for j in range(3)]
        )
        known = np.isfinite(around).sum(axis=0)
        total = np.nansum(around, axis=0)
        ready = holes & (known > 0)
        grid[ready] = total[ready] / known[ready]
    return grid


# ---- pixel response -----------------------------------------------------------------------------------
@dataclass(frozen=True)
class Prnu:
    """Pixel response non-uniformity of a quadrant, % of the local mean, noise removed."""

    small: float = field(metadata=about("%", "rms of pixels about the mean of their box"))
    small_err: float = field(metadata=about("%", "standard error, from 64 blocks"))
    column: float = field(metadata=about("%", "part common to the pixels of a column"))
    column_err: float = field(metadata=about("%", "standard error"))
    raw: float = field(metadata=about("%", "rms of the master, noise included: what a plain std gives"))
    n: int = field(metadata=about("1", "pixels"))


def measure_prnu(
    half1: np.ndarray, half2: np.ndarray, bad: np.ndarray | None, edges, sigma: float = 5.0
) -> Prnu:
    """PRNU² = Cov of two half stacks, each over the illumination: their noise is independent and drops out.

    Parameters
    ----------
    half1, half2 : ndarray, shape (rows, columns)
        Relative response of each half, about 1.
    bad : ndarray of bool, optional
        Pixels left out; those beyond `sigma` of the distribution are defects, left out too and corrected for.
    edges : (row edges, column edges) of the blocks of the jackknife
    """
    from calcamp.analysis.statistics import clip_factors

    one, two = half1 - np.float32(1.0), half2 - np.float32(1.0)
    good = np.isfinite(one) & np.isfinite(two)
    if bad is not None:
        good &= ~bad
    if good.sum() < 1000:
        return Prnu(NAN, NAN, NAN, NAN, NAN, int(good.sum()))
    both = 0.5 * (one + two)
    low, high = np.percentile(both[::3, ::3][good[::3, ::3]], (15.87, 84.13))
    spread = 0.5 * (high - low)
    good &= np.abs(both - 0.5 * (high + low)) < sigma * spread
    factor = clip_factors(float(sigma))[0] ** 2

    one, two = np.where(good, one, np.float32(0.0)), np.where(good, two, np.float32(0.0))
    n, s1, s2, s12, s11, s22 = (
        block_sums(v, edges).reshape(-1) for v in (good, one, two, one * two, one * one, two * two)
    )
    s11 = 0.25 * (s11 + s22 + 2.0 * s12)  # of the mean of the halves

    def covariance(keep):
        total = n[keep].sum()
        return s12[keep].sum() / total - s1[keep].sum() * s2[keep].sum() / total**2

    whole = covariance(slice(None)) / factor
    index = np.arange(len(n))[n > 0]
    parts = np.array([covariance(index[index != k]) for k in index]) / factor
    error = math.sqrt((len(index) - 1) / len(index) * float(np.square(parts - parts.mean()).sum()))
    small = math.copysign(math.sqrt(abs(whole)), whole)
    # Columns: covariance of column means of the halves, the pixels' own part of it taken off.
    per_column = good.sum(axis=0)
    use = per_column > 0.3 * good.shape[0]
    c1, c2 = (np.where(use, v.sum(axis=0) / np.maximum(per_column, 1), NAN)[use] for v in (one, two))
    columns = float(np.cov(c1, c2)[0, 1]) if use.sum() > 8 else NAN
    own = whole / max(float(per_column[use].mean()), 1.0) if use.any() else NAN
    pattern = columns - own
    column = math.copysign(math.sqrt(abs(pattern)), pattern) if math.isfinite(pattern) else NAN
    column_err = (
        columns * math.sqrt(2 / max(int(use.sum()), 1)) / max(2 * abs(column), 1e-9)
        if math.isfinite(column)
        else NAN
    )
    total = n.sum()
    raw = math.sqrt(max(s11.sum() / total - ((s1 + s2).sum() / (2 * total)) ** 2, 0.0))
    return Prnu(
        100 * small,
        100 * error / max(2 * abs(small), 1e-9),
        100 * column,
        100 * column_err,
        100 * raw,
        int(total),
    )


def bf_contrast(signal_e: float, a00: float) -> float:
    """Factor by which the brighter-fatter effect reduces the contrast of white PRNU (analysis of flats, 2.4)."""
    return 1.0 + 0.5 * a00 * signal_e


# ---- lamp -----------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Stability:
    """A series of equal flats of all channels; arrays are per channel."""

    deviation: np.ndarray = field(metadata=about("%", "largest deviation from the mean, signed"))
    drift: np.ndarray = field(metadata=about("%/h", "slope"))
    drift_err: np.ndarray = field(metadata=about("%/h", "standard error"))
    rms: np.ndarray = field(metadata=about("%", "about the line"))
    rms_channel: np.ndarray = field(metadata=about("%", "what is not common to the channels"))
    adjacent: np.ndarray = field(
        metadata=about("%", "of neighbouring frames: rms of differences over sqrt(2)")
    )
    rms_common: float = field(metadata=about("%", "common to the channels: the lamp"))
    common: np.ndarray = field(metadata=about("1", "relative signal of the lamp, per frame"))
    n: int = field(metadata=about("1", "frames"))


def stability(time: np.ndarray, signal: np.ndarray) -> Stability:
    """Drift and scatter of equal flats.

    Parameters
    ----------
    time : ndarray, shape (frames,), s
    signal : ndarray, shape (frames, channels), ADU; NaN where a channel was not measured
    """
    time, signal = np.asarray(time, float), np.asarray(signal, float)
    with np.errstate(invalid="ignore"):
        relative = signal / np.nanmean(signal, axis=0) - 1.0
    hours = (time - time.mean()) / 3600 if len(time) else time
    channels = signal.shape[1] if signal.ndim == 2 else 0
    drift, error, rms, channel_rms, adjacent, largest = (np.full(channels, NAN) for _ in range(6))
    common = np.array([np.nanmean(row) if np.isfinite(row).any() else NAN for row in relative])
    residual_common = _about_line(hours, common)
    for k in range(channels):
        y = relative[:, k]
        good = np.isfinite(y)
        if good.sum() < 1:
            continue
        largest[k] = 100 * y[good][np.argmax(np.abs(y[good]))]
        if good.sum() < 3:
            continue
        fit = fit_linear(np.stack([np.ones(good.sum()), hours[good]], axis=1), y[good], sigma=None)
        if fit.ok:
            drift[k], error[k] = 100 * fit.parameters[1], 100 * fit.errors[1]
        rest = _about_line(hours, y)
        rms[k] = 100 * math.sqrt(np.nansum(rest**2) / max(good.sum() - 2, 1))
        channel_rms[k] = 100 * float(np.nanstd(rest - residual_common, ddof=1))
        steps = np.diff(y[good])
        adjacent[k] = 100 * math.sqrt(float(np.mean(steps**2)) / 2) if len(steps) else NAN
    known = np.isfinite(residual_common)
    total = (
        100 * math.sqrt(np.nansum(residual_common**2) / max(known.sum() - 2, 1)) if known.sum() > 2 else NAN
    )
    return Stability(largest, drift, error, rms, channel_rms, adjacent, total, 1.0 + common, len(time))


def _about_line(x, y) -> np.ndarray:
    good = np.isfinite(y)
    if good.sum() < 3:
        return np.full(len(y), NAN)
    return y - np.polyval(np.polyfit(x[good], y[good], 1), x)


# ---- saturation time ------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Flux:
    """Brightness of the flat source: F = k (t + t0). Arrays are per channel."""

    k: np.ndarray = field(metadata=about("ADU/s", "flux"))
    k_err: np.ndarray = field(metadata=about("ADU/s", "standard error"))
    saturation_time: np.ndarray = field(metadata=about("s", "FDR/k: true time to reach FDR"))
    saturation_time_err: np.ndarray = field(metadata=about("s", "standard error"))
    t0: float = field(metadata=about("s", "true minus commanded exposure time"))
    t0_err: float = field(metadata=about("s", "standard error"))
    lamp: float = field(
        metadata=about("1", "relative scatter of the exposures about the line, common to the channels")
    )
    residual: np.ndarray = field(
        metadata=about("1", "of each exposure and channel, relative; NaN where not used")
    )
    used: np.ndarray = field(metadata=about("1", "exposures used, shape (exposures, channels)"))
    n: int = field(metadata=about("1", "exposures used"))
    reason: str = field(default="", metadata=about("", "empty when the fit is good"))


def fit_flux(
    time: np.ndarray,
    signal: np.ndarray,
    prior: tuple[float, float] | None = None,
    lamp: float = 5e-4,
    top: float = 0.8,
) -> Flux:
    """Weighted fit of F = k (t + t0) to all channels at once.

    The lamp's scatter is common to the channels, so the exposures count once: t0 and its error come from their mean,
    k of a channel from its share.

    Parameters
    ----------
    time : ndarray, shape (exposures,), s
        Commanded, above 0.
    signal : ndarray, shape (exposures, channels), ADU
    prior : (t0, error), s, optional
        From the shutter table.
    lamp : float
        Relative scatter of the lamp from exposure to exposure, at least; the residuals may show more.
    top : float
        Share of FDR above which signals are left out.
    """
    time, signal = np.asarray(time, float), np.asarray(signal, float)
    used = np.isfinite(signal) & (signal > 0) & (signal < top * FDR) & (time[:, None] > 0)
    channels = signal.shape[1]
    nothing = np.full(channels, NAN)
    lines = used.any(axis=1)

    def failed(reason):
        return Flux(
            nothing,
            nothing,
            nothing,
            nothing,
            NAN,
            NAN,
            NAN,
            np.full(signal.shape, NAN),
            used,
            int(lines.sum()),
            reason,
        )

    if not lines.any():
        return failed("every level is saturated, or dark")
    share = np.ones(channels)
    for _ in range(4):  # shares and mean of the exposures in turns
        with np.errstate(invalid="ignore"):
            level = np.array(
                [np.mean((signal / share)[e][used[e]]) if used[e].any() else NAN for e in range(len(time))]
            )
            ratio = np.where(used, signal / level[:, None], NAN)
        seen = used.any(axis=0)
        share = np.where(seen, [np.nanmean(ratio[:, c]) if seen[c] else NAN for c in range(channels)], NAN)
        share = share / np.nanmean(share)
        share = np.where(np.isfinite(share), share, 1.0)
    x, y = time[lines], level[lines]
    distinct = len(np.unique(x))
    if distinct < 2 and prior is None:
        prior = (0.0, 0.03)
    weight = 1.0 / (lamp * y)
    # F = k t + k t0: straight in (k, k t0); the prior on t0 is a further line.
    k = float(np.sum(weight**2 * x * y) / np.sum(weight**2 * x**2))
    for _ in range(6):
        design = np.stack([x, np.ones(len(x))], axis=1)
        target, err = y, 1 / weight
        if prior is not None:
            design = np.vstack([design, [0.0, 1.0]])
            target = np.append(target, k * prior[0])
            err = np.append(err, k * prior[1])
        fit = fit_linear(design, target, err, sigma=None)
        if not fit.ok or fit.parameters[0] <= 0:
            return failed(fit.reason or "no light")
        k = float(fit.parameters[0])
    offset = float(fit.parameters[1])
    t0 = offset / k
    relative = y / (k * (x + t0)) - 1
    dof = len(x) - (2 if prior is None else 1)
    scatter = math.sqrt(float(np.sum(relative**2)) / dof) if dof > 0 else NAN
    widen = max(1.0, scatter / lamp) if dof > 1 and math.isfinite(scatter) else 1.0
    jacobian = np.array([-offset / k**2, 1 / k])
    t0_err = widen * math.sqrt(float(jacobian @ fit.covariance @ jacobian))
    k_err = widen * math.sqrt(float(fit.covariance[0, 0]))
    own = np.array(
        [
            np.nanstd(ratio[:, c], ddof=1) / math.sqrt(used[:, c].sum()) if used[:, c].sum() > 1 else 0.0
            for c in range(channels)
        ]
    )
    own_k = np.where(seen, share * k, NAN)
    own_err = own_k * np.hypot(k_err / k, own)
    full = np.zeros(signal.shape) + NAN
    full[lines] = np.where(used[lines], signal[lines] / (own_k * (x + t0)[:, None]) - 1, NAN)
    return Flux(
        own_k,
        own_err,
        FDR / own_k,
        FDR / own_k * own_err / own_k,
        t0,
        t0_err,
        scatter,
        full,
        used,
        int(lines.sum()),
    )
