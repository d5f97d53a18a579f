"""Photon transfer: covariances, model, turn-off and tiles against simulated charge."""

import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from tests.analysis.curves import model_points, ptc01

from calcamp.analysis import ptc
from calcamp.simulate.plugins.flat import bf_coefficients, bloom, collect
from support import assert_limit, assert_pulls

GAIN, NOISE = 3.5, 1.3
FULL = 65536 * GAIN  # e- at 100 % FDR


def edges(shape, tiles=8):
    return tuple([round(k * n / tiles) for k in range(tiles + 1)] for n in shape)


def frame(rng, level, shape, a, prnu=None, flux=1.0, steps=8, well=None):
    """Image area above offset, ADU, rounded as an ADC does; `level` in FDR."""
    mean = np.full(shape, level * FULL * flux, np.float32)
    if prnu is not None:
        mean = mean * prnu
    charge = collect(mean, a, steps, rng)
    if well:
        charge = bloom(charge, well, 1.25 * well)
    return np.rint(charge / GAIN + 2800.3 + NOISE * rng.standard_normal(shape)).astype(
        np.float32
    ) - np.float32(2800.3)


def curve(rng, levels, pairs, shape, a, **options):
    """Pairs of all levels, ready to be fitted."""
    found = [
        ptc.measure_pair(
            frame(rng, level, shape, a, **options), frame(rng, level, shape, a, **options), edges(shape)
        )
        for level in levels
        for _ in range(pairs)
    ]
    return (
        np.array([p.mu for p in found]),
        np.array([p.covariance for p in found]),
        np.array([p.err for p in found]),
        np.array([p.moments for p in found]),
        found,
    )


def test_white_noise_has_no_covariance():
    rng = np.random.default_rng(1)
    shape = (512, 512)
    mean = 20_000.0
    one, two = (mean + rng.normal(0, 70.0, shape).astype(np.float32) for _ in range(2))
    mask = rng.random(shape) < 0.05
    for image in (one, two):  # cosmic rays: 1e-5 of the pixels, each a streak
        hit = rng.integers(0, 505, (3, 2))
        for r, c in hit:
            image[r, c : c + 6] += 5000
    pair = ptc.measure_pair(one, two, edges(shape), mask)
    assert pair.covariance[0, 0] == pytest.approx(4900.0, rel=4 * np.sqrt(2 / pair.n))
    pulls = (pair.covariance / pair.err).reshape(-1)[1:]
    assert_pulls(pulls, what="covariances of white noise")
    assert pair.clipped >= 30
    assert 0.001 < pair.ks_p <= 1


def test_a_difference_of_flux_leaves_the_variance():
    rng = np.random.default_rng(2)
    shape = (512, 512)
    prnu = (1 + 0.01 * rng.standard_normal(shape)).astype(np.float32)
    none = np.zeros((1, 1))
    ratios = []
    for _ in range(10):
        one = frame(rng, 0.5, shape, none, prnu, 1.05, 1)
        two = frame(rng, 0.5, shape, none, prnu, 0.95, 1)
        pair = ptc.measure_pair(one, two, edges(shape), max_ratio=0.2)
        ratios.append((pair.covariance[0, 0] - NOISE**2 - 1 / 12) * GAIN / pair.mu)
    error = np.sqrt(2 / 512**2 / 10)
    assert abs(np.mean(ratios) - 1) < 1e-3 + 3 * error
    assert ptc.measure_pair(one, two, edges(shape), max_ratio=0.05).flag.startswith("fluxes differ")


def test_cosmic_rays_leave_the_gain():
    """Streaks in 1e-4 of the pixels and 1 % bad ones: the variance stays within 0.1 %."""
    rng, shape, none, ratios = np.random.default_rng(22), (512, 512), np.zeros((1, 1)), []
    mask = rng.random(shape) < 0.01
    for _ in range(10):
        images = [frame(rng, 0.4, shape, none, steps=1) for _ in range(2)]
        for image in images:
            for r, c in rng.integers(0, 500, (6, 2)):
                image[r, c : c + 5] += rng.uniform(300, 9000)
        pair = ptc.measure_pair(*images, edges(shape), mask)
        assert pair.clipped > 20
        ratios.append((pair.covariance[0, 0] - NOISE**2 - 1 / 12) * GAIN / pair.mu)
    error = np.sqrt(2 / 512**2 / 10)
    assert abs(np.mean(ratios) - 1) < 1e-3 + 3 * error


def test_the_model_is_that_of_the_simulated_charge():
    """Eq. 20 with b = 0 at 115 ke-, where the specification computed it: V/mu 0.90727, C/mu 0.01633 and 0.00931."""
    a = bf_coefficients()
    wide = np.zeros((8, 8))
    wide[:3, :3] = a
    made = ptc.coefficients(1.0, wide, None, np.zeros((8, 8)))
    c = np.einsum("k,kij->ij", 115e3 ** np.arange(5), made)
    assert c[0, 0] / 115e3 == pytest.approx(0.90727, abs=2e-5)
    assert c[1, 0] / 115e3 == pytest.approx(0.01633, abs=2e-5)
    assert c[0, 1] / 115e3 == pytest.approx(0.00931, abs=2e-5)
    assert c[1, 1] / 115e3 == pytest.approx(0.00384, abs=2e-5)


@pytest.mark.parametrize("free", [None, np.array([0, 1, 9])])
def test_slopes_of_the_model(free):
    """Slopes with every parameter against differences."""
    lags, rng = 5, np.random.default_rng(0)
    a = np.zeros((lags, lags))
    a[:3, :3] = bf_coefficients()
    b = [] if free is None else rng.normal(0, 1e-6, len(free))
    theta = np.concatenate([[3.4], a.ravel(), rng.uniform(0, 20, lags**2), b])
    scale = 50_000.0 ** np.arange(5)[:, None, None]
    made = ptc._gradient(theta, lags, free) * scale
    steps = np.concatenate([[1e-3], np.full(lags**2, 1e-9), np.full(lags**2, 0.1), np.full(len(b), 1e-8)])
    for k, step in enumerate(steps):
        up, down = (
            ptc.coefficients(*ptc._split(theta + sign * step * np.eye(len(theta))[k], lags, free))
            for sign in (1, -1)
        )
        wanted = ((up - down) / (2 * step)).reshape(5, -1) * scale[:, 0]
        np.testing.assert_allclose(made[:, k], wanted, rtol=1e-4, atol=1e-6 * np.abs(wanted).max())


PTC02 = np.array([p / 100 * 65536 for p in (10, 30, 50, 70, 80) for _ in range(2)])


@pytest.mark.parametrize(("test", "mu"), [("PTC01", ptc01()), ("PTC02", PTC02)])
def test_errors_of_the_fit_reach_the_limit_and_hold(test, mu):
    """Gain, a00, a01, a10 at full size: pulls, and estimates against the Cramer-Rao limits."""
    pixels, n00 = 2066 * 2048, (NOISE * GAIN) ** 2
    rng = np.random.default_rng(3)
    names = {"gain": None, "a00": (0, 0), "a01": (1, 0), "a10": (0, 1), "a11": (1, 1), "n00": None}
    off, pulls = {name: [] for name in names}, {name: [] for name in names}
    for _ in range(24):
        c, err, a = model_points(rng, mu, pixels)
        fit = ptc.fit_covariances(mu, c, err)
        assert fit.ok
        assert fit.b is None
        found = {"gain": (fit.gain - GAIN, fit.gain_err), "n00": (fit.noise[0, 0] - n00, fit.noise_err[0, 0])}
        found |= {k: (fit.a[lag] - a[lag], fit.a_err[lag]) for k, lag in names.items() if lag}
        for name, (deviation, error) in found.items():
            off[name].append(deviation)
            pulls[name].append(deviation / error)
    limit = ptc.gain_limit(mu, pixels, GAIN, a[0, 0], n00)
    limits = {"gain": GAIN * limit["gain"], "a00": abs(a[0, 0]) * limit["a00"], "n00": limit["n00"]}
    for name in ("a01", "a10", "a11"):
        limits[name] = ptc.neighbour_limit(mu, pixels, GAIN, a[0, 0], n00, name == "a11")
    for name, values in pulls.items():
        assert_pulls(values, passes=0.9998, what=f"{name} of {test}")
        assert_limit(off[name], limits[name], what=f"{name} of {test}")
    assert fit.gain_err < 1.3 * limits["gain"]
    assert fit.a_err[0, 0] < 1.3 * limits["a00"]
    assert fit.a_err[1, 0] < 1.3 * limits["a01"]
    total, error = fit.sum_a
    assert abs(total) < 4 * error


def test_limits_are_those_of_the_specification():
    """Section 8.5: g = 3.5, a00 = -1e-6, full quadrant, PTC01 and PTC02 to 60 kADU and 90 %."""
    pixels, n00 = 2066 * 2048, (NOISE * GAIN) ** 2
    first = np.array([p / 100 * 65536 for p in (5, 10, 20, 30, 50, 70, 80, 90) for _ in range(5)])
    second = np.array([p / 100 * 65536 for p in (10, 30, 50, 70, 80, 90) for _ in range(2)])
    for mu, gain, fixed, neighbour in ((first, 4.1e-4, 1.9e-4, 6e-10), (second, 1.2e-3, 4.4e-4, 1.1e-9)):
        assert ptc.gain_limit(mu, pixels, GAIN, -1e-6, n00)["gain"] == pytest.approx(gain, rel=0.25)
        assert ptc.gain_limit(mu, pixels, GAIN, -1e-6, n00, True)["gain"] == pytest.approx(fixed, rel=0.25)
        assert ptc.neighbour_limit(mu, pixels, GAIN, -1e-6, n00) == pytest.approx(neighbour, rel=0.25)


def test_a_quadratic_is_biased_and_the_model_is_not():
    mu, pixels = ptc01(), 2066 * 2048
    rng = np.random.default_rng(4)
    default, quadratic = [], []
    for _ in range(12):
        c, err, _ = model_points(rng, mu, pixels)
        default.append(ptc.fit_covariances(mu, c, err).gain / GAIN - 1)
        quadratic.append(ptc.fit_quadratic(mu, c[:, 0, 0], err[:, 0, 0], 1000, 60000).gain / GAIN - 1)
    assert np.mean(quadratic) > 4e-3
    assert abs(np.mean(default)) < 4e-4


def test_overscan_noise_halves_the_error_of_the_gain():
    mu, pixels = ptc01(), 2066 * 2048
    c, err, _ = model_points(np.random.default_rng(5), mu, pixels)
    free = ptc.fit_covariances(mu, c, err)
    fixed = ptc.fit_covariances(mu, c, err, read_noise=(NOISE, 1e-4))
    assert fixed.gain_err < 0.6 * free.gain_err
    assert abs(fixed.gain - GAIN) < 4 * fixed.gain_err


def turning(rng, order=None):
    """Variances of PTC01 that turn over at 57 kADU."""
    mu = np.array([p / 100 * 65536 for p in (5, 10, 20, 30, 50, 70, 80, 90, 95) for _ in range(5)])
    c, err, _ = model_points(rng, mu, 2066 * 2048)
    v, e = c[:, 0, 0], err[:, 0, 0]
    over = mu > 57_000
    v[over] *= 1 - 0.4 * (mu[over] - 57_000) / 3_000
    order = np.arange(len(mu)) if order is None else order
    return mu[order], v[order], e[order]


def test_turn_off_is_found_whatever_the_order():
    rng = np.random.default_rng(6)
    plain = ptc.find_turn_off(*turning(np.random.default_rng(7)))
    shuffled = ptc.find_turn_off(*turning(np.random.default_rng(7), rng.permutation(45)))
    assert plain == shuffled
    assert not plain.is_limit
    assert 0.80 * 65536 < plain.level < 0.90 * 65536


def test_turn_off_that_was_not_reached_is_a_limit():
    mu = ptc01(0.75)
    c, err, _ = model_points(np.random.default_rng(8), mu, 2066 * 2048)
    found = ptc.find_turn_off(mu, c[:, 0, 0], err[:, 0, 0])
    assert found.is_limit
    assert found.level == pytest.approx(mu.max())


def test_turn_off_of_tiles_follows_their_wells():
    """Tiles of two wells: each half of a quadrant turns over at its own signal, whatever the order of the pairs."""
    rng, shape = np.random.default_rng(12), (8, 8)
    mu, pixels = ptc01(), 2066 * 2048
    c, err, _ = model_points(rng, mu, pixels)
    fit = ptc.fit_covariances(mu, c, err)
    level = np.repeat([5, 10, 20, 30, 50, 70, 80, 90, 95], 5)
    light = np.linspace(0.95, 1.05, 64)
    signal = level[:, None] / 100 * 65536 * light
    well = np.where(np.arange(64) < 32, 48_000.0, 58_000.0)
    n = np.full(signal.shape, 66_000)
    variance = fit.model(signal.reshape(-1))[:, 0, 0].reshape(signal.shape)
    variance *= np.where(signal > well, 0.9, 1.0) * (1 + np.sqrt(2 / n) * rng.standard_normal(n.shape))
    order = rng.permutation(len(level))
    value, limit = ptc.tile_turn_offs(fit, signal[order], variance[order], n[order], level[order], shape)
    assert not limit.any()
    inner = (np.arange(64) // 8 < 3) | (np.arange(64) // 8 > 4)  # not at the border of the halves
    assert np.abs(value - well)[inner].max() < 0.06 * 65536
    none = ptc.tile_turn_offs(fit, signal[:30], variance[:30], n[:30], level[:30], shape)
    assert none[1][inner & (well > 50_000)].all()


def test_bloom_threshold_sorts_its_points():
    mu, v, _ = turning(np.random.default_rng(9))
    order = np.random.default_rng(10).permutation(len(mu))
    assert ptc.bloom_threshold(mu, v) == ptc.bloom_threshold(mu[order], v[order])
    level, is_limit = ptc.bloom_threshold(mu, v)
    assert not is_limit
    assert 52_000 < level < 63_000


def test_degenerate_curves_have_a_reason():
    nothing = ptc.fit_covariances(np.array([1.0]), np.ones((1, 8, 8)), np.ones((1, 8, 8)))
    assert not nothing.ok
    assert np.isnan(nothing.gain)
    empty = ptc.fit_covariances(np.zeros(0), np.zeros((0, 8, 8)), np.zeros((0, 8, 8)))
    assert empty.reason
    flat = np.full((40, 40), 100.0, np.float32)
    masked = ptc.measure_pair(flat, flat, edges(flat.shape), np.ones((40, 40), bool))
    assert masked.flag == "no pixels"
    assert ptc.find_turn_off(np.zeros(0), np.zeros(0), np.zeros(0)).level != 0


@pytest.mark.parametrize("seed", range(2))
def test_images_to_gain(seed):
    """The whole way from simulated charge, brighter-fatter effect included, on a small area."""
    rng = np.random.default_rng(100 + seed)
    shape = (256, 256)
    a = bf_coefficients()
    prnu = (1 + 0.006 * rng.standard_normal(shape)).astype(np.float32)
    mu, c, err, moments, found = curve(rng, (0.05, 0.1, 0.2, 0.3, 0.5, 0.7), 3, shape, a, prnu=prnu)
    fit = ptc.fit_covariances(mu, c, err, moments)
    assert fit.ok
    assert abs(fit.gain - GAIN) < 4 * fit.gain_err
    assert abs(fit.a[1, 0] - a[1, 0]) < 4 * fit.a_err[1, 0]
    tiles = [
        np.array([getattr(p, name).reshape(-1) for p in found])
        for name in ("tile_mu", "tile_variance", "tile_n")
    ]
    gains, errors, _ = ptc.tile_gains(fit, *tiles)
    assert_pulls((gains - fit.gain) / errors, what="gain of tiles")


def images_to_gain(seed, steps=16):
    """(deviations, pulls) of gain, a00, a01, a10 from images of 256 x 256 px."""
    a, shape = bf_coefficients(), (256, 256)
    rng = np.random.default_rng(seed)
    prnu = (1 + 0.006 * rng.standard_normal(shape)).astype(np.float32)
    mu, c, err, moments, _ = curve(rng, (0.05, 0.1, 0.2, 0.3, 0.5, 0.7), 3, shape, a, prnu=prnu, steps=steps)
    fit = ptc.fit_covariances(mu, c, err, moments)
    lags = ((0, 0), (1, 0), (0, 1))
    off = np.array([fit.gain - GAIN, *(fit.a[k] - a[k] for k in lags)])
    return off, off / np.array([fit.gain_err, *(fit.a_err[k] for k in lags)]), mu


@pytest.mark.full
def test_images_to_gain_many():
    """240 realisations from images: pulls and limits of gain, a00, a01, a10."""
    made = [images_to_gain(1000 + seed) for seed in range(240)]
    off, pulls = np.array([m[0] for m in made]).T, np.array([m[1] for m in made]).T
    mu, a00, n00 = made[0][2], bf_coefficients()[0, 0], (NOISE * GAIN) ** 2
    limit = ptc.gain_limit(mu, 256**2, GAIN, a00, n00)
    neighbour = ptc.neighbour_limit(mu, 256**2, GAIN, a00, n00)
    limits = (GAIN * limit["gain"], abs(a00) * limit["a00"], neighbour, neighbour)
    for name, deviations, values, least in zip(
        ("gain", "a00", "a01", "a10"), off, pulls, limits, strict=True
    ):
        assert_pulls(values, bias=0.1, what=name)
        assert_limit(deviations, least, what=name)
