"""Tiles of an image in one pass: sums, means, what stands out.

Frames are larger than the processor's caches, so a band of rows at a time goes through all operations. What stands
out is rare: it is looked for only in columns whose extremes say so.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise

import numpy as np

from calcamp.analysis.statistics import NAN
from calcamp.analysis.sums import BAND, bands

Edges = tuple[Sequence[int], Sequence[int]]  # (row edges, column edges)


def expand(values: np.ndarray, edges: Edges) -> np.ndarray:
    """A value per tile as an image."""
    rows, columns = (np.diff(e) for e in edges)
    return np.repeat(np.repeat(values.astype(np.float32), rows, axis=0), columns, axis=1)


def strips(values: np.ndarray, edges: Edges) -> Iterator[tuple[slice, np.ndarray]]:
    """A value per tile for images: (rows, value of each column) of every row of tiles, float32."""
    widths = np.diff(edges[1])
    for row, (r0, r1) in zip(values, pairwise(edges[0]), strict=True):
        yield slice(r0, r1), np.repeat(row.astype(np.float32), widths)


def block_sums(values: np.ndarray, edges: Edges) -> np.ndarray:
    """Sums over tiles, float64; a strip at a time, which keeps to the processor's cache."""
    return np.array(
        [
            np.add.reduceat(values[r0:r1].sum(axis=0, dtype=np.float64), edges[1][:-1])
            for r0, r1 in pairwise(edges[0])
        ]
    )


def grow_places(places: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Places in a flat image with their eight neighbours, sorted."""
    row, column = np.divmod(places, shape[1])
    step = np.array([(i, j) for i in (-1, 0, 1) for j in (-1, 0, 1)])
    row, column = (np.add.outer(v, step[:, k]).reshape(-1) for k, v in enumerate((row, column)))
    inside = (row >= 0) & (row < shape[0]) & (column >= 0) & (column < shape[1])
    return np.unique(row[inside] * shape[1] + column[inside])


class ColumnScan:
    """Number, sum, sum of squares and extremes of each column over bands of rows near zero.

    Bands are float32 and about zero; sums within a band are of single precision, their total is double.
    """

    def __init__(self, columns: int):
        self.number = np.zeros(columns)
        self.total, self.square = np.zeros(columns), np.zeros(columns)
        self.low, self.high = np.full(columns, np.inf, np.float32), np.full(columns, -np.inf, np.float32)

    def add(self, band: np.ndarray, bad: np.ndarray | None = None) -> None:
        """Add a band; it is set to 0 where it is `bad`."""
        self.number += band.shape[0]
        if bad is not None and bad.any():
            np.copyto(band, np.float32(0.0), where=bad)
            self.number -= np.count_nonzero(bad, axis=0)
        self.total += band.sum(axis=0)
        self.square += np.einsum("ij,ij->j", band, band)
        self.extremes(band)

    def extremes(self, band: np.ndarray) -> None:
        """Look at a band for its extremes only."""
        np.minimum(self.low, band.min(axis=0), out=self.low)
        np.maximum(self.high, band.max(axis=0), out=self.high)

    def tiles(self, columns: Sequence[int]) -> np.ndarray:
        """(number, sum, sum of squares) of the tiles, shape (3, tiles)."""
        return np.array([np.add.reduceat(v, columns[:-1]) for v in (self.number, self.total, self.square)])

    def columns(self, window: np.ndarray) -> np.ndarray:
        """Columns with an absolute value beyond their window."""
        return np.flatnonzero((self.high > window) | (self.low < -window))

    def beyond(self, strip: np.ndarray, window: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(row, column) of the pixels of the strip that was scanned whose absolute value exceeds their column's window."""
        columns = self.columns(window)
        row, found = np.nonzero(np.abs(strip[:, columns]) > window[columns])
        return row, columns[found]


def tile_means(
    image: np.ndarray, edges: Edges, mask: np.ndarray | None = None, sigma: float = 6.0
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean of each tile within `sigma` robust scatters of its median.

    The window is so wide that it leaves out only what is no flat light (cosmic rays, defects). A sample of the
    pixels sets it.

    Parameters
    ----------
    image : ndarray, shape (rows, columns), ADU
    edges : (row edges, column edges)
    mask : ndarray of bool, optional
        True where a pixel is left out.

    Returns
    -------
    mean, std, n : ndarray, shape (tile rows, tile columns)
        NaN and 0 in tiles without pixels.
    """
    rows, columns = edges
    shape = (len(rows) - 1, len(columns) - 1)
    mean, std, n = np.full(shape, NAN), np.full(shape, NAN), np.zeros(shape)
    widths = np.diff(columns)
    # about a thousand pixels set the window of a tile
    step = 8 if (rows[-1] - rows[0]) * (columns[-1] - columns[0]) > (1 << 20) else 4
    buffer = np.empty((BAND, image.shape[1]), np.float32)
    for i, (r0, r1) in enumerate(pairwise(rows)):
        strip, bad = image[r0:r1], None if mask is None else mask[r0:r1]
        centre, half = _windows(strip, columns, bad, sigma, step)
        wide, middle = np.repeat(half, widths), np.repeat(centre, widths)
        scan = ColumnScan(image.shape[1])
        for part in bands(r1 - r0):
            band = buffer[: part.stop - part.start]
            np.subtract(strip[part], middle, out=band)
            scan.add(band, None if bad is None else bad[part])
        number, total, square = scan.tiles(columns)
        odd = scan.columns(wide)
        if odd.size:
            # Few pixels: what they hold is taken off the sums.
            deviation = strip[:, odd] - middle[odd]
            beyond = np.abs(deviation) > wide[odd]
            if bad is not None:
                beyond &= ~bad[:, odd]
            value = deviation[beyond].astype(np.float64)
            tile = np.repeat(np.arange(len(widths)), widths)[odd[np.nonzero(beyond)[1]]]
            number -= np.bincount(tile, minlength=len(widths))
            total -= np.bincount(tile, value, minlength=len(widths))
            square -= np.bincount(tile, value**2, minlength=len(widths))
        with np.errstate(invalid="ignore", divide="ignore"):
            shift = total / number
            mean[i] = np.where(number > 0, centre + shift, NAN)
            std[i] = np.sqrt(np.maximum(square / number - shift**2, 0.0))
        n[i] = number
    return mean, std, n


def area_mean(mean: np.ndarray, n: np.ndarray, edges: Edges) -> float:
    """Mean over tiles by their area: masked pixels do not shift the weight to other light; NaN without a usable tile.

    Tiles with less than a fifth of their pixels are left out.
    """
    area = np.outer(*(np.diff(e) for e in edges)).astype(float)
    good = (n > 0.2 * area) & np.isfinite(mean)
    return float((mean[good] * area[good]).sum() / area[good].sum()) if good.any() else NAN


def _windows(strip, columns, bad, sigma: float, step: int) -> tuple[np.ndarray, np.ndarray]:
    """(median, half width of the window) of each tile of a strip, float32; 0 where there is no pixel."""
    tiles = len(columns) - 1
    centre, half = np.zeros(tiles, np.float32), np.zeros(tiles, np.float32)
    for j, (c0, c1) in enumerate(pairwise(columns)):
        sample = strip[::step, c0:c1:step]
        sample = sample.reshape(-1) if bad is None else sample[~bad[::step, c0:c1:step]]
        if sample.size < 16:
            sample = strip[:, c0:c1] if bad is None else strip[:, c0:c1][~bad[:, c0:c1]]
        if sample.size:
            ordered = np.sort(sample, axis=None)
            low, middle, high = ordered[(np.array((0.1587, 0.5, 0.8413)) * (sample.size - 1)).astype(int)]
            centre[j], half[j] = middle, sigma * max(0.5 * (high - low), 0.5)
    return centre, half


class TileScan:
    """An image made band by band, with the sums of its tiles: passed over once.

    Few pixels stand out: they are found by the extremes of the columns, and what is left out is taken off the sums.

    Parameters
    ----------
    image : ndarray of float32, shape (rows, columns)
        About zero; written by `fill`.
    edges : (row edges, column edges)
    bad : ndarray of bool, optional
        Pixels left out; the image is set to 0 there.
    fill : callable (rows, band, strip), optional
        Writes the band of these rows, which lie in row `strip` of the tiles. None: the image is there already.
    """

    def __init__(
        self,
        image: np.ndarray,
        edges: Edges,
        bad: np.ndarray | None = None,
        fill: Callable[[slice, np.ndarray, int], None] | None = None,
    ):
        self.image, self.edges, self.bad, self.scans = image, edges, bad, []
        for strip, (r0, r1) in enumerate(pairwise(edges[0])):
            scan = ColumnScan(image.shape[1])
            for rows in bands(r1, r0):
                if fill is not None:
                    fill(rows, image[rows], strip)
                scan.add(image[rows], None if bad is None else bad[rows])
            self.scans.append(scan)
        self.sums = np.array([scan.tiles(edges[1]) for scan in self.scans]).transpose(1, 0, 2)

    def tile(self, places: np.ndarray) -> np.ndarray:
        """Number of the tile of each place in the flat image."""
        row, column = np.divmod(places, self.image.shape[1])
        across = len(self.edges[1]) - 1
        down = np.searchsorted(self.edges[0], row, "right") - 1
        return down * across + np.searchsorted(self.edges[1], column, "right") - 1

    def variance(self, places: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
        """(pixels, variance) per tile without some places of the flat image, none of them bad."""
        n, total, square = self.sums
        if places is not None and places.size:
            tile, value = self.tile(places), self.image.reshape(-1)[places].astype(np.float64)
            n, total, square = (
                whole - np.bincount(tile, part, n.size).reshape(n.shape)
                for whole, part in ((n, np.ones(len(value))), (total, value), (square, value**2))
            )
        with np.errstate(invalid="ignore", divide="ignore"):
            return n, np.maximum(square / n - (total / n) ** 2, 0.0)

    def beyond(self, windows: np.ndarray) -> np.ndarray:
        """Places of the flat image whose absolute value exceeds the window of their tile."""
        found = []
        for (cut, window), scan in zip(strips(windows, self.edges), self.scans, strict=True):
            row, column = scan.beyond(self.image[cut], window)
            found.append((row + cut.start) * self.image.shape[1] + column)
        return np.concatenate(found)
