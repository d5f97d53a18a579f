"""Tails of gamma and chi-square against scipy."""

import numpy as np
import pytest
from scipy import special

from calcamp.analysis.chance import chi2_limit, gamma_tail


@pytest.mark.parametrize("shape", [0.5, 1, 1.5, 2, 4.5, 5, 12.5, 40])
def test_agrees_with_the_library_to_the_far_tail(shape):
    x = np.array([0.0, 1e-6, 0.1, 1.0, shape, 3 * shape + 2, 50.0, 300.0])
    np.testing.assert_allclose(gamma_tail(shape, x), special.gammaincc(shape, x), rtol=1e-11, atol=1e-300)


@pytest.mark.parametrize("shape", [0, -1, 0.3])
def test_other_shapes_are_refused(shape):
    with pytest.raises(ValueError, match="multiple of 1/2"):
        gamma_tail(shape, 1.0)


@pytest.mark.parametrize("dof", [1, 2, 3, 9, 30])
@pytest.mark.parametrize("chance", [0.5, 1e-3, 1e-7])
def test_limit_is_the_inverse(dof, chance):
    assert chi2_limit(dof, chance) == pytest.approx(special.chdtri(dof, chance), rel=1e-9)
