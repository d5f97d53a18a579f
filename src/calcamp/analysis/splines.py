"""Cubic splines as matrices: values at nodes to values at places, without a search at run time."""

from __future__ import annotations

import numpy as np


def spline_matrix(nodes: np.ndarray, places: np.ndarray) -> np.ndarray:
    """Matrix that leads from values at nodes to the cubic spline through them at places.

    Without a condition at its ends (not-a-knot: the first two pieces are one cubic, and the last two). Outside the
    nodes the end pieces go on.

    Parameters
    ----------
    nodes : ndarray, shape (n,)
        Rising, at least 4.
    places : ndarray, shape (m,)

    Returns
    -------
    ndarray, shape (m, n)
    """
    nodes, places = np.asarray(nodes, float), np.asarray(places, float)
    n = len(nodes)
    if n < 4:
        raise ValueError(f"{n} nodes, a spline without end conditions needs 4")
    h = np.diff(nodes)
    # Second derivatives M of the spline: continuity of the slope at the inner nodes, of the third derivative next to the ends.
    left, right = np.zeros((n, n)), np.zeros((n, n))
    inner = np.arange(1, n - 1)
    left[inner, inner - 1], left[inner, inner], left[inner, inner + 1] = h[:-1], 2 * (h[:-1] + h[1:]), h[1:]
    right[inner, inner - 1], right[inner, inner + 1] = 6 / h[:-1], 6 / h[1:]
    right[inner, inner] = -right[inner, inner - 1] - right[inner, inner + 1]
    left[0, :3] = h[1], -(h[0] + h[1]), h[0]
    left[-1, -3:] = h[-1], -(h[-2] + h[-1]), h[-2]
    second = np.linalg.solve(left, right)
    piece = np.clip(np.searchsorted(nodes, places, "right") - 1, 0, n - 2)
    width = h[piece]
    b = (places - nodes[piece]) / width
    a = 1.0 - b
    scale = width**2 / 6
    matrix = ((a**3 - a) * scale)[:, None] * second[piece] + ((b**3 - b) * scale)[:, None] * second[piece + 1]
    row = np.arange(len(places))
    matrix[row, piece] += a
    matrix[row, piece + 1] += b
    return matrix
