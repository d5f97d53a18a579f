"""Photon transfer curves drawn about the model: what the fits see, without images."""

import numpy as np

from calcamp.analysis import ptc
from calcamp.simulate.plugins.flat import bf_coefficients


def model_points(rng, mu, pixels, gain=3.5, noise=1.3, lags=8):
    """Covariances drawn about Eq. 20: what the fit sees, without images."""
    a = np.zeros((lags, lags))
    a[:3, :3] = bf_coefficients()
    n = np.zeros((lags, lags))
    n[0, 0] = (noise * gain) ** 2
    power = ptc.powers(mu, np.ones((len(mu), 3)))
    c = np.einsum("pk,kij->pij", power, ptc.coefficients(gain, a, None, n))
    c[:, 0, 0] += 1 / 12
    err = c[:, :1, :1] / np.sqrt(np.full((lags, lags), 2.0 * pixels))
    err[:, 0, :] *= np.sqrt(2)
    err[:, 1:, 0] *= np.sqrt(2)
    err[:, 0, 0] *= np.sqrt(2)
    return c + err * rng.standard_normal(c.shape), err, a


def ptc01(top=0.85):
    """Signals of the pairs of PTC01 below the turn-off, ADU."""
    levels = {5: 5, 10: 5, 20: 5, 30: 5, 50: 5, 70: 5, 80: 5, 90: 5}
    return np.array([p / 100 * 65536 for p, n in levels.items() if p / 100 < top for _ in range(n)])
