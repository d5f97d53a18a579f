"""Offsets per row: pulls, smoothing test, overscan trail."""

import numpy as np
import pytest
from tests.analysis.frames import raw_quadrant

from calcamp.analysis import offset as o
from support import assert_pulls


@pytest.mark.parametrize("scan", ["pre", "ove", "both"])
@pytest.mark.parametrize("noise", [0.9, 1.2, 3.0])
def test_row_offsets_have_honest_errors(rng, mini, scan, noise):
    raw, truth = raw_quadrant(rng, mini, noise=noise, drift=3, row_noise=0.2)
    found = o.measure_offsets(raw, mini, "row", scan)
    assert (found.method, found.scan, found.window) == ("row", scan, 1)
    assert_pulls((found.offset - truth) / found.err)
    assert found.noise == pytest.approx(noise, abs=4 * found.noise_err)
    columns = {"pre": 21, "ove": 10, "both": 31}[scan]
    assert np.nanmedian(found.err) == pytest.approx(np.hypot(noise, 12**-0.5) / np.sqrt(columns), rel=0.02)


def test_mean_injects_less_row_noise_than_the_median(rng, mini):
    """Figures of the specification: 0.44 ADU rms for medians, 0.27 for clipped means at 1.2 ADU."""
    raw, truth = raw_quadrant(rng, mini)
    found = o.measure_offsets(raw, mini, "row", "pre")
    assert (found.offset - truth).std() == pytest.approx(0.27, abs=0.02)
    assert (np.median(raw[:, 25:46], axis=1) - truth).std() > 0.4


def test_level_pulls(rng, mini):
    pulls = []
    for _ in range(40):
        raw, truth = raw_quadrant(rng, mini, offset=2700 + rng.uniform(), drift=2)
        found = o.measure_offsets(raw, mini, "median", "pre")
        pulls.append((found.level - truth[: mini.image_rows].mean()) / found.level_err)
        assert np.ptp(found.offset) == 0
    assert_pulls(pulls)


@pytest.mark.parametrize("drift", [0.0, 0.3, 5.0])
def test_smoothing_follows_a_drift(rng, mini, drift):
    """A row drift of 0.3 ADU is removed to 0.06 (11 rows) or better."""
    windows = []
    for _ in range(10):
        raw, truth = raw_quadrant(rng, mini, drift=drift)
        found = o.measure_offsets(raw, mini, "smooth")
        assert found.method == "smooth"
        assert found.test.passed
        windows.append(found.window)
        # Neighbours share pixels: so many rows are independent.
        assert_pulls((found.offset - truth) / found.err, n=mini.rows // found.window)
    assert np.median(windows) >= 31


def test_smoothing_is_refused_where_rows_have_noise_of_their_own(rng, mini):
    raw, truth = raw_quadrant(rng, mini, row_noise=0.4)
    found = o.measure_offsets(raw, mini, "smooth")
    assert found.method == "row"
    assert not found.test.passed
    assert "row noise" in found.test.reason
    assert found.test.row_noise == pytest.approx(0.4, abs=5 * found.test.row_noise_err)
    assert_pulls((found.offset - truth) / found.err)


def test_smoothing_is_refused_where_the_offset_moves_fast(rng, mini):
    raw, _ = raw_quadrant(rng, mini)
    raw += np.rint(6 * (1 + np.sin(np.arange(mini.rows) / 2.5))).astype(np.uint16)[:, None]
    assert o.measure_offsets(raw, mini, "smooth").method == "row"


def test_smoothing_test_accepts_white_rows(rng, mini):
    """False refusals: the cut is at 3 standard errors."""
    passed = [o.measure_offsets(raw_quadrant(rng, mini)[0], mini, "smooth").test.passed for _ in range(60)]
    assert np.mean(passed) >= 0.95


def test_outliers_lost_pixels_and_jumping_rows(rng, mini):
    raw, truth = raw_quadrant(rng, mini)
    raw[100, 30] = 9000  # hit
    raw[101, 25:40] = 0  # lost
    raw[102, 25:46] = 65535  # railed
    raw[300] += 20  # a row of its own
    mask = np.zeros(raw.shape, bool)
    raw[:, 28] += 500
    mask[:, 28] = True
    rows = o.measure_offsets(raw, mini, "row", mask=mask)
    assert rows.offset[100] == pytest.approx(truth[100], abs=5 * rows.err[100])
    assert rows.err[101] > 1.5 * rows.err[99]
    assert np.isnan(rows.offset[102])
    assert np.isnan(rows.err[102])
    smooth = o.measure_offsets(raw, mini, "smooth", mask=mask)
    assert smooth.method == "smooth"
    assert smooth.offset[102] == pytest.approx(truth[102], abs=5 * smooth.err[102])
    assert smooth.offset[300] == pytest.approx(truth[300] + 20, abs=5 * smooth.err[300])
    assert smooth.offset[301] == pytest.approx(truth[301], abs=5 * smooth.err[301])


def test_overscan_with_a_trail_is_not_used(rng, mini):
    raw, truth = raw_quadrant(rng, mini, signal=3000)
    start = mini.prescan + mini.image_columns
    raw[:, start:] += np.rint(60 * np.exp(-np.arange(mini.overscan) / 4)).astype(np.uint16)
    found = o.measure_offsets(raw, mini, "row", "both")
    assert found.ove_usable is False
    assert found.scan == "pre"
    assert found.ove_trail > 5 * found.ove_trail_err
    assert_pulls((found.offset - truth) / found.err)
    forced = o.measure_offsets(raw, mini, "row", "ove")
    assert forced.ove_usable is False
    assert forced.scan == "ove"


def test_both_scans_at_different_levels(rng, mini):
    raw, truth = raw_quadrant(rng, mini, row_noise=0.3)
    raw[:, mini.prescan + mini.image_columns :] += 4
    found = o.measure_offsets(raw, mini, "row", "both")
    assert found.ove_minus_pre == pytest.approx(4, abs=5 * found.ove_minus_pre_err)
    assert found.noise == pytest.approx(1.2, abs=5 * found.noise_err)
    assert_pulls((found.offset - truth - 4 * 10 / 31) / found.err, bias=0.05)


def test_window_of_rows(rng, mini):
    raw, _ = raw_quadrant(rng, mini)
    found = o.measure_offsets(raw, mini, "row", vstart=10, vend=100)
    assert np.isfinite(found.offset[10:100]).all()
    assert np.isnan(found.offset[:10]).all()
    assert np.isnan(found.offset[100:]).all()
    short = o.measure_offsets(raw, mini, "smooth", vstart=0, vend=20)
    assert short.method == "row"
    assert "pairs of neighbouring rows" in short.test.reason


def test_no_offset_and_dead_quadrant(rng, mini):
    raw, _ = raw_quadrant(rng, mini)
    none = o.measure_offsets(raw, mini, "none")
    assert np.all(none.offset == 0)
    assert none.level == pytest.approx(2700.3, abs=0.1)
    dead = o.measure_offsets(np.zeros(mini.quadrant_shape, np.uint16), mini, "smooth", "both")
    assert np.isnan(dead.offset).all()
    assert np.isnan(dead.level)
    assert not dead.test.passed
    for wrong in ({"method": "spline"}, {"scan": "middle"}):
        with pytest.raises(ValueError, match="one of"):
            o.measure_offsets(raw, mini, **wrong)
