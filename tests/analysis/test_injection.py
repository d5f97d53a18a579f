"""Charge injection against a simulation of fill and spill: levels, shares, pattern, curves."""

from __future__ import annotations

import numpy as np
import pytest
from tests.support import assert_pulls

from calcamp.analysis.injection import (
    bad_columns,
    find_pattern,
    fit_curves,
    measure_injection,
    middle_mean,
)
from calcamp.simulate.plugins import injection as physics

GAIN, NOISE, COLUMNS, ROWS = 3.5, 1.2, 256, 516


def truth_of(rng, **changes):
    found = {
        "threshold_shift": rng.normal(0, 0.1),
        "knee_shift": rng.normal(0, 0.1),
        "slope_e_v": 21000 * rng.normal(1, 0.05),
        "notch_e": 2400 * rng.normal(1, 0.05),
        "strips": rng.uniform(0.08, 0.12),
        "softness": 0.03,
        "rate_e_us": 900.0,
        "first_line": rng.uniform(0.005, 0.05),
        "spill": rng.uniform(0.001, 0.005),
        "spill_lines": 1.0,
        "gradient": rng.uniform(-0.01, 0.01),
        "phase": 0,
    }
    return found | changes


def frame(rng, truth, level_e=40000.0, on=30, off=100, rows=ROWS, row_offset=0.25, cti=0.0):
    """(image ADU, true level ADU, column pattern): electrons, noise of the injection, of the node, of the offset."""
    pattern = 1 + rng.normal(0, 0.02, COLUMNS)
    shape = physics.Injection.rows(truth, on, off, rows)
    lines = shape[:, None] * (level_e * pattern)[None, :]
    lines = lines * (1 + 0.002 * rng.normal(size=lines.shape))
    if cti:
        lines = physics.deferred(lines.astype(np.float32), cti)
    image = lines / GAIN + rng.normal(0, NOISE, lines.shape) + row_offset * rng.normal(size=(rows, 1))
    place = (np.arange(rows) - truth["phase"]) % (on + off)
    plateau = (place >= 2) & (place < on) & (np.arange(rows) >= truth["phase"])
    return (
        image.astype(np.float32),
        middle_mean(pattern)[0] * level_e / GAIN * shape[plateau].mean(),
        pattern,
    )


@pytest.mark.parametrize("seeds", [24, pytest.param(240, marks=pytest.mark.full)])
def test_pulls_of_levels_and_shares(seeds):
    pulls, deviation = {name: [] for name in ("level", "first_line", "spill")}, []
    for seed in range(seeds):
        rng = np.random.default_rng(seed)
        truth = truth_of(rng)
        image, level, pattern = frame(rng, truth)
        found = measure_injection(image, 30, 100)
        assert (found.pattern.phase, found.pattern.on, found.pattern.found) == (0, 30, True)
        deviation.append(found.level / level - 1)
        pulls["level"].append((found.level - level) / found.level_err)
        pulls["first_line"].append((found.first_line - truth["first_line"]) / found.first_line_err)
        pulls["spill"].append((found.spill - truth["spill"]) / found.spill_err)
        assert abs(found.spill - truth["spill"]) < 5e-4
        assert found.columns_rms == pytest.approx(pattern.std(ddof=1) / np.median(pattern), rel=0.02)
    for name, values in pulls.items():
        assert_pulls(values, what=name)
    # The limit: noise of all pixels of the plateau, 4 blocks of 28 lines.
    limit = np.hypot(0.002, NOISE / 11429.0) / np.sqrt(4 * 28 * COLUMNS)
    assert np.sqrt(np.mean(np.square(deviation))) < 2 * limit


@pytest.mark.parametrize("phase", [0, 1, 3])
@pytest.mark.parametrize(("first", "last"), [(0, 516), (17, 500), (140, 460)])
def test_the_pattern_is_found(phase, first, last):
    rng = np.random.default_rng(phase)
    image, _, _ = frame(rng, truth_of(rng, phase=phase))
    found = measure_injection(image, 30, 100, first=first, last=last)
    assert (found.pattern.phase, found.pattern.on, found.pattern.off) == (phase, 30, 100)


def test_rows_of_the_parallel_overscan_never_enter():
    rng = np.random.default_rng(3)
    image, level, _ = frame(rng, truth_of(rng))
    with_overscan = np.vstack([image, np.zeros((20, COLUMNS), np.float32)])
    assert measure_injection(with_overscan[:ROWS], 30, 100).level == measure_injection(image, 30, 100).level
    assert measure_injection(image, 30, 100, last=2086).level == pytest.approx(level, rel=1e-3)


def test_cti_is_separated_from_the_incomplete_shut_down():
    rng = np.random.default_rng(8)
    image, _, _ = frame(rng, truth_of(rng), cti=2e-6, rows=2066, row_offset=0.1)
    found = measure_injection(image, 30, 100)
    weights = np.exp(-np.arange(15) / 3.0)
    lag = (weights / weights.sum() * np.arange(1, 16)).sum()
    assert found.cti == pytest.approx(2e-6 * lag, abs=4 * found.cti_err)
    assert found.cti > 3 * found.cti_err


def test_masks_and_no_injection():
    rng = np.random.default_rng(9)
    image, level, _ = frame(rng, truth_of(rng))
    mask = np.zeros(image.shape, bool)
    mask[:, 40:60] = True
    mask[rng.random(image.shape) < 0.01] = True
    image[mask] = 60000
    found = measure_injection(image, 30, 100, mask)
    assert abs(found.level / level - 1) < 2e-3
    assert np.isnan(found.columns[45])
    dark = rng.normal(0, NOISE, image.shape).astype(np.float32)
    none = measure_injection(dark, 30, 100)
    assert not none.pattern.found
    assert abs(none.level) < 5 * none.level_err
    assert np.isnan(none.first_line)
    assert measure_injection(image, 30, 100, np.ones(image.shape, bool)).flag
    assert measure_injection(image, 30, 100, first=500, last=501).flag


def test_pattern_without_contrast_is_the_commanded_one():
    found = find_pattern(np.random.default_rng(1).normal(0, 1, 500), 30, 100)
    assert (found.phase, found.on, found.off, found.found) == (0, 30, 100, False)


GATE, DRAIN = np.arange(2.5, 6.76, 0.25), np.arange(9.5, 12.51, 0.25)


def curves_of(rng, truths, kind):
    """Noisy curves of some quadrants."""
    out = []
    for truth in truths:
        gate = kind == "IG1"
        level = physics.packet(truth, GATE, 6.0, 11.0) if gate else physics.packet(truth, 4.0, 6.0, DRAIN)
        err = 3e-4 * level / GAIN + 0.3
        out.append((GATE if gate else DRAIN, level / GAIN + err * rng.normal(size=level.size), err))
    return out


@pytest.mark.parametrize("blocks", [1, pytest.param(20, marks=pytest.mark.full)])
def test_threshold_notch_and_slope(blocks):
    """Against the noise-free curve of the simulated well: 10 mV, 1 %; errors as large as the deviations.

    Twice for every block of twelve quadrants: with the noise that the errors tell of, and with a scatter from frame
    to frame beside it, which the fit must find.
    """
    pulls = {}
    for seed in range(blocks):
        rng = np.random.default_rng(seed)
        truths = [truth_of(rng) for _ in range(12)]
        known = [physics.characteristics(truth) for truth in truths]
        for kind, name in (("IG1", "threshold_ig1"), ("IDL", "threshold_idl")):
            clean = curves_of(rng, truths, kind)
            for unstable in (0.0, 0.003):
                curves = [(v, y + unstable * y * rng.normal(size=y.size), e) for v, y, e in clean]
                for truth, values, curve in zip(truths, known, fit_curves(kind, curves), strict=True):
                    assert abs(curve.threshold - values[name]) < 0.010
                    true = {"threshold": values[name]}
                    if kind == "IG1":
                        true |= {"notch": values["notch_e"] / GAIN, "slope": truth["slope_e_v"] / GAIN}
                        assert curve.notch == pytest.approx(true["notch"], rel=0.01)
                    else:
                        true["amplitude"] = float(physics.packet(truth, 4.0, 6.0, 8.0)) / GAIN
                    assert unstable or not curve.flag
                    for what, value in true.items():
                        pull = (getattr(curve, what) - value) / getattr(curve, f"{what}_err")
                        pulls.setdefault((kind, what, unstable), []).append(pull)
    for (kind, what, unstable), values in pulls.items():
        if blocks >= 20 and not unstable:
            rms = np.sqrt(np.mean(np.square(values)))
            assert 0.85 <= rms <= 1.15, f"{what} against {kind}: {rms:.3f}"
            # The curve is not the well's: 0.3 mV are left, of the 10 mV allowed.
            assert abs(np.mean(values)) < 0.5, f"{what} against {kind}: mean {np.mean(values):+.3f}"
        else:
            # What the transition leaves open is no normal noise, and a scatter found from few points neither.
            assert_pulls(values, what=f"{what} against {kind}", bias=0.4, excess=0.2)


def test_curves_that_cannot_be_fitted_say_why():
    def fit(kind, volts, level, err):
        return fit_curves(kind, [(volts, level, err)])[0].flag

    assert fit("IG1", GATE[:4], GATE[:4], np.ones(4)) == "4 points"
    assert "no threshold" in fit("IG1", GATE, np.zeros(18), np.ones(18))
    assert "no threshold" in fit("IDL", GATE, np.full(18, 1e4), np.ones(18))


def test_a_transition_of_another_shape_has_larger_errors(monkeypatch):
    """Potentials that follow no normal distribution: the fit finds that, and thresholds are claimed less well."""

    class Gumbel:
        def inv_cdf(self, p):
            return (-np.log(-np.log(p)) - 0.5772) * np.sqrt(6) / np.pi

    rng = np.random.default_rng(0)
    truths = [truth_of(rng) for _ in range(12)]
    normal = fit_curves("IG1", curves_of(rng, truths, "IG1"))
    monkeypatch.setattr(physics, "NormalDist", Gumbel)
    known = [physics.characteristics(truth)["threshold_ig1"] for truth in truths]
    skew = fit_curves("IG1", curves_of(rng, truths, "IG1"))
    assert skew[0].shape > 4 * normal[0].shape
    off = [(c.threshold - k) / c.threshold_err for c, k in zip(skew, known, strict=True)]
    assert np.sqrt(np.mean(np.square(off))) < 2
    assert all("of the charge" in curve.flag for curve in skew)


def test_a_point_off_the_curve_is_told():
    rng = np.random.default_rng(2)
    curves = curves_of(rng, [truth_of(rng) for _ in range(4)], "IG1")
    curves[1][1][12] *= 1.05  # 5.50 V
    flags = [curve.flag for curve in fit_curves("IG1", curves)]
    assert [bool(flag) for flag in flags] == [False, True, False, False]
    assert "5.5 V" in flags[1]


def test_columns_without_charge_are_found():
    rng = np.random.default_rng(4)
    columns = 1e4 * (1 + 0.02 * rng.normal(size=2048))
    columns[[7, 900]] = 0, 3000
    columns[100] = np.nan
    assert bad_columns(columns).tolist() == [7, 900]
