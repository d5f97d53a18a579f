"""Sums over large frames, a band of rows at a time, by the matrix library."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

#: Rows worked on at a time: a band of float32 stays in the processor's cache, and nothing large is made.
BAND = 64


def bands(rows: int, first: int = 0) -> Iterator[slice]:
    """Slices of up to 64 rows that cover [first, rows)."""
    for top in range(first, rows, BAND):
        yield slice(top, min(top + BAND, rows))


def row_sums(values: np.ndarray) -> np.ndarray:
    """Sums along rows of a float32 array by the matrix library: several times faster than a reduction."""
    return (values @ np.ones(values.shape[1], values.dtype)).astype(np.float64)


def column_sums(values: np.ndarray) -> np.ndarray:
    """Sums along columns, see `row_sums`."""
    return (np.ones(values.shape[0], values.dtype) @ values).astype(np.float64)
