"""Dark analysis and defects against simulated frames: dark current, hot pixels, columns, cosmic rays."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from tests.analysis.frames_bias_dark import FULL, MINI, dark_frames, subtract_offset

from calcamp.analysis.bias import clipped_stack, stack_noise
from calcamp.analysis.dark import analyse_quadrant, arrhenius, dark_current, measure_level
from calcamp.analysis.defects import clusters, find_columns, find_hot_pixels, old_rule_columns
from calcamp.detector.dq import DQ
from support import assert_coverage, assert_pulls

SAMPLES = Path(__file__).resolve().parents[2].parent / "shared" / "samples" / "full-size"
TIMES = [565.0] * 4


def analyse(detector, frames, gain=3.5, **options):
    return analyse_quadrant(
        subtract_offset(frames, detector), [565.0] * len(frames), detector, gain, **options
    )


# ---- dark current ---------------------------------------------------------------------------------------
def dark_pulls(seeds, rate):
    """Pulls of the dark current with a bias product (steps of the offset cancel) and without steps."""
    pulls, limits = [], []
    for seed in seeds:
        rng = np.random.default_rng([21, seed])
        frames, _ = dark_frames(MINI, 4, rng, rate, cosmics=3, image_step=1.5, overscan_step=-1.0, row=0.1)
        bias, _ = dark_frames(MINI, 10, rng, 0.0, 0.0, image_step=1.5, overscan_step=-1.0, row=0.1)
        bias = subtract_offset(bias, MINI)
        master = clipped_stack(bias, stack_noise(bias, MINI.region("img")))
        prepared = [f - master.mean for f in subtract_offset(frames, MINI)]
        found = analyse_quadrant(prepared, TIMES, MINI, 3.5, bias_error=master.err)
        pulls.append((found.current.rate - rate * 3600) / found.current.rate_err)
        limits.append(found.current.limit.low <= rate * 3600 <= found.current.limit.high)
        assert found.current.systematic == 0.0
    return pulls, limits


def test_pulls_of_the_dark_current():
    pulls, _ = dark_pulls(range(24), 0.0012)
    assert_pulls(pulls, what="dark current")


@pytest.mark.full
@pytest.mark.parametrize("rate", [0.0, 0.0012])
def test_pulls_of_the_dark_current_many(rate):
    pulls, limits = dark_pulls(range(100, 340), rate)
    assert abs(np.mean(pulls)) < 0.2
    assert 0.9 < np.sqrt(np.mean(np.square(pulls))) < 1.1
    assert_coverage(limits, 0.95, what="95 % interval of the dark current")


@pytest.mark.full
def test_full_size_dark_of_a_fifth_of_an_adu():
    """0.2 ADU in 565 s from 4 frames: within 0.02 ADU per quadrant."""
    for seed in range(4):
        frames, _ = dark_frames(FULL, 4, np.random.default_rng(seed), 0.2 * 3.5 / 565, cosmics=20)
        found = analyse(FULL, frames)
        assert abs(found.current.signal - 0.2) < 0.02
        assert found.current.signal_err < 0.006


def test_without_bias_the_systematic_is_stated_and_covers_the_step():
    frames, _ = dark_frames(MINI, 4, np.random.default_rng(1), 0.0, image_step=0.6, overscan_step=-1.0)
    current = analyse(MINI, frames).current
    # Image 0.6 ADU above and overscan 1 ADU below the prescan, added: 1.6 ADU in 565 s.
    assert current.systematic == pytest.approx(1.6 / 565 * 3600 * 3.5, rel=0.1)
    assert abs(current.rate) < 1.2 * current.systematic  # there is no dark current: the step is covered
    assert current.rate_err < 0.2 * current.systematic


def test_zero_dark_is_a_limit():
    rng = np.random.default_rng(2)
    frames, _ = dark_frames(MINI, 4, rng, 0.0)
    levels = [measure_level(f, MINI, 1.3) for f in subtract_offset(frames, MINI)]
    current = dark_current(levels, TIMES, 3.5, bias_err=0.0)
    assert current.limit.is_limit
    assert 0 < current.limit.high < 5 * current.rate_err


def test_dark_current_without_exposures_is_not_measured():
    assert math.isnan(dark_current([], [], 3.5).rate)


def test_exposures_that_disagree_show():
    rng = np.random.default_rng(3)
    frames = [dark_frames(MINI, 1, rng, r)[0][0] for r in (0.001, 0.001, 0.001, 0.003)]
    assert analyse(MINI, frames).current.chi2_dof > 5


def test_arrhenius():
    assert arrhenius(153.0) == 1.0
    assert arrhenius(154.0) < 1.0 < arrhenius(152.0)
    # one kelvin at 153 K: d ln D/dT = E/(k T²)
    assert math.log(arrhenius(152.0)) == pytest.approx(0.65 / 8.617e-5 / 153**2, rel=0.01)


# ---- the acceptance scene -------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def scene():
    rng = np.random.default_rng(4)
    at = rng.choice(MINI.image_rows * MINI.image_columns, 10, replace=False)
    hot = [(*divmod(int(p), MINI.image_columns), 20.0) for p in at]
    frames, hits = dark_frames(
        MINI,
        4,
        rng,
        0.001,
        hot=hot,
        columns=[(100, 120, 515, 0.6)],
        dead=[(333, 150, 449, 5.0)],
        unstable=[(400, 50, 0.2, 3.0)],
        cosmics=50,
    )
    return analyse(MINI, frames), hot, hits, frames


def test_all_hot_pixels_with_their_rates(scene):
    found, hot, _, _ = scene
    rate, err = found.hot.rates(565.0)
    table = {
        (int(r), int(c)): (x, e)
        for r, c, x, e in zip(found.hot.row, found.hot.column, rate, err, strict=True)
    }
    pulls = []
    for r, c, value in hot:
        assert (r, c) in table
        x, e = table[r, c]
        assert x == pytest.approx(value / 3.5, rel=0.05)
        pulls.append((x - value / 3.5) / e)
    assert_pulls(pulls)
    assert set(table) - {(r, c) for r, c, _ in hot} <= {(400, 50)}


def test_hot_column_and_dead_column_to_the_row(scene):
    found, _, _, _ = scene
    columns = {c.column: c for c in found.columns}
    assert set(columns) == {100, 333}
    assert abs(columns[100].first - 120) <= 1
    assert columns[100].last == 515
    assert columns[100].level == pytest.approx(0.6 * 565 / 3.5, rel=0.02)
    assert abs(columns[333].first - 150) <= 1
    assert abs(columns[333].last - 449) <= 1
    assert columns[333].level < 0
    image = MINI.region("img", trimmed=False)
    dq = found.master.dq[image]
    assert (dq[121:516, 100] & int(DQ.BRIGHT_COL)).all()
    assert (dq[151:449, 333] & int(DQ.BAD_COL)).all()
    assert (dq[121:516, 100] & int(DQ.PARTIAL_COL)).all()


def test_no_cosmic_ray_left_in_the_master(scene):
    found, hot, hits, frames = scene
    image = MINI.region("img", trimmed=False)
    residual = found.master.mean[image] - 1.0 * 0.001 * 565 / 3.5
    clean = (found.master.dq[image] == 0) & (found.master.count[image] > 0)
    error = found.master.err[image]
    assert (residual[clean] < 6 * error[clean]).all()
    # what was hit is what was left out
    for k, seeded in enumerate(hits):
        bright = seeded[frames[k].reshape(-1)[seeded] > 2650 + 30]
        missed = np.setdiff1d(bright, found.cosmics.pixels[k])
        known = {r * MINI.columns + c + MINI.prescan for r, c, _ in hot}
        assert len([p for p in missed if int(p) not in known]) == 0
    assert all(35 <= events <= 60 for events in found.cosmics.events)


def test_unstable_pixel_is_told(scene):
    found, _, _, _ = scene
    dq = found.master.dq[MINI.region("img", trimmed=False)]
    values = found.hot.repeatable[(found.hot.row == 400) & (found.hot.column == 50)]
    assert dq[400, 50] & int(DQ.UNSTABLE)
    assert not values.any()


def test_count_and_error_of_the_master(scene):
    found, _, _, _ = scene
    image = MINI.region("img", trimmed=False)
    good = found.master.dq[image] == 0
    full = good & (found.master.count[image] == 4)
    pull = (found.master.mean[image] - np.median(found.master.mean[image]))[full] / found.master.err[image][
        full
    ]
    assert np.std(pull) == pytest.approx(1.0, abs=0.05)
    assert found.master.count[image].min() < 4


# ---- distribution, tiles, non-uniformity ----------------------------------------------------------------
def test_non_uniformity_without_noise_and_without_dsnu():
    rng = np.random.default_rng(5)
    frames, _ = dark_frames(MINI, 4, rng, 0.01, scatter=0.002)
    found = analyse(MINI, frames)
    assert found.dsnu.fixed == pytest.approx(0.002 * 565 / 3.5, rel=0.05)
    flat, _ = dark_frames(MINI, 4, rng, 0.001)
    found = analyse(MINI, flat)
    assert found.dsnu.fixed < 0.08


def test_tiles_percentiles_and_histogram():
    found = analyse(MINI, dark_frames(MINI, 4, np.random.default_rng(6), 0.01)[0])
    value, err, n = found.tiles
    assert value.shape == MINI.tiles
    assert n.sum() > 0.99 * MINI.image_rows * MINI.image_columns
    assert_pulls((value - 0.01 * 565 / 3.5) / err, excess=0.15, bias=0.5)
    assert found.percentiles[50.0] == pytest.approx(0.01 * 565 / 3.5, abs=0.03)
    assert found.percentiles[5.0] < found.percentiles[95.0] < found.percentiles[99.9]
    assert found.histogram[1].sum() == pytest.approx(MINI.image_rows * MINI.image_columns, rel=0.001)


def test_two_frames_and_one_frame_run():
    frames, _ = dark_frames(MINI, 2, np.random.default_rng(7), 0.002, hot=[(10, 10, 5.0)])
    assert analyse(MINI, frames).hot.row.tolist() == [10]
    assert analyse(MINI, frames[:1]).hot.row.tolist() == [10]


def test_known_bad_pixels_are_left_out_of_the_level():
    frames, _ = dark_frames(MINI, 4, np.random.default_rng(8), 0.001)
    mask = np.zeros(MINI.quadrant_shape, bool)
    mask[100:200, 100:200] = True
    for frame in frames:
        frame[100:200, 100:200] += 2
    found = analyse(MINI, frames, mask=mask)
    assert abs(found.current.signal - 0.001 * 565 / 3.5) < 5 * found.current.signal_err


# ---- defects ----------------------------------------------------------------------------------------------
def test_columns_of_a_response_map():
    """The same search finds a dead column of 300 px and a weak one in a flat."""
    rng = np.random.default_rng(9)
    response = rng.normal(1.0, 0.005, (2066, 1000))
    response[1000:1300, 700] = 0.0
    response[400:, 50] *= 0.99
    response.reshape(-1)[rng.integers(0, response.size, 300)] = 0.2
    found = find_columns((response - 1).astype(np.float32), 0.005)
    spans = {c.column: (c.first, c.last) for c in found}
    assert set(spans) == {700, 50}
    assert spans[700] == (1000, 1299)
    assert abs(spans[50][0] - 400) < 15
    assert spans[50][1] == 2065


def test_no_columns_in_noise():
    noise = np.random.default_rng(10).normal(0, 1, (2066, 2048)).astype(np.float32)
    assert find_columns(noise, 1.0) == []


def test_two_runs_of_one_column():
    image = np.random.default_rng(11).normal(0, 1, (500, 100)).astype(np.float32)
    image[50:150, 30] += 4
    image[300:420, 30] += 4
    spans = sorted((c.first, c.last) for c in find_columns(image, 1.0))
    assert len(spans) == 2
    assert abs(spans[0][0] - 50) <= 1
    assert abs(spans[1][1] - 419) <= 1


def test_hot_pixels_need_both_significance_and_rate():
    residual = np.zeros((10, 10), np.float32)
    residual[1, 1], residual[2, 2], residual[3, 3] = 4.0, 30.0, 30.0
    error = np.full((10, 10), 0.6, np.float32)
    error[3, 3] = 10.0
    assert find_hot_pixels(residual, error, 8.0).tolist() == [22]
    assert find_hot_pixels(residual, error, 1.0).tolist() == [11, 22]


def test_clusters_and_old_rule():
    bad = np.zeros((300, 20), bool)
    bad[:200, 3] = True
    bad[5, 10] = bad[6, 11] = True
    bad[50, 15] = True
    groups = clusters(np.flatnonzero(bad), bad.shape)
    assert groups.number() == 2
    assert groups.number(1) == 3
    assert groups.members().sum() == 202
    assert old_rule_columns(bad).tolist() == [3]


# ---- samples ------------------------------------------------------------------------------------------------
@pytest.mark.samples
def test_sample_darks():
    """Full-size darks of an independent generator: hot pixels, rates, level of the image area."""
    if not (SAMPLES / "truth.json").is_file():
        pytest.skip(f"no sample data in {SAMPLES}")
    from calcamp.analysis.prepare import prepare
    from calcamp.data.raw import read_raw

    truth = json.loads((SAMPLES / "truth.json").read_text())
    first, last = truth["obsids"]
    for ccd in (1, 2, 3):
        paths = [
            next((SAMPLES / "12_Mar_19").glob(f"EUC_{obsid}_*CCD{ccd}.fits.fz"))
            for obsid in range(first, last + 1)
        ]
        prepared = [prepare(read_raw(p, FULL).data, FULL, {"offset": "row", "scan": "pre"}) for p in paths]
        for q in "EFGH":
            known = truth["quadrants"][f"CCD{ccd}"][q]
            gain = known["gain_e_per_adu"]
            found = analyse_quadrant([p.data[q] for p in prepared], TIMES, FULL, gain)
            rate, _ = found.hot.rates(truth["exptime_s"])
            table = dict(
                zip(zip(found.hot.row.tolist(), found.hot.column.tolist(), strict=True), rate, strict=True)
            )
            hot = known["hot_pixels_row_col_in_image_area_and_tenths_of_e_per_s"]
            for row, column, tenths in hot:
                if tenths > 50:
                    assert table[row, column] == pytest.approx(tenths / 10 / gain, rel=0.05)
            assert len(table) <= len(hot)
            assert not found.columns
            step = truth["image_minus_prescan_adu"] + _mean_bump()
            dark = truth["dark_e_per_pixel_per_s"] * truth["exptime_s"] / gain
            for level in found.levels:
                assert abs(level.img_minus_pre - step - dark) < 0.05


def _mean_bump() -> float:
    """Mean of 0.6 (exp(-x/0.05) + 0.5 (y-0.5)²) over the trimmed image area."""
    x = (np.arange(2048) / 2047)[5:-5]
    y = np.arange(2066) / 2065
    return 0.6 * (float(np.mean(np.exp(-x / 0.05))) + 0.5 * float(np.mean((y - 0.5) ** 2)))


# ---- errors and limits of what is quoted ------------------------------------------------------------------
def prepared_darks(rng, number=4, noise=1.2, row=0.0, dark=0.5, bias_frames=0, detector=MINI):
    """Prepared frames from the process, without the simulator of the other tests: (frames, error plane of the bias)."""
    from calcamp.analysis.offset import measure_offsets

    def frame(signal):
        raw = 2600.4 + rng.normal(0, row, (detector.rows, 1)) * np.ones(detector.columns)
        raw[detector.region("img", trimmed=False)] += rng.poisson(signal * 3.5, detector.image_shape) / 3.5
        raw += rng.normal(0, noise, raw.shape)
        raw = np.rint(raw).astype(np.uint16)
        found = measure_offsets(raw, detector, "smooth", "pre")
        return (raw - found.offset[:, None]).astype(np.float32)

    frames = [frame(dark) for _ in range(number)]
    if not bias_frames:
        return frames, None
    bias = clipped_stack([frame(0.0) for _ in range(bias_frames)], math.hypot(noise, 0.3))
    return [f - bias.mean for f in frames], bias.err


@pytest.mark.parametrize(("row", "bias_frames"), [(0.0, 0), (0.3, 0), (0.2, 3)])
def test_pulls_of_tiles_rows_and_the_error_plane(row, bias_frames):
    """All pixels of the image have the same signal: what tiles, rows and pixels differ by is their error."""
    tiles, rows, pixels = [], [], []
    image = MINI.region("img", trimmed=False)
    for seed in range(8):
        frames, error = prepared_darks(np.random.default_rng([5, seed]), row=row, bias_frames=bias_frames)
        found = analyse_quadrant(frames, TIMES, MINI, 3.5, bias_error=error)
        value, err, _ = found.tiles
        tiles.append(((value - 0.5) / err).ravel())
        area = found.master.mean[image]
        white = np.nanmean(found.master.err[image]) / math.sqrt(area.shape[1])
        rows.append((area.mean(axis=1) - area.mean()) / math.hypot(white, found.row_err))
        pixels.append(((area - area.mean()) / found.master.err[image]).ravel()[::50])
    assert 0.75 < np.sqrt(np.mean(np.square(tiles))) < 1.25
    assert 0.9 < np.sqrt(np.mean(np.square(rows))) < 1.1
    assert 0.95 < np.sqrt(np.mean(np.square(pixels))) < 1.05


def test_exposures_that_disagree_widen_the_error_and_light_in_one_shows():
    rng = np.random.default_rng(8)
    frames, _ = prepared_darks(rng)
    quiet = analyse_quadrant(
        frames, TIMES, MINI, 3.5, bias_error=np.zeros(MINI.quadrant_shape, np.float32)
    ).current
    frames[2][MINI.region("img", trimmed=False)] += np.float32(3.0)
    leak = analyse_quadrant(
        frames, TIMES, MINI, 3.5, bias_error=np.zeros(MINI.quadrant_shape, np.float32)
    ).current
    assert quiet.scatter < 0.02
    assert leak.scatter == pytest.approx(1.5, abs=0.05)
    # the mean is 0.75 ADU too high, and the error says so
    assert leak.signal_err == pytest.approx(0.75, rel=0.05)
    assert quiet.signal_err < 0.01


def test_below_zero_is_a_systematic_error_not_a_tight_limit():
    rng = np.random.default_rng(9)
    frames, _ = prepared_darks(rng, dark=0.2)
    for frame in frames:
        frame[MINI.region("img", trimmed=False)] -= np.float32(0.5)
    current = analyse_quadrant(
        frames, TIMES, MINI, 3.5, bias_error=np.zeros(MINI.quadrant_shape, np.float32)
    ).current
    assert "below zero" in current.reason
    assert current.systematic == pytest.approx(-current.rate)
    assert current.limit.is_limit
    assert current.limit.high > 0.2 * 3.5 * 3600 / 565


@pytest.mark.parametrize("column", [0, 1, 255, 511])
@pytest.mark.parametrize("level", [6.0, 1000.0, -5.0])
def test_columns_at_the_edge_are_found(column, level):
    residual = np.random.default_rng(column).normal(0, 0.6, MINI.image_shape).astype(np.float32)
    residual[:, column] += np.float32(level)
    found = find_columns(residual, 0.6, 4.0)
    assert [(d.column, d.first, d.last) for d in found] == [(column, 0, 515)]
    assert found[0].level == pytest.approx(level, abs=0.3)


def test_one_dark_loses_tracks_and_keeps_hot_pixels():
    rng = np.random.default_rng(10)
    at = [(40, 50, 1.0), (300, 410, 2.0), (470, 12, 1.5)]
    frames, _ = dark_frames(MINI, 1, rng, 0.001, hot=at, cosmics=12)
    found = analyse(MINI, frames)
    assert 9 <= found.cosmics.events[0] <= 15
    assert {(40, 50), (300, 410), (470, 12)} <= set(
        zip(found.hot.row.tolist(), found.hot.column.tolist(), strict=True)
    )
    assert len(found.hot.row) <= 6  # single pixels of tracks may be among them
    assert abs(found.current.signal - 0.001 * 565 / 3.5) < 5 * found.current.signal_err


def test_unstable_pixels_count_once_and_percentiles_have_no_end():
    rng = np.random.default_rng(11)
    jumping = [(int(r), int(c), 0.2, 3.0) for r, c in rng.integers(10, 500, (10, 2))]
    frames, _ = dark_frames(MINI, 4, rng, 0.001, unstable=jumping)
    found = analyse(MINI, frames)
    assert 5 <= found.n_unstable <= 10
    for frame in frames:
        frame[MINI.region("img", trimmed=False)] += 200
    bright = analyse(MINI, frames).percentiles
    assert bright[50.0] == pytest.approx(200, abs=1)
    assert bright[99.0] < 204


def test_a_window_is_measured_in_its_rows():
    rng = np.random.default_rng(12)
    frames, _ = prepared_darks(rng, dark=8.0)
    found = analyse_quadrant(frames, TIMES, MINI, 3.5, vstart=100, vend=300)
    assert found.current.signal == pytest.approx(8.0, abs=0.05)
    one = analyse_quadrant(frames[:1], TIMES[:1], MINI, 3.5, vstart=100, vend=300)
    assert one.noise == pytest.approx(1.2, rel=0.1)
