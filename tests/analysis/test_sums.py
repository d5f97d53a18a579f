"""Sums over frames against plain numpy."""

import warnings

import numpy as np
import pytest

from calcamp.analysis.sums import block_means


@pytest.mark.parametrize(
    ("dtype", "shape", "block"),
    [("<u2", (64, 80), 8), (">f4", (31, 45), 7), (">i2", (40, 40), 1), ("<f8", (9, 20), 10)],
)
def test_block_means_equal_those_of_numpy(rng, dtype, shape, block):
    image = (1000 + 100 * rng.normal(size=shape)).astype(dtype)
    rows, columns = shape[0] // block, shape[1] // block
    blocks = image[: rows * block, : columns * block].astype(float).reshape(rows, block, columns, block)
    found = block_means(image, block)
    assert found.dtype == np.float32
    assert found.shape == (rows, columns)
    np.testing.assert_allclose(found, blocks.mean(axis=(1, 3)), rtol=1e-6)


def test_block_means_leave_out_what_is_not_finite(rng):
    image = rng.normal(100, 1, (32, 48)).astype(np.float32)
    image[3, 5], image[10, 11] = np.nan, np.inf
    image[16:24, 8:16] = np.nan
    cleaned = np.where(np.isfinite(image), image, np.nan).astype(float)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = np.nanmean(cleaned.reshape(4, 8, 6, 8).swapaxes(1, 2), axis=(2, 3))
    found = block_means(image, 8)
    assert np.isnan(found[2, 1])
    assert np.isnan(found).sum() == 1
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_an_image_smaller_than_a_block_has_none():
    assert block_means(np.ones((3, 20), np.float32), 4).shape == (0, 5)
