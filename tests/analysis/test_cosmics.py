"""Cosmic rays: all found, nothing else taken, by comparison and in a single exposure."""

from __future__ import annotations

import numpy as np
import pytest

from calcamp.analysis.cosmics import count_groups, find_cosmics, group_labels, grow_pixels, sharp_hits


def stack(number, shape=(400, 300), noise=1.2, seed=0):
    rng = np.random.default_rng(seed)
    return [rng.normal(0, noise, shape).astype(np.float32) for _ in range(number)], rng


@pytest.mark.parametrize("number", [2, 3, 4, 6, 10])
def test_bright_hits_are_found_and_clean_pixels_kept(number):
    frames, rng = stack(number)
    seeded = []
    for frame in frames:
        at = rng.choice(frame.size, 200, replace=False)
        frame.reshape(-1)[at] += 20.0
        seeded.append(at)
    found = find_cosmics(frames, 1.2, grow=0)
    for k in range(number):
        missed = np.setdiff1d(seeded[k], np.union1d(found.pixels[k], found.unstable))
        assert missed.size <= 1
        assert np.setdiff1d(found.pixels[k], seeded[k]).size <= 2


def test_two_hits_on_one_pixel_of_four_are_both_found_when_tracks_cross():
    frames, _ = stack(4)
    for k, column in ((1, slice(100, 110)), (3, slice(100, 110))):
        frames[k][50, column] += 500.0
    found = find_cosmics(frames, 1.2, grow=1)
    for k in (1, 3):
        assert found.mask(k)[50, 100:110].all()
        assert found.events[k] == 1
    assert not found.unstable.size


def test_clean_frames_lose_almost_nothing():
    frames, _ = stack(4, (2000, 2000))
    found = find_cosmics(frames, 1.2, grow=0)
    # one-sided 5 sigma: 3e-7 of 4e6 pixels and 4 frames, 5 expected
    assert sum(map(len, found.pixels)) < 25


def test_hot_pixels_are_not_cosmic_rays():
    rng = np.random.default_rng(1)
    level = np.zeros((200, 200))
    level.reshape(-1)[rng.choice(level.size, 100, replace=False)] = 3000 * 3.5
    frames = [
        (rng.poisson(level) / 3.5 + rng.normal(0, 1.2, level.shape)).astype(np.float32) for _ in range(4)
    ]
    assert sum(map(len, find_cosmics(frames, 1.2, 3.5, grow=0).pixels)) == 0


def test_a_jumping_pixel_is_unstable_and_not_a_cosmic_ray():
    frames, _ = stack(4)
    for k in (0, 2):
        frames[k][20, 30] += 100.0
    found = find_cosmics(frames, 1.2, grow=1)
    assert found.unstable.tolist() == [20 * 300 + 30]
    assert not any(found.mask(k)[20, 30] for k in range(4))


def test_invalid_pixels_are_not_compared():
    frames, _ = stack(3)
    frames[0][5, 5] = 60000.0
    bad = [np.array([5 * 300 + 5]), np.array([], int), np.array([], int)]
    assert 5 * 300 + 5 not in find_cosmics(frames, 1.2, bad=bad).pixels[0]


def test_one_frame_gives_no_hits():
    frames, _ = stack(1)
    assert find_cosmics(frames, 1.2).events == (0,)


def test_growing_stays_inside_and_does_not_wrap():
    assert grow_pixels(np.array([0]), (4, 5), 1).tolist() == [0, 1, 5, 6]
    assert grow_pixels(np.array([4]), (4, 5), 1).tolist() == [3, 4, 8, 9]
    assert grow_pixels(np.array([7]), (4, 5), 0).tolist() == [7]


def test_groups_touch_across_corners_and_not_across_edges():
    mask = np.zeros((5, 6), bool)
    mask[0, 0] = mask[1, 1] = mask[2, 0] = True  # one group
    mask[1, 5] = mask[2, 5] = True  # another; (1, 5) and (2, 0) are neighbours in memory only
    assert count_groups(np.flatnonzero(mask), mask.shape) == 2
    labels = group_labels(np.flatnonzero(mask), mask.shape)
    assert sorted(np.bincount(labels)) == [2, 3]


def test_single_exposure_tracks_are_found_and_wide_spots_kept():
    rng = np.random.default_rng(3)
    y, x = np.mgrid[:200, :200]
    image = rng.normal(0, 1.2, (200, 200)).astype(np.float32)
    image += 2000 * np.exp(-((y - 60) ** 2 + (x - 70) ** 2) / (2 * 2.0**2))  # a star of 4.7 px
    image[150, 20:40] += 300
    image[120:140, 150] += 200
    hits = sharp_hits(image, 1.2, 3.5, grow=0)
    assert hits[150, 20:40].all()
    assert hits[120:140, 150].all()
    assert not hits[50:70, 60:80].any()
    assert hits.sum() < 80


def test_single_exposure_known_bad_pixels_are_not_reported():
    image = np.random.default_rng(4).normal(0, 1.2, (60, 60)).astype(np.float32)
    image[30, 30] = 1000
    bad = np.zeros(image.shape, bool)
    bad[30, 30] = True
    assert not sharp_hits(image, 1.2, bad=bad, grow=0)[30, 30]
