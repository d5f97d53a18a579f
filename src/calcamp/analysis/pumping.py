"""Trap pumping: dipoles found over all times of a mode, measured everywhere, and fitted for their traps.

A dipole is measured as half the difference of the two pixels of a pair, which frees it from everything that
varies slowly along the direction of pumping; the pattern of the injection from column to column drops out.
What a trap moves in N cycles follows from the clock table (`calcamp.detector.clocks`): charge let go between
``begin`` and ``end`` steps of length t after storage joins the other packet,
``A = N Pc (1 - exp(-hold t/tau_c)) (exp(-begin t/tau) - exp(-end t/tau))`` (Hall et al. 2014).
Amplitudes are positive when the bright pixel is nearer the node.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from calcamp.analysis.statistics import NAN, about

#: Step of the stored half-differences, ADU: far below the noise of a pixel.
STEP = 0.25
_LARGEST = 32000
#: Pairs worked on at a time: their values for all templates stay in the processor's cache.
_PAIRS = 4096
#: Rows worked on at a time, for the same reason.
_ROWS = 64
#: Half-differences beyond so many sigma count as at them in the noise of a column: dipoles and rays.
_CLIP = 2.0
#: Net charge, in sigma, above which a pair was hit by a cosmic ray.
_RAY = 3.0
#: Least difference of chi2 between one pixel and two that tells a dipole seen at one time only: a thousand pixels of a
#: quadrant are hit by rays in one frame or another, and few traps are seen at one time only.
_TOLD = 14.0
#: Growth of the error of an amplitude with the number of neighbours it is solved with.
_GROWTH = np.sqrt(np.array([1.0, 4.0 / 3.0, 2.0]))
#: Net charge of a pixel alone over the amplitude it gives its pair, both in their errors.
_ALONE = 2 / math.sqrt(2 * (2 + 0.5 * math.pi * 4 / 9))
#: Beyond the times of a scan amplitudes tell tau / Pc only: a value outside by more than `_BEYOND`, or whose interval
#: ends farther out than `_REACH` (both of ln tau), is a limit; unless its whole interval (90 %) is below `_NARROW`.
_BEYOND, _REACH, _NARROW = math.log(2.5), math.log(4.0), math.log(1.5)


@dataclass(frozen=True)
class Response:
    """What a trap at one kind of place does in one mode."""

    begin: float = field(metadata=about("step", "start of the window after storage"))
    end: float = field(metadata=about("step", "end of the window"))
    hold: float = field(metadata=about("step", "time under the packet"))
    sign: int = field(metadata=about("1", "+1: bright pixel nearer the node"))
    pair: int = field(metadata=about("px", "lower pixel of the pair, from the trap's own"))
    position: float = field(metadata=about("electrode", "place in the pixel, from the node"))

    def electrons(self, step_us, tau_us, cycles: float, tau_c_us: float = 0.0):
        """Electrons moved for a probability of capture of 1; broadcast over its arguments."""
        t, tau = np.asarray(step_us, float), np.asarray(tau_us, float)
        caught = 1.0 if tau_c_us <= 0 else -np.expm1(-self.hold * t / tau_c_us)
        return cycles * caught * (np.exp(-self.begin * t / tau) - np.exp(-self.end * t / tau))


def tau_grid(low_us: float, high_us: float, number: int) -> np.ndarray:
    return np.exp(np.linspace(math.log(low_us), math.log(high_us), number))


# ---- dipole images ------------------------------------------------------------------------------------------
def half_differences(image: np.ndarray, mask: np.ndarray | None = None) -> np.ndarray:
    """Half the difference of each pixel and the next one away from the node, in steps of `STEP` ADU, int16.

    Parameters
    ----------
    image : ndarray of float32, shape (rows, columns)
        ADU, canonical; pumping is along the rows (axis 0).
    mask : ndarray of bool, optional
        True where a pixel is left out: its pairs become 0.

    Returns
    -------
    ndarray of int16, shape (rows - 1, columns)
        Means of rows taken off (offsets, gradients), and the pattern of the columns where a row holds less charge
        than the next (the first injected one does). Columns are left as they are: over two thousand rows a gradient
        is nothing between two, and what is taken off in error would add up along the column (`net_charge`).
    """
    rows, columns = image.shape[0] - 1, image.shape[1]
    out = np.empty((rows, columns), np.int16)
    pattern, noise, sums = (None, 0.0, None) if columns < 64 else _pattern(image)
    for first in range(0, rows, _ROWS):
        last = min(first + _ROWS, rows)
        half = image[first:last] - image[first + 1 : last + 1]
        half *= np.float32(0.5 / STEP)
        if pattern is not None:
            few = half[:, :: max(1, columns // 64)]
            half -= np.partition(few, few.shape[1] // 2, axis=1)[:, few.shape[1] // 2, None]
            mean, share = (np.clip(half, -4 * noise, 4 * noise) @ sums).T
            half -= mean[:, None]
            other = np.flatnonzero(np.abs(share) > 3 * noise * float(np.linalg.norm(sums[:, 1])))
            half[other] -= share[other, None] * pattern
        np.rint(half, out=half)
        np.clip(half, -_LARGEST, _LARGEST, out=half)
        out[first:last] = half
    if mask is not None:
        out[mask[:-1] | mask[1:]] = 0
    return out


def _pattern(image: np.ndarray):
    """Pattern of the columns, noise of half-differences (in steps), and the weights of mean and share of a row.

    The share of a row is that of the pattern in its half-differences: it has one where its level is not the next one's.
    """
    some = slice(0, image.shape[0] - 1, max(1, image.shape[0] // 128))
    half = (image[:-1][some] - image[1:][some]) * np.float32(0.5 / STEP)
    half -= np.median(half, axis=1)[:, None]
    noise = max(1.4826 * float(np.median(np.abs(half[:, ::4]))), 1.0)
    pattern = np.median(image[:: max(1, image.shape[0] // 64)], axis=0).astype(np.float32)
    pattern -= np.median(pattern)
    # Columns far off (dark or hot ones) would decide everything.
    width = 1.4826 * float(np.median(np.abs(pattern)))
    use = np.where(np.abs(pattern) < 5 * width, pattern, 0)
    norm = max(float(use @ use), 1e-30)
    sums = np.stack([np.full(pattern.size, 1 / pattern.size), use / norm], axis=1).astype(np.float32)
    return pattern, noise, sums


def noise_of(half: np.ndarray) -> float:
    """Robust noise of half-differences (the error of one amplitude), ADU."""
    sample = half.ravel()[:: max(1, half.size // 200_000) | 1].astype(np.float32)
    sample = sample[sample != 0] if np.count_nonzero(sample) > 100 else sample
    if sample.size < 8:
        return NAN
    return max(1.4826 * STEP * float(np.median(np.abs(sample - np.median(sample)))), 0.5 * STEP)


def column_noise(stack: Sequence[np.ndarray], noise: Sequence[float], rows: int = 256) -> np.ndarray:
    """Noise of each column over that of its frame, from `rows` rows of every frame; 1 where it is the common one.

    At 6 sigma a noise taken 3 % too small doubles the number of false dipoles, so it must be known to 1 %: from the
    mean square clipped at 2 sigma, of all frames, and not from a median, which needs three times as many pixels.
    """
    total = np.zeros(stack[0].shape[1])
    count = np.zeros(stack[0].shape[1])
    for half, sigma in zip(stack, noise, strict=True):
        part = half[:: max(1, half.shape[0] // rows)].astype(np.float32)
        # Masked pairs are 0; few others are.
        count += np.count_nonzero(part, axis=0)
        part *= np.float32(STEP / sigma)
        np.clip(part, -_CLIP, _CLIP, out=part)
        total += np.einsum("ij,ij->j", part, part)
    known = count > 0
    ratio = np.sqrt(np.divide(total, count, out=np.zeros(total.size), where=known))
    # A noise beyond the common one is clipped more: its rms is found from that of the clipped normal distribution.
    grid = np.geomspace(0.05, 20, 400)
    ratio = np.interp(ratio, _clipped_rms(_CLIP / grid) * grid, grid)
    middle = float(np.median(ratio[known])) if known.any() else 1.0
    return np.where(known, ratio / middle, 1.0)


def _clipped_rms(limit: np.ndarray) -> np.ndarray:
    """rms of a normal distribution with unit rms whose values beyond `limit` are put at it."""
    from scipy.special import ndtr

    tail = ndtr(-limit)
    density = np.exp(-0.5 * np.square(limit)) / math.sqrt(2 * math.pi)
    return np.sqrt(1 - 2 * tail - 2 * limit * density + 2 * np.square(limit) * tail)


def row_noise(stack: Sequence[np.ndarray], noise: Sequence[float]) -> np.ndarray:
    """As `column_noise`, of each row: a line that holds less charge shows the pattern of the columns."""
    return column_noise([half.T for half in stack], noise)


def line_profile(image: np.ndarray, mask: np.ndarray):
    """Mean of many lines at each place of a register, and the error of half the difference of two places.

    Parameters
    ----------
    image : ndarray of float32, shape (lines, places)
        ADU.
    mask : ndarray of bool
        True where a pixel is left out.

    Returns
    -------
    profile : ndarray, shape (places,)
        Mean over the lines, clipped about the median line by line.
    err : ndarray, shape (places - 1,)
        Standard error of half the difference of a place and the next, from the scatter of the lines. It follows the
        level (``a + b level**2``, fitted to all places), so that the noise of the pumping at a trap, which is part of
        the fit of that trap, does not enter.
    """
    middle = np.median(image, axis=0)
    spread = 1.4826 * np.median(np.abs(image - middle[None, :]))
    good = (np.abs(image - middle[None, :]) < 6 * max(float(spread), 0.5)) & ~mask
    n = good.sum(axis=0)
    total = np.where(good, image, 0).sum(axis=0, dtype=np.float64)
    profile = np.divide(total, n, out=np.full(n.size, NAN), where=n > 0)
    both = good[:, :-1] & good[:, 1:]
    step = np.where(both, 0.5 * (image[:, :-1] - image[:, 1:]), 0.0).astype(np.float64)
    lines = both.sum(axis=0)
    enough = lines > 4
    mean = step.sum(axis=0) / np.maximum(lines, 1)
    variance = np.square(np.where(both, step - mean, 0.0)).sum(axis=0) / np.maximum(lines - 1, 1)
    level = np.nan_to_num(0.5 * (profile[:-1] ** 2 + profile[1:] ** 2))
    expected = np.full(lines.size, float(np.median(variance[enough])) if enough.any() else NAN)
    for _ in range(3):
        # The scatter of a variance from so many lines; dipoles stand out of it.
        known = enough & (np.abs(variance / expected - 1) < 4 * np.sqrt(2 / np.maximum(lines - 1, 1)))
        if known.sum() < 20:
            break
        design = np.stack([np.ones(known.sum()), level[known]], axis=1) / expected[known, None]
        a, b = np.linalg.lstsq(design, variance[known] / expected[known], rcond=None)[0]
        fitted = a + b * level
        expected = np.where(fitted > 0.1 * expected, fitted, expected)
    return profile, np.sqrt(np.divide(expected, lines, out=np.full(lines.size, NAN), where=lines > 0))


# ---- detection ---------------------------------------------------------------------------------------------
def whitening(noise: np.ndarray, common: float = 0.0) -> np.ndarray:
    """Matrix that makes amplitudes of one pair, shape (times,), independent with unit variance.

    Variances are ``noise**2``, with an error `common` to all times (that of a reference frame).
    """
    covariance = np.diag(np.square(noise)) + common**2
    return np.linalg.inv(np.linalg.cholesky(covariance))


def templates(response: Response, steps_us, cycles: float, white: np.ndarray, taus: np.ndarray, tau_c_us=0.0):
    """Unit vectors of whitened amplitudes, shape (taus, times); those without any response left out."""
    shapes = response.electrons(np.asarray(steps_us)[None, :], taus[:, None], cycles, tau_c_us) @ white.T
    norm = np.sqrt(np.square(shapes).sum(axis=1))
    keep = norm > 1e-3 * norm.max()
    return shapes[keep] / norm[keep, None]


def significance(stack: Sequence[np.ndarray], white, shapes: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """Joint significance of a dipole at every pair: the largest (signed) over the templates.

    Parameters
    ----------
    stack : sequence of ndarray of int16, shape (pairs, columns)
        Half-differences of one mode, a frame per time.
    white, shapes
        Of `whitening` and `templates`.
    scale : ndarray, shape (columns,) or (pairs, columns)
        Noise of a column (or pair) over the common one.

    Returns
    -------
    ndarray of float32, shape (pairs, columns)
    """
    rows, columns = stack[0].shape
    out = np.empty((rows, columns), np.float32)
    weights = np.ascontiguousarray((shapes @ white) * STEP, dtype=np.float32)
    inverse = np.broadcast_to((1.0 / scale).astype(np.float32), (rows, columns))
    step = max(1, _PAIRS // columns)
    for first in range(0, rows, step):
        last = min(first + step, rows)
        block = np.stack([half[first:last].ravel() for half in stack]).astype(np.float32)
        found = weights @ block
        high, low = found.max(axis=0), found.min(axis=0)
        best = np.where(high >= -low, high, low).reshape(last - first, columns)
        np.multiply(best, inverse[first:last], out=out[first:last])
    return out


def detection_cut(pairs: int, shapes: np.ndarray, false: float = 0.5) -> float:
    """Significance above which noise gives `false` dipoles in `pairs` pairs.

    The largest of many templates passes a cut S as often as one does, plus once for every radian of the curve that
    they draw on the unit sphere, ``length/(2 pi) exp(-S^2/2)`` (Rice); either sign.
    """
    from scipy.optimize import brentq
    from scipy.special import ndtr

    steps = np.clip((shapes[1:] * shapes[:-1]).sum(axis=1), -1, 1)
    length = float(np.arccos(steps).sum())
    share = min(0.25, false / max(pairs, 1))

    def beyond(cut):
        return 2 * float(ndtr(-cut)) + length / math.pi * math.exp(-0.5 * cut * cut) - share

    return float(brentq(beyond, 0.0, 12.0)) if beyond(0.0) > 0 else 2.0


@dataclass(frozen=True, eq=False)
class Dipoles:
    """Dipoles of one quadrant and mode. `row` and `column` are the pixel of the pair nearer the node."""

    row: np.ndarray = field(metadata=about("px", "along the direction of pumping"))
    column: np.ndarray = field(metadata=about("px", "across"))
    significance: np.ndarray = field(metadata=about("sigma", "joint over all times, signed"))
    amplitude: np.ndarray = field(metadata=about("ADU", "shape (dipoles, times), forced at every time"))
    err: np.ndarray = field(metadata=about("ADU", "standard errors, as amplitude"))
    blended: np.ndarray = field(metadata=about("1", "neighbouring dipoles were solved together"))
    kind: np.ndarray = field(
        metadata=about(
            "",
            "dipole; ray: charge from outside; pixel: one pixel alone; frame: in one frame alone; edge: at the end of a "
            "column, the other packet lies outside",
        )
    )
    hit: np.ndarray = field(
        metadata=about("1", "shape (dipoles, times): charge came from outside, not measured")
    )


def find_dipoles(
    stack, white, shapes, noise, scale, sharp: np.ndarray, cut: float, valid=None, rays: bool = True
) -> Dipoles:
    """Dipoles above `cut`, side lobes of stronger ones taken off, amplitudes of neighbours solved together.

    A dipole at pair p also shows in the pairs p - 1 and p + 1, with half its amplitude and the other sign.

    Parameters
    ----------
    sharp : ndarray
        Of `significance`.
    noise : ndarray, shape (times,)
        Error of an amplitude, ADU.
    valid : ndarray of bool, optional
        Pairs that may hold a dipole.
    rays : bool
        Look for cosmic rays: pumping moves charge, so a pair (or a chain of them) whose charge is not that of its
        surroundings was hit. Such times are NaN; what is not significant without them is no dipole.
    """
    where = np.abs(sharp) > cut
    if valid is not None:
        where &= valid
    row, column = np.nonzero(where)
    own = np.broadcast_to(scale, where.shape)[row, column]
    values = (
        np.stack([half[row, column] for half in stack], axis=1).astype(float) * STEP
        if row.size
        else np.zeros((0, len(stack)))
    )
    raw = values.copy()
    weights = shapes @ white
    level = sharp[row, column].astype(float)
    order = {(int(r), int(c)): k for k, (r, c) in enumerate(zip(row, column, strict=True))}

    def link(shift):
        return np.array(
            [order.get((int(r) + shift, int(c)), -1) for r, c in zip(row, column, strict=True)], int
        )

    before, after, far_before, far_after = link(-1), link(1), link(-2), link(2)
    state = np.zeros(row.size, int)  # 0 waiting, 1 accepted, -1 dropped
    for _ in range(8):
        waiting = state == 0
        if not waiting.any():
            break
        strength = np.where(waiting, np.abs(level), -1.0)
        chosen = waiting.copy()
        # Strongest within two pairs: the pair between two dipoles may show neither.
        for neighbour, strict in ((before, False), (far_before, False), (after, True), (far_after, True)):
            other = np.where(neighbour >= 0, strength[neighbour], -1.0)
            chosen &= (strength > other) if strict else (strength >= other)
        state[chosen] = 1
        for neighbour in (before, after):
            here = np.flatnonzero(chosen & (neighbour >= 0))
            there = neighbour[here]
            open_ = state[there] == 0
            # The accepted dipole put -A/2 into this pair.
            np.add.at(values, there[open_], 0.5 * values[here[open_]])
        waiting = state == 0
        if waiting.any():
            # Neighbours share a pixel: with them taken off less noise is left.
            beside = sum(
                ((other >= 0) & (state[other] == 1)).astype(int)[waiting] for other in (before, after)
            )
            found = (values[waiting] @ weights.T) / (own[waiting] / _GROWTH[beside])[:, None]
            pick = np.abs(found).argmax(axis=1)
            level[waiting] = found[np.arange(pick.size), pick]
            state[np.flatnonzero(waiting)[np.abs(level[waiting]) <= cut]] = -1
    keep = state == 1
    while True:
        amplitude, neighbours = _together(raw[keep], keep, before, after)
        growth = _GROWTH[neighbours]
        # Solved together some may turn out to be nothing: between two dipoles of one sign lies the look of a third.
        found = (amplitude @ weights.T) / (own[keep] * growth)[:, None]
        best = (
            np.take_along_axis(found, np.abs(found).argmax(axis=1)[:, None], axis=1)[:, 0]
            if keep.any()
            else found.sum(1)
        )
        fallen = (np.abs(best) <= cut) & (neighbours > 0)
        if not fallen.any():
            break
        keep[np.flatnonzero(keep)[fallen & (np.abs(best) == np.abs(best[fallen]).min())]] = False
    level[keep] = best
    err = np.asarray(noise)[None, :] * (own[keep] * growth)[:, None]
    row, column, level, own, blended = row[keep], column[keep], level[keep], own[keep], neighbours > 0
    kind = _kinds(stack, white, shapes, own, row, column, amplitude, blended)
    hit = np.zeros(amplitude.shape, bool)
    if row.size:
        low, high = _chains(row, column)
        charge = np.stack(
            [
                net_charge(half, row, low, high, column, sigma * own)
                for half, sigma in zip(stack, noise, strict=True)
            ],
            axis=1,
        )
        # At the ends of the columns pumping takes charge away for good: one pixel of the pair tells of it.
        moved = np.abs((charge[:, None, :] * shapes[None, :, :]).sum(axis=2)).max(axis=1)
        edge = ((low == 0) | (high == stack[0].shape[0])) & (moved > 0.5 * _ALONE * np.abs(level))
        if rays:
            hit = np.abs(charge) > _RAY
            hit |= _single(stack, noise, row, column, own, amplitude / err, hit, shapes)
            left = _without(hit, amplitude / err, shapes)
            touched = hit.any(axis=1)
            kind[touched & (np.abs(left) < cut)] = "ray"
            level = np.where(touched, left, level)
            amplitude = np.where(hit, np.nan, amplitude)
            err = np.where(hit, np.nan, err)
        kind[edge] = "edge"
    return Dipoles(row, column, level, amplitude, err, blended, kind, hit)


def _together(raw, keep, before, after):
    """Amplitudes of the pairs `keep`, neighbours solved together, and the number of neighbours of each."""
    index = np.full(keep.size + 1, -1)
    index[:-1][keep] = np.arange(keep.sum())
    left, right = index[before[keep]], index[after[keep]]
    amplitude = raw.copy()
    for _ in range(40):
        update = raw.copy()
        update[left >= 0] += 0.5 * amplitude[left[left >= 0]]
        update[right >= 0] += 0.5 * amplitude[right[right >= 0]]
        if np.array_equal(update, amplitude):
            break
        amplitude = update
    return amplitude, (left >= 0).astype(int) + (right >= 0).astype(int)


def _chains(row, column):
    """First and last pixel of the dipoles that touch each other in a column, for each of them."""
    order = np.lexsort((row, column))
    r, c = row[order], column[order]
    group = np.concatenate([[0], np.cumsum((np.diff(c) != 0) | (np.diff(r) > 2))])
    first, last = np.full(group[-1] + 1, np.iinfo(int).max), np.zeros(group[-1] + 1, int)
    np.minimum.at(first, group, r)
    np.maximum.at(last, group, r + 1)
    low, high = np.empty_like(row), np.empty_like(row)
    low[order], high[order] = first[group], last[group]
    return low, high


def net_charge(half, row, low, high, column, noise, reach: int = 10):
    """Charge of the pixels `low` to `high` above that of their surroundings, in its errors; arrays over pairs.

    The surroundings before and after them count each for itself, and the larger charge is returned: inside the
    track of a ray along the column only one side tells of it.

    Parameters
    ----------
    half : ndarray of int16
        Half-differences of one frame; summed up along a column they give its pixels again.
    noise : ndarray
        Error of an amplitude, ADU.
    """
    rows = half.shape[0]
    offset = np.arange(-reach, reach + 1)
    at = row[:, None] + offset[None, :]
    inside = (at >= 0) & (at < rows)
    step = np.where(inside, half[np.clip(at, 0, rows - 1), column[:, None]], 0).astype(float) * STEP
    pixels = np.concatenate([np.zeros((row.size, 1)), -2 * np.cumsum(step, axis=1)], axis=1)
    place = row[:, None] + np.arange(-reach, reach + 2)[None, :]
    known = (place >= 0) & (place <= rows)
    own = (place >= low[:, None]) & (place <= high[:, None]) & known
    n = own.sum(axis=1)
    best = np.zeros(row.size)
    for around in (known & (place < low[:, None] - 1), known & (place > high[:, None] + 1)):
        m = around.sum(axis=1)
        level = np.ma.median(np.ma.array(pixels, mask=~around), axis=1).filled(0.0)
        charge = np.where(own, pixels - level[:, None], 0.0).sum(axis=1)
        error = math.sqrt(2) * noise * np.sqrt(n + 0.5 * math.pi * n**2 / np.maximum(m, 1))
        charge = np.where(m >= 3, charge / error, 0.0)
        best = np.where(np.abs(charge) > np.abs(best), charge, best)
    return best


def _single(stack, noise, row, column, own, significance, hit, shapes) -> np.ndarray:
    """Times that carry a dipole alone and show rather one pixel than two: a faint ray on a noisy neighbour.

    The likelihoods are compared: of a ray the other pixel holds no charge, of a dipole as much is missing as is added.
    Where other times confirm the dipole nothing is asked.
    """
    out = np.zeros(hit.shape, bool)
    largest = np.where(hit, 0.0, np.abs(significance)).argmax(axis=1)
    each = np.arange(row.size)
    without = hit.copy()
    without[each, largest] = True
    for k in np.flatnonzero(np.abs(_without(without, significance, shapes)) < _RAY):
        half, sigma = stack[largest[k]], math.sqrt(2) * noise[largest[k]] * own[k]
        first, last = max(0, row[k] - 10), min(half.shape[0], row[k] + 11)
        pixels = np.concatenate([[0.0], -2 * STEP * np.cumsum(half[first:last, column[k]].astype(float))])
        here = row[k] - first
        pixels -= np.median(np.delete(pixels, slice(max(here - 1, 0), here + 3)))
        pair = pixels[here : here + 2]
        told = np.square(pair).min() - 0.5 * pair.sum() ** 2
        out[k, largest[k]] = told < _TOLD * sigma**2
    return out


def _without(hit, significance, shapes):
    """Largest signed significance of templates when some times are left out; `significance` per time."""
    use = ~hit
    seen = (significance * use) @ shapes.T
    norm = np.sqrt(np.maximum(use.astype(float) @ np.square(shapes).T, 1e-6))
    seen = np.where(norm > 0.05, seen / norm, 0.0)
    return seen[np.arange(seen.shape[0]), np.abs(seen).argmax(axis=1)]


def _kinds(stack, white, shapes, scale, row, column, amplitude, blended) -> np.ndarray:
    """Tell dipoles from single pixels (cosmic rays, defects) and from what is in one frame only."""
    kind = np.full(row.size, "dipole", dtype="U6")
    if not row.size:
        return kind
    z = amplitude @ white.T / scale[:, None]
    seen = z @ shapes.T
    best = np.abs(seen).argmax(axis=1)
    each = np.arange(row.size)
    peak = seen[each, best]
    # A dipole leaves -A/2 in both neighbouring pairs, a pixel alone -A in one of them.
    rows = stack[0].shape[0]
    inside = (row > 0) & (row < rows - 1)
    lower, upper = np.maximum(row - 1, 0), np.minimum(row + 1, rows - 1)
    slant = (
        np.stack([half[lower, column].astype(float) - half[upper, column] for half in stack], axis=1) * STEP
    )
    slant = (slant @ white.T / scale[:, None] * shapes[best]).sum(axis=1)
    kind[inside & ~blended & (np.abs(slant) > 0.65 * np.abs(peak))] = "pixel"
    # Without its largest time nothing is left, and the times do not follow any trap.
    rest = np.square(z).sum(axis=1) - peak**2
    largest = np.abs(z).argmax(axis=1)
    z[each, largest] = 0.0
    norm = np.sqrt(np.maximum(1 - np.square(shapes[:, largest]), 0.05)).T
    left = np.abs(z @ shapes.T / norm).max(axis=1)
    kind[(rest > 25.0) & (left < 4.5)] = "frame"
    return kind


def add_fakes(
    rng, stack, response, steps_us, cycles, gain: float, number: int, tau_range, pc_range, tau_c_us=0.0
):
    """Half-differences of fake dipoles put on the data at random pairs: (row, column, values, truth).

    Returns the sums of data and fake at the pair itself, shape (number, times), ADU, with tau, Pc, and the
    amplitudes put in (ADU).
    """
    rows, columns = stack[0].shape
    row, column = rng.integers(0, rows, number), rng.integers(0, columns, number)
    tau = np.exp(rng.uniform(math.log(tau_range[0]), math.log(tau_range[1]), number))
    pc = rng.uniform(*pc_range, number)
    mean = response.electrons(np.asarray(steps_us)[None, :], tau[:, None], cycles, tau_c_us) * pc[:, None]
    drawn = rng.binomial(int(cycles), np.clip(mean / cycles, 0, 1))
    data = np.stack([half[row, column] for half in stack], axis=1).astype(float) * STEP
    return row, column, data + response.sign * drawn / gain, tau, pc, mean / gain


# ---- fits --------------------------------------------------------------------------------------------------
@dataclass(frozen=True, eq=False)
class TrapFit:
    """Emission time and probability of capture of many traps; arrays over traps."""

    tau: np.ndarray = field(metadata=about("us", "emission time"))
    tau_err: np.ndarray = field(metadata=about("us", "half the interval in which chi2 rises by 1"))
    tau_low: np.ndarray = field(metadata=about("us", "5 % end of the one-sided interval"))
    tau_high: np.ndarray = field(metadata=about("us", "95 % end"))
    pc: np.ndarray = field(metadata=about("1", "probability of capture, 0 to 1"))
    pc_err: np.ndarray = field(metadata=about("1", "standard error"))
    multiplicity: np.ndarray = field(metadata=about("1", "traps needed to move so much charge"))
    chi2: np.ndarray = field(metadata=about("1", "of the times about the model"))
    dof: np.ndarray = field(metadata=about("1", "degrees of freedom"))
    hypothesis: np.ndarray = field(metadata=about("1", "which of the responses fits best"))
    status: np.ndarray = field(metadata=about("", "ok, lower, upper, multiple, poor"))
    model: np.ndarray = field(metadata=about("e-", "shape (traps, times): amplitudes of the fit, signed"))
    slopes: np.ndarray = field(
        metadata=about("e-", "shape (traps, times, 2): change of the model with ln tau and with Pc")
    )


def fit_traps(
    amplitude: np.ndarray,
    err: np.ndarray,
    steps_us: np.ndarray,
    responses: Sequence[Sequence[Response]],
    cycles: float,
    tau_c_us: float = 0.0,
    tau_range: tuple[float, float] = (5.0, 2e5),
    common: np.ndarray | float = 0.0,
    poor: float = 4.0,
    lines: float = 1.0,
    relative: float = 0.0,
    ceiling: float = 1.0,
) -> TrapFit:
    """Bounded fit of tau and Pc, all traps at once, from every start on a grid of tau.

    The amplitude is linear in Pc: for each tau of a fine grid the best Pc is known, so the grid visits all minima;
    the lowest is refined. Nothing starts at a guess, so nothing can stay at one.

    Parameters
    ----------
    amplitude, err : ndarray, shape (traps, times)
        Electrons moved and standard errors (read and injection noise); that of the pumping is added. NaN: not
        measured at that time.
    steps_us : ndarray, shape (times,)
        Length of a step of each time.
    responses : sequence of sequence of Response
        Hypotheses; each gives the response at every time (modes may differ between times).
    cycles : float
        N.
    common : ndarray, shape (traps,), or float
        Error common to all times (of a reference).
    poor : float
        chi2/dof above which a fit is ``poor``.
    lines : float
        Lines that an amplitude is the mean of, each pumped for itself.
    relative : float
        Error of the model, share of an amplitude.
    ceiling : float
        Largest Pc of a single trap: 1, and a margin where the gain is not known well. What is returned is at most 1.
    """
    traps, times = amplitude.shape
    if traps == 0:
        empty = np.empty(0)
        return TrapFit(
            *([empty] * 8),
            *(np.empty(0, int), np.empty(0, int), np.empty(0, "U8")),
            *(np.empty((0, times)), np.empty((0, times, 2))),
        )
    lost = ~(np.isfinite(amplitude) & np.isfinite(err))
    amplitude, err = np.where(lost, 0.0, amplitude), np.where(lost, 1e9, err)  # no weight
    grid = tau_grid(*tau_range, 240)
    # Binomial noise of the pumping itself, from the amplitude measured.
    variance = pumping_variance(amplitude, err, cycles, lines) + np.square(relative * amplitude)
    common = np.broadcast_to(np.asarray(common, float), (traps,))
    best = None
    for number, hypothesis in enumerate(responses):
        signs = np.array([r.sign for r in hypothesis], float)
        values = amplitude * signs

        def shapes(tau, hypothesis=hypothesis):
            return np.stack(
                [r.electrons(t, tau, cycles, tau_c_us) for r, t in zip(hypothesis, steps_us, strict=True)],
                axis=-1,
            )

        chi2, pc = _profile(values, variance, common, signs, shapes(grid)[None, :, :], ceiling)
        found = _refine(values, variance, common, signs, shapes, grid, chi2, ceiling)
        found = (*found, chi2, np.full(traps, number))
        if best is None:
            best = found
        else:
            better = found[1] < best[1]
            best = tuple(
                np.where(better if a.ndim == 1 else better[:, None], b, a)
                for a, b in zip(best, found, strict=True)
            )
    log_tau, lowest, free, free_err, chi2, number = best
    log_grid = np.log(grid)
    many = np.maximum(1, np.ceil(np.where(free - 2 * free_err > ceiling, free, 1.0))).astype(int)
    rise = chi2 - lowest[:, None]
    left, right = _interval(log_grid, rise, log_tau, 1.0)
    low95, high95 = _interval(log_grid, rise, log_tau, 2.71)
    err_log = 0.5 * (right - left)
    dof = np.maximum(times - 2 - lost.sum(axis=1), 0)
    status = np.full(traps, "ok", dtype="U8")
    status[lowest > poor * np.maximum(dof, 1)] = "poor"
    status[many > 1] = "multiple"
    # A wide interval beyond the times of the scan is a limit, not a value.
    wide = high95 - low95 > math.log(5.0)
    open_ = high95 - low95 > _NARROW
    edge = 0.5 * (log_grid[1] - log_grid[0])
    shortest, longest = math.log(np.min(steps_us)), math.log(np.max(steps_us))
    status[
        (low95 <= log_grid[0] + edge)
        | (open_ & (low95 <= shortest - _REACH))
        | (open_ & (log_tau < shortest - _BEYOND))
        | (wide & (log_tau < shortest + math.log(1.5)))
    ] = "upper"
    status[
        (high95 >= log_grid[-1] - edge)
        | (open_ & (high95 >= longest + _REACH))
        | (open_ & (log_tau > longest + _BEYOND))
        | (wide & (log_tau > longest + math.log(0.8)))
    ] = "lower"
    tau = np.exp(log_tau)
    pc = np.clip(free / many, 0.0, 1.0)
    model, slopes = _model(responses, number, steps_us, cycles, tau_c_us, log_tau, free)
    return TrapFit(
        tau,
        tau * err_log,
        np.exp(low95),
        np.exp(high95),
        pc,
        free_err / many,
        many,
        lowest,
        dof,
        number,
        status,
        model,
        slopes,
    )


def pumping_variance(amplitude, err, cycles: float, lines: float = 1.0):
    """Variance of amplitudes, e-: that of the pixels, and the binomial noise of the pumping itself."""
    moved = np.clip(np.abs(amplitude), 0, cycles)
    return np.square(err) + moved * (1 - moved / cycles) / lines


def _model(responses, number, steps_us, cycles, tau_c_us, log_tau, pc):
    """Signed amplitudes of the fits, and their change with ln tau and with Pc."""
    times, step = len(steps_us), 1e-4
    model, slopes = np.zeros((pc.size, times)), np.zeros((pc.size, times, 2))
    for k, hypothesis in enumerate(responses):
        here = number == k
        for j, (r, t) in enumerate(zip(hypothesis, steps_us, strict=True)):
            low, high = (
                r.sign * r.electrons(t, np.exp(log_tau[here] + d), cycles, tau_c_us) for d in (-step, step)
            )
            model[here, j] = 0.5 * (low + high) * pc[here]
            slopes[here, j, 0] = (high - low) / (2 * step) * pc[here]
            slopes[here, j, 1] = 0.5 * (low + high)
    return model, slopes


def model_error(groups, usual: float = 0.01) -> float:
    """Share of an amplitude by which traps leave their model, from the residuals of many of them.

    Restricted likelihood of an error that is the same share of every amplitude, the model taken as linear about the
    solution; rms over its probability, every magnitude up to about `usual` being as likely before.

    Parameters
    ----------
    groups : sequence of (amplitude, variance, common, fit)
        Of traps fitted together: e-, shape (traps, times), NaN where not measured; e-2, without an error of the
        model; error common to all times, e-, shape (traps,); the `TrapFit`.
    """
    grid = np.geomspace(1e-4, 0.2, 30)
    likelihood = -0.5 * np.square(grid / usual)
    told = False
    for amplitude, variance, common, fit in groups:
        known = np.isfinite(amplitude).all(axis=1) & np.isin(fit.status, ["ok", "poor"]) & (fit.dof > 0)
        # The strongest tell most.
        strength = np.where(known, (np.square(np.nan_to_num(amplitude)) / variance).sum(axis=1), -1.0)
        pick = np.argsort(-strength)[: min(300, int(known.sum()))]
        if pick.size:
            told = True
            likelihood += _model_likelihood(amplitude[pick], variance[pick], common[pick], fit, pick, grid)
    if not told:
        return 0.0
    weight = np.exp(likelihood - likelihood.max())
    return math.sqrt(float((weight * grid**2).sum() / weight.sum()))


def _model_likelihood(amplitude, variance, common, fit, pick, grid) -> np.ndarray:
    signs, model, slopes = np.sign(fit.model[pick]), fit.model[pick], fit.slopes[pick]
    base = np.einsum("ti,tj->tij", signs, signs) * np.square(common)[:, None, None]
    times = np.arange(amplitude.shape[1])
    base[:, times, times] += variance
    slopes = slopes / np.abs(slopes).max(axis=1, keepdims=True).clip(1e-300)
    out = np.empty(grid.size)
    for k, share in enumerate(grid):
        total = base.copy()
        total[:, times, times] += np.square(share * model)
        inverse = np.linalg.inv(total)
        normal = slopes.transpose(0, 2, 1) @ inverse @ slopes
        weighted = (inverse @ (amplitude - model)[..., None])[..., 0]
        slope = np.einsum("tip,ti->tp", slopes, weighted)
        chi2 = ((amplitude - model) * weighted).sum(axis=1)
        chi2 -= np.einsum("tp,tp->t", slope, np.linalg.solve(normal, slope[..., None])[..., 0])
        # Two traps in one pixel follow no trap's law: they must not decide.
        chi2 = np.minimum(chi2, 9.0 * fit.dof[pick])
        out[k] = -0.5 * float((np.linalg.slogdet(total)[1] + np.linalg.slogdet(normal)[1] + chi2).sum())
    return out


def _sums(values, variance, common, signs, shape):
    """Sums of squares weighted with the inverse covariance ``diag(variance) + common^2 s s'`` (Sherman-Morrison)."""
    weight = 1 / variance[:, None, :]
    ones = signs[None, None, :]
    bend = np.square(common)[:, None]
    aa = (np.square(values[:, None, :]) * weight).sum(-1)
    ag = (values[:, None, :] * shape * weight).sum(-1)
    gg = (np.square(shape) * weight).sum(-1)
    a1 = (values[:, None, :] * ones * weight).sum(-1)
    g1 = (shape * ones * weight).sum(-1)
    one = weight.sum(-1)
    factor = bend / (1 + bend * one)
    return aa - factor * a1**2, ag - factor * a1 * g1, gg - factor * g1**2


def _profile(values, variance, common, signs, shape, ceiling, most: float = 4.0):
    """(chi2, Pc) at every tau of the grid, shape (traps, taus); Pc between 0 and `most`."""
    chi2 = np.empty((values.shape[0], shape.shape[1]))
    pc = np.empty_like(chi2)
    for first in range(0, values.shape[0], 512):
        part = slice(first, first + 512)
        aa, ag, gg = _sums(values[part], variance[part], common[part], signs, shape)
        best = np.clip(ag / np.maximum(gg, 1e-30), 0.0, most)
        # One trap moves at most one electron a cycle: more is allowed only where a single trap cannot do it.
        one = np.minimum(best, ceiling)
        chi_one = aa - 2 * one * ag + one**2 * gg
        chi_free = aa - 2 * best * ag + best**2 * gg
        several = chi_one.min(axis=1) > chi_free.min(axis=1) + 9.0
        chi2[part] = np.where(several[:, None], chi_free, chi_one)
        pc[part] = np.where(several[:, None], best, one)
    return chi2, pc


def _refine(values, variance, common, signs, shapes, grid, chi2, ceiling):
    """(log tau, chi2, Pc, error of Pc) at the minimum, by two finer grids about the lowest point."""
    log_grid = np.log(grid)
    centre = log_grid[chi2.argmin(axis=1)]
    half = log_grid[1] - log_grid[0]
    several = None
    for _ in range(3):
        local = np.clip(centre[:, None] + half * np.linspace(-1, 1, 21)[None, :], log_grid[0], log_grid[-1])
        shape = shapes(np.exp(local))
        aa, ag, gg = _sums(values, variance, common, signs, shape)
        best = np.clip(ag / np.maximum(gg, 1e-30), 0.0, 4.0)
        one = np.minimum(best, ceiling)
        chi_one, chi_free = aa - 2 * one * ag + one**2 * gg, aa - 2 * best * ag + best**2 * gg
        several = chi_one.min(axis=1) > chi_free.min(axis=1) + 9.0
        value = np.where(several[:, None], chi_free, chi_one)
        at = value.argmin(axis=1)
        rows = np.arange(at.size)
        centre, lowest = local[rows, at], value[rows, at]
        pc = np.where(several, best[rows, at], one[rows, at])
        half *= 0.12
    # Error of Pc from the curvature in both parameters.
    step = 1e-3
    shape = shapes(np.exp(centre[:, None]))
    slope = (shapes(np.exp(centre[:, None] + step)) - shape) / step * pc[:, None, None]
    _, _, gg = _sums(values, variance, common, signs, shape)
    _, gs, ss = _sums(shape[:, 0, :], variance, common, signs, slope)
    gg, gs, ss = gg[:, 0], gs[:, 0], ss[:, 0]
    det = gg * ss - gs**2
    pc_err = np.sqrt(np.where(det > 1e-12 * gg * ss, ss / np.maximum(det, 1e-300), 1.0))
    return centre, lowest, pc, np.minimum(pc_err, 4.0)


def _interval(log_grid, rise, centre, height: float):
    """Where the profile rises by `height` on both sides of its minimum, interpolated; the grid's ends if nowhere."""
    index = np.arange(log_grid.size)[None, :]
    at = np.searchsorted(log_grid, centre)
    above = rise >= height
    rows = np.arange(rise.shape[0])
    right = np.where(above & (index >= at[:, None]), index, log_grid.size).min(axis=1)
    left = np.where(above & (index < at[:, None]), index, -1).max(axis=1)

    def cross(outer, inner, missing):
        outer_in = np.clip(outer, 0, log_grid.size - 1)
        inner_in = np.clip(inner, 0, log_grid.size - 1)
        # Between the minimum and the first point above, the rise is taken as quadratic; the last point below counts
        # if it lies on the same side of the minimum (a narrow one lies between two points).
        same = (log_grid[inner_in] - centre) * (log_grid[outer_in] - centre) > 0
        x0 = np.where(same, log_grid[inner_in], centre)
        y0 = np.where(x0 == centre, 0.0, np.clip(rise[rows, inner_in], 0.0, height))
        y1 = rise[rows, outer_in]
        s0, s1, s = np.sqrt(y0), np.sqrt(np.maximum(y1, 1e-12)), math.sqrt(height)
        x = x0 + (log_grid[outer_in] - x0) * np.clip((s - s0) / np.maximum(s1 - s0, 1e-12), 0, 1)
        return np.where(missing, log_grid[outer_in], x)

    return cross(left, left + 1, left < 0), cross(right, right - 1, right >= log_grid.size)


# ---- species -----------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Species:
    """A cluster of traps in log tau."""

    tau: float = field(metadata=about("us", "weighted mean, in the logarithm"))
    tau_err: float = field(metadata=about("us", "standard error"))
    width: float = field(metadata=about("dex", "rms of log10 tau beyond the errors"))
    share: float = field(metadata=about("1", "of the traps"))
    share_err: float = field(metadata=about("1", "standard error"))
    n: float = field(metadata=about("1", "traps that belong to it, sum of probabilities"))


def find_species(
    tau: np.ndarray, tau_err: np.ndarray, most: int = 5, least_width: float = 0.02
) -> list[Species]:
    """Clusters of log tau: normal mixture with the errors of the traps, its number by the Bayesian criterion."""
    good = np.isfinite(tau) & np.isfinite(tau_err) & (tau > 0) & (tau_err > 0)
    x, e = np.log10(tau[good]), (tau_err[good] / tau[good]) / math.log(10)
    if x.size < 5:
        return []
    best, best_score = None, math.inf
    for number in range(1, min(most, x.size // 4) + 1):
        found = _mixture(x, e, number, least_width)
        score = -2 * found[3] + (3 * number - 1) * math.log(x.size)
        if score < best_score - 1e-9:
            best, best_score = found, score
    mean, width, share, _, member = best
    out = []
    for k in np.argsort(mean):
        weight = member[:, k] / (width[k] ** 2 + e**2)
        mean_err = math.sqrt(float((np.square(member[:, k]) / (width[k] ** 2 + e**2)).sum())) / float(
            weight.sum()
        )
        value = 10 ** mean[k]
        out.append(
            Species(
                float(value),
                float(value * math.log(10) * mean_err),
                float(width[k]),
                float(share[k]),
                math.sqrt(max(share[k] * (1 - share[k]), 0.0) / x.size),
                float(member[:, k].sum()),
            )
        )
    return out


def _mixture(x, e, number, least):
    mean = np.quantile(x, (np.arange(number) + 0.5) / number)
    width = np.full(number, max(0.3 * x.std() / number, 2 * least))
    share = np.full(number, 1 / number)
    before = -math.inf
    for _ in range(300):
        total = width[None, :] ** 2 + np.square(e)[:, None]
        log = (
            np.log(share)[None, :]
            - 0.5 * np.log(2 * math.pi * total)
            - 0.5 * np.square(x[:, None] - mean[None, :]) / total
        )
        top = log.max(axis=1, keepdims=True)
        dense = np.exp(log - top)
        likelihood = float((top[:, 0] + np.log(dense.sum(axis=1))).sum())
        member = dense / dense.sum(axis=1, keepdims=True)
        # True values of the traps, given the cluster: their scatter is that of the cluster.
        pull = width[None, :] ** 2 / total
        centre = mean[None, :] + pull * (x[:, None] - mean[None, :])
        spread = pull * np.square(e)[:, None]
        size = member.sum(axis=0) + 1e-9
        mean = (member * centre).sum(axis=0) / size
        width = np.sqrt((member * (np.square(centre - mean[None, :]) + spread)).sum(axis=0) / size)
        width = np.maximum(width, least)
        share = size / size.sum()
        if abs(likelihood - before) < 1e-7 * abs(likelihood):
            break
        before = likelihood
    return mean, width, share, likelihood, member
