"""Persistence against frames made electron by electron: pulls, limits, classes of pixels."""

from __future__ import annotations

import numpy as np
import pytest
from tests.support import assert_coverage, assert_pulls

from calcamp.analysis.persistence import classify, fit_decay, measure, share

GAIN, NOISE, TAU, EXPOSURE = 3.5, 1.2, 300.0, 565.0
STARTS = np.array([94.0, 737.0, 1380.0])
SHAPE = (300, 512)
_Y, _X = np.mgrid[: SHAPE[0], : SHAPE[1]]
DISCS = (np.hypot(_Y - 100, _X - 100) < 40) | (np.hypot(_Y - 200, _X - 300) < 40)  # 1.0e4 px
RAW = np.where(DISCS, 65535, 3000).astype(np.uint16)


def dark(rng, latent):
    """A prepared dark: Poisson electrons, read noise, rounding, offset error of each row."""
    electrons = rng.poisson(0.5 + latent * DISCS)
    rows = rng.normal(0, 0.26, (SHAPE[0], 1))
    return (np.rint(electrons / GAIN + rng.normal(0, NOISE, SHAPE) + 2800.3) - 2800 + rows).astype(np.float32)


def one(rng, trapped):
    area = classify(RAW, 65535)
    reference = np.mean([dark(rng, 0.0) for _ in range(3)], axis=0)
    frames = [dark(rng, trapped * share(start, EXPOSURE, TAU)) for start in STARTS]
    found = [measure(frame - reference, area.saturated, area.around) for frame in frames]
    signal = np.array([f.signal for f in found]) * GAIN
    err = np.array([f.err for f in found]) * GAIN
    return signal, err, fit_decay(STARTS, np.full(3, EXPOSURE), signal, err, common=0.5 * err.min())


def pulls(number, seed, first=5.0):
    """Pulls of first frame, time constant and trapped charge; `first` e- in the first frame."""
    trapped = first / share(STARTS[0], EXPOSURE, TAU)
    out = []
    for k in range(number):
        signal, err, fit = one(np.random.default_rng([seed, k]), trapped)
        assert fit.detected
        out.append(
            (
                (signal[0] - first) / err[0],
                (fit.tau - TAU) / fit.tau_err,
                (fit.trapped - trapped) / fit.trapped_err,
            )
        )
    return np.array(out).T


def test_five_electrons_are_recovered():
    for values, what in zip(pulls(24, 1), ("first frame", "tau", "trapped"), strict=True):
        assert_pulls(values, what=what, bias=0.1, excess=0.05)


@pytest.mark.full
def test_pulls_are_right():
    for values, what in zip(pulls(240, 2), ("first frame", "tau", "trapped"), strict=True):
        assert 0.9 < values.std() < 1.1, what
        assert_pulls(values, what=what, bias=0.1, excess=0.05)


def limits(number, seed):
    results = [one(np.random.default_rng([seed, k]), 0.0)[2] for k in range(number)]
    assert not any(r.detected for r in results)
    assert max(r.first.high for r in results) < 1.0  # e-
    assert all(np.isnan(r.tau) for r in results)
    return [r.first.low <= 0.0 <= r.first.high for r in results]


def test_nothing_gives_a_limit():
    limits(24, 3)


@pytest.mark.full
def test_the_limit_covers():
    assert_coverage(limits(240, 4), 0.95)


def test_the_limit_covers_what_is_too_faint_to_detect():
    first = 0.1
    trapped = first / share(STARTS[0], EXPOSURE, TAU)
    found = [one(np.random.default_rng([5, k]), trapped)[2].first for k in range(24)]
    assert np.mean([f.low <= first <= f.high for f in found]) > 0.75


def test_offsets_common_to_a_row_cancel():
    rng = np.random.default_rng(6)
    area = classify(RAW, 65535)
    frame = rng.normal(0, 1.2, SHAPE).astype(np.float32)
    plain = measure(frame, area.saturated, area.around)
    rows = rng.normal(0, 5.0, (SHAPE[0], 1)).astype(np.float32)
    moved = measure(frame + rows, area.saturated, area.around, sigma=50.0)
    assert moved.signal == pytest.approx(plain.signal, abs=plain.err)


def test_classes_of_pixels():
    raw = RAW.copy()
    raw[100, 145] = 60000  # bright, not saturated
    bad = np.zeros(SHAPE, bool)
    bad[100, 100] = True
    area = classify(raw, 65535, bad)
    assert area.islands == 2
    assert not area.saturated[100, 100]
    assert area.bright[100, 145]
    assert not (area.around & (area.saturated | area.bright)).any()
    assert not area.around[100, 149]  # within the halo of the bright pixel
    assert classify(np.full(SHAPE, 3000, np.uint16), 65535).around.sum() == 0


def test_without_data_there_is_a_reason():
    nothing = fit_decay([1.0], [565.0], [np.nan], [np.nan])
    assert nothing.reason == "nothing measured"
    one_frame = fit_decay([94.0], [565.0], [5.0], [0.06])
    assert one_frame.detected
    assert "decay" in one_frame.reason
    flat = fit_decay(STARTS, np.full(3, EXPOSURE), [5.0, 5.0, 5.0], [0.06] * 3)
    assert flat.detected
    assert flat.reason or flat.tau > 1e4
