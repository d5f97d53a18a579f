"""Bias frames: read noise and its parts, offset structure, read-out spectrum, settling, master bias.

All arrays are canonical quadrants [row, column], raw ADU. Frames are given one after the other to a
`BiasStream`, so memory does not grow with their number; only the master bias needs a stack.

Model of a pixel in frame k: fixed pattern + offset of the frame + noise of the row + white noise, then
rounding. Parts are told apart by what they share: differences of consecutive frames hold no fixed
pattern; within a row of a difference there is no row noise; products of different frames hold no noise.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from calcamp.analysis.background import Surface, box_means, fit_surface
from calcamp.analysis.chance import chi2_limit
from calcamp.analysis.spectrum import Spectrum, read_out_spectrum
from calcamp.analysis.statistics import (
    NAN,
    ROUNDING,
    Clipped,
    about,
    clip_factors,
    clipped,
    fit_line,
    fit_polynomial,
    histogram_moments,
    remove_quantisation,
)
from calcamp.analysis.sums import bands, column_sums, row_sums
from calcamp.detector.geometry import REGIONS, Detector

if TYPE_CHECKING:
    from calcamp.analysis.prepare import OnDemand


def _root(variance: float, variance_err: float) -> tuple[float, float]:
    """Standard deviation and its error; a variance at or below 0 gives 0 with the error as its reach."""
    if not math.isfinite(variance):
        return NAN, NAN
    std = math.sqrt(max(variance, 0.0))
    # Close to zero the error of the root is not Gaussian: sqrt(error of the variance) bounds it.
    err = variance_err / (2 * std) if std > 0 else math.inf
    return std, min(err, math.sqrt(max(variance_err, 0.0)))


# ---- noise of one region from differences of consecutive frames ------------------------------------


@dataclass(frozen=True)
class PairMoments:
    """Moments of the difference of two frames in a region; variances of the difference, ADU²."""

    within: float  # mean variance inside a row: white noise and rounding
    between: float  # variance of the row means
    mean: float
    n: int
    n_clipped: int
    rows: int
    columns: int


def pair_moments(difference: np.ndarray, sigma: float = 5.0, bad: np.ndarray | None = None) -> PairMoments:
    """Clipped moments of a difference image by rows.

    Values beyond `sigma` standard deviations are set aside (cosmic rays, unstable pixels). Sums by row are
    all that is needed, which costs a quarter of a general clip.

    Parameters
    ----------
    difference : (rows, columns) int16 or float array, ADU
    sigma : float
    bad : bool array, optional
        Pixels to leave out.
    """
    columns = difference.shape[1]
    stride = max(1, int(math.sqrt(difference.size / 40_000)))
    first = clipped(
        difference[::stride, ::stride],
        sigma,
        mask=None if bad is None else bad[::stride, ::stride],
        rounded=0,
    )
    cut = np.float32(sigma * math.hypot(first.std if math.isfinite(first.std) else 0.0, 0.41))
    left_out, total, squares = (np.zeros(difference.shape[0]) for _ in range(3))
    for rows in bands(difference.shape[0]):
        part = difference[rows]
        work = part.astype(np.float32)
        work -= np.float32(first.mean)
        # extremes of the integers: half the bytes
        suspect = (part.max(axis=1) - first.mean > cut) | (part.min(axis=1) - first.mean < -cut)
        left_out[rows] = _set_aside(work, cut, suspect, None if bad is None else bad[rows])
        total[rows] = row_sums(work)
        squares[rows] = np.einsum("ij,ij->i", work, work)
    n = columns - left_out
    used = n > 1
    with np.errstate(invalid="ignore", divide="ignore"):
        means = np.where(used, total / n, NAN)
        inner = np.where(used, squares - total**2 / n, 0.0).sum()
    dof = int((n[used] - 1).sum())
    factor = clip_factors(sigma)[0] ** 2
    within = inner / dof / factor if dof > 0 else NAN
    row = clipped(means, sigma, rounded=0)
    return PairMoments(
        within,
        row.std**2 if row.n > 1 else NAN,
        first.mean + row.mean,
        int(n[used].sum()),
        int(left_out.sum()),
        int(used.sum()),
        columns,
    )


def _set_aside(work: np.ndarray, cut: np.float32, suspect: np.ndarray, bad: np.ndarray | None) -> np.ndarray:
    """Set values beyond ±cut and bad pixels to 0; the number per row. Only `suspect` rows have values beyond."""
    left_out = np.zeros(work.shape[0], dtype=int)
    if bad is not None:
        suspect = suspect | bad.any(axis=1)
    at = np.flatnonzero(suspect)
    if at.size:
        part = work[at]
        aside = ~(np.abs(part) <= cut)
        if bad is not None:
            aside |= bad[at]
        part[aside] = 0.0
        work[at] = part
        left_out[at] = np.count_nonzero(aside, axis=1)
    return left_out


@dataclass(frozen=True)
class ReadNoise:
    """Noise of a region and its parts, ADU, rounding removed."""

    read_noise: float = field(metadata=about("ADU", "noise of a pixel: white and row noise"))
    read_noise_err: float
    white: float = field(metadata=about("ADU", "noise inside a row"))
    white_err: float
    row_noise: float = field(metadata=about("ADU", "noise common to the pixels of a row, new in each frame"))
    row_noise_err: float
    n: int = field(metadata=about("1", "pixel differences used"))
    n_clipped: int
    pairs: int
    flag: str = ""


def read_noise(pairs: Sequence[PairMoments]) -> ReadNoise:
    """Read noise from the moments of all differences of consecutive frames.

    White variance = mean(within)/2 − 1/12; row variance = mean(between)/2 − white/columns. The
    differences share frames: for N frames the variance of the mean squared difference is that of
    independent values times (3N−4)/(N−1)² (von Neumann), used for the errors.
    """
    pairs = [p for p in pairs if math.isfinite(p.within)]
    if not pairs:
        return ReadNoise(NAN, NAN, NAN, NAN, NAN, NAN, 0, 0, 0, "no pair of frames")
    number = len(pairs) + 1
    shared = (3 * number - 4) / (number - 1) ** 2
    within = float(np.mean([p.within for p in pairs]))
    between = float(np.mean([p.between for p in pairs]))
    columns = pairs[0].n / pairs[0].rows
    rows = pairs[0].rows
    white2 = remove_quantisation(within, 2) / 2
    row2 = between / 2 - within / 2 / columns
    white2_err = within / 2 * math.sqrt(shared / (rows * (columns - 1)))
    between_err = between / 2 * math.sqrt(shared / max(rows - 1, 1))
    row2_err = math.hypot(between_err, white2_err / columns)
    # The total is white + row; between carries both, so most of the error of `row` is its own.
    total2 = white2 + row2
    total2_err = math.hypot(white2_err * (1 - 1 / columns), between_err)
    flag = "" if row2 > -4 * row2_err else "row noise negative"
    white, white_err = _root(white2, white2_err)
    row, row_err = _root(row2, row2_err)
    total, total_err = _root(total2, total2_err)
    n, aside = sum(p.n for p in pairs), sum(p.n_clipped for p in pairs)
    return ReadNoise(total, total_err, white, white_err, row, row_err, n, aside, len(pairs), flag)


# ---- fixed pattern ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Pattern:
    """Fixed pattern of an area, rms in ADU, noise removed; parts add in quadrature to the whole."""

    fixed: float = field(metadata=about("ADU", "whole fixed pattern"))
    fixed_err: float
    row: float = field(metadata=about("ADU", "part that is the same along a row"))
    row_err: float
    column: float = field(metadata=about("ADU", "part that is the same along a column"))
    column_err: float
    residual: float = field(metadata=about("ADU", "the rest: two-dimensional and pixel by pixel"))
    residual_err: float
    frames: int
    n: int


class PatternSums:
    """Sums over frames from which the fixed pattern of an area follows without knowing the noise.

    The mean product of different frames, [(Σf)² − Σf²] / (N(N−1)), holds the pattern and no noise, white
    or row-correlated. The same with row and column means gives the parts.
    """

    def __init__(self, shape: tuple[int, int]):
        self.sum = np.zeros(shape, np.float32)
        self.squares = np.zeros(shape, np.float32)
        self.outlier = np.zeros(shape, bool)
        self.frames = 0

    def add(self, values: np.ndarray, outlier: np.ndarray | None, rows: slice) -> None:
        """Add a band of a frame: float32, near 0, with its outliers set to about the mean and marked.

        The caller counts the frames.
        """
        self.sum[rows] += values
        self.squares[rows] += values * values
        if outlier is not None:
            self.outlier[rows] |= outlier

    def mean(self, area: tuple[slice, slice] = (slice(None), slice(None))) -> np.ndarray:
        """Mean frame, float32; NaN where some frame had an outlier."""
        out = self.sum[area] / np.float32(max(self.frames, 1))
        out[self.outlier[area]] = np.nan
        return out

    def line_means(self, area: tuple[slice, slice], axis: int) -> tuple[np.ndarray, np.ndarray]:
        """(mean over `axis` of the mean frame, pixels used): columns at axis 0, rows at axis 1, outliers left out."""
        part, outlier = self.sum[area], self.outlier[area]
        total = row_sums(part) if axis else column_sums(part)
        n = np.full(total.size, part.shape[axis])
        at = np.divmod(np.flatnonzero(outlier), part.shape[1])  # (rows, columns)
        total -= np.bincount(at[1 - axis], part[at], total.size)
        n -= np.bincount(at[1 - axis], minlength=total.size)
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.where(n > 0, total / n / max(self.frames, 1), NAN), n

    def power(self, area: tuple[slice, slice]) -> tuple[float, int]:
        """Sum over the good pixels of an area of (Σf)² − Σf², and their number."""
        total, squares, bad = self.sum[area], self.squares[area], self.outlier[area]
        power = float((np.einsum("ij,ij->i", total, total) - row_sums(squares)).sum())
        if bad.any():
            power -= float((total[bad].astype(np.float64) ** 2 - squares[bad]).sum())
        return power, int(bad.size - np.count_nonzero(bad))


def fixed_pattern(
    power: float,
    good: int,
    row_means: np.ndarray,
    column_means: np.ndarray,
    noise2: float,
) -> Pattern:
    """Fixed pattern of an area from products of different frames.

    Parameters
    ----------
    power : float
        Sum over pixels of (Σf)² − Σf², ADU².
    good : int
        Pixels in that sum.
    row_means, column_means : (frames, rows), (frames, columns)
        Means of each frame along its rows and columns, ADU.
    noise2 : float
        Variance of a pixel's noise in one frame, rounding included, ADU², for the errors; what the pixels of a row
        have in common is found from the row means.
    """
    number = len(row_means)
    if number < 2 or good == 0:
        return Pattern(*(NAN,) * 8, number, 0)
    rows, columns = row_means.shape[1], column_means.shape[1]
    norm = number * (number - 1)
    levels = row_means.mean(axis=1)

    def cross(values):  # mean product of different frames, of deviations from the mean of each frame
        values = values - values.mean(axis=1, keepdims=True)
        product = values.sum(axis=0) ** 2 - (values**2).sum(axis=0)
        return float(product.sum() / norm / (values.shape[1] - 1))

    whole = power / good / norm - float((levels.sum() ** 2 - (levels**2).sum()) / norm)
    row, column = cross(row_means), cross(column_means)

    def err(part, noise, n, together=0.0):
        return math.sqrt((4 * max(part, 0.0) * noise / number + 2 * (noise**2 + together) / norm) / n)

    row_noise, together = row_scatter(row_means)
    common = max(row_noise - noise2 / columns, 0.0)  # without the white noise of the pixels
    whole_err = math.hypot(err(whole, noise2, good), err(row, common, rows, together))
    row_err, column_err = err(row, row_noise, rows, together), err(column, noise2 / rows, columns)
    rest = whole - row - column
    rest_err = math.sqrt(whole_err**2 + row_err**2 + column_err**2)
    values = [
        x
        for pair in ((whole, whole_err), (row, row_err), (column, column_err), (rest, rest_err))
        for x in _root(*pair)
    ]
    return Pattern(*values, number, good)


def row_scatter(row_means: np.ndarray) -> tuple[float, float]:
    """What the means of the rows of one frame scatter by, whatever makes them.

    Parameters
    ----------
    row_means : (frames, rows), ADU
        At least two frames.

    Returns
    -------
    variance : float
        Of the mean of a row from frame to frame, the frame's level taken off, ADU².
    together : float
        Sum over all other rows of the square of the covariance with them, ADU⁴: neighbours share their errors
        when the offset was smoothed along the rows.

    Notes
    -----
    Deviations from the mean over the frames hold no pattern. Noise in a covariance adds to its square what is taken
    off again.
    """
    number, rows = row_means.shape
    rest = row_means - row_means.mean(axis=1, keepdims=True)
    rest -= rest.mean(axis=0)
    lags = range(min(64, rows // 4))
    dof = number - 1
    covariance = np.array(
        [np.vdot(rest[:, lag:], rest[:, : rows - lag]) / (rows - lag) / dof for lag in lags]
    )
    if not covariance.size:
        return 0.0, 0.0
    variance = float(covariance[0])
    together = 2 * float(np.square(covariance[1:]).sum() - (covariance.size - 1) * variance**2 / (rows * dof))
    return variance, max(together, 0.0)


# ---- one quadrant, frame after frame --------------------------------------------------------------------


@dataclass(frozen=True)
class FrameOffset:
    """Offset of one quadrant of one frame."""

    offset: float = field(metadata=about("ADU", "clipped mean of the prescan"))
    offset_err: float = field(metadata=about("ADU", "its error from the scatter of the rows"))
    img_minus_pre: float
    img_minus_pre_err: float
    ove_minus_pre: float
    ove_minus_pre_err: float
    gradient_rows: float = field(metadata=about("ADU/1000px", "slope of the image area with the row"))
    gradient_rows_err: float
    gradient_columns: float = field(metadata=about("ADU/1000px", "slope of the image area with the column"))
    gradient_columns_err: float
    total: float = field(metadata=about("ADU", "clipped standard deviation of the image area"))
    image_level: float
    n: int
    clipped: float


@dataclass(frozen=True)
class NoiseParts:
    """Where the scatter of the pixels of an area over all frames comes from, ADU."""

    noise: ReadNoise
    pattern: Pattern
    drift: float = field(metadata=about("ADU", "standard deviation of the level from frame to frame"))
    drift_err: float
    total: float = field(metadata=about("ADU", "all of it, measured directly"))
    total_err: float

    @property
    def closure(self) -> float:
        """Sum of the parts over the total: 1 when nothing is missing (standard deviations)."""
        parts = self.noise.white**2 + self.noise.row_noise**2 + self.pattern.fixed**2 + self.drift**2
        return math.sqrt(parts) / self.total if self.total > 0 else NAN


class BiasStream:
    """Bias frames of one quadrant, added one after the other.

    Parameters
    ----------
    detector : Detector
    vstart, vend : int
        Rows read, as commanded.
    sigma : float
        Clip.
    bad : (rows, columns) bool, optional
        Pixels left out of everything.
    keep : int
        So many of the first frames stay in memory, for `spectrum`.
    """

    def __init__(
        self,
        detector: Detector,
        vstart: int = 0,
        vend: int | None = None,
        sigma: float = 5.0,
        bad: np.ndarray | None = None,
        keep: int = 0,
    ):
        self.detector, self.sigma, self.bad = detector, sigma, bad
        self.regions = {name: detector.region(name, vstart, vend) for name in REGIONS}
        self.rows = slice(*detector.read_rows(vstart, vend))
        self.pairs: dict[str, list[PairMoments]] = {name: [] for name in REGIONS}
        self.singles: dict[str, list] = {name: [] for name in REGIONS}
        self.frames: list[FrameOffset] = []
        self.levels: dict[str, list[float]] = {name: [] for name in REGIONS}
        self.sums = PatternSums((self.rows.stop - self.rows.start, detector.columns))
        self.area: dict[str, list[tuple[np.ndarray, np.ndarray]]] = {name: [] for name in REGIONS}
        self._previous: np.ndarray | None = None
        self._keep = keep
        self._kept: list[tuple[np.ndarray, float]] = []

    # ---- adding ----
    def add(self, raw: np.ndarray, known: Mapping[str, Clipped] | None = None) -> FrameOffset:
        """Add a raw quadrant (uint16, canonical) and return its offset and gradients.

        `known` are moments of its regions, measured before with the same clip and mask.
        """
        whole = np.ascontiguousarray(raw)
        moments = {}
        for name, region in self.regions.items():
            part = whole[region]
            if part.size:
                moments[name] = (known or {}).get(name) or self._moments(part, region)
                self.singles[name].append(moments[name])
                self.levels[name].append(moments[name].mean)
        self._add_difference(whole)
        self._add_sums(whole, moments)
        if len(self._kept) < self._keep:
            self._kept.append((whole[self.rows], moments["pre"].mean))
        frame = self._frame(moments)
        self.frames.append(frame)
        return frame

    def _moments(self, part: np.ndarray, region) -> Clipped:
        return histogram_moments(
            part, self.sigma, mask=None if self.bad is None else self.bad[region]
        ).clipped

    def _local(self, region):
        """Slices of a region inside the rows read."""
        rows, columns = region
        return slice(rows.start - self.rows.start, rows.stop - self.rows.start), columns

    def _add_difference(self, whole: np.ndarray) -> None:
        if self._previous is not None:
            # uint16 wraps; read as int16 the difference is right within ±32767
            difference = (whole - self._previous).view(np.int16)
            for name, region in self.regions.items():
                part = difference[region]
                if part.size:
                    bad = None if self.bad is None else self.bad[region]
                    self.pairs[name].append(pair_moments(part, self.sigma, bad))
        self._previous = whole

    def _add_sums(self, whole, moments) -> None:
        """Add the frame minus its prescan level, outliers replaced by the image level and marked."""
        level, image = moments["pre"].mean, moments["img"]
        reach = np.float32(self.sigma * math.hypot(image.std, 0.3) + abs(image.mean - level))
        along = {name: np.zeros(len(range(*r[0].indices(len(whole))))) for name, r in self.regions.items()}
        across = {
            name: np.zeros(len(range(*r[1].indices(whole.shape[1])))) for name, r in self.regions.items()
        }
        for rows in bands(self.rows.stop, self.rows.start):
            pixels = whole[rows]
            values = pixels.astype(np.float32)
            values -= np.float32(level)
            outlier = None
            if self.bad is not None or pixels.max() - level > reach or pixels.min() - level < -reach:
                outlier = ~(np.abs(values) <= reach)
                if self.bad is not None:
                    outlier |= self.bad[rows]
                values[outlier] = np.float32(image.mean - level)
            self.sums.add(values, outlier, slice(rows.start - self.rows.start, rows.stop - self.rows.start))
            for name, (region_rows, columns) in self.regions.items():
                start, stop = max(rows.start, region_rows.start), min(rows.stop, region_rows.stop)
                if stop > start:
                    part = values[start - rows.start : stop - rows.start, columns]
                    along[name][start - region_rows.start : stop - region_rows.start] = row_sums(part)
                    across[name] += column_sums(part)
        self.sums.frames += 1
        for name in self.regions:
            if along[name].size:
                self.area[name].append((along[name] / across[name].size, across[name] / along[name].size))

    def _frame(self, moments) -> FrameOffset:
        pre = self.area["pre"][-1][0]
        img, along_columns = self.area["img"][-1]
        ove = self.area["ove"][-1][0]
        sem = _sem(pre), _sem(img - pre), _sem(ove - pre)
        rows, rows_err = _slope(img)
        columns, columns_err = _slope(along_columns)
        m = {name: moments[name] for name in ("pre", "img", "ove")}
        return FrameOffset(
            m["pre"].mean, sem[0],
            m["img"].mean - m["pre"].mean, sem[1],
            m["ove"].mean - m["pre"].mean, sem[2],
            rows, rows_err, columns, columns_err,
            m["img"].std, m["img"].mean, m["img"].n, m["pre"].clipped_fraction,
        )  # fmt: skip

    # ---- results ----
    def noise(self, region: str) -> NoiseParts:
        """Noise of a region from differences, and its decomposition."""
        noise = read_noise(self.pairs[region])
        number = len(self.levels[region])
        if number == 0:
            nothing = Pattern(*(NAN,) * 8, 0, 0)
            return NoiseParts(noise, nothing, NAN, NAN, NAN, NAN)
        local = self._local(self.regions[region])
        means = [np.array([pair[i] for pair in self.area[region]]) for i in (0, 1)]
        white2 = noise.white**2 + ROUNDING
        pattern = fixed_pattern(*self.sums.power(local), *means, white2)
        drift2 = NAN
        if number > 1:
            level_err2 = noise.row_noise**2 / means[0].shape[1] + white2 / max(self.sums.sum[local].size, 1)
            drift2 = float(np.var(self.levels[region], ddof=1)) - level_err2
        drift, drift_err = _root(
            drift2, (drift2 + (level_err2 if number > 1 else 0)) * math.sqrt(2 / max(number - 1, 1))
        )
        frame2 = float(np.mean([s.std**2 for s in self.singles[region]]))
        n = sum(s.n for s in self.singles[region])
        frame2_err = frame2 * math.sqrt(2 / n)
        row_err2 = (
            2 * noise.row_noise**4 / (number * means[0].shape[1]) if math.isfinite(noise.row_noise) else 0.0
        )
        total, total_err = _root(
            frame2 + (drift2 if math.isfinite(drift2) else 0.0),
            math.sqrt(frame2_err**2 + row_err2 + (2 * drift * drift_err) ** 2)
            if math.isfinite(drift2)
            else frame2_err,
        )
        return NoiseParts(noise, pattern, drift, drift_err, total, total_err)

    def single_frame_noise(self, region: str) -> tuple[float, float, int]:
        """(noise, error, n) of a scan from single frames: clipped standard deviation, rounding removed."""
        singles = [s for s in self.singles[region] if s.n > 1 and math.isfinite(s.std)]
        if not singles:
            return NAN, NAN, 0
        variance = float(np.mean([s.std**2 for s in singles]))
        n = sum(s.n for s in singles)
        errors = [s.std_err for s in singles if math.isfinite(s.std_err)]
        err = math.sqrt(sum(e * e for e in errors)) / len(singles) if errors else NAN
        return math.sqrt(variance), err, n

    def mean_frame(self) -> np.ndarray:
        """Mean of the rows read, minus the prescan level of each frame, float32, NaN at outliers."""
        return self.sums.mean()

    def spectrum(self, pixel_time: float, line_time: float) -> Spectrum:
        """Spectrum of the read-out stream, from the frames kept, minus the mean frame."""
        mean = self.mean_frame()
        residuals = (raw - np.float32(level) - mean for raw, level in self._kept)
        return read_out_spectrum(residuals, self.sums.frames, pixel_time, line_time)

    def surface(self, degree: int = 3, boxes: int = 32) -> Surface:
        """Low-order surface of the image area of the mean frame, relative to the prescan.

        The boxes know of white noise only: the noise common to a row is added to the terms along the rows, and the
        error of the prescan to the level.
        """
        rows, columns = self.detector.region("img", trimmed=False)
        rows = slice(max(rows.start, self.rows.start), min(rows.stop, self.rows.stop))
        image = self.sums.mean(self._local((rows, columns)))
        number = tuple(max(degree + 2, min(boxes, size // 16)) for size in image.shape)
        surface = fit_surface(box_means(image, number), image.shape, degree)
        noise, scan = self.noise("img").noise, self.noise("pre").noise
        frames = max(self.sums.frames, 1)
        # Legendre polynomials: the mean square over the rows is 1/(2i + 1)
        row2 = np.nan_to_num(noise.row_noise) ** 2 / (image.shape[0] * frames)
        part = self.sums.sum[self._local(self.regions["pre"])]
        level2 = (np.nan_to_num(scan.white) ** 2 + ROUNDING) / (max(part.size, 1) * frames)
        # the rows of prescan and image share their noise: it is not in the level of one above the other
        extra = [level2 if i == j == 0 else row2 * (2 * i + 1) if j == 0 else 0.0 for i, j in surface.terms]
        fit = replace(surface.fit, covariance=surface.fit.covariance + np.diag(extra))
        return replace(surface, fit=fit)

    def profiles(self) -> dict[str, tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """``row`` and ``column`` profiles of the mean frame: (position, value, error), relative to the prescan.

        The row profile (value against row) averages the image columns, the column profile (value against
        column, scans included) the image rows.
        """
        noise = self.noise("img").noise
        columns = self.regions["img"][1]
        image_rows = self._local(self.regions["img"])[0]
        number = self.sums.frames
        white2 = noise.white**2 + ROUNDING if math.isfinite(noise.white) else NAN
        value, n = self.sums.line_means((slice(None), columns), axis=1)
        err = np.sqrt((white2 / np.maximum(n, 1) + np.nan_to_num(noise.row_noise) ** 2) / number)
        out = {"row": (np.arange(self.rows.start, self.rows.stop), value, err)}
        value, n = self.sums.line_means((image_rows, slice(None)), axis=0)
        out["column"] = (np.arange(value.size), value, np.sqrt(white2 / np.maximum(n, 1) / number))
        return out

    def settling(self) -> dict[str, Settling]:
        """Exponential settling at the start of a row (prescan columns) and of the frame (first rows)."""
        at, value, err = self.profiles()["column"]
        prescan = slice(0, self.detector.prescan)
        out = {"row": fit_settling(at[prescan], value[prescan], err[prescan])}
        rows, columns = self._local(self.regions["pre"])
        noise = self.noise("pre").noise
        length = min(256, rows.stop - rows.start)
        value, _ = self.sums.line_means((slice(rows.start, rows.start + length), columns), axis=1)
        white2 = (noise.white**2 + ROUNDING) / (columns.stop - columns.start) + np.nan_to_num(
            noise.row_noise
        ) ** 2
        err = np.full(length, math.sqrt(white2 / max(self.sums.frames, 1)) if math.isfinite(white2) else NAN)
        out["frame"] = fit_settling(np.arange(length), value, err)
        return out


def _sem(values: np.ndarray) -> float:
    """Error of the mean of rows from their scatter: holds with row-correlated noise."""
    return float(np.std(values, ddof=1) / math.sqrt(values.size)) if values.size > 1 else NAN


def _slope(profile: np.ndarray, points: int = 32) -> tuple[float, float]:
    """Slope of a profile in ADU per 1000 px and its error: robust line through binned means."""
    number = min(points, profile.size)
    edges = [round(k * profile.size / number) for k in range(number + 1)]
    at = np.array([0.5 * (a + b - 1) for a, b in pairwise(edges)])
    means = np.add.reduceat(profile, edges[:-1]) / np.diff(edges)
    fit = fit_line((at - 0.5 * (profile.size - 1)) / 1000.0, means)
    return (float(fit.parameters[1]), float(fit.errors[1])) if fit.ok else (NAN, NAN)


# ---- settling -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Settling:
    """Level = a + amplitude·exp(−position/scale)."""

    amplitude: float = field(metadata=about("ADU", "at position 0"))
    amplitude_err: float
    scale: float = field(metadata=about("px", "length, NaN when the amplitude is not significant"))
    scale_err: float
    chi2_dof: float
    significance: float = field(metadata=about("1", "square root of the fall of chi² against a constant"))
    flag: str = ""


def fit_settling(position: np.ndarray, value: np.ndarray, err: np.ndarray) -> Settling:
    """Exponential settling by a scan over the length; the amplitude and the level are linear.

    The error of the length is where chi² rises by chi²/dof. Below 5 standard deviations the amplitude is
    given at a length of a quarter of the range and the length is NaN.
    """
    good = np.isfinite(value) & np.isfinite(err) & (err > 0)
    x, y, e = position[good].astype(float), value[good], err[good]
    if x.size < 6:
        return Settling(NAN, NAN, NAN, NAN, NAN, NAN, "not enough points")
    span = float(x[-1] - x[0])
    scales = np.geomspace(0.4, max(span, 2.0), 160)
    results = np.array([_settling_at(x, y, e, s) for s in scales])
    mean = np.sum(y / e**2) / np.sum(1 / e**2)
    flat = float(np.sum(((y - mean) / e) ** 2))
    best = int(np.argmin(results[:, 2]))
    chi2 = float(results[best, 2])
    dof = x.size - 3
    scatter = max(chi2 / dof, 1.0)
    gain = max(flat - chi2, 0.0) / scatter
    if gain < 25.0:
        amplitude, amplitude_err, quarter = _settling_at(x, y, e, 0.25 * span)
        return Settling(
            amplitude,
            amplitude_err * math.sqrt(scatter),
            NAN,
            NAN,
            quarter / dof,
            math.sqrt(gain),
            "not significant",
        )
    inside = scales[results[:, 2] <= chi2 + scatter]
    fine = np.linspace(scales[max(best - 1, 0)], scales[min(best + 1, scales.size - 1)], 41)
    tuned = np.array([_settling_at(x, y, e, s) for s in fine])
    at = int(np.argmin(tuned[:, 2]))
    # Curvature of chi² around the best length gives its error; the scan's own range when it is flat.
    curve = fit_polynomial(fine - fine[at], tuned[:, 2], 2, sigma=None)
    second = float(curve.parameters[2]) if curve.ok else 0.0
    scale_err = math.sqrt(scatter / second) if second > 0 else 0.5 * float(inside[-1] - inside[0])
    edge = "" if 0 < best < scales.size - 1 else "length at the end of the range"
    return Settling(
        float(tuned[at, 0]),
        float(tuned[at, 1]) * math.sqrt(scatter),
        float(fine[at]),
        scale_err,
        chi2 / dof,
        math.sqrt(gain),
        edge,
    )


def _settling_at(x, y, e, scale) -> tuple[float, float, float]:
    """(amplitude, error, chi²) for a given length."""
    design = np.stack([np.ones_like(x), np.exp(-x / scale)], axis=1) / e[:, None]
    normal = design.T @ design
    covariance = np.linalg.pinv(normal)
    solution = covariance @ (design.T @ (y / e))
    residual = y / e - design @ solution
    return float(solution[1]), float(math.sqrt(max(covariance[1, 1], 0.0))), float(residual @ residual)


# ---- master bias ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Master:
    """Clipped mean of a stack of prepared frames (any area); arrays [row, column]."""

    mean: np.ndarray = field(metadata=about("ADU", "clipped mean, float32"))
    err: np.ndarray = field(metadata=about("ADU", "standard error, float32"))
    count: np.ndarray = field(metadata=about("1", "frames used per pixel, uint8"))
    noise: float = field(metadata=about("ADU", "noise of one frame, rounding included"))
    unstable: np.ndarray = field(metadata=about("1", "flat indices of pixels that scatter too much"))
    pattern: Pattern | None = None


def stack_noise(frames: Sequence[np.ndarray], area: tuple[slice, slice] | None = None) -> float:
    """Noise of one prepared frame, rounding included: from differences of consecutive frames, ADU."""
    variances = []
    for first, second in pairwise(frames):
        rows, columns = (slice(0, first.shape[0]), slice(None)) if area is None else area
        part = slice(rows.start, rows.stop, max(1, (rows.stop - rows.start) // 256)), columns
        variances.append(clipped(second[part] - first[part], 5.0, rounded=0).std ** 2 / 2)
    return math.sqrt(float(np.mean(variances))) if variances else NAN


def clipped_stack(
    frames: Sequence[np.ndarray | OnDemand],
    noise: float,
    sigma: float = 3.0,
    iterations: int = 3,
    excluded: Sequence[np.ndarray] | None = None,
    area: tuple[slice, slice] | None = None,
) -> Master:
    """Pixel by pixel clipped mean of like frames.

    The clip is `sigma` times the larger of the expected noise and the pixel's own robust spread, about
    the median first and then about the clipped mean. Only pixels where some value is far from the plain
    mean are looked at one by one; for all others the plain mean is the clipped mean.

    The error is that of the clipped mean for normal noise, noise/√n times the inflation of the clip, and
    the pixel's own scatter where that is significantly larger (unstable pixels).

    Parameters
    ----------
    frames : sequence of (rows, columns) float32, or `OnDemand`
    noise : float
        Standard deviation of a pixel of one frame, ADU (`stack_noise`).
    sigma, iterations
        Clip.
    excluded : sequence of int arrays, optional
        Per frame, flat indices not to use.
    area : (slice, slice), optional
        Where the fixed pattern is measured; without it none is. Frames must not share noise: a frame minus
        a product has the noise of that product as a pattern.
    """
    number = len(frames)
    shape = frames[0].shape
    mean, err = np.empty(shape, np.float32), np.empty(shape, np.float32)
    count = np.full(shape, number, np.uint8)
    out = None
    if excluded is not None and any(len(e) for e in excluded):
        out = np.zeros((number, shape[0] * shape[1]), bool)
        for k, indices in enumerate(excluded):
            out[k, indices] = True
        out = out.reshape(number, *shape)
    unstable = []
    sums = _PatternBands(frames, area, noise) if area is not None and number > 1 else None
    # Bands that stay in the processor's cache: the frames are read once, nothing large is made.
    for rows in bands(shape[0]):
        top = rows.start
        block = np.stack([frame[rows] for frame in frames])
        used = None if out is None else out[:, rows]
        spread2 = _stack_band(block, used, noise, sigma, iterations, mean[rows], count[rows], sums, top)
        unstable.append(_band_errors(spread2, noise, sigma, number, err[rows], count[rows]) + top * shape[1])
    pattern = sums.pattern(noise**2) if sums else None
    return Master(mean, err, count, noise, np.concatenate(unstable), pattern)


class _PatternBands:
    """Fixed pattern of a stack, band by band: m² − s²/N per pixel is the mean product of different frames."""

    def __init__(self, frames, area, noise):
        self.area, self.number = area, len(frames)
        rows, columns = area
        sparse = slice(rows.start, rows.stop, 8), slice(columns.start, columns.stop, 8)
        sample = clipped(frames[0][sparse], 5.0, rounded=0)
        self.level, self.noise = np.float32(sample.mean), noise
        self.reach = np.float32(6 * max(sample.std if math.isfinite(sample.std) else 0.0, noise))
        self.power, self.good = 0.0, 0
        self.rows: list[np.ndarray] = []
        self.columns = np.zeros((self.number, columns.stop - columns.start))

    def add(self, block, mean, spread2, worst, top):
        """Add a band: frames, plain mean, sample variance, largest deviation from the mean; first row."""
        rows, columns = self.area
        start, stop = max(rows.start - top, 0), min(rows.stop - top, len(mean))
        if stop <= start:
            return
        part = (slice(start, stop), columns)
        m, s2 = mean[part] - self.level, spread2[part]
        # 5.5 sigma: what is left out is too little to bend the variance
        bad = ~((np.abs(m) <= self.reach) & (worst[part] <= np.float32(5.5 * self.noise)))
        power = m * m - s2 * np.float32(1 / self.number)
        values = block[(slice(None), *part)] - self.level
        if bad.any():
            power[bad] = 0
            values[:, bad] = 0
        self.power += float(row_sums(power).sum()) * self.number * (self.number - 1)
        self.good += int(bad.size - np.count_nonzero(bad))
        self.rows.append(np.stack([row_sums(v) / v.shape[1] for v in values]))
        self.columns += np.stack([column_sums(v) for v in values])

    def pattern(self, noise2) -> Pattern:
        rows = np.concatenate(self.rows, axis=1)
        return fixed_pattern(self.power, self.good, rows, self.columns / rows.shape[1], noise2)


def _stack_band(block, excluded, noise, sigma, iterations, mean, count, sums, top) -> np.ndarray:
    """Clipped mean and number of a band into `mean` and `count`; returns the sample variance."""
    number = len(block)
    if excluded is not None:
        block[excluded] = np.nan
    np.mean(block, axis=0, out=mean)
    deviation = block - mean
    squares = np.einsum("kij,kij->ij", deviation, deviation)
    reach = np.float32(sigma * noise * math.sqrt(1 - 1 / number)) if number > 1 else np.float32(np.inf)
    np.abs(deviation, out=deviation)
    worst = deviation.max(axis=0)
    at = np.flatnonzero(~(worst <= reach))
    squares *= np.float32(1 / max(number - 1, 1))
    if sums is not None:
        sums.add(block, mean, squares, worst, top)
    if at.size:
        values = block.reshape(number, -1)[:, at]
        m, n, s2 = _clip_pixels(values, noise, sigma, iterations)
        mean.reshape(-1)[at], count.reshape(-1)[at], squares.reshape(-1)[at] = m, n, s2
    return squares


def _band_errors(spread2, noise, sigma, number, err, count) -> np.ndarray:
    """Errors of a band into `err`; flat indices of pixels that scatter too much."""
    inflate = clip_factors(sigma)[1] if number > 2 else 1.0
    with np.errstate(divide="ignore"):
        np.divide(np.float32(noise * inflate), np.sqrt(count, dtype=np.float32), out=err)
    err[count == 0] = np.nan
    if number < 3:
        return np.empty(0, np.intp)
    # exceeded by one stable pixel in ten million
    unstable = np.flatnonzero(spread2 > np.float32(noise**2 * chi2_limit(number - 1, 1e-7) / (number - 1)))
    n = count.reshape(-1)[unstable]
    err.reshape(-1)[unstable] = np.sqrt(spread2.reshape(-1)[unstable] / np.maximum(n, 1))
    return unstable


def _middle(ordered: np.ndarray, n: np.ndarray) -> np.ndarray:
    """Median of the first n (m,) of values sorted along axis 0, NaN last."""
    n = np.maximum(n, 1)
    low = np.take_along_axis(ordered, ((n - 1) // 2)[None], axis=0)[0]
    return 0.5 * (low + np.take_along_axis(ordered, (n // 2)[None], axis=0)[0])


def _clip_pixels(values, noise, sigma, iterations):
    """Clipped (mean, n, variance) along axis 0 of (N, m) values with NaN left out."""
    valid = np.isfinite(values).sum(axis=0)
    centre = _middle(np.sort(values, axis=0), valid)
    # With few values the sample spread cannot tell noise from outliers.
    own = np.float32(0.0)
    if len(values) > 5:
        own = np.float32(1.4826) * _middle(np.sort(np.abs(values - centre), axis=0), valid)
    reach = np.float32(sigma) * np.maximum(np.float32(noise), own)
    with np.errstate(invalid="ignore", divide="ignore"):
        for _ in range(iterations):
            keep = np.abs(values - centre) <= reach
            n = np.count_nonzero(keep, axis=0)
            # about the centre, for precision on bright pixels
            shift = np.where(keep, values - centre, 0).sum(axis=0) / n
            moved = np.where(n > 0, shift, 0)
            centre = np.where(n > 0, centre + moved, np.nan)
            if not np.abs(moved).max(initial=0) > 1e-4 * noise:
                break
        deviation = np.where(keep, values - centre, 0)
    return centre, n, (deviation**2).sum(axis=0) / np.maximum(n - 1, 1)
