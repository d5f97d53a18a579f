"""Spots: fits and moments against simulated optics, signs of e1 and e2, cosmic rays, masks, saturation."""

from __future__ import annotations

import numpy as np
import pytest

from calcamp.analysis import spots
from calcamp.simulate.optics import spot_image
from support import assert_pulls

GAIN, NOISE, SIDE = 3.5, 1.25, 33
PARTS = ("flux", "x", "y", "xx", "yy", "xy")


def make(rng, n, fwhm=2.0, electrons=5.9e5, e=0.05, level=4.0, offset=0.0, spread=0.5):
    """Stamps (n, s, s) ADU and the truth (n, 7), electrons drawn before gain, noise and rounding."""
    stamps, truth = np.empty((n, SIDE, SIDE)), np.empty((n, 7))
    total = (fwhm / spots.FWHM) ** 2
    for k in range(n):
        x, y = SIDE // 2 + rng.uniform(-spread, spread, 2)
        e1, e2 = e * rng.standard_normal(2)
        covariance = (total * (1 + e1), total * (1 - e1), total * e2)
        light = electrons * spot_image(x, y, covariance, size=48)[:SIDE, :SIDE] + level * GAIN
        adu = rng.poisson(light) / GAIN + rng.normal(0, NOISE, light.shape) + offset
        stamps[k] = np.rint(adu)
        truth[k] = (electrons / GAIN, x, y, *covariance, level + offset)
    return stamps, truth


def fit(stamps, good=None, **options):
    good = np.ones(stamps.shape, bool) if good is None else good
    level = spots.ring_background(stamps, good, 12.0)
    variance = np.maximum(stamps - level.level[:, None, None], 0) / GAIN + NOISE**2
    moments = spots.adaptive_moments(stamps, good, level.level, variance)
    start = spots.start_values(moments, level.level)
    return spots.fit_gaussians(stamps, good, GAIN, NOISE, start, **options), moments, level


# ---- accuracy --------------------------------------------------------------------------------------------
@pytest.mark.parametrize("fwhm", [1.6, 2.0, 2.4, 4.5])
@pytest.mark.parametrize("share", [0.05, 0.75])
def test_pulls_of_the_fit(fwhm, share):
    rng = np.random.default_rng(int(100 * fwhm + 1000 * share))
    stamps, truth = make(rng, 60, fwhm, electrons=share * 9.8e5)
    fits, _, _ = fit(stamps)
    assert not any(fits.reason)
    for name in PARTS:
        k = spots.PARAMETERS.index(name)
        assert_pulls((fits.values[:, k] - truth[:, k]) / fits.err(name), what=f"{name} at {fwhm} px")
    assert 0.97 < np.mean(fits.chi2 / fits.dof) < 1.03
    assert_shapes(fits, truth)


def assert_shapes(fits, truth):
    """Pulls of width and ellipticity, whose true values follow from the covariance matrix."""
    derived, size = fits.derived(), truth[:, 3] + truth[:, 4]
    for name, true in (
        ("fwhm", spots.FWHM * np.sqrt(size / 2)),
        ("e1", (truth[:, 3] - truth[:, 4]) / size),
        ("e2", 2 * truth[:, 5] / size),
        ("r2", size),
    ):
        assert_pulls((derived[name] - true) / derived[f"{name}_err"], what=name)


@pytest.mark.full
@pytest.mark.parametrize("fwhm", [1.6, 2.0, 2.4])
def test_pulls_of_the_fit_in_full(fwhm):
    stamps, truth = make(np.random.default_rng(int(10 * fwhm)), 1200, fwhm, electrons=0.75 * 9.8e5)
    fits, _, _ = fit(stamps)
    derived = fits.derived()
    for name in PARTS:
        k = spots.PARAMETERS.index(name)
        pulls = (fits.values[:, k] - truth[:, k]) / fits.err(name)
        assert_pulls(pulls, what=name)
        assert 0.90 < pulls.std() < 1.10
    assert_shapes(fits, truth)
    width = spots.FWHM * np.sqrt((truth[:, 3] + truth[:, 4]) / 2)
    bias = derived["fwhm"] - width
    assert abs(bias.mean()) < 2e-4 + 3 * bias.std() / np.sqrt(bias.size)


def test_errors_are_near_the_limit_of_photons():
    """Spec 5.1: dF/F = 1/sqrt(N), dx = sigma/sqrt(N), dFWHM/FWHM = 1/sqrt(2N), de = 1/sqrt(N), all x 1.0-1.2."""
    electrons = 0.75 * 9.8e5
    stamps, _ = make(np.random.default_rng(2), 40, 2.0, electrons, e=0.0)
    fits, _, _ = fit(stamps)
    d = fits.derived()
    root = np.sqrt(electrons)
    assert np.mean(fits.err("flux")) / (electrons / GAIN / root) < 1.2
    assert np.mean(fits.err("x")) / (2.0 / spots.FWHM / root) < 1.25  # 1.1e-3 px in the spec's table
    assert np.mean(d["fwhm_err"]) < 1.2 * 1.9e-3
    assert np.mean(d["e1_err"]) < 1.2 * 1.3e-3
    assert np.mean(d["e2_err"]) < 1.2 * 1.3e-3


def test_raw_frames_with_their_offset():
    """The offset has no photon noise: with `dark` the errors are those of a frame without it."""
    rng = np.random.default_rng(3)
    stamps, truth = make(rng, 60, 2.2, 3e5, offset=2800.0)
    fits, _, _ = fit(stamps, dark=2800.0)
    for name in PARTS:
        k = spots.PARAMETERS.index(name)
        assert_pulls((fits.values[:, k] - truth[:, k]) / fits.err(name), what=name)


# ---- signs -----------------------------------------------------------------------------------------------
@pytest.mark.parametrize("angle", [0, 20, 45, 70, 90, 110, 135, 160])
def test_signs_of_ellipticity(angle):
    """A spot elongated along an angle from FITS x (counter-clockwise) has e1 = e cos 2a, e2 = e sin 2a."""
    e, total = 0.15, 0.8
    e1, e2 = e * np.cos(2 * np.radians(angle)), e * np.sin(2 * np.radians(angle))
    light = (
        5e5 * spot_image(16.2, 15.7, (total * (1 + e1), total * (1 - e1), total * e2), size=48)[:SIDE, :SIDE]
    )
    # An independent check of the picture itself: light beyond two pixels lies along the angle.
    at = np.arange(SIDE)
    u = (at[None, :] - 16.2) * np.cos(np.radians(angle)) + (at[:, None] - 15.7) * np.sin(np.radians(angle))
    v = -(at[None, :] - 16.2) * np.sin(np.radians(angle)) + (at[:, None] - 15.7) * np.cos(np.radians(angle))
    assert (light * u**2).sum() > (light * v**2).sum()
    fits, moments, _ = fit((light / GAIN)[None])
    d = fits.derived()
    assert d["e1"][0] == pytest.approx(e1, abs=2e-3)
    assert d["e2"][0] == pytest.approx(e2, abs=2e-3)
    assert fits.get("x")[0] == pytest.approx(16.2, abs=1e-3)
    assert fits.get("y")[0] == pytest.approx(15.7, abs=1e-3)
    size = moments.xx + moments.yy
    assert (moments.xx - moments.yy)[0] / size[0] == pytest.approx(e1, abs=0.03)
    assert 2 * moments.xy[0] / size[0] == pytest.approx(e2, abs=0.03)


# ---- dirt ------------------------------------------------------------------------------------------------
def test_cosmic_rays_in_the_stamp_are_left_out():
    rng = np.random.default_rng(4)
    stamps, truth = make(rng, 30, 2.0, 4e5)
    for k in range(len(stamps)):
        row, column = 16 + rng.integers(3, 8), 16 + rng.integers(3, 8)
        stamps[k, row, column - 2 : column + 3] += 900.0
    fits, _, _ = fit(stamps)
    assert not any(fits.reason)
    assert (fits.n_rejected >= 3).all()
    for name in ("x", "y", "xx", "yy"):
        k = spots.PARAMETERS.index(name)
        assert_pulls((fits.values[:, k] - truth[:, k]) / fits.err(name), what=name)


def test_bad_pixels_are_masked():
    rng = np.random.default_rng(5)
    stamps, truth = make(rng, 30, 2.4, 4e5)
    good = np.ones(stamps.shape, bool)
    good[:, 14:19, 18] = False  # a bad column through the wing
    stamps[~good] = 65535.0
    fits, _, _ = fit(stamps, good)
    for name in ("flux", "x", "y"):
        k = spots.PARAMETERS.index(name)
        assert_pulls((fits.values[:, k] - truth[:, k]) / fits.err(name), what=name)


def test_nothing_to_fit_has_a_reason():
    empty = np.random.default_rng(6).normal(4, NOISE, (3, SIDE, SIDE))
    fits, moments, _ = fit(empty)
    lonely = np.full((1, SIDE, SIDE), np.nan)
    none, _, _ = fit(lonely)
    assert none.reason[0]
    for k in range(3):
        # noise may look like a faint spot, but never like a bright one
        assert fits.reason[k] or fits.get("flux")[k] < 6 * fits.err("flux")[k] + 60
    assert not moments.converged.all() or (moments.flux < 200).all()


def test_stamps_at_the_edge_of_the_area():
    frame = np.arange(100 * 80, dtype=float).reshape(100, 80)
    stamps, corners, there = spots.cut_stamps(frame, [2.0, 40.0, np.nan], [50.0, 98.0, 5.0], 5, None)
    assert there.tolist() == [True, True, False]
    assert np.isnan(stamps[0][:, :3]).all()
    assert np.isfinite(stamps[0][:, 3:]).all()
    assert stamps[1][5 - (98 - 98), 5] == frame[98, 40]
    assert corners[1].tolist() == [93, 35]


def test_aperture_holds_the_flux():
    rng = np.random.default_rng(7)
    stamps, truth = make(rng, 60, 2.0, 0.25 * 9.8e5)
    fits, _, level = fit(stamps)
    good = np.ones(stamps.shape, bool)
    flux, err = spots.aperture_flux(stamps, good, level, fits.get("x"), fits.get("y"), 8.0, GAIN)
    assert_pulls((flux - truth[:, 0]) / err, what="aperture")
    assert np.mean(np.abs(fits.get("flux") / truth[:, 0] - 1)) < 3e-3


def test_old_width_has_pixel_and_wings_in_it():
    """For a FWHM of 2.0 px the box moments read 2.11 px (spec 1.6)."""
    light = spot_image(16.0, 16.0, ((2.0 / spots.FWHM) ** 2,) * 2 + (0.0,), size=48)[:SIDE, :SIDE] * 1e5
    width_x, width_y = spots.box_width(
        light[None], np.ones((1, SIDE, SIDE), bool), np.zeros(1), [16.0], [16.0]
    )
    assert width_x[0] == pytest.approx(2.11, abs=0.01)
    assert width_y[0] == pytest.approx(2.11, abs=0.01)


def test_trails_have_the_sign_of_the_trail():
    light = spot_image(16.1, 15.9, (0.8, 0.7, 0.0), size=48)[:SIDE, :SIDE] * 2e5
    trailed = light.copy()
    trailed[:, 1:] += 0.004 * light[:, :-1]
    trailed[:, 2:] += 0.004 * light[:, :-2]
    trailed[:, 3:] += 0.004 * light[:, :-3]
    fits, _, _ = fit(trailed[None])
    good = np.ones((1, SIDE, SIDE), bool)
    made = spots.residual_trails(trailed[None], good, fits, np.array([GAIN]), np.array([NOISE]), np.zeros(1))
    # part of a short trail is taken for a shift of the spot
    assert made["x"][0] > 5e-4
    assert made["x"][0] > 5 * abs(made["y"][0])


# ---- brighter-fatter -----------------------------------------------------------------------------------------
def true_kernel(a00=-0.87e-6, n=4):
    """The simulator's boundary shifts as a kernel."""
    from calcamp.analysis.brighter_fatter import Kernel
    from calcamp.simulate.optics import boundary_kernel

    upper, right = boundary_kernel(a00)
    serial, parallel = np.zeros((n, n)), np.zeros((n, n))
    for i in range(4):
        for j in range(1, 4):
            serial[i, j - 1], parallel[j - 1, i] = right[3 + i, 3 + j], upper[3 + j, 3 + i]
    return Kernel(serial, parallel, serial * 0, parallel * 0, np.nan, np.nan)


def test_brighter_fatter_correction_takes_the_growth_away():
    """PSF01's levels and frames, five spots: the slope of FWHM against peak is gone within 3 errors and 3 % of itself."""
    from calcamp.analysis.brighter_fatter import Corrector
    from calcamp.analysis.point import fit_growth, mean_with_scatter
    from calcamp.simulate.optics import collect

    rng = np.random.default_rng(11)
    corrector = Corrector(true_kernel(), (SIDE, SIDE))
    level = np.repeat([0.05, 0.25, 0.5, 0.75, 0.9], [20, 15, 10, 4, 4])
    slopes, errors = {"raw": [], "corrected": []}, {"raw": [], "corrected": []}
    for _ in range(5):
        places = SIDE // 2 + rng.uniform(-0.5, 0.5, (len(level), 2))
        light = np.array(
            [9.8e5 * f * spot_image(x, y, (0.72, 0.72, 0.0), size=48)[:SIDE, :SIDE]
             for f, (x, y) in zip(level, places, strict=True)]
        )  # fmt: skip
        charge = collect(rng, light, np.zeros_like(light), -0.87e-6, 16)
        stamps = np.rint(charge / GAIN + rng.normal(0, NOISE, charge.shape))
        good = np.ones(stamps.shape, bool)
        true = spots.corrected(stamps, good, np.zeros(len(stamps)), GAIN, corrector)
        assert np.abs(true.sum(axis=(1, 2)) / stamps.sum(axis=(1, 2)) - 1).max() < 1e-6
        for kind, images in (("raw", stamps), ("corrected", true)):
            fits, _, _ = fit(images)
            width = fits.derived()
            share = 0.19  # of the light in the central pixel
            line = fit_growth(fits.get("flux") * share, width["fwhm"], width["fwhm_err"])
            slopes[kind].append(line.slope)
            errors[kind].append(line.slope_err)
    raw, raw_err, _, _ = mean_with_scatter(slopes["raw"], errors["raw"])
    left, left_err, _, _ = mean_with_scatter(slopes["corrected"], errors["corrected"])
    assert raw > 20 * raw_err
    assert left_err < 1.5 * 1.2e-4  # spec: 1.2e-4 px per 10 kADU of five spots
    assert abs(left) < 3 * left_err + 0.03 * raw


def test_a_cosmic_ray_beside_the_spot_is_not_its_peak():
    light = 5e4 * spot_image(20.2, 19.9, (0.72, 0.72, 0.0), size=48)[:41, :41]
    stamps = np.array([light, light])
    stamps[1, 8, 30] = 40_000.0
    good = np.ones(stamps.shape, bool)
    made = spots.adaptive_moments(stamps, good, np.zeros(2), stamps / GAIN + NOISE**2)
    assert made.peak == pytest.approx(light.max())


def test_a_bright_track_is_not_taken_for_a_faint_spot():
    """A spot at 5 % of saturation on any place of a pixel, and a track with ten times its light."""
    rng = np.random.default_rng(12)
    places = 20 + rng.uniform(-0.5, 0.5, (30, 2))
    stamps = np.array([1.4e4 * spot_image(x, y, (0.72, 0.72, 0.0), size=48)[:41, :41] for x, y in places])
    for k, stamp in enumerate(stamps):
        for step in range(12):  # slanted, and some two pixels wide
            stamp[5 + step // 2, 10 + step] += 12_000.0
            stamp[6 + step // 2, 10 + step] += 6_000.0 * (k % 2)
    stamps = np.rint(stamps + rng.normal(0, NOISE, stamps.shape))
    good = np.ones(stamps.shape, bool)
    made = spots.adaptive_moments(stamps, good, np.zeros(30), np.maximum(stamps, 0) / GAIN + NOISE**2)
    away = np.hypot(made.x - places[:, 0], made.y - places[:, 1])
    assert np.median(away[::2]) < 0.1
    assert (away[::2] < 0.5).all()
    assert made.fwhm[::2] == pytest.approx(2.0, abs=0.1)
