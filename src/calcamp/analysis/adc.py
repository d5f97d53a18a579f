"""Code density of a converter: how often each code occurs, against its neighbours (differential non-linearity).

Flat light spreads the pixels over many codes. A code that is wider than it should be collects more of them:
DNL = counts over what the neighbouring codes lead to expect, less 1 (IEEE 1241, histogram test). Only ranges
where the histogram is smooth and well filled tell; histograms of frames and levels are added.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np

from calcamp.analysis.statistics import NAN, about

BITS = 16
_HALF = 32  # codes to either side that give the expectation


@dataclass(frozen=True)
class CodeDensity:
    """Differential non-linearity of one converter."""

    codes: np.ndarray = field(metadata=about("ADU", "codes that were tested"))
    dnl: np.ndarray = field(metadata=about("1", "width of each code less 1, in steps"))
    dnl_err: np.ndarray = field(metadata=about("1", "standard error, Poisson"))
    rms: float = field(metadata=about("1", "rms of the DNL, Poisson noise removed"))
    rms_err: float = field(metadata=about("1", "standard error"))
    worst: float = field(metadata=about("1", "DNL of the code that deviates most significantly"))
    worst_code: int = field(metadata=about("ADU", "that code, -1 when none was tested"))
    worst_significance: float = field(metadata=about("1", "its deviation in errors"))
    missing: tuple[int, ...] = field(
        metadata=about("ADU", "codes that never occur although they should, 5 sigma")
    )
    bits: np.ndarray = field(metadata=about("1", "[16] mean DNL of the codes at which the bit comes on"))
    bits_err: np.ndarray = field(metadata=about("1", "[16] standard errors, NaN without such codes"))


def code_density(counts: np.ndarray, least: float = 100.0) -> CodeDensity:
    """Differential non-linearity from the histogram of raw flats.

    Parameters
    ----------
    counts : int array, shape (65536,)
        Pixels by code; histograms of several frames added. Pixels at 0 and full scale are not looked at.
    least : pixels per code that are expected at least: 100 make an error of 0.1 step.

    Returns
    -------
    CodeDensity
        With empty arrays and NaN when no code is filled well enough.
    """
    counts = np.asarray(counts, float).copy()
    counts[0] = counts[-1] = 0.0
    expected = _expected(counts)
    tested = np.flatnonzero(expected >= least)
    bits, bits_err = np.full(BITS, NAN), np.full(BITS, NAN)
    if not tested.size:
        empty = np.zeros(0)
        return CodeDensity(tested, empty, empty, NAN, NAN, NAN, -1, NAN, (), bits, bits_err)
    dnl = counts[tested] / expected[tested] - 1.0
    # The expectation is a quadratic through 2 x 32 codes: it adds 2.3/64 of the variance of a code.
    err = np.sqrt((1.0 + 2.3 / (2 * _HALF)) / expected[tested])
    pulls = dnl / err
    k = int(np.argmax(np.abs(pulls)))
    missing = tested[(counts[tested] == 0) & (pulls < -5)]
    variance = float(np.mean(dnl**2 - err**2))
    noise = float(np.sqrt(2.0 * np.mean(err**4) / tested.size))
    rms = math.sqrt(max(variance, 0.0))
    for bit in range(BITS):
        on = (tested & ((2 << bit) - 1)) == (1 << bit)
        if on.sum() >= 1:
            weight = 1.0 / err[on] ** 2
            bits[bit] = float(weight @ dnl[on] / weight.sum())
            bits_err[bit] = 1.0 / math.sqrt(weight.sum())
    return CodeDensity(
        tested,
        dnl,
        err,
        rms,
        noise / (2 * rms) if rms > 0 else math.sqrt(noise),
        float(dnl[k]),
        int(tested[k]),
        float(pulls[k]),
        tuple(int(c) for c in missing),
        bits,
        bits_err,
    )


def _expected(counts: np.ndarray) -> np.ndarray:
    """What the neighbours lead to expect: quadratic through 32 codes to either side, the code itself left out.

    0 where a neighbour lies outside or the neighbourhood is not smooth (an edge of the distribution).
    """
    x = np.arange(-_HALF, _HALF + 1, dtype=float)
    use = x != 0
    design = np.stack([np.ones(use.sum()), x[use] ** 2], axis=1)
    weights = np.zeros(x.size)
    weights[use] = np.linalg.pinv(design)[0]
    expected = np.convolve(counts, weights[::-1], mode="same")
    left = np.convolve(counts, np.r_[np.zeros(_HALF + 1), np.ones(_HALF)] / _HALF, mode="same")
    right = np.convolve(counts, np.r_[np.ones(_HALF), np.zeros(_HALF + 1)] / _HALF, mode="same")
    middle = 0.5 * (left + right)
    smooth = np.abs(left - right) < 0.7 * np.maximum(middle, 1.0)
    # A level narrower than the neighbourhood (bias, prescan) has as much to the left as to the right.
    near = np.abs(x) <= 8
    inner = np.convolve(counts, (near & use) / (near & use).sum(), mode="same")
    outer = np.convolve(counts, ~near / (~near).sum(), mode="same")
    smooth &= np.abs(inner - outer) < 0.3 * np.maximum(outer, 1.0)
    expected[~smooth] = 0.0
    expected[: _HALF + 1] = expected[-_HALF - 1 :] = 0.0
    return expected
