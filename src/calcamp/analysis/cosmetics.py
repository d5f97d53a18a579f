"""Cosmetics of a quadrant: defects in frames without light and in flats, as bits and lists.

Frames without light (exposure time 0) show what the read-out makes: bright pixels, bright columns, and very
hot pixels by the trail that every row collects on its way past them. Flats show the response: dead, low,
high and over-responsive pixels, whole and partial columns. Arrays are canonical, ADU above offset.

A defect stands out of its surroundings (clipped box means, so that defects do not pull them) by a number of
the *local* scatter, and in most of the single frames: one threshold on a stack would take cosmic rays for
defects.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from calcamp.analysis.background import box_means, interpolate_boxes
from calcamp.analysis.cosmics import group_labels
from calcamp.analysis.defects import ColumnDefect, find_columns, old_rule_columns
from calcamp.analysis.statistics import about, clipped, robust_std
from calcamp.analysis.sums import bands
from calcamp.detector.dq import BADMASK, DQ

#: Bits of a column defect.
COLUMN_BITS = DQ.BAD_COL | DQ.BRIGHT_COL | DQ.PARTIAL_COL
#: Flat level, ADU above offset, below which a frame is no flat.
LEAST_FLAT = 500.0


@dataclass(frozen=True)
class Cuts:
    """Thresholds of the search; the defaults are those of COSMETICS00."""

    dark_sigma: float = 5.5
    dark_least: float = 2.0  # ADU above the surroundings, frames without light
    dark_column_least: float = 0.1  # ADU
    pattern_sigma: float = 6.0  # a column must stand out of the read-out's column pattern by so many rms
    flat_sigma: float = 5.5
    dead: float = 0.5  # relative response
    low: float = 0.8
    high: float = 1.2
    over: float = 1.5
    column_sigma: float = 7.0
    column_least: float = 0.05  # relative response
    vote: float = 0.7  # share of the frames that must show a defect
    dark_box: int = 64  # px
    flat_box: int = 32  # px
    old_column: int = 200  # bad pixels in a column: the predecessor's rule


@dataclass(frozen=True)
class Pixels:
    """Deviating pixels of an area; arrays of equal length."""

    row: np.ndarray = field(metadata=about("px", "canonical row in the image area"))
    column: np.ndarray = field(metadata=about("px", "canonical column in the image area"))
    value: np.ndarray = field(metadata=about("ADU or 1", "above the surroundings, or relative response"))
    err: np.ndarray = field(metadata=about("as value", "local scatter of a pixel of the stack"))
    votes: np.ndarray = field(metadata=about("1", "share of the frames that show it"))

    @property
    def significance(self) -> np.ndarray:
        """Deviation in units of the local scatter (response: from 1)."""
        return self.value / self.err

    def keep(self, chosen: np.ndarray) -> Pixels:
        return Pixels(*(getattr(self, name)[chosen] for name in ("row", "column", "value", "err", "votes")))


@dataclass(frozen=True)
class Search:
    """What one kind of frames (without light, or flat) shows in a quadrant."""

    map: np.ndarray = field(
        metadata=about("ADU or 1", "stack less (over) its background, image area, float32")
    )
    dq: np.ndarray = field(metadata=about("bits", "uint32, image area"))
    pixels: Pixels = field(
        metadata=about("", "single pixels; of a response map value is the deviation from 1")
    )
    columns: tuple[ColumnDefect, ...] = field(metadata=about("", "levels as the map"))
    scatter: float = field(metadata=about("as map", "typical local scatter of a pixel of the stack"))
    frames: int = field(metadata=about("1", "frames stacked"))
    level: float = field(default=math.nan, metadata=about("ADU", "mean level of the frames"))


@dataclass(frozen=True)
class Cosmetics:
    """All defects of a quadrant."""

    dark: Search | None
    flat: Search | None
    dq: np.ndarray = field(metadata=about("bits", "merged, image area, uint32"))
    clusters: np.ndarray = field(metadata=about("px", "sizes of groups of at least two touching bad pixels"))
    cluster_pixels: np.ndarray = field(metadata=about("px", "flat indices of their members"))
    cluster_labels: np.ndarray = field(metadata=about("1", "group of each member, from 0"))
    old_columns: np.ndarray = field(metadata=about("px", "columns of the predecessor's rule"))


# ---- stacks ---------------------------------------------------------------------------------------------
def trimmed_mean(frames: Sequence[np.ndarray], scales: Sequence[float] | None = None) -> np.ndarray:
    """Mean of like frames without the lowest and the highest value of each pixel, float32.

    From three frames on, one cosmic ray in a pixel leaves no trace. Of two frames it is the mean.

    Parameters
    ----------
    scales : factors for the frames, e.g. one over their levels.
    """
    scales = [1.0] * len(frames) if scales is None else scales
    factors = [np.float32(scale) for scale in scales]
    trim = len(frames) > 2
    out = np.empty(frames[0].shape, np.float32)
    for rows in bands(len(out)):  # a band stays in the processor's cache
        total = np.multiply(frames[0][rows], factors[0], out=out[rows])
        low, high = (total.copy(), total.copy()) if trim else (None, None)
        for frame, factor in zip(frames[1:], factors[1:], strict=True):
            scaled = frame[rows] * factor
            total += scaled
            if trim:
                np.minimum(low, scaled, out=low)
                np.maximum(high, scaled, out=high)
        if trim:
            total -= low
            total -= high
        total *= np.float32(1.0 / (len(frames) - 2 * trim))
    return out


def _surroundings(stack: np.ndarray, box: int) -> tuple[np.ndarray, np.ndarray, float]:
    """(background, local scatter, typical scatter) of a stack from clipped boxes."""
    number = tuple(max(1, round(size / box)) for size in stack.shape)
    boxes = box_means(stack, number)
    typical = float(np.nanmedian(boxes.std)) if np.isfinite(boxes.std).any() else math.nan
    # A box that is a defect as a whole has no scatter of its own.
    floor = np.where(boxes.std > 0.5 * typical, boxes.std, typical)
    scatter = interpolate_boxes(replace(boxes, mean=floor), stack.shape)
    return interpolate_boxes(boxes, stack.shape), scatter, typical


# ---- frames without light -------------------------------------------------------------------------------
def search_dark(
    frames: Sequence[np.ndarray], rows: int, cuts: Cuts, invalid: np.ndarray | None = None
) -> Search:
    """Bright pixels and columns of frames without light.

    Parameters
    ----------
    frames : sequence of (rows read, image columns) float32, ADU, or `calcamp.analysis.prepare.OnDemand`
        Prepared frames under the image columns; rows of the parallel overscan may follow those of the image:
        trails of hot pixels near the last row show there.
    rows : int
        Rows of the image area.
    invalid : (rows, image columns) bool, optional
        True where no frame has a valid value.
    """
    stack = trimmed_mean(frames)
    background, scatter, typical = _surroundings(stack, cuts.dark_box)
    stack -= background
    if invalid is not None:
        stack[: len(invalid)][invalid] = 0.0
    least = max(cuts.dark_column_least, cuts.pattern_sigma * _column_pattern(stack, typical))
    found = find_columns(stack, typical, least, cuts.column_sigma)
    found = [_sharp_ends(stack, c, typical) if _is_trail(stack, c, rows) else c for c in found]
    columns = [c for c in (_cut_to(c, rows) for c in found) if c is not None]
    in_columns = np.zeros((rows, stack.shape[1]), bool)
    for c in columns:
        in_columns[c.first : c.last + 1, c.column] = True
    area, spread = stack[:rows], scatter[:rows]
    at = np.flatnonzero(
        (area > np.maximum(np.float32(cuts.dark_least), cuts.dark_sigma * spread)) & ~in_columns
    )
    row, column = np.divmod(at, area.shape[1])
    above = [f[row, column] - background[row, column] for f in frames]
    pixels = _voted(row, column, area[row, column], spread[row, column], above)
    dq = np.zeros(area.shape, np.uint32)
    stable = pixels.votes >= cuts.vote
    dq[pixels.row[stable], pixels.column[stable]] |= np.uint32(DQ.HOT)
    dq[pixels.row[~stable], pixels.column[~stable]] |= np.uint32(DQ.UNSTABLE)
    _mark_columns(dq, [c for c in columns if c.level > 0], DQ.BRIGHT_COL)
    _mark_columns(dq, [c for c in columns if c.level <= 0], DQ(0))
    hot_rows, hot_columns = _trail_heads(stack, columns, rows)
    dq[hot_rows, hot_columns] |= np.uint32(DQ.HOT)
    heads = Pixels(
        hot_rows,
        hot_columns,
        np.array([c.level for c in columns if _is_trail(stack, c, rows)]),
        np.array([c.level_err for c in columns if _is_trail(stack, c, rows)]),
        np.ones(hot_rows.size),
    )
    pixels = pixels.keep(stable)
    joined = (np.concatenate([getattr(pixels, n), getattr(heads, n)]) for n in Pixels.__dataclass_fields__)
    return Search(area, dq, Pixels(*joined), tuple(columns), typical, len(frames))


def _column_pattern(stack: np.ndarray, noise: float) -> float:
    """Rms of the column pattern that the read-out itself makes, ADU: robust, noise taken off."""
    means = np.clip(stack, -3 * noise, 3 * noise).mean(axis=0, dtype=np.float64)
    return math.sqrt(max(robust_std(means) ** 2 - noise**2 / len(stack), 0.0))


def _cut_to(defect: ColumnDefect, rows: int) -> ColumnDefect | None:
    """A run inside the image area; None when it lies in the parallel overscan only."""
    if defect.first >= rows:
        return None
    return replace(
        defect, last=min(defect.last, rows - 1), partial=defect.first > 0 or defect.last < rows - 1
    )


def _is_trail(stack: np.ndarray, defect: ColumnDefect, rows: int) -> bool:
    """Whether a bright run is the trail of one hot pixel: level from its start on, to the last row read.

    Each row collects the same charge on its way past a hot pixel. Past a bright column it collects more the
    farther it comes from, so that its level rises from nothing.
    """
    if defect.level <= 0 or defect.last < rows - 2:
        return False
    values = stack[defect.first :, defect.column]
    half = values.size // 2
    if half < 4:
        return True
    early, late = (clipped(v.astype(float), 4.0, rounded=0).mean for v in (values[:half], values[half:]))
    return early > 0.7 * late


def _trail_heads(stack, columns, rows) -> tuple[np.ndarray, np.ndarray]:
    heads = [(c.first, c.column) for c in columns if _is_trail(stack, c, rows)]
    row, column = np.array(heads, dtype=np.intp).reshape(-1, 2).T
    return row, column


def _voted(row, column, value, err, single: Sequence[np.ndarray]) -> Pixels:
    """Pixels with the share of frames that show at least half of the deviation of the stack."""
    if not row.size:
        return Pixels(row, column, value, err, np.zeros(0))
    votes = np.mean([frame / value > 0.5 for frame in single], axis=0)
    return Pixels(row, column, value, err, votes)


def _mark_columns(dq: np.ndarray, columns: Sequence[ColumnDefect], more: DQ) -> None:
    for c in columns:
        bits = DQ.BAD_COL | more | (DQ.PARTIAL_COL if c.partial else DQ(0))
        dq[c.first : c.last + 1, c.column] |= np.uint32(bits)


# ---- flats ------------------------------------------------------------------------------------------------
def search_flat(frames: Sequence[np.ndarray], cuts: Cuts, invalid: np.ndarray | None = None) -> Search:
    """Response defects of flats: pixels and columns.

    Parameters
    ----------
    frames : sequence of (rows, columns) float32, ADU, or `calcamp.analysis.prepare.OnDemand`
        Image areas of prepared flats of about the same level.
    invalid : bool array, optional
        True where no frame has a valid value (saturated, lost): left out here, they have bits of their own.
    """
    levels = [clipped(f[::7, ::7], 5.0, rounded=0).mean for f in frames]
    stack = trimmed_mean(frames, [1 / v if v > 0 else 0.0 for v in levels])
    background, scatter, _ = _surroundings(stack, cuts.flat_box)
    background = np.maximum(background, np.float32(1e-3))
    stack /= background
    scatter /= background
    typical = float(np.median(scatter[::8, ::8]))
    if invalid is not None:
        stack[invalid] = 1.0
    stack -= 1.0
    columns = find_columns(stack, typical, cuts.column_least, cuts.column_sigma)
    columns = [_sharp_ends(stack, c, typical) for c in columns]
    in_columns = np.zeros(stack.shape, bool)
    for c in columns:
        in_columns[c.first : c.last + 1, c.column] = True
    at = np.flatnonzero((np.abs(stack) > cuts.flat_sigma * scatter) & ~in_columns)
    row, column = np.divmod(at, stack.shape[1])
    base = background[row, column]
    single = [f[row, column] / np.float32(v) / base - 1 for f, v in zip(frames, levels, strict=True)]
    pixels = _voted(row, column, stack[row, column], scatter[row, column], single)
    dq = np.zeros(stack.shape, np.uint32)
    stable = pixels.votes >= cuts.vote
    dq[pixels.row[~stable], pixels.column[~stable]] |= np.uint32(DQ.UNSTABLE)
    pixels = pixels.keep(stable)
    dq[pixels.row, pixels.column] |= response_bits(1 + pixels.value, cuts)
    _mark_columns(dq, columns, DQ(0))
    inside = np.flatnonzero(in_columns)
    dq.reshape(-1)[inside] |= response_bits(1 + stack.reshape(-1)[inside], cuts)
    stack += 1.0
    return Search(stack, dq, pixels, tuple(columns), typical, len(frames), float(np.mean(levels)))


def response_bits(response: np.ndarray, cuts: Cuts) -> np.ndarray:
    """DEAD, LOW, HIGH or OVER of relative responses, uint32; 0 between `low` and `high`."""
    bits = np.zeros(response.shape, np.uint32)
    for bit, chosen in (
        (DQ.DEAD, response < cuts.dead),
        (DQ.LOW, (response >= cuts.dead) & (response < cuts.low)),
        (DQ.HIGH, (response > cuts.high) & (response <= cuts.over)),
        (DQ.OVER, response > cuts.over),
    ):
        bits[chosen] = int(bit)
    return bits


def _sharp_ends(stack: np.ndarray, defect: ColumnDefect, noise: float) -> ColumnDefect:
    """Ends to the row where single pixels tell: those beyond half the level, for defects far above the noise."""
    if abs(defect.level) < 8 * noise:
        return defect
    member = stack[:, defect.column] / defect.level > 0.5
    first, last = defect.first, defect.last
    while first > 0 and member[first - 1]:
        first -= 1
    while last < member.size - 1 and member[last + 1]:
        last += 1
    while first < last and not member[first]:
        first += 1
    while last > first and not member[last]:
        last -= 1
    return replace(defect, first=first, last=last, partial=first > 0 or last < member.size - 1)


def both_levels(first: Search, second: np.ndarray, cuts: Cuts) -> Search:
    """A search confirmed by the response map of another light level.

    What is dead at one level and answers at the other is LOW: only pixels dead at both are DEAD.

    Parameters
    ----------
    second : (rows, columns), relative response at the other level, NaN where it is not known.
    """
    dq = first.dq.copy()
    dead = (dq & np.uint32(DQ.DEAD)) != 0
    alive = dead & (second >= cuts.dead)
    dq[alive] = (dq[alive] & ~np.uint32(DQ.DEAD)) | np.uint32(DQ.LOW)
    return replace(first, dq=dq)


# ---- together --------------------------------------------------------------------------------------------
def merge(
    shape: tuple[int, int],
    dark: Search | None,
    flat: Search | None,
    others: Sequence[np.ndarray] = (),
    cuts: Cuts | None = None,
) -> Cosmetics:
    """Defects of all kinds: bits ORed, groups of touching pixels found, the predecessor's columns marked.

    Parameters
    ----------
    shape : of the image area.
    others : uint32 arrays of the image area, e.g. the bits of a master dark.
    """
    cuts = cuts or Cuts()
    dq = np.zeros(shape, np.uint32)
    for part in (*(s.dq for s in (dark, flat) if s is not None), *others):
        dq |= part
    bad = (dq & np.uint32(BADMASK)) != 0
    single = np.flatnonzero(bad & ((dq & np.uint32(DQ.BAD_COL)) == 0))
    labels = group_labels(single, shape)
    sizes = np.bincount(labels) if labels.size else np.zeros(0, int)
    member = sizes[labels] >= 2 if labels.size else np.zeros(0, bool)
    dq.reshape(-1)[single[member]] |= np.uint32(DQ.CLUSTER)
    kept, renumbered = np.unique(labels[member], return_inverse=True)
    whole = old_rule_columns(bad, cuts.old_column)
    dq[:, whole] |= np.uint32(DQ.WHOLE_COL)
    return Cosmetics(
        dark, flat, dq, sizes[kept] if kept.size else np.zeros(0, int), single[member], renumbered, whole
    )


def counts(dq: np.ndarray, least: int = 200) -> dict[str, int]:
    """Numbers of defects of an image area by kind.

    ``bad_pixels`` have a bit of BADMASK; ``bad_columns`` are columns with a detected run; ``old_columns``
    those of the predecessor's count table, more than `least` bad pixels.
    """
    at = np.flatnonzero(dq)  # few pixels have any bit
    bits, columns = dq.reshape(-1)[at], at % dq.shape[1]

    def having(kind: int) -> np.ndarray:
        return (bits & np.uint32(kind)) != 0

    bad, column = having(BADMASK), having(DQ.BAD_COL)
    single = {
        name: having(kind) & ~column
        for name, kind in (("dead", DQ.DEAD), ("low", DQ.LOW), ("high", DQ.HIGH), ("over", DQ.OVER))
    }
    pixels = {
        "hot": having(DQ.HOT),
        "bright_column_pixels": having(DQ.BRIGHT_COL),
        **single,
        "unstable": having(DQ.UNSTABLE),
        "saturated": having(DQ.SATURATED),
        "lost": having(DQ.LOST),
        "cluster_pixels": having(DQ.CLUSTER),
    }
    return {
        "bad_pixels": int(np.count_nonzero(bad)),
        "bad_columns": np.unique(columns[column]).size,
        "partial_columns": np.unique(columns[having(DQ.PARTIAL_COL)]).size,
        "old_columns": int(np.count_nonzero(np.bincount(columns[bad]) > least)),
        **{name: int(np.count_nonzero(found)) for name, found in pixels.items()},
    }
