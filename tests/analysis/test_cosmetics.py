"""Defects of COSMETICS00 against simulated truth: completeness, false positives, ends of columns, votes."""

from __future__ import annotations

import numpy as np
import pytest

from calcamp.analysis.cosmetics import (
    Cuts,
    counts,
    merge,
    response_bits,
    search_dark,
    search_flat,
    trimmed_mean,
)
from calcamp.config.lookup import load_detector
from calcamp.data.elvis import SCRIPT_DEFAULTS
from calcamp.detector.dq import BADMASK, DQ
from calcamp.detector.geometry import CCDS, QUADRANTS
from calcamp.simulate import Exposure, draw_channel, simulate_frame

SETTINGS = {
    "dark.hot": 40,
    "dark.hot_min_e_s": 300.0,
    "dark.hot_max_e_s": 3000.0,
    "dark.hot_columns": 3,
    "response.dead": 25,
    "response.partial_columns": 1,
    "response.partial_length": 300,
    "response.clusters": 2,
}
FLAT_TIME = 1.75  # s, half of the range


def frames_of(truth, detector, seed, exptime, number=5):
    """Image columns of frames without their row offsets, ADU; parallel overscan rows of frames without light too."""
    rng = np.random.default_rng(seed)
    columns = detector.region("img", trimmed=False)[1]
    out = []
    for k in range(number):
        keys = {**SCRIPT_DEFAULTS, "exptime": exptime, "shuttr": int(exptime > 0), "wave": 4}
        frame = simulate_frame(truth, Exposure(k, keys, elapsed_s=100.0 * k), detector, rng).astype(
            np.float32
        )
        frame -= frame[:, detector.region("pre")[1]].mean(axis=1)[:, None]
        out.append(frame[: detector.image_rows if exptime else None, columns])
    return out


def search(detector, seed, ccd, quadrant, settings=SETTINGS):
    truth = draw_channel(seed, detector, ccd, quadrant, settings=settings)
    key = 100 * seed + 10 * ccd + QUADRANTS.index(quadrant)
    cuts = Cuts(old_column=detector.min_column_length)
    dark = search_dark(frames_of(truth, detector, key, 0.0), detector.image_rows, cuts)
    flat = search_flat(frames_of(truth, detector, key + 5000, FLAT_TIME), cuts)
    return truth, merge(detector.image_shape, dark, flat, cuts=cuts)


def score(truth, found, detector):
    """(seeded, found, false positives, errors of column starts, clusters wrong) of one quadrant.

    Seeded defects stand out by at least 8 local scatters: single pixels of the flat by themselves, hot pixels
    and columns, which a frame without exposure shows as trails, as a whole and above the column pattern.
    """
    dq, response, dark = found.dq, truth["response"], truth["dark"]
    rows, columns = detector.image_shape
    row_time = 4e-3 + detector.pixel_time_s * detector.columns
    noise, pattern = found.dark.scatter, 0.1
    seen, starts = [], []
    for kind in ("dead", "cluster"):
        places = zip(response[f"{kind}_row"], response[f"{kind}_column"], strict=True)
        seen += [bool(dq[r, c] & np.uint32(DQ.DEAD)) for r, c in places]
    for column, first in zip(response["partial_column"], response["partial_first_row"], strict=True):
        runs = [c for c in found.flat.columns if c.column == column]
        seen.append(len(runs) == 1)
        if runs:
            starts += [runs[0].first - first, runs[0].last - (first + response["partial_length"] - 1)]
    truth_map = np.zeros((rows, columns), bool)
    for row, column, rate in zip(dark["hot_row"], dark["hot_column"], dark["hot_e_s"], strict=True):
        truth_map[max(row - 6, 0) :, column] = True
        level, length = rate * row_time / truth.gain, detector.rows - row
        alone = np.count_nonzero(dark["hot_column"] == column) == 1 and column not in dark["bright_column"]
        if level > 8 * np.hypot(noise / np.sqrt(length), pattern) and length >= 24 and alone:
            near = slice(max(row - 6, 0), row + 7) if level < 8 * noise else slice(max(row - 1, 0), row + 2)
            seen.append(bool((dq[near, column] & np.uint32(DQ.HOT)).any()))
    for column, first, rate in zip(
        dark["bright_column"], dark["bright_first_row"], dark["bright_e_s"], strict=True
    ):
        truth_map[first:, column] = True
        length = rows - first
        level = rate * row_time / truth.gain * length / 2
        if level > 8 * np.hypot(noise / np.sqrt(length), pattern):
            seen.append(bool((dq[:, column] & np.uint32(DQ.BRIGHT_COL)).any()))
    for kind in ("dead", "cluster"):
        truth_map[response[f"{kind}_row"], response[f"{kind}_column"]] = True
    for column, first in zip(response["partial_column"], response["partial_first_row"], strict=True):
        truth_map[first - 1 : first + response["partial_length"] + 1, column] = True
    false = int(((dq & np.uint32(BADMASK)) != 0)[~truth_map].sum())
    return len(seen), sum(seen), false, starts


def check_completeness(detector, false_allowed_each, false_allowed_all):
    scores = [score(*search(detector, 11, ccd, q), detector) for ccd in CCDS for q in QUADRANTS]
    seeded, found, false = (sum(s[k] for s in scores) for k in range(3))
    assert seeded > 12 * 40
    assert found >= 0.99 * seeded, f"{found} of {seeded}"
    assert max(s[2] for s in scores) <= false_allowed_each
    assert false <= false_allowed_all
    assert max(abs(d) for s in scores for d in s[3]) <= 1


def test_completeness_and_false_positives_mini():
    check_completeness(load_detector("ccd273-mini"), 1, 1)


@pytest.mark.full
def test_completeness_and_false_positives_full_size():
    check_completeness(load_detector("ccd273"), 1, 12)


def test_a_clean_quadrant_has_no_defects():
    detector = load_detector("ccd273-mini")
    clean = {"dark.hot": 0, "dark.hot_columns": 0, "response.dead": 0, "cosmics.density": 0.0}
    _, found = search(detector, 3, 1, "E", clean)
    assert counts(found.dq)["bad_pixels"] == 0
    assert found.flat.columns == ()
    assert found.dark.columns == ()


def test_clusters_are_counted():
    detector = load_detector("ccd273-mini")
    settings = {
        **SETTINGS,
        "dark.hot": 0,
        "dark.hot_columns": 0,
        "response.dead": 0,
        "response.partial_columns": 0,
    }
    for quadrant in QUADRANTS:
        truth, found = search(detector, 21, 2, quadrant, settings)
        label = truth["response"]["cluster_id"]
        assert sorted(found.clusters.tolist()) == sorted(np.bincount(label).tolist())


def test_a_cosmic_ray_is_no_defect():
    rng = np.random.default_rng(1)
    flats = [rng.normal(30000, 150, (128, 128)).astype(np.float32) for _ in range(5)]
    flats[2][40:60, 70] += 9000
    found = search_flat(flats, Cuts())
    assert not (found.dq & np.uint32(BADMASK)).any()
    # in two of five frames: not stable, and not in the mask
    flats[4][50, 70] += 9000
    flats[2][50, 70] += 9000
    found = search_flat(flats, Cuts())
    assert not (found.dq & np.uint32(BADMASK)).any()


def test_one_and_two_frames_work():
    rng = np.random.default_rng(2)
    for number in (1, 2, 3):
        flats = [rng.normal(30000, 150, (128, 128)).astype(np.float32) for _ in range(number)]
        for flat in flats:
            flat[10, 10] *= 0.3
        found = search_flat(flats, Cuts())
        assert found.dq[10, 10] & np.uint32(DQ.DEAD)
        assert found.frames == number


def test_trimmed_mean_leaves_out_the_ends():
    frames = [np.full((2, 2), v, np.float32) for v in (1, 2, 3, 4, 1000)]
    assert trimmed_mean(frames)[0, 0] == 3
    assert trimmed_mean(frames[:2])[0, 0] == 1.5


def test_classes_of_response():
    bits = response_bits(np.array([0.1, 0.49, 0.5, 0.79, 0.8, 1.0, 1.2, 1.21, 1.5, 1.51]), Cuts())
    names = ["DEAD", "DEAD", "LOW", "LOW", "", "", "", "HIGH", "HIGH", "OVER"]
    assert bits.tolist() == [int(DQ[name]) if name else 0 for name in names]


def test_the_old_rule_marks_whole_columns_only_in_its_own_bit():
    dq = np.zeros((300, 40), np.uint32)
    dq[:210, 7] = int(DQ.DEAD)
    found = merge(dq.shape, None, None, [dq], Cuts(old_column=200))
    assert (found.dq[:, 7] & np.uint32(DQ.WHOLE_COL)).all()
    assert ((found.dq & np.uint32(BADMASK)) != 0).sum() == 210
