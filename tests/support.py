"""Gates shared by the tests of estimators."""

from __future__ import annotations

import math
from statistics import NormalDist

import numpy as np


def pull_gates(n: int, passes: float = 0.999) -> tuple[float, float, float]:
    """Gates for n independent normal pulls: (largest |mean|, least rms, largest rms).

    A correct estimator passes all of them together in a share `passes` of runs: half of the rest is given to
    the mean (normal, 1/sqrt(n)) and half to the rms (n rms² is chi-square with n degrees of freedom).
    """
    from scipy.special import gammaincinv

    tail = (1.0 - passes) / 4.0
    mean = NormalDist().inv_cdf(1.0 - tail) / math.sqrt(n)
    low, high = (math.sqrt(2.0 * float(gammaincinv(n / 2.0, p)) / n) for p in (tail, 1.0 - tail))
    return mean, low, high


def assert_pulls(
    pulls,
    n: int | None = None,
    *,
    passes: float = 0.999,
    bias: float = 0.0,
    excess: float = 0.0,
    what: str = "pulls",
) -> None:
    """Fail unless pulls (estimate - truth)/error behave as the errors promise.

    Parameters
    ----------
    pulls : array_like
        All realisations; channels and seeds pooled. None of them may be NaN.
    n : int, optional
        Number of independent values among them, when pulls share a cause; their count by default.
    passes : float
        Share of runs in which a correct estimator passes.
    bias, excess : float
        Allowed besides chance: of the mean, in standard errors, and of the rms, relative (0.1 for 0.90-1.10).
    """
    pulls = np.asarray(pulls, float).ravel()
    assert pulls.size, f"{what}: no values"
    assert np.isfinite(pulls).all(), (
        f"{what}: {np.count_nonzero(~np.isfinite(pulls))} of {pulls.size} not finite"
    )
    n = pulls.size if n is None else n
    gate, low, high = pull_gates(n, passes)
    mean, rms = float(pulls.mean()), float(np.sqrt(np.mean(np.square(pulls))))
    low, high = low / (1.0 + excess), high * (1.0 + excess) + bias
    assert abs(mean) <= gate + bias, f"{what}: mean pull {mean:+.3f}, gate {gate + bias:.3f} (n = {n})"
    assert low <= rms <= high, f"{what}: rms of pulls {rms:.3f}, gate {low:.3f}-{high:.3f} (n = {n})"


def assert_coverage(hits, confidence: float, *, passes: float = 0.999, what: str = "coverage") -> None:
    """Fail unless the share of true values agrees with `confidence` (binomial, normal approximation)."""
    hits = np.asarray(hits, bool).ravel()
    share = float(hits.mean())
    gate = NormalDist().inv_cdf(0.5 + 0.5 * passes) * math.sqrt(confidence * (1.0 - confidence) / hits.size)
    assert abs(share - confidence) <= gate, (
        f"{what}: {share:.4f} of {hits.size}, wanted {confidence} +- {gate:.4f}"
    )


def assert_limit(deviations, limit: float, *, factor: float = 2.0, what: str = "error") -> None:
    """Fail unless estimates scatter by at most `factor` times the limit and are biased by less than a third of that.

    Parameters
    ----------
    deviations : array_like
        Estimate minus truth of independent realisations.
    limit : float
        Least standard error that the data allow, from the truth.
    """
    deviations = np.asarray(deviations, float).ravel()
    rms, bias = float(np.sqrt(np.mean(deviations**2))), float(deviations.mean())
    assert rms <= factor * limit, f"{what}: rms {rms:.3g}, limit {limit:.3g} x {factor:g}"
    assert abs(bias) <= factor * limit / 3, f"{what}: bias {bias:+.3g}, a third of {factor:g} x {limit:.3g}"
