"""Profiles and masks."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from calcamp.analysis import profiles as f
from support import assert_pulls


@pytest.mark.parametrize("integer", [True, False])
def test_profiles_have_honest_errors(rng, integer):
    rows, columns = np.arange(300) * 0.003, np.sin(np.arange(400))
    area = 2700.4 + rows[:, None] + columns + rng.normal(0, 1.2, (300, 400))
    along = 2700.4 + rows + columns.mean(), 2700.4 + rows.mean() + columns
    hits = rng.integers(0, 300, (200, 2))
    area[hits[:, 0], hits[:, 1]] += 5000
    mask = rng.random(area.shape) < 0.03
    area[mask] = 0
    area = np.rint(area).astype(np.uint16) if integer else area.astype(np.float32)
    found = f.profiles(area, mask)
    for profile, truth in zip(found, along, strict=True):
        # The spread along a line holds the structure of the other axis: errors of rows are too large.
        assert_pulls((profile.value - truth) / profile.err, excess=0.3)
        assert np.all(profile.n < (~mask).sum() / len(truth) * 1.2)
        assert np.array_equal(profile.position, np.arange(len(truth)))
    assert np.nanmedian(found[1].std) == pytest.approx(1.25, abs=0.05)


def test_line_without_pixels(rng):
    area = rng.normal(0, 1, (50, 60))
    area[7] = np.nan
    rows, columns = f.profiles(area)
    assert np.isnan(rows.value[7])
    assert rows.n[7] == 0
    assert np.isfinite(columns.value).all()
    rows, _ = f.profiles(area, np.ones(area.shape, bool))
    assert np.isnan(rows.value).all()


def test_window_is_used_as_given():
    area = np.arange(100.0).reshape(10, 10)
    rows, _ = f.profiles(area, window=(20, 39))
    assert np.array_equal(np.flatnonzero(rows.n), [2, 3])
    assert rows.value[2] == pytest.approx(24.5)


@given(st.integers(0, 3), st.integers(0, 1000))
@settings(max_examples=40)
def test_mask_grows_in_all_directions(pixels, seed):
    mask = np.random.default_rng(seed).random((23, 31)) < 0.02
    grown = f.grow_mask(mask, pixels)
    expected = np.zeros_like(mask)
    for row, column in np.argwhere(mask):
        expected[max(0, row - pixels) : row + pixels + 1, max(0, column - pixels) : column + pixels + 1] = (
            True
        )
    assert np.array_equal(grown, expected)


def test_rebin_means(rng):
    area = rng.normal(0, 1, (50, 60))
    mask = rng.random(area.shape) < 0.1
    mask[:10, :20] = True
    edges = [0, 10, 25, 50], [0, 20, 60]
    found = f.rebin(area, edges, mask)
    assert np.isnan(found[0, 0])
    assert found[1, 1] == pytest.approx(area[10:25, 20:][~mask[10:25, 20:]].mean())
    assert f.rebin(area, edges)[2, 0] == pytest.approx(area[25:, :20].mean())
