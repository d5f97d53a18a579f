"""Statistics of raw frames against simulated truth."""

import math

import numpy as np
import pytest
from tests.analysis.frames import OFFSETS, raw_frame

from calcamp.analysis import check as c
from calcamp.detector.arrays import quadrant_view
from calcamp.detector.dq import DQ
from calcamp.detector.geometry import QUADRANTS, REGIONS
from support import assert_pulls


def test_levels_and_noise_of_every_region(rng, mini):
    means, noises, levels = [], [], []
    for _ in range(6):
        offsets = {q: v + rng.uniform() for q, v in OFFSETS.items()}
        found = c.frame_statistics(raw_frame(rng, mini, offsets), mini)
        for quadrant in QUADRANTS:
            for region in REGIONS:
                stats = found[quadrant].regions[region].clipped
                means.append((stats.mean - offsets[quadrant]) / stats.mean_err)
                noises.append((stats.std - 1.2) / stats.std_err)
            levels.append(found[quadrant].level / found[quadrant].level_err)
    assert_pulls(means, what="offset")
    assert_pulls(noises, what="noise")
    assert_pulls(levels, what="level")


def test_regions_are_those_of_the_specification(rng, mini):
    found = c.frame_statistics(raw_frame(rng, mini), mini)["E"]
    rows, images = mini.image_rows, mini.image_columns
    sizes = {name: stats.n for name, stats in found.regions.items()}
    assert sizes == {
        "pre": 21 * rows,
        "img": (images - 10) * rows,
        "ove": 10 * rows,
        "pov": (images - 10) * 20,
    }
    assert found.n == mini.rows * mini.columns
    pixels = quadrant_view(raw := raw_frame(rng, mini), "E", mini)[:rows, 25:46]
    stats = c.frame_statistics(raw, mini)["E"].regions["pre"]
    assert stats.median == np.median(pixels)
    assert stats.plain_std == pytest.approx(pixels.std())
    assert (stats.minimum, stats.maximum) == (pixels.min(), pixels.max())


def test_window_of_rows(rng, mini):
    found = c.frame_statistics(raw_frame(rng, mini), mini, 0, 100)["H"]
    assert found.regions["pre"].n == 2100
    assert found.regions["pov"].n == 0
    assert math.isnan(found.regions["pov"].clipped.mean)
    assert found.n == 100 * mini.columns


def test_lost_and_saturated_pixels_in_all_columns_and_rows(rng, mini):
    raw = raw_frame(rng, mini)
    view = quadrant_view(raw, "G", mini)
    for position in ((0, 0), (5, 30), (50, 60), (mini.rows - 1, mini.columns - 1), (mini.rows - 1, 0)):
        view[position] = 0
    view[100:110, 200] = 65535
    found = c.frame_statistics(raw, mini)
    assert (found["G"].lost, found["G"].saturated) == (5, 10)
    assert found["G"].saturated_fraction == pytest.approx(10 / found["G"].n)
    assert found["G"].lost_fraction == pytest.approx(5 / found["G"].n)
    assert (found["E"].lost, found["E"].saturated) == (0, 0)
    assert c.frame_statistics(raw, mini, 0, 50)["G"].saturated == 0


def test_bad_pixels_are_left_out(rng, mini):
    raw = raw_frame(rng, mini)
    dq = np.zeros(mini.ccd_shape, np.uint32)
    view, bits = quadrant_view(raw, "F", mini), quadrant_view(dq, "F", mini)
    hot = rng.random(mini.quadrant_shape) < 0.02
    view[hot] += 3
    bits[hot] = DQ.HOT
    quadrant_view(dq, "F", mini)[3, 60] |= DQ.TRAP  # not a bad pixel
    good = c.frame_statistics(raw, mini, dq=dq)["F"]
    again = c.frame_statistics(raw, mini, dq=c.find_bad(dq, mini))["F"]
    boolean = c.frame_statistics(raw, mini, dq=(dq & DQ.HOT) != 0)["F"]
    assert good == again == boolean
    for region in REGIONS:
        stats = good.regions[region].clipped
        area = mini.region(region)
        assert stats.n + stats.n_clipped == np.count_nonzero(~hot[area])
        assert (stats.mean - OFFSETS["F"]) / stats.mean_err == pytest.approx(0, abs=4.5)
    slope = good.slopes["img"]
    assert slope.row / slope.row_err == pytest.approx(0, abs=4.5)
    assert c.frame_statistics(raw, mini)["F"].regions["img"].clipped.mean > OFFSETS["F"] + 0.04
    with pytest.raises(ValueError, match="data quality"):
        c.find_bad(dq[1:], mini)


def test_slopes_with_cosmic_rays_and_a_hot_column(rng, mini):
    pulls = []
    for _ in range(6):
        raw = raw_frame(rng, mini).astype(float)
        for quadrant in QUADRANTS:
            view = quadrant_view(raw, quadrant, mini)
            rows, columns = np.indices(mini.quadrant_shape)
            view += np.rint(2.0 * rows / 1000 - 3.0 * columns / 1000 + rng.normal(0, 0.5, rows.shape))
            view[:, 300] += 2000
            hits = rng.integers(0, mini.image_rows, (200, 2)) % mini.image_columns
            view[hits[:, 0], mini.prescan + hits[:, 1]] += 3000
        found = c.frame_statistics(raw.astype(np.uint16), mini)
        for quadrant in QUADRANTS:
            slope = found[quadrant].slopes["img"]
            pulls += [(slope.row - 2) / slope.row_err, (slope.column + 3) / slope.column_err]
            pre = found[quadrant].slopes["pre"]
            assert (pre.row - 2) / pre.row_err == pytest.approx(0, abs=5)
    # The error comes from 14 or 16 groups: Student's t instead of normal.
    assert_pulls(pulls, excess=0.12)


def test_slopes_can_be_left_out(rng, mini):
    assert c.frame_statistics(raw_frame(rng, mini), mini, slopes=())["E"].slopes == {}


def test_flat_illumination(rng, mini):
    raw = raw_frame(rng, mini, signal=20_000.0)
    found = c.frame_statistics(raw, mini)["E"]
    assert found.level == pytest.approx(20_000, abs=1)
    assert found.regions["img"].median == pytest.approx(22_700, abs=1)


def test_bias_frame_has_no_stuck_bits(rng, mini):
    found = c.frame_statistics(raw_frame(rng, mini), mini)["E"]
    assert found.bits_stuck == ()
    assert set(found.bits_tested) >= {0, 1}
    assert max(found.bits_tested) < 4
    assert len(found.bit_rates) == 16


@pytest.mark.parametrize("bit", [0, 1, 3, 7, 11])
@pytest.mark.parametrize("state", [0, 1])
def test_stuck_bits_are_found(rng, mini, bit, state):
    values = rng.integers(2000, 60_000, 200_000).astype(np.uint16)
    stuck = values & ~np.uint16(1 << bit) if state == 0 else values | np.uint16(1 << bit)
    tested, found, rates = c.stuck_bits(np.bincount(stuck, minlength=65536))
    assert found == (bit,)
    assert rates[bit] == state
    assert c.stuck_bits(np.bincount(values, minlength=65536))[1] == ()
    assert set(tested) == set(range(15))


def test_stuck_low_bit_in_a_bias_frame(rng, mini):
    raw = raw_frame(rng, mini) & np.uint16(0xFFFE)
    assert c.frame_statistics(raw, mini)["H"].bits_stuck == (0,)


@pytest.mark.parametrize("value", [0, 2700, 65535])
def test_constant_frame(mini, value):
    found = c.frame_statistics(np.full(mini.ccd_shape, value, np.uint16), mini)["E"]
    assert found.regions["img"].clipped.is_limit
    assert found.regions["img"].clipped.mean == value
    assert found.lost == (found.n if value == 0 else 0)
    assert found.saturated == (found.n if value == 65535 else 0)
    assert found.bits_stuck == ()


def test_frame_saturated_but_for_a_few_pixels(rng, mini):
    """Light beyond the converter's range in nearly every pixel of the image: a count, perhaps no mean, no crash."""
    raw = raw_frame(rng, mini)
    for quadrant in QUADRANTS:
        area = quadrant_view(raw, quadrant, mini)[mini.region("img", trimmed=False)]
        area[...] = 65535
        area[rng.integers(0, area.shape[0], 430), rng.integers(0, area.shape[1], 430)] = rng.integers(
            62342, 65535, 430
        )
    found = c.frame_statistics(raw, mini)
    for quadrant in QUADRANTS:
        assert found[quadrant].saturated > mini.image_rows * mini.image_columns - 431
        assert np.isfinite(found[quadrant].slopes["pre"].row)


def test_wrong_input_is_refused(mini):
    for raw in (np.zeros(mini.ccd_shape, np.float32), np.zeros((10, 10), np.uint16)):
        with pytest.raises(ValueError, match="expected uint16"):
            c.frame_statistics(raw, mini)


def test_levels_that_stand_apart_blame_no_bit(rng):
    values = (
        np.concatenate([rng.normal(2800, 1.3, 50_000), rng.normal(60_000, 130, 250_000)]).round().astype(int)
    )
    assert c.stuck_bits(np.bincount(values, minlength=65536))[1] == ()
    stuck = values & ~(1 << 6)
    assert c.stuck_bits(np.bincount(stuck, minlength=65536))[1] == (6,)
