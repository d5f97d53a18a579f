"""Flats: stacks, illumination, PRNU without noise, lamp, saturation time, against simulated truth."""

import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from calcamp.analysis import flat as f
from calcamp.analysis.tiles import expand as ptc_expand
from support import assert_pulls

GAIN = 3.5
SHAPE = (256, 256)
EDGES = tuple([round(k * n / 8) for k in range(9)] for n in SHAPE)


def light(level=16_000.0):
    """Bowl of 10 % with a tilt, ADU."""
    y, x = np.meshgrid(*(np.linspace(-1, 1, n) for n in SHAPE), indexing="ij")
    return (level * (1.03 - 0.05 * (x**2 + y**2) + 0.02 * x)).astype(np.float32)


def response(rng, rms):
    map_ = (1 + rms / 100 * rng.standard_normal(SHAPE)).astype(np.float32)
    return map_


def stack(rng, frames, rms, level=16_000.0, cosmics=True, defects=None, mask=None):
    map_ = response(rng, rms)
    if defects is not None:
        defects(map_)
    made = f.Stack(EDGES)
    for _ in range(frames):
        lamp = 1 + 1e-3 * rng.standard_normal()
        mean = light(level) * map_ * lamp
        image = (mean + np.sqrt(mean / GAIN + 1.7) * rng.standard_normal(SHAPE)).astype(np.float32)
        if cosmics:
            r, c = rng.integers(0, SHAPE[0], 2)
            image[r, c : c + 5] += 4000
        made.add(np.rint(image), mask)
    return made, map_


def prnu_of(made, frames):
    result = made.finish()
    mean = result.mean()
    model = f.illumination_model(mean, result.count == 0)
    return f.measure_prnu(*(half / model for half in result.halves()), None, EDGES), result, model


@pytest.mark.parametrize(("rms", "frames"), [(0.3, 15), (0.6, 15), (1.0, 15), (0.6, 80)])
def test_prnu_has_no_noise_in_it(rms, frames):
    made, map_ = stack(np.random.default_rng(int(10 * rms) + frames), frames, rms)
    found, _, _ = prnu_of(made, frames)
    truth = 100 * float(map_.std())
    # The mean of a box of 25 x 25 takes 1/625 of the variance with it; the area is 64 times smaller than a quadrant.
    assert found.small == pytest.approx(truth, abs=max(0.01, 4 * found.small_err))
    assert found.raw > found.small
    if frames == 15 and rms == 0.3:
        assert found.raw - truth > 0.01  # what a plain std would say


def test_errors_of_prnu_hold():
    pulls = []
    for seed in range(24):
        made, map_ = stack(np.random.default_rng(100 + seed), 6, 0.6, cosmics=False)
        found, _, _ = prnu_of(made, 6)
        pulls.append((found.small - 100 * float(map_.std()) * np.sqrt(1 - 1 / 625)) / found.small_err)
    # The same pixels make truth and estimate: their spread is not an error, the pull is narrower than 1.
    assert abs(np.mean(pulls)) < 0.7
    assert 0.2 < np.std(pulls) < 1.3


def test_error_plane_is_the_noise_of_the_master():
    rng = np.random.default_rng(5)
    made, map_ = stack(rng, 15, 0.6)
    result = made.finish()
    mean = result.mean()
    error = ptc_expand(result.noise, EDGES) / np.sqrt(result.count) * np.sqrt(map_)
    scale = float(np.median(mean / (light() * map_)))
    pulls = (mean - scale * light() * map_) / error
    assert 0.9 < float(np.std(pulls)) < 1.1
    assert abs(float(pulls.mean())) < 0.05
    assert made.rejected >= 12 * 3  # the streaks


def test_edges_are_as_good_as_the_middle():
    made, _ = stack(np.random.default_rng(6), 15, 0.3)
    result = made.finish()
    model = f.illumination_model(result.mean())
    ratio = model / light()
    ratio /= np.median(ratio)
    assert np.abs(ratio - 1).max() < 2e-3


def test_dead_column_is_no_illumination():
    def dead(map_):
        map_[100:, 77] *= 0.02

    made, _ = stack(np.random.default_rng(7), 6, 0.6, defects=dead)
    result = made.finish()
    mean = result.mean()
    flat = mean / f.illumination_model(mean)
    assert flat[150:, 77].max() < 0.1
    assert abs(float(np.median(flat[150:, 76])) - 1) < 2e-3
    assert abs(float(np.median(flat[:90, 77])) - 1) < 5e-3


def test_masked_pixels_and_few_frames():
    rng = np.random.default_rng(8)
    mask = np.zeros(SHAPE, bool)
    mask[:, 40:43] = True
    made, _ = stack(rng, 4, 0.6, mask=mask)
    result = made.finish()
    assert (result.count[:, 41] == 0).all()
    assert np.isnan(result.mean()[:, 41]).all()
    model = f.illumination_model(result.mean(), result.count == 0)
    assert np.isfinite(model).all()
    for frames in (1, 2):
        few, _ = stack(rng, frames, 0.6)
        assert few.finish().frames == frames
    one, _ = stack(rng, 1, 0.6)
    done = one.finish()
    with np.errstate(invalid="ignore"):
        found = f.measure_prnu(*(h / light() for h in done.halves()), None, EDGES)
    assert np.isnan(found.small)


def test_all_masked():
    made = f.Stack(EDGES)
    made.add(light(), np.ones(SHAPE, bool))
    result = made.finish()
    assert result.frames == 0
    assert np.isnan(f.illumination_model(result.mean())).all()


def test_lamp_and_channels_are_told_apart():
    rng = np.random.default_rng(9)
    pulls = []
    for _ in range(24):
        time = np.arange(15) * 100.0
        lamp = 1 + 0.3 / 100 * time / 3600 + 2e-4 * rng.standard_normal(15)
        own = 5e-5 * rng.standard_normal((15, 12))
        found = f.stability(time, 2e4 * lamp[:, None] * (1 + own))
        pulls.append((found.drift[0] - 0.3) / found.drift_err[0])
    assert found.rms_common == pytest.approx(0.02, rel=0.6)
    assert np.median(found.rms_channel) == pytest.approx(0.005, rel=0.4)
    # errors are from 15 residuals: Student's t with 13 degrees of freedom
    assert_pulls(np.array(pulls) * np.sqrt(11 / 13), what="drift")


def test_flux_and_shutter_offset():
    pulls_t0, pulls_k = [], []
    for seed in range(24):
        rng = np.random.default_rng(200 + seed)
        k = 18_000 * rng.uniform(0.95, 1.05, 12)
        time = np.array([0.25, 0.75, 1.5, 2.0])
        jitter = 1 + 5e-4 * rng.standard_normal(4)
        signal = k * ((time + 0.03) * jitter)[:, None] * (1 + 2e-5 * rng.standard_normal((4, 12)))
        found = f.fit_flux(time, signal, (0.03 + 1e-3 * rng.standard_normal(), 1e-3))
        pulls_t0.append((found.t0 - 0.03) / found.t0_err)
        pulls_k.append((found.k[0] - k[0]) / found.k_err[0])
    assert abs(np.mean(pulls_t0)) < 0.7
    assert 0.5 < np.std(pulls_t0) < 1.5
    assert 0.5 < np.std(pulls_k) < 1.6
    assert np.allclose(found.saturation_time, 65536 / found.k)


def test_saturated_and_dark_series_have_a_reason():
    time = np.array([0.1, 0.2])
    bright = f.fit_flux(time, np.full((2, 12), 62_000.0))
    assert bright.reason
    assert np.isnan(bright.k).all()
    assert f.fit_flux(time, np.full((2, 12), np.nan)).reason
    one = f.fit_flux(np.array([1.0]), np.full((1, 12), 1e4), (0.03, 1e-3))
    assert not one.reason
    assert one.k[0] == pytest.approx(1e4 / 1.03, rel=1e-3)
    missing = np.full((4, 12), 1e4) * np.array([1, 2, 3, 4])[:, None]
    missing[:, 4:8] = np.nan  # a CCD without files
    some = f.fit_flux(np.array([1.0, 2, 3, 4]), missing, (0.0, 1e-3))
    assert np.isnan(some.k[5])
    assert some.k[0] == pytest.approx(1e4, rel=1e-3)
