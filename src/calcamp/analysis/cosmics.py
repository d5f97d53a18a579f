"""Cosmic rays: found by comparing like exposures, or in a single exposure by their sharp edges.

Frames are canonical quadrants (or any arrays of one shape), float32, offset removed, in ADU. Hits are
few, so they are kept as flat pixel indices, not as boolean planes: a stack of full-size frames then
costs one pass of cheap comparisons per frame.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class CosmicHits:
    """Cosmic rays of a stack of like exposures.

    Attributes
    ----------
    shape : (rows, columns)
    pixels : tuple of int arrays
        Per frame, flat indices of the pixels to leave out (grown), sorted.
    events : tuple of int
        Per frame, the number of separate hits.
    unstable : int array
        Flat indices of isolated pixels that jump in several frames, or that are hot and jump: random
        telegraph signal, not cosmic rays. They are not in `pixels`.
    """

    shape: tuple[int, int]
    pixels: tuple[np.ndarray, ...]
    events: tuple[int, ...]
    unstable: np.ndarray

    def mask(self, frame: int) -> np.ndarray:
        """Boolean plane of the pixels of `frame` to leave out."""
        plane = np.zeros(self.shape, dtype=bool)
        plane.reshape(-1)[self.pixels[frame]] = True
        return plane


def find_cosmics(
    frames: Sequence[np.ndarray],
    noise: float,
    gain: float | None = None,
    sigma: float = 5.0,
    grow: int = 1,
    bad: Sequence[np.ndarray] | None = None,
    hot_level: float | None = None,
) -> CosmicHits:
    """Find cosmic rays by comparing every frame with the others.

    A hit only adds charge. The values of a pixel are therefore taken in rising order, starting from
    the two lowest (the lowest, with two frames), and each is compared with the mean of those accepted
    so far: it is a hit when it lies `sigma` standard deviations of that difference above. Up to N - 2
    hits on one pixel are recognised. The variance is noise² + signal / gain.

    Parameters
    ----------
    frames : sequence of 2-D arrays, ADU
        Like exposures, offset removed. In one frame alone hits are found by their sharp edges (`sharp_hits`) and
        have at least two pixels: a single one may as well be hot.
    noise : float
        Standard deviation of a pixel without signal, ADU.
    gain : float, optional
        e-/ADU, for the shot noise of hot pixels.
    sigma : float
    grow : int
        Pixels by which hits are grown in all directions: the faint rim of a hit is below the cut.
    bad : sequence of int arrays, optional
        Per frame, flat indices that must not be compared (lost, saturated); they are not reported.
    hot_level : float, optional
        Level above which an isolated jump counts as an unstable hot pixel, ADU.

    Returns
    -------
    CosmicHits

    Notes
    -----
    Comparison of like exposures as in Rubin's cp_pipe and ESO's dark recipes; the ordering keeps it
    right for several hits, where a comparison with the plain mean of the others masks itself.
    """
    number = len(frames)
    shape = frames[0].shape
    if number == 1:
        return _tracks(frames[0], noise, gain, sigma, grow, bad[0] if bad else ())
    candidates = _candidates(frames, noise, gain, 0.7 * sigma)
    values = np.stack([np.asarray(frame).reshape(-1)[candidates] for frame in frames]).astype(np.float64)
    if bad is not None:
        for k, indices in enumerate(bad):
            values[k, np.isin(candidates, indices)] = np.nan
    hit, base = _ordered_test(values, noise, gain, sigma)
    hit, unstable = _set_unstable_apart(hit, base, candidates, shape, hot_level)
    found = [candidates[row] for row in hit]
    events = tuple(count_groups(pixels, shape) for pixels in found)
    return CosmicHits(shape, tuple(grow_pixels(p, shape, grow) for p in found), events, unstable)


def _tracks(frame, noise, gain, sigma, grow, bad) -> CosmicHits:
    """Hits of a single exposure: sharp, and of at least two touching pixels."""
    shape = frame.shape
    pixels = np.flatnonzero(sharp_hits(frame, noise, gain, sigma, grow=0))
    labels = group_labels(pixels, shape)
    pixels = pixels[np.bincount(labels)[labels] > 1] if pixels.size else pixels
    events = count_groups(pixels, shape)
    pixels = np.setdiff1d(grow_pixels(pixels, shape, grow), bad)
    return CosmicHits(shape, (pixels,), (events,), np.empty(0, dtype=np.intp))


def _candidates(frames, noise, gain, cut) -> np.ndarray:
    """Flat indices of pixels where some frame lies far above the second lowest (lowest of two)."""
    found = []
    width = frames[0].shape[1]
    for top in range(0, frames[0].shape[0], 64):  # bands that stay in the processor's cache
        block = [frame[top : top + 64] for frame in frames]
        lowest, reference = np.minimum(block[0], block[1]), np.maximum(block[0], block[1])
        highest = reference.copy()
        for frame in block[2:]:
            np.minimum(reference, np.maximum(lowest, frame), out=reference)
            np.minimum(lowest, frame, out=lowest)
            np.maximum(highest, frame, out=highest)
        base = lowest if len(frames) == 2 else reference
        at = np.flatnonzero(highest > base + np.float32(cut * noise))  # shot noise only adds to that
        if gain:
            level = base.reshape(-1)[at]
            limit = level + cut * np.sqrt(noise**2 + np.maximum(level, 0) / gain)
            at = at[highest.reshape(-1)[at] > limit]
        found.append(at + top * width)
    return np.concatenate(found)


def _ordered_test(values, noise, gain, sigma) -> tuple[np.ndarray, np.ndarray]:
    """(hit, base): which values (N, m) are hits, and the mean (m,) of the accepted ones."""
    number, m = values.shape
    order = np.argsort(values, axis=0)  # NaN last
    ordered = np.take_along_axis(values, order, axis=0)
    valid = np.isfinite(ordered)
    start = min(2, number - 1)
    total = np.where(valid[:start], ordered[:start], 0.0).sum(axis=0)
    count = valid[:start].sum(axis=0).astype(float)
    hit_ordered = np.zeros((number, m), dtype=bool)
    open_ = np.ones(m, dtype=bool)  # once a value is a hit all larger ones are
    for i in range(start, number):
        with np.errstate(invalid="ignore", divide="ignore"):
            mean = total / count
            variance = noise**2 + (np.maximum(mean, 0) / gain if gain else 0.0)
            far = ordered[i] - mean > sigma * np.sqrt(variance * (1 + 1 / count))
        open_ &= ~(far & valid[i])
        accept = open_ & valid[i]
        total = total + np.where(accept, ordered[i], 0.0)
        count = count + accept
        hit_ordered[i] = valid[i] & ~open_
    hit = np.zeros_like(hit_ordered)
    np.put_along_axis(hit, order, hit_ordered, axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        return hit, total / count


def _set_unstable_apart(hit, base, candidates, shape, hot_level) -> tuple[np.ndarray, np.ndarray]:
    """Take out of `hit` the isolated pixels that jump repeatedly or that are hot."""
    times = hit.sum(axis=0)
    isolated = np.ones(candidates.size, dtype=bool)
    for row in hit:
        alone = np.ones(candidates.size, dtype=bool)
        alone[row] = ~has_neighbour(candidates[row], shape)
        isolated &= alone
    suspect = times >= 2
    if hot_level is not None:
        suspect |= (times >= 1) & (base > hot_level)
    unstable = suspect & isolated
    return hit & ~unstable, candidates[unstable]


_NEIGHBOURS = [(dr, dc) for dr in (-1, 0, 1) for dc in (-1, 0, 1) if (dr, dc) != (0, 0)]


def has_neighbour(pixels: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """For each flat index, whether one of its eight neighbours is in the list too."""
    rows, columns = np.divmod(pixels, shape[1])
    found = np.zeros(pixels.size, dtype=bool)
    for dr, dc in _NEIGHBOURS:
        inside = (columns + dc >= 0) & (columns + dc < shape[1])
        found |= inside & np.isin((rows + dr) * shape[1] + columns + dc, pixels)
    return found


def grow_pixels(pixels: np.ndarray, shape: tuple[int, int], grow: int) -> np.ndarray:
    """Flat indices grown by `grow` pixels in all directions, sorted, inside the array."""
    if grow <= 0 or not pixels.size:
        return np.sort(pixels)
    rows, columns = np.divmod(pixels, shape[1])
    step = np.arange(-grow, grow + 1)
    r = np.broadcast_to(rows[:, None, None] + step[:, None], (pixels.size, step.size, step.size))
    c = np.broadcast_to(columns[:, None, None] + step[None, :], r.shape)
    inside = (r >= 0) & (r < shape[0]) & (c >= 0) & (c < shape[1])
    return np.unique(r[inside] * shape[1] + c[inside])


def count_groups(pixels: np.ndarray, shape: tuple[int, int]) -> int:
    """Number of groups of pixels that touch, also across corners."""
    return int(group_labels(pixels, shape).max(initial=-1)) + 1


def group_labels(pixels: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Label 0, 1, … of the group of touching pixels that each flat index belongs to."""
    if not pixels.size:
        return np.empty(0, dtype=int)
    order = np.argsort(pixels)
    ordered = pixels[order]
    columns = ordered % shape[1]
    left, right = [], []
    for dr, dc in ((0, 1), (1, -1), (1, 0), (1, 1)):
        target = ordered + dr * shape[1] + dc
        at = np.minimum(np.searchsorted(ordered, target), ordered.size - 1)
        linked = (ordered[at] == target) & (columns + dc >= 0) & (columns + dc < shape[1])
        left.append(np.flatnonzero(linked))
        right.append(at[linked])
    root = _connect(np.concatenate(left), np.concatenate(right), ordered.size)
    labels = np.empty(ordered.size, dtype=int)
    labels[order] = np.unique(root, return_inverse=True)[1]
    return labels


def _connect(i: np.ndarray, j: np.ndarray, size: int) -> np.ndarray:
    """Smallest index of the group of each of `size` nodes, given links i-j.

    The smaller root is handed on over all links at once, then chains are shortened: a few passes. (A
    graph library does the same and costs longer to import than this to run.)
    """
    root = np.arange(size)
    while True:
        a, b = root[i], root[j]
        low = np.minimum(a, b)
        before = root.copy()
        np.minimum.at(root, a, low)
        np.minimum.at(root, b, low)
        while True:
            short = root[root]
            if np.array_equal(short, root):
                break
            root = short
        if np.array_equal(root, before):
            return root


def sharp_hits(
    image: np.ndarray,
    noise: float,
    gain: float | None = None,
    sigma: float = 5.0,
    contrast: float = 5.0,
    grow: int = 1,
    iterations: int = 4,
    bad: np.ndarray | None = None,
) -> np.ndarray:
    """Cosmic rays of a single exposure: pixels with edges sharper than the optics can make.

    L.A.Cosmic (van Dokkum 2001, PASP 113, 1420): Laplacian of the image sub-sampled by two, negative
    parts cut, divided by twice the noise; significant, and `contrast` times above the fine structure.
    Hot pixels are as sharp as cosmic rays: give them in `bad`, or they are reported too.

    Parameters
    ----------
    image : (rows, columns), ADU, offset removed
    noise : float
        Standard deviation without signal, ADU.
    gain : float, optional
        e-/ADU.
    bad : (rows, columns) bool, optional
        Pixels that are replaced by their surroundings and never reported.

    Returns
    -------
    (rows, columns) bool
    """
    from scipy import ndimage

    clean = np.array(image, dtype=np.float32)
    hits = np.zeros(clean.shape, dtype=bool)
    if bad is not None:
        clean[bad] = ndimage.median_filter(clean, size=5)[bad]
    kernel = np.array([[0, -1, 0], [-1, 4, -1], [0, -1, 0]], dtype=np.float32)
    for _ in range(iterations):
        smooth = ndimage.median_filter(clean, size=5)
        deviation = np.sqrt(noise**2 + (np.maximum(smooth, 0) / gain if gain else 0.0))
        double = np.repeat(np.repeat(clean, 2, axis=0), 2, axis=1)
        laplacian = np.maximum(ndimage.convolve(double, kernel, mode="nearest"), 0)
        rows, columns = clean.shape
        laplacian = laplacian.reshape(rows, 2, columns, 2).mean(axis=(1, 3))
        significance = laplacian / (2 * deviation)
        significance -= ndimage.median_filter(significance, size=5)
        fine = ndimage.median_filter(clean, size=3)
        fine = np.maximum((fine - ndimage.median_filter(fine, size=7)) / deviation, 0.01)
        new = (significance > sigma) & (significance / fine > contrast)
        # neighbours of a hit need less: the rim of a track
        rim = ndimage.binary_dilation(new, structure=np.ones((3, 3))) & (significance > 0.3 * sigma)
        new = (new | rim) & ~hits
        if bad is not None:
            new &= ~bad
        if not new.any():
            break
        hits |= new
        clean[new] = smooth[new]
    return ndimage.binary_dilation(hits, structure=np.ones((3, 3)), iterations=grow) if grow else hits
