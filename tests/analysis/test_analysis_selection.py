"""Frames left out by rule: the right ones, with the right cause, and no others."""

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from calcamp.analysis.selection import FrameQuality, select


def frames(rng, n, drift=0.0, level=0.0, **options):
    """Good frames of one quadrant, one column."""
    return [
        FrameQuality(
            obsid=17283 + i,
            ccd=1,
            quadrant="E",
            offset=2700 + drift * i + rng.normal(0, 0.05),
            noise=1.2 + rng.normal(0, 0.006),
            noise_err=0.006,
            level=level * (1 + rng.normal(0, 0.01)) + rng.normal(0, 0.05),
            **options,
        )
        for i in range(n)
    ]


def excluded(found):
    return [s.obsid - 17283 for s in found if not s.use]


@pytest.mark.parametrize("n", [1, 2, 3, 4, 10, 50])
@pytest.mark.parametrize("drift", [0.0, 0.5, -2.0])
@pytest.mark.parametrize("level", [0.0, 30_000.0])
def test_good_frames_are_used(rng, n, drift, level):
    found = select(frames(rng, n, drift, level))
    assert all(s.use for s in found)
    assert not any(s.cause for s in found)


@pytest.mark.parametrize("n", [3, 4, 5, 10])
@pytest.mark.parametrize("where", [0, 1, -1])
@pytest.mark.parametrize(
    ("change", "cause"),
    [
        ({"offset": 2760.0}, "offset +"),
        ({"offset": 2640.0}, "offset -"),
        ({"noise": 1.5}, "noise +"),
        ({"noise": 0.0}, "noise -"),
        ({"level": 21_000.0}, "level -"),
        ({"level": 20.0}, "lamp off"),
        ({"lost_fraction": 1.0}, "all pixels are 0"),
        ({"lost_fraction": 0.02}, "2 % of the pixels are 0"),
        ({"truncated": True}, "truncated"),
    ],
)
def test_one_frame_that_differs_is_found(rng, n, where, change, cause):
    good = frames(rng, n, drift=0.5, level=30_000.0)
    wrong = [*good]
    wrong[where] = replace(good[where], **change)
    found = select(wrong)
    assert excluded(found) == [where % n]
    assert cause in found[where].cause


def test_light_in_one_dark(rng):
    darks = frames(rng, 4, expected_level=0.0)
    darks[2] = replace(darks[2], level=60.0)
    assert excluded(select(darks)) == [2]


def test_two_frames_that_disagree_are_kept_with_a_note(rng):
    two = frames(rng, 2)
    two[1] = replace(two[1], offset=2760.0)
    found = select(two)
    assert all(s.use for s in found)
    assert all("frames disagree" in s.cause for s in found)
    four = frames(rng, 4)
    four[2:] = [replace(f, offset=2800.0) for f in four[2:]]
    assert all(s.use for s in select(four))


def test_lamp_off_in_all_frames_is_known_from_the_command(rng):
    found = select(frames(rng, 3, level=5.0, expected_level=30_000.0))
    assert all("lamp off: level 5" in s.cause for s in found)
    assert not any(s.use for s in found)


def test_only_the_quadrant_concerned(rng):
    mixed = [replace(f, quadrant=q, ccd=ccd) for f in frames(rng, 10) for q in "EFGH" for ccd in (1, 2, 3)]
    index = next(i for i, f in enumerate(mixed) if (f.obsid, f.ccd, f.quadrant) == (17287, 2, "G"))
    mixed[index] = replace(mixed[index], offset=2760.0)
    bad = [s for s in select(mixed) if not s.use]
    assert [(s.obsid, s.ccd, s.quadrant) for s in bad] == [(17287, 2, "G")]


def test_read_modes_and_columns_are_compared_apart(rng):
    forward = frames(rng, 4, read_mode="fwd_bas", level=10_000.0)
    reverse = [
        replace(
            f, obsid=f.obsid + 4, read_mode="rwd_bas_v", column=2, offset=f.offset + 90, noise=1.9, level=0.1
        )
        for f in forward
    ]
    assert all(s.use for s in select(forward + reverse))


def test_a_cause_hides_a_frame_from_the_later_rules(rng):
    """A frame without data does not pull the median of the others."""
    good = frames(rng, 5, level=1000.0)
    empty = [replace(f, lost_fraction=1.0, offset=0.0, noise=0.0, level=0.0) for f in good[:3]]
    assert excluded(select(empty + good[3:])) == [0, 1, 2]


def test_what_was_not_measured_excludes_nothing(rng):
    blank = [FrameQuality(obsid=i, ccd=1, quadrant="E") for i in range(4)]
    assert all(s.use for s in select(blank))
    row = {"obsid": 1, "ccd": 2, "quadrant": "F", "offset": None, "noise": 1.2, "other": 5}
    made = FrameQuality.from_row(row)
    assert math.isnan(made.offset)
    assert made.noise == 1.2
    assert select([]) == []


@given(st.integers(0, 10_000), st.integers(3, 20), st.floats(-3, 3))
@settings(max_examples=60)
def test_order_and_common_shift_do_not_matter(seed, n, shift):
    generator = np.random.default_rng(seed)
    some = frames(generator, n, drift=0.3)
    wrong = int(generator.integers(n))
    some[wrong] = replace(some[wrong], offset=some[wrong].offset + 60)
    order = generator.permutation(n)
    assert sorted(excluded(select([some[i] for i in order]))) == [wrong]
    assert excluded(select([replace(f, offset=f.offset + shift) for f in some])) == [wrong]
