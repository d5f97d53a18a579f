"""Tail of the gamma and chi-square distributions for whole and half shapes, without scipy.

Every sub-task is a process of its own, and importing scipy.special takes longer (0.3 s) than all that the bias
and dark tests ask of it.
"""

from __future__ import annotations

import math

import numpy as np

_erfc = np.frompyfunc(math.erfc, 1, 1)


def gamma_tail(shape: float, x: np.ndarray | float) -> np.ndarray:
    """Probability that a gamma variable exceeds `x`: the regularised incomplete gamma function Q(shape, x).

    Parameters
    ----------
    shape : float
        A positive multiple of one half; n/2 with x = chi²/2 gives the tail of chi-square with n degrees of freedom.
    x : array or float
        Not negative.

    Notes
    -----
    Q(a + 1, x) = Q(a, x) + xᵃ e⁻ˣ / Γ(a + 1), from Q(1/2, x) = erfc(√x) or Q(1, x) = e⁻ˣ (Abramowitz and Stegun
    6.5.21). All terms are positive: nothing is lost in far tails.
    """
    if shape <= 0 or 2 * shape != int(2 * shape):
        raise ValueError(f"shape {shape}: a positive multiple of 1/2 is needed")
    x = np.asarray(x, dtype=float)
    whole = shape == int(shape)
    tail = np.exp(-x) if whole else np.asarray(_erfc(np.sqrt(x)), dtype=float)
    with np.errstate(divide="ignore"):
        log_x = np.log(x)
    a = 1.0 if whole else 0.5
    while a < shape:
        tail = tail + np.exp(a * log_x - x - math.lgamma(a + 1))
        a += 1.0
    return tail


def chi2_limit(dof: int, chance: float) -> float:
    """Chi-square that is exceeded with probability `chance`, by bisection."""
    low, high = 0.0, dof + 20.0
    while gamma_tail(dof / 2, high / 2) > chance:
        high *= 2
    for _ in range(60):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if gamma_tail(dof / 2, middle / 2) > chance else (low, middle)
    return 0.5 * (low + high)
