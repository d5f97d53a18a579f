"""Simulated point sources: light kept, pattern moved, blur by focus, saturation, cross-talk; photon by photon once."""

from __future__ import annotations

import math

import numpy as np
import pytest

from calcamp.data.elvis import SCRIPT_DEFAULTS
from calcamp.detector.arrays import canonical
from calcamp.detector.geometry import Detector
from calcamp.simulate import optics
from calcamp.simulate.exposure import Exposure
from calcamp.simulate.plugins.spots import Spots, moved
from calcamp.simulate.scene import Scene

MINI = Detector("ccd273-mini", image_columns=512, image_rows=516, min_column_length=50)
PATTERN = {
    ccd: {
        q + s: [x + (512 if q in "FG" else 0), y + (520 if q in "EF" else 0)]
        for q in "EFGH"
        for s, (x, y) in zip(
            "ABCDE", ((110, 400), (410, 396), (260, 250), (108, 100), (405, 96)), strict=True
        )
    }
    for ccd in (1, 2, 3)
}
CHAMBER = {
    "spots.pattern": PATTERN,
    "spots.saturation_time": {800: 2.2},
    "spots.filter_wheel": {4: 800},
    "spots.focus": {4: 47.2},
    "spots.fwhm": {800: 2.0},
}
CLEAN = {"cosmics.density": 0.0, "spots.background": 0.0, "crosstalk.rms": 0.0, "structure.scale": 0.0}


def exposure(obsid=1, mirror=47.2, level=0.6, **keys):
    asked = {
        "source": "point",
        "shuttr": 1,
        "mirr_pos": mirror,
        "wave": 4,
        "exptime": level * 2.2,
        "mirr_on": 1,
    }
    return Exposure(obsid, {**SCRIPT_DEFAULTS, **asked, **keys})


def frames(scene, shot):
    return {ccd: (frame, record) for ccd, frame, record in scene.frames(shot)}


# ---- optics -----------------------------------------------------------------------------------------------
@pytest.mark.parametrize("airy", [None, 0.9])
def test_light_is_kept_and_where_it_should_be(airy):
    image = optics.spot_image(24.3, 23.8, (0.8, 0.7, 0.05), airy)
    at = np.arange(optics.SIZE)
    assert image.sum() == pytest.approx(1.0, abs=2e-4)
    assert (image.sum(axis=0) @ at) == pytest.approx(24.3, abs=2e-3 if airy is None else 0.02)
    assert (image.sum(axis=1) @ at) == pytest.approx(23.8, abs=2e-3 if airy is None else 0.02)


def test_gaussian_image_is_that_of_single_photons():
    """An independent check: photons drawn one by one from the Gaussian and counted in pixels."""
    rng = np.random.default_rng(1)
    covariance = np.array([[0.8, 0.1], [0.1, 0.6]])
    x, y = rng.multivariate_normal((24.3, 23.8), covariance, 2_000_000).T
    counted, _, _ = np.histogram2d(y, x, bins=np.arange(optics.SIZE + 1) - 0.5)
    expected = 2e6 * optics.spot_image(24.3, 23.8, (0.8, 0.6, 0.1))
    bright = expected > 50
    chi2 = ((counted - expected)[bright] ** 2 / expected[bright]).sum()
    assert abs(chi2 / bright.sum() - 1) < 5 * math.sqrt(2 / bright.sum())


def test_peak_share():
    assert optics.central_share(2.0) == pytest.approx(0.1969, abs=5e-4)
    image = optics.spot_image(24.0, 24.0, ((2.0 / 2.35482) ** 2,) * 2 + (0.0,))
    assert image.max() == pytest.approx(optics.central_share(2.0), rel=1e-5)


def test_brighter_fatter_widens_and_keeps_the_charge():
    light = 8e5 * optics.spot_image(24.1, 23.9, (0.72, 0.72, 0.0))[None]
    plain = optics.collect(None, light, np.zeros_like(light), 0.0, 8)
    wide = optics.collect(None, light, np.zeros_like(light), -1e-6, 16)
    at = np.arange(optics.SIZE) - 24.1
    assert wide.sum() == pytest.approx(light.sum(), rel=1e-9)
    assert (wide[0].sum(axis=0) @ at**2) > 1.01 * (plain[0].sum(axis=0) @ at**2)
    assert wide.max() < plain.max()


def test_bleeding_keeps_the_charge_in_its_column():
    charge = np.zeros((40, 5), np.float32)
    charge[20, 2] = 1e6
    optics.bleed(charge, 2e5)
    assert charge.sum() == pytest.approx(1e6, rel=1e-6)
    assert charge.max() <= 2e5
    assert charge[:, 2].sum() == charge.sum()
    assert abs((charge[:, 2] @ np.arange(40)) / 1e6 - 20) < 0.51


# ---- scene ------------------------------------------------------------------------------------------------
def test_pattern_is_moved_about_the_centre():
    rows, columns = MINI.phys_shape
    centre = np.array([(columns - 1) / 2, (rows - 1) / 2])
    place = moved(centre[None] + [[100.0, 0.0]], (3.0, -2.0), 90.0, 1.01, MINI)
    assert place[0] == pytest.approx(centre + np.array([3.0, 99.0]))  # counter-clockwise


def test_spots_are_where_the_truth_says():
    settings = {**CHAMBER, **CLEAN, "spots.shift": (12.0, -7.0), "spots.rotation": 0.3, "spots.jitter": 0.0}
    scene = Scene(MINI, 3, {}, settings)
    for ccd, (frame, _) in frames(scene, exposure()).items():
        for q in "EFGH":
            truth = scene.channel(ccd, q)
            x, y = truth["spots"]["x"], truth["spots"]["y"]
            cx, cy = MINI.phys_to_ccd(x, y, q)
            for k in range(5):
                ix, iy = round(cx[k]), round(cy[k])
                stamp = frame[iy - 8 : iy + 9, ix - 8 : ix + 9].astype(float) - np.median(
                    frame[iy - 20 : iy - 9, ix]
                )
                light = np.where(stamp > 30, stamp, 0.0)
                assert (light.sum(axis=0) @ np.arange(ix - 8, ix + 9)) / light.sum() == pytest.approx(
                    cx[k], abs=0.02
                )
                assert (light.sum(axis=1) @ np.arange(iy - 8, iy + 9)) / light.sum() == pytest.approx(
                    cy[k], abs=0.02
                )


def test_missing_stars_and_closed_shutter():
    scene = Scene(MINI, 4, {}, {**CHAMBER, **CLEAN, "spots.missing": ("1EA", "1EC")})
    _, record = frames(scene, exposure())[1]
    assert "spot_A_flux_e" not in record["E"]
    assert "spot_B_flux_e" in record["E"]
    dark, _ = frames(scene, exposure(shuttr=0))[1]
    assert dark.max() < 20_000


def test_blur_follows_the_mirror():
    scene = Scene(
        MINI, 5, {}, {**CHAMBER, **CLEAN, "spots.astigmatism": 0.0, "spots.e1": 0.0, "spots.e2": 0.0}
    )
    truth = scene.channel(1, "E")
    z0 = Spots.best_focus(truth, 4, 800)
    near = Spots.covariances(truth, 4, 800, float(z0[0]), 2.0)[0]
    far = Spots.covariances(truth, 4, 800, float(z0[0]) + 0.5, 2.0)[0]
    assert near[0] == pytest.approx((2.0 / 2.35482) ** 2, rel=1e-5)
    assert far[0] - near[0] == pytest.approx((2.0 * 0.5) ** 2)


def test_a_long_exposure_saturates_and_bleeds():
    scene = Scene(MINI, 6, {}, {**CHAMBER, **CLEAN, "spots.jitter": 0.0})
    frame, record = frames(scene, exposure(level=3.0))[1]
    x, y = record["E"]["spot_C_x"], record["E"]["spot_C_y"]
    row, column = round(y) + MINI.rows + MINI.parallel_overscan, round(x) + MINI.prescan
    assert frame[row, column] > 60_000
    down = (frame[row - 12 : row + 13, column] > 20_000).sum()
    across = (frame[row, column - 12 : column + 13] > 20_000).sum()
    assert down > across


def test_crosstalk_of_one_pair():
    settings = {
        **CHAMBER,
        **CLEAN,
        "crosstalk.pairs": {"1E>2F": 1e-3},
        "read_noise.sigma": 0.01,
        "spots.jitter": 0.0,
    }
    scene = Scene(MINI, 7, {}, settings)
    seen = frames(scene, exposure(level=0.9))
    first = canonical(seen[1][0][MINI.quadrant_slices("E")], "E").astype(float)
    second = canonical(seen[2][0][MINI.quadrant_slices("F")], "F").astype(float)
    own = canonical(seen[2][0][MINI.quadrant_slices("F")], "F")
    row, column = np.unravel_index(np.argmax(first), first.shape)
    near = slice(row - 3, row + 4), slice(column - 3, column + 4)
    assert own[near].max() < 5000, "a spot of the victim's own lies here"
    signal = first[near] - np.median(first[row - 12 : row + 13, column - 12 : column + 13])
    ghost = second[near] - np.median(second[row - 12 : row + 13, column - 12 : column + 13])
    assert (ghost * signal).sum() / (signal**2).sum() == pytest.approx(1e-3, rel=0.03)
