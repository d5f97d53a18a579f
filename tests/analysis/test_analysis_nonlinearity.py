"""Joint fit of non-linearity: curves, t0 and lamp against simulated tests; the correction in front of the PTC."""

import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from calcamp.analysis import nonlinearity as nl
from calcamp.analysis import ptc
from calcamp.simulate.plugins.flat import bf_coefficients, nonlinearity
from support import assert_pulls

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


def test_curves_shutter_and_errors():
    """Spec 8.3 truth, t0 30 ms, lamp jitter 2e-4, drift 1 %, background 5 ADU: 24 tests."""
    t0, pulls, worst = [], [], np.zeros(len(GRID))
    for seed in range(24):
        frames, scale = simulate(seed)
        fit = nl.fit_nonlinearity(
            frames, (0.03 + 1e-3 * np.random.default_rng(900 + seed).standard_normal(), 1e-3)
        )
        assert not fit.flag
        t0.append((fit.t0 - 0.03) / fit.t0_err)
        z, err = fit.curves[seed % 12].nonlinearity(GRID)
        pulls.append((z - truth(GRID, "low", scale[seed % 12])) / err)
        worst = np.maximum(worst, err)
    assert abs(fit.t0 - 0.03) < 2e-3
    assert_pulls(t0, excess=0.15, what="t0")
    # Nodes of one curve hang together: each has its own 24 realisations.
    for k, column in enumerate(np.array(pulls).T):
        assert_pulls(column, excess=0.4, what=f"curve at {GRID[k] / FDR:.0%}")
    # Limits of the specification, 8.5, times 1.2: jitter 2e-4, t0 and background free.
    limits = np.array([0.11, 0.053, 0.032, 0.021, 0.026, 0.03, 0.035, 0.04])
    assert (worst < 1.2 * limits).all()


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


def test_gain_behind_the_correction():
    """Non-linearity of 3 %: the gain is biased without the correction, and right with it (guards the wiring)."""
    frames, _ = simulate(57)
    truth_ = {"kind": "low", "scale": 1.0}
    gain, noise, pixels = 3.5, 1.3, 2066 * 2048
    mu = np.array([p / 100 * FDR for p in (5, 10, 20, 30, 50, 70, 80) for _ in range(5)])
    a, n = np.zeros((8, 8)), np.zeros((8, 8))
    a[:3, :3], n[0, 0] = bf_coefficients(), (noise * gain) ** 2
    power = ptc.powers(mu, np.ones((len(mu), 3)))
    c = np.einsum("pk,kij->pij", power, ptc.coefficients(gain, a, None, n))

    def response(x):
        return x * (1 + nonlinearity(x / FDR, truth_) / 100)

    pivot = np.interp(nl.PIVOT * FDR, response(np.linspace(0, FDR, 20_001)), np.linspace(0, FDR, 20_001))
    gauge = nl.PIVOT * FDR / pivot  # linear signals are so much larger in the gauge of the curve
    slope = (response(mu + 1) - response(mu - 1)) / 2
    err = c[:, :1, :1] / np.sqrt(np.full((8, 8), 2.0 * pixels)) * np.sqrt(2)
    raw = ptc.fit_covariances(response(mu), c * slope[:, None, None] ** 2, err)
    right = ptc.fit_covariances(mu * gauge, c * gauge**2, err)
    assert abs(right.gain * gauge / gain - 1) < 2e-3
    assert abs(raw.gain * gauge / gain - 1) > 5e-3
    # What the corrected pixels would give: the curve of the joint fit in place of the truth.
    curve = nl.fit_nonlinearity(simulate_like(truth_), (0.03, 1e-3)).curves[0]
    y = response(mu)
    linear = y - curve.at(y)[0]
    derivative = 1 - (curve.at(y + 50)[0] - curve.at(y - 50)[0]) / 100
    corrected = ptc.fit_covariances(linear, c * (slope * derivative)[:, None, None] ** 2, err)
    assert abs(corrected.gain * gauge / gain - 1) < 2e-3
    assert frames.signal.shape[1] == 12


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
