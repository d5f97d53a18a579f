"""Least squares and covariances against simulated truth."""

import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from calcamp.analysis import statistics as s
from support import assert_pulls

X = np.linspace(0, 2066, 64)


def parameter_pulls(fits, truth):
    """Pulls of all parameters, made independent by the covariance."""
    pulls = []
    for fit in fits:
        assert fit.ok, fit.reason
        whitening = np.linalg.cholesky(np.linalg.inv(fit.covariance))
        pulls.append(whitening.T @ (fit.parameters - truth))
    return np.array(pulls)


@pytest.mark.parametrize("given_errors", [True, False])
def test_pulls_of_a_line(rng, given_errors):
    err = 0.3
    fits = [
        s.fit_line(X, 5 + 2e-3 * X + rng.normal(0, err, X.size), err if given_errors else None)
        for _ in range(240)
    ]
    assert_pulls(parameter_pulls(fits, [5, 2e-3]), bias=0.0 if given_errors else 0.05)


def test_pulls_with_unequal_errors_and_outliers(rng):
    err = rng.uniform(0.1, 2, X.size)
    fits = []
    for _ in range(240):
        y = 5 + 2e-3 * X + rng.normal(0, err)
        y[rng.choice(X.size, 8, replace=False)] += rng.choice([-1, 1], 8) * rng.uniform(30, 300, 8)
        fits.append(s.fit_line(X, y, err))
    assert np.mean([fit.n_rejected for fit in fits]) == pytest.approx(8, abs=0.1)
    assert_pulls(parameter_pulls(fits, [5, 2e-3]))
    chi2 = np.array([(fit.chi2 - fit.dof) / math.sqrt(2 * fit.dof) for fit in fits])
    assert_pulls(chi2, excess=0.1)


def test_polynomial_and_general_model(rng):
    truth = [1.0, -2e-3, 3e-6]
    fits = [
        s.fit_polynomial(X, np.polyval(truth[::-1], X) + rng.normal(0, 0.1, X.size), 2, 0.1)
        for _ in range(120)
    ]
    assert_pulls(parameter_pulls(fits, truth))
    design = np.column_stack([np.sin(X), np.exp(-X / 300), np.ones(X.size)])
    fit = s.fit_linear(design, design @ [1, 20, 3] + rng.normal(0, 1e-3, X.size), 1e-3)
    assert np.allclose(fit.parameters, [1, 20, 3], atol=5e-3)


@pytest.mark.parametrize("position", [0, -1, 3])
def test_few_points_with_one_outlier(rng, position):
    x = np.arange(8.0)
    y = 1 + 0.5 * x + rng.normal(0, 0.02, 8)
    y[position] += 40
    fit = s.fit_line(x, y)
    assert fit.n_rejected == 1
    assert np.allclose(fit.parameters, [1, 0.5], atol=0.1)


def test_reason_instead_of_covariance():
    few = s.fit_line([1.0], [2.0], 0.1)
    assert not few.ok
    assert "1 points for 2 parameters" in few.reason
    same = s.fit_line(np.full(10, 3.0), np.arange(10.0), 0.1)
    assert "do not determine" in same.reason
    assert np.isnan(same.parameters).all()
    assert np.isnan(same.errors).all()
    empty = s.fit_line(np.array([]), np.array([]))
    assert not empty.ok
    assert not s.fit_line(np.arange(5.0), np.full(5, np.nan)).ok


def test_points_that_are_not_finite_are_left_out(rng):
    y = 1 + X
    y[3], y[5] = np.nan, np.inf
    err = np.full(X.size, 0.1)
    err[8], err[9] = np.nan, 0.0
    fit = s.fit_line(X, y, err)
    assert fit.n == X.size - 4
    assert fit.n_rejected == 0
    assert np.allclose(fit.parameters, [1, 1])


def test_errors_scaled_where_the_model_is_poor(rng):
    y = rng.normal(0, 3, X.size)
    assert s.fit_line(X, y, 1.0, sigma=None, scale_errors=True).errors[0] == pytest.approx(
        3 * s.fit_line(X, y, 1.0, sigma=None).errors[0], rel=0.3
    )


@given(st.floats(-100, 100), st.floats(-1, 1), st.floats(-50, 50), st.integers(0, 1000))
@settings(max_examples=60)
def test_line_follows_shift_and_order(intercept, slope, shift, seed):
    generator = np.random.default_rng(seed)
    x = np.linspace(0, 10, 40)
    y = intercept + slope * x + generator.normal(0, 0.5, x.size)
    fit, moved = s.fit_line(x, y), s.fit_line(x, y + shift)
    assert np.allclose(moved.parameters - [shift, 0], fit.parameters, atol=1e-6)
    order = generator.permutation(x.size)
    assert np.allclose(s.fit_line(x[order], y[order]).parameters, fit.parameters, atol=1e-6)


# ---- covariances ------------------------------------------------------------------------------------------


def direct(image, good, i, j):
    """Covariance at one lag by sums, both signs of j."""
    mean = image[good].mean()
    d = np.where(good, image - mean, 0.0)
    r, c = image.shape
    total = pairs = 0
    for a, b in (((0, 0), (i, j)), ((0, j), (i, 0))):
        first = (slice(a[0], a[0] + r - i), slice(a[1], a[1] + c - j))
        second = (slice(b[0], b[0] + r - i), slice(b[1], b[1] + c - j))
        total += (d[first] * d[second]).sum()
        pairs += (good[first] & good[second]).sum()
    return total / pairs


def test_covariance_equals_direct_sums(rng):
    image = rng.normal(3, 2, (123, 77))
    image[:, 1:] += 0.4 * image[:, :-1]
    mask = rng.random(image.shape) < 0.05
    found = s.masked_covariance(np.where(mask, np.nan, image), mask, lags=5, frames=1)
    small = found.value[0, 0] / np.count_nonzero(~mask)  # what subtracting the mean takes
    for i in range(5):
        for j in range(5):
            assert found.value[i, j] - small == pytest.approx(direct(image, ~mask, i, j), abs=2e-5), (i, j)
    again = s.masked_covariance(np.where(mask, np.nan, image), mask, 5, 1, counts=s.pair_counts(mask, 5))
    assert np.array_equal(again.value, found.value)


@pytest.mark.parametrize("masked", [0.0, 0.05])
def test_white_noise_has_no_covariance_and_honest_errors(rng, masked):
    pulls, variances = [], []
    for _ in range(24):
        image = rng.normal(0, 1.7, (256, 250)).astype(np.float32)
        mask = rng.random(image.shape) < masked if masked else None
        found = s.masked_covariance(image, mask)
        pulls.append(found.value / found.err)
        variances.append((found.value[0, 0] - 1.7**2 / 2) / found.err[0, 0])
    pulls = np.array(pulls).reshape(24, -1)[:, 1:]
    assert_pulls(pulls)
    assert_pulls(variances)


def test_lag_parallel_comes_first(rng):
    image = rng.normal(0, 1, (200, 180))
    image[1:] += 0.5 * image[:-1]
    found = s.masked_covariance(image, frames=1)
    assert found.value[1, 0] > 0.4
    assert abs(found.value[0, 1]) < 0.05


def test_covariance_of_nothing():
    found = s.masked_covariance(np.zeros((20, 20)), np.ones((20, 20), bool))
    assert np.isnan(found.value).all()


# ---- tiles ---------------------------------------------------------------------------------------------


def test_tiles_cover_the_whole_area(rng, mini):
    rows, columns = mini.tile_edges()
    image = np.add.outer(np.arange(mini.image_rows) * 0.01, np.zeros(mini.image_columns)).astype(np.float32)
    image += rng.normal(0, 1, image.shape).astype(np.float32)
    tiles = s.tile_statistics(image, (rows, columns))
    assert tiles.clipped.mean.shape == mini.tiles
    assert int((tiles.clipped.n + tiles.clipped.n_clipped).sum()) == image.size
    centre = np.array([(a + b - 1) / 2 for a, b in pairwise(rows)]) * 0.01
    assert_pulls((tiles.clipped.mean - centre[:, None]) / tiles.clipped.mean_err)
    counts = np.rint(image + 100).astype(np.uint16)
    mask = np.zeros(image.shape, bool)
    mask[: rows[1], : columns[1]] = True
    masked = s.tile_statistics(counts, (rows, columns), mask)
    assert masked.clipped.n[0, 0] == 0
    assert math.isnan(masked.clipped.mean[0, 0])
    assert masked.clipped.mean[0, 1] == pytest.approx(100 + centre[0], abs=0.1)
