"""Forward model of a spot at several levels: diffraction width, blur, growth."""

from __future__ import annotations

import math

import numpy as np
import pytest

from calcamp.analysis.forward import fit_spot
from calcamp.analysis.spots import FWHM
from calcamp.simulate.optics import collect, spot_image
from support import assert_coverage, assert_pulls

SIDE, GAIN, NOISE = 21, 3.5, 1.25


def stamps_of(rng, airy=0.9, variance=0.45, growth=0.02, size=48):
    """Stamps of five levels of one spot; its light is laid out on `size` px."""
    stamps, start = [], []
    for level in (0.05, 0.25, 0.5, 0.75, 0.9):
        v = variance + growth * level
        x, y = 10 + rng.uniform(-0.5, 0.5, 2)
        first = (size - SIDE) // 2
        light = spot_image(x + first, y + first, (v, v, 0.0), airy_fwhm=airy, size=size)
        light = 9.8e5 * level * light[first : first + SIDE, first : first + SIDE]
        stamps.append(np.rint(rng.poisson(light) / GAIN + rng.normal(0, NOISE, light.shape)))
        start.append((9.8e5 * level / GAIN, x + 0.1, y - 0.1, 0.6, 0.0))
    return np.array(stamps), np.array(start)


def test_optics_and_blur_are_told_apart():
    rng = np.random.default_rng(1)
    pulls = []
    for _ in range(5):
        stamps, start = stamps_of(rng, size=144)
        made = fit_spot(stamps, np.ones(stamps.shape, bool), start, GAIN, NOISE)
        assert not made.reason
        assert 0.85 < made.chi2_dof < 1.15
        assert abs(made.airy - 0.9) < 0.03
        pulls.append(
            [(made.airy - 0.9) / made.airy_err, (made.blur - FWHM * math.sqrt(0.45)) / made.blur_err]
        )
    pulls = np.array(pulls)
    assert_pulls(pulls[:, 0], excess=0.1, what="diffraction width")
    assert_pulls(pulls[:, 1], excess=0.1, what="blur")


def test_too_few_levels():
    stamps, start = stamps_of(np.random.default_rng(2))
    assert fit_spot(stamps[:2], np.ones((2, SIDE, SIDE), bool), start[:2], GAIN, NOISE).reason


@pytest.mark.full
@pytest.mark.parametrize(("airy", "variance"), [(0.9, 0.45), (0.66, 0.57), (1.2, 0.25)])
def test_posterior_covers_the_truth(airy, variance):
    """60 spots of each kind, light laid out far beyond the stamp: pulls and coverage of diffraction width, blur, growth."""
    rng = np.random.default_rng(int(1000 * airy))
    pulls = []
    for _ in range(60):
        stamps, start = stamps_of(rng, airy, variance, size=144)
        made = fit_spot(stamps, np.ones(stamps.shape, bool), start, GAIN, NOISE)
        assert not made.reason
        peak = 9.8e5 / GAIN * spot_image(24, 24, (variance, variance, 0.0), airy_fwhm=airy).max() / 1e4
        pulls.append(
            [
                (made.airy - airy) / made.airy_err,
                (made.blur - FWHM * math.sqrt(variance)) / made.blur_err,
                (made.growth - 0.02 / peak) / made.growth_err,
            ]
        )
    pulls = np.array(pulls)
    for k, name in enumerate(("diffraction width", "blur", "growth")):
        assert_pulls(pulls[:, k], bias=0.1, excess=0.1, what=name)
    for confidence, reach in ((0.6827, 1.0), (0.9545, 2.0)):
        assert_coverage(np.abs(pulls) < reach, confidence)


@pytest.mark.full
def test_the_brighter_fatter_effect_is_corrected_first():
    """Collected charge, kernel worked out from the coefficients of flats: corrected, nothing stays in the diffraction width."""
    from calcamp.analysis.brighter_fatter import Corrector, solve_kernel
    from calcamp.analysis.spots import corrected
    from calcamp.simulate.plugins.flat import bf_coefficients

    rng, a = np.random.default_rng(5), np.pad(bf_coefficients(), ((0, 2), (0, 2)))
    corrector = Corrector(solve_kernel(a, np.full((5, 5), 1e-9), 4), (SIDE, SIDE))
    good, airy = np.ones((5, SIDE, SIDE), bool), {"raw": [], "corrected": []}
    for _ in range(12):
        stamps, start = [], []
        for level in (0.05, 0.25, 0.5, 0.75, 0.9):
            x, y = 24 + rng.uniform(-0.5, 0.5, 2)
            light = 9.8e5 * level * spot_image(x, y, (0.45, 0.45, 0.0), airy_fwhm=0.9)[None]
            charge = collect(rng, light, np.zeros_like(light), -0.87e-6, 16)[0, 14:35, 14:35]
            stamps.append(np.rint(charge / GAIN + rng.normal(0, NOISE, charge.shape)))
            start.append((9.8e5 * level / GAIN, x - 14, y - 14, 0.6, 0.0))
        raw, start = np.array(stamps), np.array(start)
        for kind, images in (("raw", raw), ("corrected", corrected(raw, good, np.zeros(5), GAIN, corrector))):
            made = fit_spot(images, good, start, GAIN, NOISE)
            airy[kind].append((made.airy - 0.9) / made.airy_err)
            if kind == "corrected":
                assert abs(made.growth) < 4 * made.growth_err
    assert np.mean(airy["raw"]) < -3
    assert_pulls(airy["corrected"], bias=0.2, excess=0.1, what="diffraction width, corrected")
