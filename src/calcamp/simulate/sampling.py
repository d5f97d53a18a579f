"""Draws that a full frame can afford."""

from __future__ import annotations

import numpy as np

_CHUNK_ROWS = 64
_SMALL_MEAN = 8.0


def add_poisson_rows(rng: np.random.Generator, mean: np.ndarray, out: np.ndarray) -> None:
    """Add Poisson counts to `out` [rows, columns], float32, with one mean per row.

    Small means are drawn by comparing one 32-bit word per pixel with the row's cumulative
    probabilities: exact to 2**-32, and several times faster than a general Poisson draw.
    """
    mean = np.asarray(mean, dtype=float)
    if mean.size == 0 or mean.max() <= 0:
        return
    if mean.max() > _SMALL_MEAN:
        out += rng.poisson(mean[:, None], out.shape)
        return
    for first in range(0, out.shape[0], _CHUNK_ROWS):
        rows = slice(first, min(first + _CHUNK_ROWS, out.shape[0]))
        out[rows] += _poisson_chunk(rng, mean[rows], out.shape[1])


def _poisson_chunk(rng: np.random.Generator, mean: np.ndarray, columns: int) -> np.ndarray:
    words = rng.integers(0, 2**32, size=(mean.size, columns), dtype=np.uint32)
    counts = np.zeros(words.shape, dtype=np.uint8)
    term = np.exp(-mean)
    cumulative = term.copy()
    k = 0
    while (1 - cumulative).max() > 0.02:
        counts += (words >= _threshold(cumulative)[:, None]).view(np.uint8)
        k += 1
        term = term * mean / k
        cumulative = cumulative + term
    # The few pixels left in the tail are followed one by one.
    row, column = np.nonzero(words >= _threshold(cumulative)[:, None])
    while row.size:
        counts[row, column] += 1
        k += 1
        term = term * mean / k
        cumulative = cumulative + term
        more = words[row, column] >= _threshold(cumulative)[row]
        if k > 200:
            break
        row, column = row[more], column[more]
    return counts


def _threshold(cumulative: np.ndarray) -> np.ndarray:
    return np.minimum(np.floor(cumulative * 2.0**32), 2**32 - 1).astype(np.uint32)


def add_at(out: np.ndarray, rows: np.ndarray, columns: np.ndarray, values=1.0) -> None:
    """Add `values` to `out` at (rows, columns); repeated places add up."""
    np.add.at(out, (rows, columns), np.asarray(values, dtype=out.dtype))


def inverse_table(
    rng: np.random.Generator, size: int, fractions, values, logarithmic: bool = False
) -> np.ndarray:
    """Draws from a cumulative table, interpolated between its points."""
    u = rng.random(size)
    if logarithmic:
        return np.exp(np.interp(u, fractions, np.log(values)))
    return np.interp(u, fractions, values)
