"""Brighter-fatter kernel and correction, and hard-edge response, against simulated charge."""

import numpy as np
import pytest

from calcamp.analysis import brighter_fatter as bf
from calcamp.analysis import her
from calcamp.analysis.statistics import masked_covariance
from calcamp.simulate.plugins.flat import bf_coefficients, collect


def coefficients():
    a = np.zeros((8, 8))
    a[:3, :3] = bf_coefficients()
    return a


def test_shifts_make_the_coefficients():
    a = coefficients()
    kernel = bf.solve_kernel(a, np.full((8, 8), 5e-10))
    assert kernel.ok
    made = bf.design(5) @ np.concatenate([kernel.serial.ravel(), kernel.parallel.ravel()])
    assert np.abs(made.reshape(5, 5) - a[:5, :5]).max() < 1e-9
    assert kernel.parallel[0, 0] > kernel.serial[0, 0] > 0  # a01 (parallel) is the larger one
    assert (kernel.serial_err > 0).all()
    assert not bf.solve_kernel(np.full((8, 8), np.nan), np.ones((8, 8))).ok


def test_correction_takes_the_correlations_and_keeps_the_charge():
    rng = np.random.default_rng(1)
    shape, mu = (512, 512), 150e3
    kernel = bf.solve_kernel(coefficients(), np.full((8, 8), 5e-10))
    corrector = bf.Corrector(kernel, shape)
    before, after = [], []
    for _ in range(3):
        charge = [collect(np.full(shape, mu, np.float32), bf_coefficients(), 16, rng) for _ in range(2)]
        light = [corrector.correct(q) for q in charge]
        assert light[0].sum(dtype=float) == pytest.approx(charge[0].sum(dtype=float), rel=1e-6)
        before.append(masked_covariance(charge[0] - charge[1]).value)
        after.append(masked_covariance(light[0] - light[1]).value)
    before, after = np.mean(before, axis=0), np.mean(after, axis=0)
    error = 1 / np.sqrt(3 * 2 * 512**2 / 2)
    assert before[1, 0] / before[0, 0] > 0.02
    for lag in ((1, 0), (0, 1), (1, 1)):
        assert abs(after[lag] / after[0, 0]) < 3.5 * error
    assert after[0, 0] / mu == pytest.approx(1.0, abs=5e-3)


def edges(rng, signal, linear, deferred, scale, rows=2066, noise=1.3):
    k = np.arange(6)
    response = linear * np.array([1, 0.4, 0.15, 0, 0, 0]) * signal
    response = response + deferred * (1 - np.exp(-signal / scale)) * np.exp(-k / 2.0)
    err = noise / np.sqrt(rows)
    return response + err * rng.standard_normal(6), np.full(6, err)


def test_electronics_and_deferred_charge_are_told_apart():
    rng = np.random.default_rng(2)
    signal = np.array([3e3, 6.5e3, 1.3e4, 2e4, 3.3e4, 4.6e4])
    made = [edges(rng, s, 5e-4, 3.0, 8e3) for s in signal]
    found = her.fit_response(signal, np.array([m[0] for m in made]), np.array([m[1] for m in made]))
    assert found.significance > 5
    assert abs(found.linear[0] - 5e-4) < 5 * found.linear_err[0]
    assert abs(found.deferred[0] - 3.0) < max(5 * found.deferred_err[0], 0.4)
    assert found.her == pytest.approx(5e-4 + 3.0 / her.HALF_FDR, rel=0.05)


def test_no_response_is_none():
    rng = np.random.default_rng(3)
    signal = np.array([3e3, 1.3e4, 3.3e4, 4.6e4])
    made = [edges(rng, s, 0.0, 0.0, 1e4) for s in signal]
    found = her.fit_response(signal, np.array([m[0] for m in made]), np.array([m[1] for m in made]))
    assert abs(found.her) < 3e-5
    assert found.significance <= 5
    assert her.fit_response(np.zeros(0), np.zeros((0, 6)), np.zeros((0, 6))).flag == "no frame"


def test_width_of_a_pixel_grows_and_is_that_of_the_literature():
    """The coefficients assumed by the specification give widths near those of Niemi et al. 2015 at half full well."""
    a = np.zeros((8, 8))
    a[:3, :3] = bf_coefficients()
    made = bf.pixel_width(bf.solve_kernel(a, np.full((8, 8), 1e-9)), np.array([1e4, 5e4, 1.15e5]))
    assert (np.diff(made.x) > 0).all()
    assert (np.diff(made.y) > 0).all()
    assert (made.y > made.x).all()  # a01 > a10
    assert (made.ellipticity < 0).all()
    x, y = bf.niemi(800)
    assert made.x[-1] == pytest.approx(x, abs=0.8)
    assert made.y[-1] == pytest.approx(y, abs=0.8)
