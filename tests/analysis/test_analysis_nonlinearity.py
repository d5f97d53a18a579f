"""Joint fit of non-linearity: curves, t0 and lamp against simulated tests; the correction in front of the PTC."""

import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from tests.analysis.curves import model_points, ptc01

from calcamp.analysis import nonlinearity as nl
from calcamp.analysis import ptc
from calcamp.simulate.plugins.flat import bf_coefficients, nonlinearity
from support import assert_limit, assert_pulls

FDR = 65536.0
FAINT = (0.5, 0.7, 1, 2, 3, 5, 10, 15, 20, 25)
BRIGHT = (15, 20, 25, 50, 70, 80, 85)
GRID = np.array([0.01, 0.02, 0.05, 0.1, 0.3, 0.5, 0.7, 0.8]) * FDR


def simulate(seed, kind="low", faint=FAINT, bright=BRIGHT, t0=0.03, shutter=1e-4, missing=()):
    """A test NL02 as seen by the fit: (frames, scale of the non-linearity per channel)."""
    rng = np.random.default_rng(seed)
    t_faint, t_bright = 73.4, 7.2
    rows = [(0.0, 5, -1)] * 3 + [(0.5 * t_bright, 5, 0)]
    for n, level in enumerate(faint, 1):
        rows += [(level / 100 * t_faint, 6, n)] * 4 + [(0.5 * t_bright, 5, 0)]
    for n, level in enumerate(bright, len(faint) + 1):
        rows += [(level / 100 * t_bright, 5, n)] * 4 + [(0.5 * t_bright, 5, 0)]
    rows = np.array(rows)
    time = np.cumsum(100 + rows[:, 0])
    lamp = 1 + 0.01 * time / time[-1] + 2e-4 * rng.standard_normal(len(time))
    true = np.where(rows[:, 0] > 0, rows[:, 0] + t0 + shutter * rng.standard_normal(len(time)), 0)
    gain, scale = rng.uniform(3.2, 3.7, 12), rng.uniform(0.5, 1.5, 12)
    signal, err = np.zeros((len(time), 12)), np.zeros((len(time), 12))
    for c in range(12):
        full = np.where(rows[:, 1] == 6, t_faint, t_bright) * gain[c] / 3.45
        linear = FDR / full * true * lamp + 5.0
        y = linear * (1 + nonlinearity(linear / FDR, {"kind": kind, "scale": scale[c]}) / 100)
        err[:, c] = np.sqrt(y / gain[c] / (2066 * 2048) + 0.01**2)
        signal[:, c] = y + err[:, c] * rng.standard_normal(len(time))
    signal[list(missing)] = np.nan
    frames = nl.Frames(
        time, rows[:, 0], rows[:, 1].astype(int), rows[:, 2].astype(int), signal, err, signal * 0
    )
    return frames, scale


def truth(y, kind, scale):
    """Non-linearity, %, at measured signals in the gauge of the fit."""
    x = np.linspace(0, FDR, 20_001)
    measured = x * (1 + nonlinearity(x / FDR, {"kind": kind, "scale": scale}) / 100)
    linear, pivot = np.interp(y, measured, x), np.interp(nl.PIVOT * FDR, measured, x)
    return 100 * ((y / linear) / (nl.PIVOT * FDR / pivot) - 1)


def fitted(seed, kind="low", **options):
    """(fit, frames, scales) of a simulated test, the shutter table right within its error of 1 ms."""
    frames, scale = simulate(seed, kind, **options)
    table = 0.03 + 1e-3 * np.random.default_rng(90_000 + seed).standard_normal()
    return nl.fit_nonlinearity(frames, (table, 1e-3)), frames, scale


@pytest.fixture(scope="module")
def some():
    """24 tests: spec 8.3 truth, t0 30 ms, lamp jitter 2e-4, drift 1 %, background 5 ADU."""
    return [fitted(seed) for seed in range(24)]


#: Limits of the specification, 8.5, %, at GRID: jitter 2e-4, t0 and background free, one channel; of t0, s.
LIMITS = np.array([0.11, 0.053, 0.032, 0.021, 0.026, 0.03, 0.035, 0.04])
LIMIT_T0 = 6e-4


def curve_pulls(tests):
    """(pulls of t0, pulls at GRID of one channel per test, largest errors at GRID); deviations against the limits."""
    t0, off, errors = [], [], []
    for k, (fit, _, scale) in enumerate(tests):
        assert not fit.flag
        t0.append((fit.t0 - 0.03, fit.t0_err))
        z, err = fit.curves[k % 12].nonlinearity(GRID)
        off.append(z - truth(GRID, "low", scale[k % 12]))
        errors.append(err)
    t0, off, errors = np.array(t0), np.array(off), np.array(errors)
    assert_limit(t0[:, 0], LIMIT_T0, what="t0")
    for place, deviations, limit in zip(GRID, off.T, LIMITS, strict=True):
        assert_limit(deviations, limit, what=f"curve at {place / FDR:.0%}")
    return t0[:, 0] / t0[:, 1], off / errors, errors.max(axis=0)


def test_curves_shutter_and_errors(some):
    t0, pulls, worst = curve_pulls(some)
    assert abs(some[-1][0].t0 - 0.03) < 2e-3
    assert_pulls(t0, what="t0")
    # Nodes of one curve hang together: each has its own 24 realisations.
    for k, column in enumerate(pulls.T):
        assert_pulls(column, passes=0.9999, what=f"curve at {GRID[k] / FDR:.0%}")
    assert (worst < 1.2 * LIMITS).all()


@pytest.mark.full
def test_curves_of_many_tests():
    """240 tests, one channel of each."""
    t0, pulls, _ = curve_pulls([fitted(1000 + seed) for seed in range(240)])
    assert_pulls(t0, bias=0.1, what="t0")
    for k, column in enumerate(pulls.T):
        assert_pulls(column, passes=0.9999, bias=0.1, what=f"curve at {GRID[k] / FDR:.0%}")


def test_tiles_tell_a_wrong_curve():
    """Bright and dark tiles of one exposure agree behind the right curve, whatever lamp and shutter did."""
    rng = np.random.default_rng(60)
    light = np.linspace(0.9, 1.1, 64)
    level = np.repeat(np.arange(1, 9), 4)
    linear = np.repeat(np.array([0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 0.8]), 4) * FDR
    scale, x = 1.0, np.linspace(0, FDR, 20_001)
    photons = linear * (1 + 1e-3 * rng.standard_normal(len(linear)))
    measured = response(photons[:, None] * light, scale)
    measured += np.sqrt(measured / 3.5 / 66_000) * rng.standard_normal(measured.shape)
    knots = np.array([0.02, 0.04, 0.08, 0.15, 0.25, 0.4, 0.55, 0.7, 0.88]) * FDR
    s = knots - np.interp(knots, response(x, scale), x)
    right = nl.Curve(knots, s, np.zeros((9, 9)), (0, FDR), 0.0, 0.0, {}, 0.0, 0.0, 32)
    wrong = nl.Curve(knots, 0 * s, np.zeros((9, 9)), (0, FDR), 0.0, 0.0, {}, 0.0, 0.0, 32)
    group = np.zeros(len(linear), int)

    def slopes(curve):
        rows = nl.tile_residuals(curve, measured, photons, group, level)
        ends = {(r["level"], r["group"]): (r["residual"], r["residual_err"]) for r in rows}
        pairs = [(ends[n, 8], ends[n, 1]) for n in range(1, 9)]
        return np.array([(a[0] - b[0]) / np.hypot(a[1], b[1]) for a, b in pairs])

    assert np.abs(slopes(right)).max() < 5
    assert np.abs(slopes(wrong)).max() > 20


def test_a_linear_detector_is_linear():
    frames, _ = simulate(50, kind="none")
    fit = nl.fit_nonlinearity(frames, (0.03, 1e-3))
    for curve in fit.curves:
        z, err = curve.nonlinearity(GRID)
        assert (np.abs(z) < 4 * err).all()
    assert fit.overlap == 3
    assert fit.lamp_rms == pytest.approx(2e-4, rel=0.4)
    assert np.ptp(fit.track) == pytest.approx(0.01, rel=0.15)


def test_without_a_table_the_shutter_is_found():
    frames, _ = simulate(51)
    fit = nl.fit_nonlinearity(frames, None)
    assert abs(fit.t0 - 0.03) < max(2e-3, 4 * fit.t0_err)


def test_no_overlap_is_told_and_missing_exposures_do_not_matter():
    frames, scale = simulate(
        52, faint=(0.5, 0.7, 1, 2, 3, 5, 10), bright=(20, 30, 55, 70, 80), missing=(10, 11, 40)
    )
    fit = nl.fit_nonlinearity(frames, (0.03, 1e-3))
    assert not fit.flag
    assert fit.overlap == 0
    z, err = fit.curves[0].nonlinearity(GRID[2:-1])
    assert (np.abs(z - truth(GRID[2:-1], "low", scale[0])) < np.maximum(4 * err, 0.15)).all()


def test_one_filter():
    frames, scale = simulate(53, faint=(0.5, 0.7, 1, 2, 3, 5, 10, 20, 30, 55, 70, 80), bright=())
    fit = nl.fit_nonlinearity(frames, (0.03, 1e-3))
    assert not fit.flag
    z, err = fit.curves[3].nonlinearity(GRID)
    assert (np.abs(z - truth(GRID, "low", scale[3])) < np.maximum(4.5 * err, 0.05)).all()


def test_degenerate_tests_have_a_reason():
    frames, _ = simulate(54, faint=(1, 2), bright=())
    fit = nl.fit_nonlinearity(frames)
    assert fit.flag
    assert np.isnan(fit.t0)
    frames, _ = simulate(55)
    signal = frames.signal.copy()
    signal[:, 4:8] = np.nan  # one CCD lost
    some = nl.fit_nonlinearity(
        nl.Frames(frames.time, frames.exptime, frames.group, frames.level, signal, frames.err, frames.spread),
        (0.03, 1e-3),
    )
    assert not some.flag
    assert some.curves[5].flag
    assert not some.curves[0].flag


def test_correction_undoes_the_response():
    frames, scale = simulate(56)
    fit = nl.fit_nonlinearity(frames, (0.03, 1e-3))
    curve = fit.curves[0]
    grid = np.linspace(0, curve.valid[1], 1000)
    value, err = curve.at(grid)
    rows = [
        {"signal": g, "correction": v, "correction_err": e} for g, v, e in zip(grid, value, err, strict=True)
    ]
    correction = nl.Correction.from_rows(rows)
    y = np.linspace(2000, 50_000, 200)
    linear = correction.apply(y.astype(np.float32))
    ratio = linear * (1 + truth(y, "low", scale[0]) / 100) / y
    assert np.abs(ratio - 1).max() < 1e-3
    assert nl.Correction.from_rows([]) is None


def response(x, scale, kind="low"):
    """Measured signal of a linear one, ADU."""
    return x * (1 + nonlinearity(x / FDR, {"kind": kind, "scale": scale}) / 100)


def gauge_of(scale, kind="low"):
    """Linear signals in the gauge of the curve over true ones."""
    x = np.linspace(0, FDR, 20_001)
    return nl.PIVOT * FDR / np.interp(nl.PIVOT * FDR, response(x, scale, kind), x)


def as_correction(curve):
    """The product of a curve, as other tests get it."""
    grid = np.linspace(0, curve.valid[1], 1000)
    value, err = curve.at(grid)
    rows = [
        {"signal": g, "correction": v, "correction_err": e} for g, v, e in zip(grid, value, err, strict=True)
    ]
    return nl.Correction.from_rows(rows, curve.knots, curve.covariance)


def gain_behind(seed, curve, scale, use_errors=True, kind="low", pixels=2066 * 2048):
    """PTC01 at full size through the true response and the fitted correction: (fit, pulls of gain, a00, a01, a10)."""
    mu = ptc01(0.82)
    c, err, a = model_points(np.random.default_rng(seed), mu, pixels)
    slope = (response(mu + 1, scale, kind) - response(mu - 1, scale, kind)) / 2
    y = response(mu, scale, kind)
    linear = y - curve.at(y)[0]
    slope *= 1 - (curve.at(y + 50)[0] - curve.at(y - 50)[0]) / 100
    c, err = (v * slope[:, None, None] ** 2 for v in (c, err))
    common = as_correction(curve).directions(linear) if use_errors else None
    fit = ptc.fit_covariances(linear, c, err, read_noise=(1.3, 1e-3), common=common)
    gauge = gauge_of(scale, kind)
    pulls = [(fit.gain * gauge - 3.5) / fit.gain_err]
    pulls += [(fit.a[k] - a[k]) / fit.a_err[k] for k in ((0, 0), (1, 0), (0, 1))]
    return fit, np.array(pulls)


def test_errors_of_the_correction_are_in_the_gain(some):
    """Pulls of the gain behind a fitted correction have width 1, and are wide without the errors of the correction."""
    made = [gain_behind(k, fit.curves[k % 12], scale[k % 12]) for k, (fit, _, scale) in enumerate(some)]
    pulls = np.array([p for _, p in made])
    for name, column in zip(("gain", "a00", "a01", "a10"), pulls.T, strict=True):
        assert_pulls(column, what=f"{name} behind the correction")
    assert all(0 < fit.gain_err_common < fit.gain_err for fit, _ in made)
    plain = [
        gain_behind(k, fit.curves[k % 12], scale[k % 12], False) for k, (fit, _, scale) in enumerate(some[:8])
    ]
    # The curve bent by the correction's error widens the plain errors, and not enough.
    assert np.median([fit.chi2_variance for fit, _ in plain]) > 1.5
    assert np.median([fit.chi2_variance for fit, _ in made]) < 1.5


@pytest.mark.full
@pytest.mark.parametrize("kind", ["low", "polynomial"])
def test_gain_behind_the_correction_many(kind):
    """240 pairs of NL02 and PTC01, both at full size."""
    pulls = []
    for seed in range(240):
        fit, _, scale = fitted(2000 + seed, kind)
        channel = seed % 12
        pulls.append(gain_behind(seed, fit.curves[channel], scale[channel], kind=kind)[1])
    for name, column in zip(("gain", "a00", "a01", "a10"), np.array(pulls).T, strict=True):
        assert_pulls(column, bias=0.15, what=f"{name} behind the correction")


def test_gain_without_and_with_the_correction():
    """Non-linearity of 3 %: the gain is biased without the correction, and right with it (guards the wiring)."""
    pixels = 2066 * 2048
    mu = np.array([p / 100 * FDR for p in (5, 10, 20, 30, 50, 70, 80) for _ in range(5)])
    a, n = np.zeros((8, 8)), np.zeros((8, 8))
    a[:3, :3], n[0, 0] = bf_coefficients(), (1.3 * 3.5) ** 2
    c = np.einsum("pk,kij->pij", ptc.powers(mu, np.ones((len(mu), 3))), ptc.coefficients(3.5, a, None, n))
    slope = (response(mu + 1, 1.0) - response(mu - 1, 1.0)) / 2
    err = c[:, :1, :1] / np.sqrt(np.full((8, 8), 2.0 * pixels)) * np.sqrt(2)
    raw = ptc.fit_covariances(response(mu, 1.0), c * slope[:, None, None] ** 2, err)
    gauge = gauge_of(1.0)
    assert abs(raw.gain * gauge / 3.5 - 1) > 5e-3
    # What the corrected pixels would give: the curve of the joint fit in place of the truth.
    curve = nl.fit_nonlinearity(simulate_like({"kind": "low", "scale": 1.0}), (0.03, 1e-3)).curves[0]
    corrected, _ = gain_behind(1, curve, 1.0)
    assert abs(corrected.gain * gauge / 3.5 - 1) < 2e-3


def simulate_like(truth_):
    """A test NL02 whose first channel has the response `truth_`."""
    frames, scale = simulate(58)
    signal = frames.signal.copy()
    inverse_x = np.linspace(0, 1.1 * FDR, 30_001)
    measured = inverse_x * (1 + nonlinearity(inverse_x / FDR, {"kind": "low", "scale": scale[0]}) / 100)
    linear = np.interp(signal[:, 0], measured, inverse_x)
    signal[:, 0] = linear * (1 + nonlinearity(linear / FDR, truth_) / 100)
    return nl.Frames(
        frames.time, frames.exptime, frames.group, frames.level, signal, frames.err, frames.spread
    )


def test_a_pixel_without_value_stays_without():
    from calcamp.analysis.nonlinearity import Correction

    made = Correction.__new__(Correction)
    object.__setattr__(made, "signal", np.array([0.0, 1000.0]))
    object.__setattr__(made, "value", np.array([0.0, 10.0]))
    out = made.apply(np.array([[np.nan, 500.0, -3.0]], np.float32))
    assert np.isnan(out[0, 0])
    assert out[0, 1:] == pytest.approx([495.0, -3.0])
