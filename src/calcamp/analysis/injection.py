"""Charge injection: levels of the injected lines, their uniformity and what is left after them; curves.

Lines are folded on the period of the injection inside the image rows that were read; rows of the parallel
over-scan never enter. Where the pattern stands is measured, and compared with what was commanded. Levels are
above the lines without injection of the same cycle, so that no offset enters.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields

import numpy as np

from calcamp.analysis.statistics import NAN, about

#: Lines at the start of a block that are not part of its plateau.
SKIP = 2
#: Lines after a block whose charge is counted as deferred.
TAIL = 20
#: Rows worked on at a time: they stay in the processor's cache.
_CHUNK = 32
#: Every so many columns are enough for a rough centre of a row.
_FEW = 24


@dataclass(frozen=True)
class Pattern:
    """Where the injected lines are: row r is injected when ``(r - phase) mod (on + off) < on``."""

    phase: int = field(metadata=about("row", "first injected line"))
    on: int = field(metadata=about("row", "injected lines of a cycle"))
    off: int = field(metadata=about("row", "lines without injection of a cycle"))
    contrast: float = field(metadata=about("ADU", "injected minus other lines"))
    contrast_err: float = field(metadata=about("ADU", "standard error of the contrast"))
    found: bool = field(
        metadata=about("1", "the contrast is significant; else the commanded pattern is used")
    )

    def place(self, rows: np.ndarray) -> np.ndarray:
        """Place of rows inside their cycle; 0 is the first injected line."""
        return (rows - self.phase) % (self.on + self.off)

    def cycle(self, rows: np.ndarray) -> np.ndarray:
        """Cycle of rows, from 0; rows before the first injected line belong to cycle -1."""
        return (rows - self.phase) // (self.on + self.off)


def find_pattern(
    row_mean: np.ndarray, on: int, off: int, first: int = 0, search: int = 3, least: float = 10.0
):
    """Place of the injected lines by a matched filter over phase and length.

    Parameters
    ----------
    row_mean : ndarray
        Mean of each row read, ADU; NaN rows are left out.
    on, off : int
        Commanded lines of a cycle.
    first : int
        Row number of ``row_mean[0]`` (the first row read).
    search : int
        Lines by which phase and length may differ from the commanded ones.
    least : float
        Significance of the contrast below which the commanded pattern is taken.
    """
    good = np.isfinite(row_mean)
    rows, values = first + np.flatnonzero(good), row_mean[good]
    if off <= 0 or values.size < 4:
        return Pattern(0, on, off, NAN, NAN, False)
    best, commanded = None, None
    for phase in range(-search, search + 1):
        for length in range(max(1, on - search), on + search + 1):
            if length >= on + off:
                continue
            inside = ((rows - phase) % (on + off) < length) & (rows >= phase)
            n = int(inside.sum())
            if n == 0 or n == values.size:
                continue
            high, low = values[inside].mean(), values[~inside].mean()
            explained = (high - low) ** 2 * n * (values.size - n) / values.size
            item = (explained, phase, length, high - low, inside)
            if phase == 0 and length == on:
                commanded = item
            if best is None or explained > best[0]:
                best = item
    if best is None:
        return Pattern(0, on, off, NAN, NAN, False)
    _, phase, length, contrast, inside = best
    err = _contrast_error(values, inside)
    if not (contrast > least * err):
        contrast, inside = (commanded or best)[3:5]
        return Pattern(0, on, off, float(contrast), _contrast_error(values, inside), False)
    return Pattern(phase, length, on + off - length, float(contrast), err, True)


def _contrast_error(values: np.ndarray, inside: np.ndarray) -> float:
    """Error from the scatter of neighbouring rows of the same kind."""
    step = np.diff(values)[inside[1:] == inside[:-1]]
    if step.size < 4:
        return NAN
    noise = 1.4826 * np.median(np.abs(step - np.median(step))) / math.sqrt(2)
    return float(noise * math.sqrt(1 / inside.sum() + 1 / (~inside).sum()))


@dataclass(frozen=True, eq=False)
class Blocks:
    """One entry per block of injected lines."""

    cycle: np.ndarray = field(metadata=about("1", "number of the block"))
    first_row: np.ndarray = field(metadata=about("row", "first injected line"))
    lines: np.ndarray = field(metadata=about("1", "lines of the plateau"))
    level: np.ndarray = field(metadata=about("ADU", "mean of the plateau above the lines without injection"))
    level_err: np.ndarray = field(metadata=about("ADU", "standard error"))
    first_line: np.ndarray = field(metadata=about("1", "deficit of the first line, share of the level"))
    first_line_err: np.ndarray = field(metadata=about("1", "standard error"))
    spill: np.ndarray = field(metadata=about("1", "first line after the block, share of the level"))
    spill_err: np.ndarray = field(metadata=about("1", "standard error"))
    tail: np.ndarray = field(
        metadata=about("1", f"sum of the first {TAIL} lines after the block, share of the level")
    )
    tail_err: np.ndarray = field(metadata=about("1", "standard error"))


@dataclass(frozen=True, eq=False)
class Injection:
    """What one frame tells of one quadrant. Shares refer to the level."""

    pattern: Pattern = field(metadata=about("", "where the lines are"))
    level: float = field(
        metadata=about(
            "ADU", "mean of the middle half of the columns, plateau above the lines without injection"
        )
    )
    level_err: float = field(metadata=about("ADU", "standard error: pixels, lines, background"))
    above_offset: float = field(metadata=about("ADU", "median of the plateau's pixels above the offset"))
    std: float = field(metadata=about("ADU", "standard deviation of the injected pixels"))
    percentiles: tuple[float, ...] = field(
        metadata=about("ADU", "0, 5, 25, 50, 75, 95, 100 % of the injected pixels")
    )
    background: float = field(metadata=about("ADU", "lines without injection above the offset"))
    columns_rms: float = field(metadata=about("1", "pattern from column to column, rms, noise taken off"))
    columns_rms_err: float = field(metadata=about("1", "standard error"))
    pixel_noise: float = field(metadata=about("ADU", "rms of pixels about column pattern and line means"))
    line_noise: float = field(
        metadata=about("ADU", "rms of line means beyond the noise of pixels, trend taken off")
    )
    trend: float = field(metadata=about("1", "change of the level over the image rows"))
    trend_err: float = field(metadata=about("1", "standard error"))
    first_line: float = field(metadata=about("1", "deficit of the first injected line"))
    first_line_err: float = field(metadata=about("1", "standard error"))
    spill: float = field(metadata=about("1", "first line after a block"))
    spill_err: float = field(metadata=about("1", "standard error"))
    shutdown: float = field(
        metadata=about("1", "charge after a block at zero transfers: incomplete shut-down")
    )
    shutdown_err: float = field(metadata=about("1", "standard error"))
    cti: float = field(
        metadata=about("1", "deferred charge per transfer (EPER): growth of the tail with the row")
    )
    cti_err: float = field(metadata=about("1", "standard error"))
    blocks: Blocks | None = field(metadata=about("", "block by block"))
    columns: np.ndarray = field(metadata=about("ADU", "plateau of each column; NaN where masked"))
    columns_err: np.ndarray = field(metadata=about("ADU", "standard error of each column"))
    lines: np.ndarray = field(metadata=about("ADU", "mean over cycles and columns at each place of a cycle"))
    lines_err: np.ndarray = field(metadata=about("ADU", "standard error"))
    n: int = field(metadata=about("1", "pixels of the plateau used"))
    flag: str = field(default="", metadata=about("", "empty, or what is wrong"))


def measure_injection(
    image: np.ndarray,
    on: int,
    off: int,
    mask: np.ndarray | None = None,
    first: int = 0,
    last: int | None = None,
    sigma: float = 6.0,
) -> Injection:
    """Measure the injected lines of one quadrant.

    Parameters
    ----------
    image : ndarray of float32, shape (image rows, image columns)
        ADU above offset, canonical. The parallel over-scan is not part of it.
    on, off : int
        Commanded injected and other lines of a cycle; `off` of 0: all lines are injected.
    mask : ndarray of bool, optional
        True where a pixel is left out.
    first, last : int
        Rows read, [first, last).
    sigma : float
        Pixels farther from column pattern and line mean are left out.
    """
    last = image.shape[0] if last is None else min(last, image.shape[0])
    rows = np.arange(first, last)
    if rows.size < 4:
        return _nothing(image.shape[1], on, off, "no rows read")
    area = image[first:last]
    bad = None if mask is None else mask[first:last]
    if bad is not None and bad.all():
        return _nothing(image.shape[1], on, off, "all pixels masked")
    off = min(off, max(rows.size - on, 0)) if on >= rows.size else off
    rough = _row_means(area, bad)
    pattern = find_pattern(rough, on, off, first)
    place, cycle = pattern.place(rows), pattern.cycle(rows)
    started = rows >= max(pattern.phase, 0) if pattern.phase > 0 else np.ones(rows.size, bool)
    injected = (place < pattern.on) & started if off > 0 else np.ones(rows.size, bool)
    quiet = ~injected & ((place >= pattern.on + min(TAIL, pattern.off // 2)) | ~started)
    off_mean, off_err, base_column = _quiet_rows(area, bad, ~injected, quiet, sigma)
    base = _block_background(rows, cycle, quiet, off_mean, off_err)
    # Rows share more than the noise of their pixels: the offset of a row is measured in few prescan pixels.
    row_noise = _scatter(off_mean[quiet] - base[quiet])
    off_err = np.where(np.isfinite(off_err), np.fmax(off_err, row_noise), off_err)
    plateau = injected & (place >= SKIP) if off > 0 and pattern.on > 2 * SKIP else injected
    if not plateau.any():
        return _nothing(image.shape[1], on, off, "no injected line inside the rows read")
    signal = area[injected] - base_column[None, :]
    signal -= base[injected][:, None].astype(np.float32)
    good = np.isfinite(signal) if bad is None else ~bad[injected]
    inside = plateau[injected]
    columns, columns_err, line, line_err, noise, good = _resolve(signal, good, inside, sigma)
    usable = np.isfinite(columns)
    if usable.sum() < 4:
        return _nothing(image.shape[1], on, off, "all columns masked")
    level, columns_mean_err = middle_mean(columns[usable], columns_err[usable])
    centre, extent = 0.5 * (rows[0] + rows[-1]), float(image.shape[0])
    rows_on = rows[injected]
    trend, trend_err, line_noise, line_mean_err = _trend(
        rows_on[inside], line[inside], line_err[inside], centre, extent
    )
    background_err = (
        float(np.sqrt(np.mean(np.square(_safe(off_err[quiet])))) / math.sqrt(max(quiet.sum(), 1)))
        if quiet.any()
        else 0.0
    )
    level_err = math.hypot(columns_mean_err, math.hypot(line_mean_err, background_err))
    values = area[plateau] if bad is None else area[plateau][~bad[plateau]]
    # An odd step: every column has its turn.
    sample = values.ravel()[:: max(1, values.size // 200_000) | 1]
    take = [int(q / 100 * max(sample.size - 1, 0) + 0.5) for q in (5, 25, 50, 75, 95)]
    inner = [float(v) for v in np.partition(sample, take)[take]] if sample.size else []
    percentiles = (float(values.min()), *inner, float(values.max())) if inner else (NAN,) * 7
    spread = _spread(columns[usable], columns_err[usable])
    scale = level if abs(level) > 5 * level_err else NAN
    blocks = None
    if off > 0:
        # Shares are local: the level changes slowly over the rows, so the trend is taken off inside a block.
        flat = line - _zero(trend) * (rows_on - centre) / extent
        noisy = np.hypot(line_err, _zero(line_noise))
        blocks = _blocks(
            rows, place, cycle, injected, plateau, pattern, line, flat, noisy, off_mean, off_err, base
        )
    summary = _shares(blocks, scale) if blocks is not None else dict.fromkeys(_SHARES, NAN)
    lines, lines_err = _fold(rows, place, pattern, injected, line, line_err, off_mean - base, off_err)
    return Injection(
        pattern=pattern,
        level=level,
        level_err=level_err,
        above_offset=percentiles[3],
        std=float(values.std()) if values.size else NAN,
        percentiles=percentiles,
        background=float(np.nanmean(off_mean[quiet])) if quiet.any() else NAN,
        columns_rms=spread[0] / scale,
        columns_rms_err=spread[1] / abs(scale),
        pixel_noise=noise,
        line_noise=line_noise,
        trend=trend / scale,
        trend_err=trend_err / abs(scale),
        **summary,
        blocks=blocks,
        columns=columns,
        columns_err=columns_err,
        lines=lines,
        lines_err=lines_err,
        n=int(good[inside].sum()),
    )


_SHARES = ["first_line", "first_line_err", "spill", "spill_err", "shutdown", "shutdown_err", "cti", "cti_err"]


def _nothing(columns: int, on: int, off: int, why: str) -> Injection:
    empty = np.full(columns, NAN)
    numbers = dict.fromkeys(
        [
            "level",
            "level_err",
            "above_offset",
            "std",
            "background",
            "columns_rms",
            "columns_rms_err",
            "pixel_noise",
            "line_noise",
            "trend",
            "trend_err",
            *_SHARES,
        ],
        NAN,
    )
    return Injection(
        pattern=Pattern(0, on, off, NAN, NAN, False),
        percentiles=(NAN,) * 7,
        blocks=None,
        columns=empty,
        columns_err=empty,
        lines=np.empty(0),
        lines_err=np.empty(0),
        n=0,
        flag=why,
        **numbers,
    )


def _zero(value: float) -> float:
    return value if math.isfinite(value) else 0.0


def _safe(values: np.ndarray) -> np.ndarray:
    return values[np.isfinite(values)]


def _row_means(area: np.ndarray, bad: np.ndarray | None) -> np.ndarray:
    if bad is None:
        return (area @ np.full(area.shape[1], 1 / area.shape[1], np.float32)).astype(float)
    n = area.shape[1] - bad.sum(axis=1)
    total = np.where(bad, np.float32(0), area).sum(axis=1, dtype=np.float64)
    return np.divide(total, n, out=np.full(len(n), NAN), where=n > 0)


def _quiet_rows(area, bad, wanted: np.ndarray, quiet: np.ndarray, sigma: float):
    """Rows without injection, clipped, in one pass.

    Returns
    -------
    mean, err : ndarray, shape (rows,)
        Of each row of `wanted`; NaN for the others.
    columns : ndarray of float32, shape (columns,)
        Structure of the rows `quiet` from column to column, about its mean; 0 when there are few of them.
    """
    mean, err = np.full(area.shape[0], NAN), np.full(area.shape[0], NAN)
    flat = np.zeros(area.shape[1], np.float32)
    where = np.flatnonzero(wanted)
    if where.size == 0:
        return mean, err, flat
    sample = area[where[:: max(1, where.size // 64)], ::4]
    spread = max(1.4826 * float(np.median(np.abs(sample - np.median(sample)))), 0.3)
    reach = np.float32(max(sigma, 6.0) * spread + 0.5)
    total, count = np.zeros(area.shape[1]), np.zeros(area.shape[1], int)
    for first in range(0, where.size, _CHUNK):
        rows = where[first : first + _CHUNK]
        rest = area[rows]
        # Rows are centred by themselves: lines just after a block hold charge.
        few = rest[:, ::_FEW]
        half = few.shape[1] // 2
        middle = np.partition(few, half, axis=1)[:, half]
        rest -= middle[:, None]
        keep = np.abs(rest) < reach
        if bad is not None:
            keep &= ~bad[rows]
        rest *= keep
        n = np.count_nonzero(keep, axis=1)
        shift = np.divide(rest.sum(axis=1), n, out=np.full(n.size, NAN), where=n > 0)
        mean[rows] = middle + shift
        err[rows] = np.divide(spread, np.sqrt(n), out=np.full(n.size, NAN), where=n > 0)
        still = quiet[rows]
        total += rest[still].sum(axis=0)
        count += np.count_nonzero(keep[still], axis=0)
    if quiet.sum() >= 10 and count.any():
        column = np.divide(total, count, out=np.full(count.size, NAN), where=count > 0)
        flat = np.nan_to_num(column - np.nanmean(column)).astype(np.float32)
    return mean, err, flat


def _scatter(values: np.ndarray) -> float:
    """Robust standard deviation; 0 for too few values."""
    values = values[np.isfinite(values)]
    return 1.4826 * float(np.median(np.abs(values - np.median(values)))) if values.size > 10 else 0.0


def _block_background(rows, cycle, quiet, off_mean, off_err) -> np.ndarray:
    """Background of every row: mean of the quiet lines of its cycle; the nearest cycle where it has none."""
    if not quiet.any():
        return np.zeros(rows.size)
    known = {}
    for number in np.unique(cycle[quiet]):
        values = off_mean[quiet & (cycle == number)]
        values = values[np.isfinite(values)]
        if values.size >= 3:
            known[int(number)] = float(values.mean())
    if not known:
        few = _safe(off_mean[quiet])
        return np.full(rows.size, float(few.mean()) if few.size else 0.0)
    numbers = np.array(sorted(known))
    levels = np.array([known[k] for k in numbers])
    nearest = np.abs(cycle[:, None] - numbers[None, :]).argmin(axis=1)
    return levels[nearest]


def _resolve(signal, good, plateau, sigma):
    """Columns and lines of the injected area, outliers left out: (column, err, line, err, noise, good).

    `signal` is changed: pixels left out become 0, so that sums need no mask.
    """
    good = good & np.isfinite(signal)
    signal[~good] = 0.0
    column, counts = _column_means(signal, good, plateau)
    scale = _finite(column)
    noise, step = NAN, max(1, int(plateau.sum()) // 128)
    for _ in range(2):
        # The column pattern is a factor: lines that hold less show less of it.
        reference = float(np.nanmedian(column)) if np.isfinite(column).any() else 0.0
        rest = signal - _line_factors(signal, good, scale, reference)[:, None] * scale[None, :]
        part = rest[plateau][::step]
        noise = 1.4826 * float(np.median(np.abs(part[good[plateau][::step]]))) if part.size else NAN
        if not noise > 0:
            break
        good &= np.abs(rest) < np.float32(max(sigma * noise, 3.0))
        signal[~good] = 0.0
        column, counts = _column_means(signal, good, plateau)
        scale = _finite(column)
    column_err = np.divide(noise, np.sqrt(counts), out=np.full(counts.size, NAN), where=counts > 0)
    # Every line on the same footing: its columns about the pattern, plus the pattern's mean.
    usable = np.isfinite(column)
    if not usable.any():
        nothing = np.full(signal.shape[0], NAN)
        return column, column_err, nothing, nothing, noise, good
    lost, of = _lost(good)
    here = usable[of]
    lines = signal.shape[0]
    number = int(usable.sum()) - np.bincount(lost[here], minlength=lines)
    known = float(scale[usable].sum(dtype=np.float64)) - np.bincount(
        lost[here], weights=scale[of[here]], minlength=lines
    )
    total = (signal @ usable.astype(np.float32)).astype(float) - known
    line = np.divide(total, number, out=np.full(lines, NAN), where=number > 0) + float(column[usable].mean())
    line_err = np.divide(noise, np.sqrt(number), out=np.full(lines, NAN), where=number > 0)
    return column, column_err, line, line_err, noise, good


def _lost(good: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows and columns of the few pixels left out (a flat search is several times faster)."""
    return np.divmod(np.flatnonzero(~good), good.shape[1])


def _finite(column: np.ndarray) -> np.ndarray:
    return np.where(np.isfinite(column), column, 0.0).astype(np.float32)


def _line_factors(signal, good, scale, reference: float) -> np.ndarray:
    """Level of each line over that of the pattern `scale`, by least squares; lost pixels of `signal` are 0."""
    if not reference > 0:
        return np.ones(signal.shape[0], np.float32)
    lost, of = _lost(good)
    norm = float(scale @ scale) - np.bincount(lost, weights=np.square(scale[of]), minlength=signal.shape[0])
    product = (signal @ scale).astype(float)
    factor = np.divide(product, norm, out=np.ones(norm.size), where=norm > 1e-6 * float(scale @ scale))
    return factor.astype(np.float32)


def _column_means(signal, good, plateau):
    """(mean, number of pixels) of each column over the plateau's lines; lost pixels of `signal` are 0."""
    lost, of = _lost(good)
    n = int(plateau.sum()) - np.bincount(of[plateau[lost]], minlength=signal.shape[1])
    total = (plateau.astype(np.float32) @ signal).astype(float)
    return np.divide(total, n, out=np.full(n.size, NAN), where=n > 0), n


def middle_mean(values: np.ndarray, err: np.ndarray | None = None) -> tuple[float, float]:
    """Mean of the middle half of `values`, and its error from the errors of the values.

    As robust against odd columns as needed, and it averages their noise, which a median does not: that one
    carries the noise of the few values next to it. A value that its error may carry over an edge counts there
    for what is left of it (variance of the clipped value).
    """
    ordered = np.sort(values)
    cut = values.size // 4
    inner = ordered[cut : values.size - cut]
    if err is None:
        return float(inner.mean()), NAN
    nodes, weights = np.polynomial.hermite_e.hermegauss(9)
    weights = weights / weights.sum()
    clipped = np.clip(values[:, None] + np.outer(err, nodes), inner[0], inner[-1])
    mean = clipped @ weights
    variance = np.square(clipped - mean[:, None]) @ weights
    return float(inner.mean()), math.sqrt(float(variance.sum())) / inner.size


def _trend(rows, line, err, centre: float, extent: float):
    """(change over the image, its error, noise of lines beyond pixels, error of the mean line)."""
    known = np.isfinite(line)
    n = int(known.sum())
    if n < 4:
        return NAN, NAN, NAN, NAN
    x, y = (rows[known] - centre) / extent, line[known]
    design = np.stack([np.ones(n), x], axis=1)
    solution = np.linalg.lstsq(design, y, rcond=None)[0]
    rest = y - design @ solution
    variance = float(rest @ rest) / (n - 2)
    pixels = float(np.mean(np.square(err[known])))
    covariance = np.linalg.inv(design.T @ design) * max(variance, 1e-12)
    return (
        float(solution[1]),
        math.sqrt(covariance[1, 1]),
        math.sqrt(max(variance - pixels, 0.0)),
        math.sqrt(max(variance - pixels, 0.0) / n),
    )


def _spread(columns, err) -> tuple[float, float]:
    """Standard deviation of the column pattern with the noise of the columns taken off, and its error."""
    n = columns.size
    middle = np.median(columns)
    width = 1.4826 * np.median(np.abs(columns - middle))
    keep = np.abs(columns - middle) < 6 * max(width, 1e-9)
    raw = float(np.var(columns[keep], ddof=1)) if keep.sum() > 2 else NAN
    noise = float(np.mean(np.square(err[keep]))) if keep.any() else NAN
    clean = math.sqrt(max(raw - noise, 0.0))
    spread_err = raw / (math.sqrt(2 * n) * clean) if clean > 0 else math.sqrt(raw / (2 * n))
    return clean, spread_err


def _blocks(rows, place, cycle, injected, plateau, pattern, line, flat, line_err, off_mean, off_err, base):
    """Values of every block that has at least half of its plateau inside the rows read."""
    injected_rows = np.flatnonzero(injected)
    line_of = np.full(rows.size, NAN)
    flat_of, err_of = np.full(rows.size, NAN), np.full(rows.size, NAN)
    line_of[injected_rows], flat_of[injected_rows], err_of[injected_rows] = line, flat, line_err
    rest = off_mean - base
    found = {
        name: []
        for name in (
            [
                "cycle",
                "first_row",
                "lines",
                "level",
                "level_err",
                "first_line",
                "first_line_err",
                "spill",
                "spill_err",
                "tail",
                "tail_err",
            ]
        )
    }
    for number in np.unique(cycle[injected]):
        here = (cycle == number) & plateau
        if here.sum() < max(1, (pattern.on - SKIP) // 2):
            continue
        own = line_of[here]
        own = own[np.isfinite(own)]
        if own.size == 0:
            continue
        mean = float(own.mean())
        scatter = float(own.std(ddof=1)) if own.size > 2 else float(np.nanmean(err_of[here]))
        mean_err = max(scatter, float(np.nanmean(err_of[here]))) / math.sqrt(own.size)
        start = injected & (cycle == number) & (place == 0)
        first_line, first_err = NAN, NAN
        if start.any() and mean > 0:
            local = flat_of[here]
            local = float(local[np.isfinite(local)].mean())
            first_line = (local - flat_of[start][0]) / local
            first_err = math.hypot(err_of[start][0], mean_err) / local
        after = (cycle == number) & (place >= pattern.on) & (place < pattern.on + TAIL)
        values, errors = rest[after], off_err[after]
        whole = values.size == TAIL and np.isfinite(values).all() and mean > 0
        others = (cycle == number) & (place >= pattern.on + min(TAIL, pattern.off // 2))
        base_err = (
            float(np.sqrt(np.nanmean(np.square(off_err[others])) / max(others.sum(), 1)))
            if others.any()
            else NAN
        )
        found["cycle"].append(int(number))
        found["first_row"].append(int(pattern.phase + number * (pattern.on + pattern.off)))
        found["lines"].append(int(own.size))
        found["level"].append(mean)
        found["level_err"].append(mean_err)
        found["first_line"].append(first_line)
        found["first_line_err"].append(first_err)
        found["spill"].append(values[0] / mean if whole else NAN)
        found["spill_err"].append(math.hypot(errors[0], base_err) / mean if whole else NAN)
        found["tail"].append(values.sum() / mean if whole else NAN)
        found["tail_err"].append(
            math.hypot(math.sqrt(float(np.sum(np.square(errors)))), TAIL * base_err) / mean if whole else NAN
        )
    return Blocks(**{name: np.array(values, float) for name, values in found.items()})


def _weighted(value, err) -> tuple[float, float]:
    """Weighted mean; its error not below what the scatter tells."""
    known = np.isfinite(value) & np.isfinite(err) & (err > 0)
    n = int(known.sum())
    if n == 0:
        return NAN, NAN
    weight = 1 / np.square(err[known])
    mean = float((weight * value[known]).sum() / weight.sum())
    error = 1 / math.sqrt(float(weight.sum()))
    chi2 = float((weight * np.square(value[known] - mean)).sum()) / (n - 1) if n > 1 else 1.0
    # With few blocks the scatter itself is not well known: it counts only when it is far too large.
    return mean, error * math.sqrt(chi2) if chi2 > 1 + 3 * math.sqrt(2 / max(n - 1, 1)) else error


def _shares(blocks: Blocks, scale: float) -> dict[str, float]:
    out = dict.fromkeys(_SHARES, NAN)
    if not math.isfinite(scale) or blocks.cycle.size == 0:
        return out
    out["first_line"], out["first_line_err"] = _weighted(blocks.first_line, blocks.first_line_err)
    out["spill"], out["spill_err"] = _weighted(blocks.spill, blocks.spill_err)
    known = np.isfinite(blocks.tail) & (blocks.tail_err > 0)
    if known.sum() >= 3:
        transfers = blocks.first_row[known] + blocks.lines[known] + SKIP
        design = np.stack([np.ones(known.sum()), transfers], axis=1) / blocks.tail_err[known][:, None]
        target = blocks.tail[known] / blocks.tail_err[known]
        covariance = np.linalg.inv(design.T @ design)
        solution = covariance @ (design.T @ target)
        out["shutdown"], out["cti"] = (float(v) for v in solution)
        out["shutdown_err"], out["cti_err"] = (float(v) for v in np.sqrt(np.diag(covariance)))
    return out


def _fold(rows, place, pattern, injected, line, line_err, rest, rest_err):
    """Mean and error at each place of a cycle, over cycles and columns."""
    period = pattern.on + pattern.off
    value, err = rest.copy(), rest_err.copy()
    value[injected], err[injected] = line, line_err
    place = np.where(pattern.cycle(rows) < 0, -1, place)
    known = np.isfinite(value) & np.isfinite(err) & (place >= 0)
    size = min(period, rows.size)
    known &= place < size
    n = np.bincount(place[known], minlength=size)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = np.bincount(place[known], weights=value[known], minlength=size) / n
        error = np.sqrt(np.bincount(place[known], weights=np.square(err[known]), minlength=size)) / n
    return mean, error


# ---- curves ------------------------------------------------------------------------------------------------
#: Widest plausible range of what the fit learns about its own errors: scatter of levels between frames, and share of
#: the charge whose place in a transition the curve does not tell.
_SCATTER, _SHAPE = (1e-7, 0.05), (5e-4, 0.1)
#: Usual size of what a curve leaves undescribed, share of the level (analysis page 2.7).
_SYSTEMATIC = 0.005
#: What is known of the steepness K before it is measured, 1/V and the error of ln K: between thermal smearing (some
#: 60 /V) and a wide spread of potentials (6 /V).
_STEEPNESS = (20.0, 1.1)


@dataclass(frozen=True)
class Curve:
    """A fitted curve of level against a voltage. Voltages in V, levels as the input."""

    kind: str = field(metadata=about("", "IG1 or IDL"))
    threshold: float = field(metadata=about("V", "half of the level drawn on from beyond"))
    threshold_err: float = field(metadata=about("V", "standard error"))
    steepness: float = field(
        metadata=about("1/V", "K of the transition, on the scale of the logistic function")
    )
    steepness_err: float = field(metadata=about("1/V", "standard error; inf when only bounded below"))
    background: float = field(metadata=about("as input", "level below the threshold"))
    background_err: float = field(metadata=about("as input", "standard error"))
    notch: float = field(metadata=about("as input", "level above background beyond the knee (IG1)"))
    notch_err: float = field(metadata=about("as input", "standard error"))
    knee: float = field(metadata=about("V", "voltage where the straight part meets the notch (IG1)"))
    knee_err: float = field(metadata=about("V", "standard error"))
    slope: float = field(metadata=about("as input/V", "of the straight part, falling (IG1)"))
    slope_err: float = field(metadata=about("as input/V", "standard error"))
    amplitude: float = field(metadata=about("as input", "full level above background (IDL)"))
    amplitude_err: float = field(metadata=about("as input", "standard error"))
    width: float = field(metadata=about("V", "softness of the knee (IG1)"))
    scatter: float = field(metadata=about("1", "of levels from frame to frame, beyond their errors"))
    shape: float = field(metadata=about("1", "of the charge whose place in the transition is not told"))
    chi2: float = field(metadata=about("1", "of the points about the curve, with the errors found"))
    dof: int = field(metadata=about("1", "degrees of freedom"))
    n: int = field(metadata=about("1", "points"))
    flag: str = field(default="", metadata=about("", "why the fit is not good, empty otherwise"))
    parameters: tuple[float, ...] = field(default=(), metadata=about("", "of `evaluate`"))

    def evaluate(self, volts: np.ndarray) -> np.ndarray:
        model = _gate if self.kind == "IG1" else _drain
        return model(np.asarray(self.parameters), np.asarray(volts, float))


_NAMES = {
    "IG1": ("background", "steepness", "threshold", "knee", "slope", "notch", "width"),
    "IDL": ("background", "steepness", "threshold", "amplitude"),
}


def _step(u):
    """Normal distribution on the scale of the logistic function: the same steepness within 1 %."""
    from scipy.special import ndtr

    return ndtr(u / 1.702)


def _line(p, x):
    """Level against IG1 without the transition: a line that ends, smeared as potentials are, and the notch."""
    _, _, _, knee, slope, notch, width = p
    u = (knee - x) / width
    return notch + slope * width * (
        u * _step(1.702 * u) + np.exp(-0.5 * np.square(u)) / math.sqrt(2 * math.pi)
    )


def _gate(p, x):
    """Level against IG1: background + rise at the threshold times (falling line with a soft knee + notch)."""
    return p[0] + _step(p[1] * (x - p[2])) * _line(p, x)


def _drain(p, x):
    """Level against IDL: background + amplitude times fall at the threshold."""
    return p[0] + p[3] * _step(-p[1] * (x - p[2]))


def fit_curves(kind: str, curves, tolerance: float = 0.005) -> list[Curve]:
    """Fit levels against the voltage of gate 1 (``IG1``) or of the drain (``IDL``), several quadrants together.

    Parameters
    ----------
    curves : sequence of (volts, level, err)
        One for each quadrant: V; levels and their standard errors (of one frame), any unit.
    tolerance : float
        Scatter about the curve, share of the level, above which it is a bad fit (shape: five times that).

    Notes
    -----
    A point has the error of its frame, a scatter from frame to frame (a share of its level, one for each
    quadrant), and inside the transition that of its shape: some share of the charge does not follow the normal
    distribution (least about its middle, and in the tails at most what the logistic has there). Scatter and shape are
    found from the residuals by their restricted likelihood, the shape from all quadrants together: a scan has few
    points more inside a transition than it takes to place it. For the same reason the steepness of a quadrant is
    held to those of the others, within their own spread.
    """
    problems = [_prepare(kind, *curve) for curve in curves]
    fitted = [p for p in problems if not isinstance(p, Curve)]
    shape = 4 * _SYSTEMATIC
    for turn in range(3):
        for problem in fitted:
            problem.solve(shape, again=turn > 0)
        solved = [p for p in fitted if p.solution is not None]
        if not solved:
            break
        shape = _learn(solved)
        for problem, prior in zip(solved, _steepness(solved, shape), strict=True):
            problem.prior = prior
    return [
        p
        if isinstance(p, Curve)
        else _no_curve(kind, p.volts.size, "the fit does not converge")
        if p.solution is None
        else p.curve(shape, tolerance)
        for p in problems
    ]


class _Problem:
    """Points of one quadrant, bounds and starts of its curve, the solution."""

    def __init__(self, kind, volts, level, err, bounds, starts):
        self.kind, self.volts, self.level, self.err = kind, volts, level, err
        self.model = _gate if kind == "IG1" else _drain
        self.lower, self.upper = (np.asarray(b, float) for b in bounds)
        self.scale = np.maximum(np.abs(self.upper - self.lower), 1e-6)
        margin = 1e-9 * self.scale
        self.starts = [np.clip(start, self.lower + margin, self.upper - margin) for start in starts]
        self.solution = self.jacobian = None
        self.scatter, self.prior = 2e-3, _STEEPNESS
        self.full, self.jump = float(level.max()), np.abs(np.gradient(level)) / float(level.max())

    def sigma(self, shape: float, scatter: float | None = None) -> np.ndarray:
        return np.sqrt(self.variance(np.array([self.scatter if scatter is None else scatter]), shape)[0])

    def off(self, p) -> float:
        """Steepness against what is known of it, in its errors."""
        return math.log(p[1] / self.prior[0]) / self.prior[1]

    def variance(self, scatter: np.ndarray, shape: float) -> np.ndarray:
        """Of the points, for each of some scatters."""
        known = self.err**2 + np.square(self.displaced(shape))
        return known[None, :] + np.square(np.outer(scatter, self.level))

    def displaced(self, shape: float) -> np.ndarray:
        """Charge at each point that an error of the transition's shape may move."""
        if self.solution is None:
            return shape * self.full * np.minimum(self.jump, 1.0)
        p = self.solution
        whole = _line(p, self.volts) if self.kind == "IG1" else np.full(self.volts.size, p[3])
        # In the tails at most what a distribution with long ones (the logistic) still has there.
        argument = np.minimum(np.abs(p[1] * (self.volts - p[2])), 80.0)
        tail = 1 / (1 + np.exp(argument))
        # Where half of the charge passes, and how steeply, is what is fitted: about there shapes differ by the second
        # order only (Edgeworth), most at the square root of 2 of their rms.
        square = np.square(argument / 1.702)
        order = np.where(square < 2, 0.5 * square * np.exp(1 - 0.5 * square), 1.0)
        moved = whole * np.minimum(shape * order, tail)
        if self.kind == "IG1":
            # The knee is the same kind of transition, of the slope.
            moved = np.hypot(
                moved, shape * p[4] * p[6] * np.exp(-0.5 * np.square((self.volts - p[3]) / (2 * p[6])))
            )
        return moved

    def solve(self, shape: float, again: bool) -> None:
        from scipy.optimize import least_squares

        sigma, best = self.sigma(shape), None
        starts = [self.solution] if again and self.solution is not None else self.starts
        for start in starts:
            try:
                found = least_squares(
                    lambda p: np.append((self.model(p, self.volts) - self.level) / sigma, self.off(p)),
                    start,
                    bounds=(self.lower, self.upper),
                    x_scale=self.scale * 0.1,
                )
            except ValueError:
                continue
            if best is None or found.cost < best.cost:
                best = found
        if best is not None:
            self.solution = best.x
            self.jacobian = best.jac * np.append(sigma, 1.0)[:, None]
            self.rest = self.level - self.model(best.x, self.volts)

    def covariance(self, sigma: np.ndarray) -> np.ndarray:
        weighted = self.jacobian / np.append(sigma, 1.0)[:, None]
        return np.linalg.pinv(weighted.T @ weighted)

    def free_steepness(self, shape: float) -> float:
        """Error of ln K from the points alone."""
        weighted = self.jacobian[:-1] / self.sigma(shape)[:, None]
        return math.sqrt(float(np.linalg.pinv(weighted.T @ weighted)[1, 1])) / self.solution[1]

    def likelihood(self, scatter: np.ndarray, shape: float) -> np.ndarray:
        """Logarithm of the restricted likelihood at each scatter; the curve is linear about its solution."""
        variance = self.variance(scatter, shape)
        weight = np.append(1 / variance, np.ones((scatter.size, 1)), axis=1)
        rest = np.append(self.rest, -self.off(self.solution))
        jacobian = self.jacobian / np.abs(self.jacobian).max(axis=0).clip(1e-300)
        normal = np.einsum("gi,ij,ik->gjk", weight, jacobian, jacobian)
        normal += 1e-12 * np.trace(normal, axis1=1, axis2=2)[:, None, None] * np.eye(normal.shape[1])
        slope = np.einsum("gi,ij,i->gj", weight, jacobian, rest)
        gone = np.einsum("gj,gj->g", slope, np.linalg.solve(normal, slope[..., None])[..., 0])
        chi2 = (weight * np.square(rest)).sum(axis=1) - gone
        return -0.5 * (np.log(variance).sum(axis=1) + np.linalg.slogdet(normal)[1] + chi2)

    def curve(self, shape: float, tolerance: float) -> Curve:
        names, flags = _NAMES[self.kind], []
        for k, name in enumerate(names):
            edge = min(self.solution[k] - self.lower[k], self.upper[k] - self.solution[k])
            if name not in ("background", "width", "steepness") and edge < 1e-4 * self.scale[k]:
                flags.append(f"{name} at its bound")
        sigma = self.sigma(shape)
        errors = np.sqrt(np.maximum(np.diag(self.covariance(sigma)), 0.0))
        value = dict(zip(names, (float(v) for v in self.solution), strict=True))
        error = dict(zip(names, (float(v) for v in errors), strict=True))
        dof = self.volts.size - len(names)
        # The scan does not resolve the transition: the threshold lies anywhere between two points.
        unresolved = (
            value["steepness"] > 0.9 * self.upper[1] or not error["steepness"] < 0.5 * value["steepness"]
        )
        if unresolved:
            step = float(np.median(np.diff(self.volts)))
            error["threshold"] = max(error["threshold"], step / math.sqrt(12) * 0.5)
            error["steepness"] = math.inf
        if self.scatter > tolerance:
            worst = np.abs(self.rest / sigma).argmax()
            flags.append(
                f"levels scatter by {100 * self.scatter:.2g} % about the curve, most at {self.volts[worst]:g} V"
            )
        if shape > 5 * tolerance:
            flags.append(f"{100 * shape:.2g} % of the charge does not follow the transition")
        get, err = (lambda n: value.get(n, NAN)), (lambda n: error.get(n, NAN))
        return Curve(
            kind=self.kind,
            **{
                n: get(n)
                for n in ("threshold", "steepness", "background", "notch", "knee", "slope", "amplitude")
            },
            **{
                f"{n}_err": err(n)
                for n in ("threshold", "steepness", "background", "notch", "knee", "slope", "amplitude")
            },
            width=get("width"),
            scatter=float(self.scatter),
            shape=float(shape),
            chi2=float(np.square(self.rest / sigma).sum()),
            dof=int(dof),
            n=int(self.volts.size),
            flag="; ".join(flags),
            parameters=tuple(float(v) for v in self.solution),
        )


def _learn(problems) -> float:
    """Shape of all quadrants; sets the scatter of each. Both are means of the logarithm over their probability.

    Before the data every magnitude of the scatter is as likely, and of the shape up to the usual one; beyond it falls
    as a Cauchy law does, as points inside a transition are too few to bound it.
    """
    scatter, shape = np.geomspace(*_SCATTER, 34), np.geomspace(*_SHAPE, 30)
    tables = [np.array([p.likelihood(scatter, s) for s in shape]) for p in problems]
    total = sum(_log_sum(t) for t in tables) - np.log1p(np.square(shape / _SYSTEMATIC))
    weight = np.exp(total - total.max())
    found = math.exp(float((weight * np.log(shape)).sum() / weight.sum()))
    for problem, table in zip(problems, tables, strict=True):
        likelihood = table[np.abs(shape - found).argmin()]
        weight = np.exp(likelihood - likelihood.max())
        problem.scatter = math.exp(float((weight * np.log(scatter)).sum() / weight.sum()))
    return found


def _steepness(problems, shape: float) -> list[tuple[float, float]]:
    """What the other quadrants tell of the steepness of each: their mean, and their spread beyond the errors."""
    value = np.array([math.log(p.solution[1]) for p in problems])
    own = np.array([max(p.free_steepness(shape), 1e-3) for p in problems])
    out = []
    for number in range(len(problems)):
        others = (np.arange(len(problems)) != number) & (own < 0.3)
        if others.sum() < 3:
            out.append(_STEEPNESS)
            continue
        x, e = value[others], own[others]
        mean = float(np.mean(x))
        spread = max(float(np.var(x, ddof=1) - np.mean(e**2)), 0.0)
        # The spread of few is not well known itself.
        width = math.sqrt(spread * (1 + 3 / x.size) + float(np.mean(e**2)) / x.size + 0.1**2)
        out.append((math.exp(mean), width))
    return out


def _log_sum(table: np.ndarray) -> np.ndarray:
    top = table.max(axis=1)
    return top + np.log(np.exp(table - top[:, None]).mean(axis=1))


def _prepare(kind, volts, level, err) -> _Problem | Curve:
    """Bounds and starts of a curve, or why there is none."""
    volts, level, err = (np.asarray(v, float) for v in (volts, level, err))
    good = np.isfinite(volts) & np.isfinite(level) & np.isfinite(err) & (err > 0)
    order = np.argsort(volts[good])
    volts, level, err = volts[good][order], level[good][order], err[good][order]
    return (_prepare_gate if kind == "IG1" else _prepare_drain)(volts, level, err)


def _prepare_gate(volts, level, err) -> _Problem | Curve:
    n = volts.size
    if n < 9:
        return _no_curve("IG1", n, f"{n} points")
    top = int(np.argmax(level))
    if not level[top] > 20 * err[top] or top == 0:
        return _no_curve("IG1", n, "no threshold inside the scan")
    low, high = float(np.median(level[: max(1, top - 2)])), float(level[top])
    crossing = _crossing(volts[: top + 1], level[: top + 1] - low, 0.5 * (high - low))
    tail = float(level[-1] - low)
    falling = (level < low + 0.85 * (high - low)) & (level > low + 0.3 * (high - low)) & (np.arange(n) > top)
    slope = (
        -np.polyfit(volts[falling], level[falling], 1)[0]
        if falling.sum() >= 2
        else (high - tail) / max(volts[-1] - volts[top], 0.25)
    )
    knee = volts[top] + (high - low - tail) / max(slope, 1e-9)
    step = float(np.median(np.diff(volts)))
    bounds = (
        [-0.05 * high, 2.0, volts[0], volts[top], 0.1 * slope, 0.0, 0.02],
        [0.05 * high, 200.0, volts[min(top + 1, n - 1)], volts[-1] + 1.0, 10 * abs(slope), 0.5 * high, 0.5],
    )
    starts = [
        (low, k, crossing + d * step, knee, slope, max(tail, 1e-3 * high), w)
        for k, d, w in ((20.0, 0.0, 0.06), (10.0, -0.3, 0.2), (10.0, 0.3, 0.06), (60.0, 0.0, 0.2))
    ]
    return _Problem("IG1", volts, level, err, bounds, starts)


def _prepare_drain(volts, level, err) -> _Problem | Curve:
    n = volts.size
    if n < 6:
        return _no_curve("IDL", n, f"{n} points")
    high, low = float(np.median(level[:3])), float(np.median(level[-2:]))
    if not high - low > 20 * float(np.median(err)):
        return _no_curve("IDL", n, "no threshold inside the scan")
    crossing = _crossing(volts, high - level, 0.5 * (high - low))
    step = float(np.median(np.diff(volts)))
    bounds = (
        [-0.05 * high, 2.0, volts[0] + step, 0.5 * high],
        [0.05 * high, 200.0, volts[-1] - step, 2.0 * high],
    )
    if not bounds[0][2] < crossing < bounds[1][2]:
        return _no_curve("IDL", n, "no threshold inside the scan")
    starts = [
        (low, k, crossing + d * step, high - low)
        for k, d in ((20.0, 0.0), (10.0, -0.3), (10.0, 0.3), (60.0, 0.0))
    ]
    return _Problem("IDL", volts, level, err, bounds, starts)


def _crossing(x, y, at: float) -> float:
    above = np.flatnonzero(y >= at)
    if above.size == 0 or above[0] == 0:
        return float(x[above[0]] if above.size else x[-1])
    k = int(above[0])
    return float(x[k - 1] + (at - y[k - 1]) / (y[k] - y[k - 1]) * (x[k] - x[k - 1]))


def _no_curve(kind: str, n: int, why: str) -> Curve:
    names = [f.name for f in fields(Curve) if f.name not in ("kind", "dof", "n", "flag", "parameters")]
    return Curve(kind=kind, dof=0, n=n, flag=why, **dict.fromkeys(names, NAN))


def bad_columns(columns: np.ndarray, sigma: float = 8.0, least: float = 0.5) -> np.ndarray:
    """Columns that take too little (or no) charge: below `least` of the median, or far outside the spread."""
    usable = np.isfinite(columns)
    if usable.sum() < 10:
        return np.empty(0, int)
    middle = float(np.median(columns[usable]))
    width = 1.4826 * float(np.median(np.abs(columns[usable] - middle)))
    with np.errstate(invalid="ignore"):
        bad = (columns < least * middle) | (np.abs(columns - middle) > max(sigma * width, 0.05 * abs(middle)))
    return np.flatnonzero(bad & usable)
