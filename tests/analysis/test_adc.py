"""Code density of converters with known code widths."""

from __future__ import annotations

import numpy as np
import pytest
from tests.support import assert_pulls

from calcamp.analysis.adc import code_density


def histogram(edges, seed, pixels=4_000_000, mean=30000.0, sigma=900.0):
    """Histogram of a Gaussian signal through a converter whose code k spans edges[k] to edges[k + 1]."""
    values = np.random.default_rng(seed).normal(mean, sigma, pixels)
    return np.bincount(np.clip(np.searchsorted(edges, values, side="right") - 1, 0, 65535), minlength=65536)


IDEAL = np.arange(65537) - 0.5


def test_an_ideal_converter_has_none():
    found = code_density(histogram(IDEAL, 1))
    assert found.codes.size > 3000
    assert_pulls(found.dnl / found.dnl_err, n=found.codes.size // 2, excess=0.03)
    assert found.rms < 0.01
    assert found.missing == ()
    assert abs(found.worst_significance) < 5.5


def test_a_wide_code_is_found():
    edges = IDEAL.copy()
    edges[30101:] += 0.4  # code 30100 is 1.4 steps wide
    found = code_density(histogram(edges, 2))
    assert found.worst_code == 30100
    assert found.worst == pytest.approx(0.4, abs=0.12)


def test_a_missing_code_is_found():
    edges = IDEAL.copy()
    edges[29901] = edges[29900]
    found = code_density(histogram(edges, 3))
    assert found.missing == (29900,)


def test_a_bit_of_wrong_weight_shows_where_it_comes_on():
    # The bit of 64 is 0.3 steps heavier: the code before it comes on is narrower, when it comes on codes are skipped.
    codes = np.arange(65537)
    edges = IDEAL.copy()
    edges[(codes & 127) == 64] += 0.3
    found = code_density(histogram(edges, 4))
    assert found.bits[6] == pytest.approx(-0.3, abs=5 * found.bits_err[6])
    others = np.delete(np.arange(16), [6])
    pulls = (found.bits / found.bits_err)[others]
    assert np.nanmax(np.abs(pulls[np.isfinite(pulls)][3:])) < 6


def test_a_narrow_level_is_not_taken_for_codes():
    counts = histogram(IDEAL, 5)
    counts += histogram(IDEAL, 6, mean=2650.0, sigma=1.2)
    found = code_density(counts)
    assert found.codes.min() > 20000
    assert abs(found.worst_significance) < 5.5


def test_too_few_pixels_say_nothing():
    found = code_density(np.zeros(65536, int))
    assert found.codes.size == 0
    assert np.isnan(found.rms)
    assert found.worst_code == -1
