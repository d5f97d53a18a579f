"""Images of point sources: optics and detector blur, integrated over pixels.

Everything is done in Fourier space, where blurs multiply. The image of an aberration-free telescope is
band-limited, so sampling it finely enough and folding the spectrum onto the pixel grid is exact; with a
Gaussian of sigma 0.4 px or more what is folded wrongly is below 1e-8.
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np

SIZE = 48  # px, side of a stamp
OVERSAMPLING = 3
SIGMA_PER_FWHM = 1.0 / math.sqrt(8.0 * math.log(2.0))
#: FWHM of the Airy pattern in units of wavelength times focal ratio.
_AIRY_FWHM = 1.02899


@lru_cache(maxsize=4)
def _frequencies(size: int, over: int):
    f = np.fft.fftfreq(size * over, d=1.0 / over)
    return f, np.sinc(f)


@lru_cache(maxsize=64)
def _airy_mtf(fwhm: float, size: int, over: int) -> np.ndarray:
    """Modulation transfer of a round pupil whose Airy pattern has `fwhm` px."""
    f, _ = _frequencies(size, over)
    cutoff = _AIRY_FWHM / fwhm
    s = np.clip(np.hypot(f[:, None], f[None, :]) / cutoff, 0.0, 1.0)
    return 2.0 / np.pi * (np.arccos(s) - s * np.sqrt(1.0 - s * s))


def spot_image(
    x: float,
    y: float,
    covariance,
    airy_fwhm: float | None = None,
    size: int = SIZE,
    over: int = OVERSAMPLING,
) -> np.ndarray:
    """Share of a spot's light in each pixel, [row y, column x], sum 1 (less what falls outside).

    Parameters
    ----------
    x, y : centre in the stamp, px; pixel centres at integers.
    covariance : (xx, yy, xy) of the Gaussian blur, px², without the pixel.
    airy_fwhm : of the diffraction pattern that the Gaussian blurs, px; None: the Gaussian alone.
    """
    f, pixel = _frequencies(size, over)
    xx, yy, xy = covariance
    line_x = np.exp(-2.0 * np.pi**2 * xx * f**2 - 2j * np.pi * f * x) * pixel
    line_y = np.exp(-2.0 * np.pi**2 * yy * f**2 - 2j * np.pi * f * y) * pixel
    spectrum = line_y[:, None] * line_x[None, :]
    if xy:
        spectrum = spectrum * np.exp(-4.0 * np.pi**2 * xy * np.outer(f, f))
    if airy_fwhm:
        spectrum = spectrum * _airy_mtf(airy_fwhm, size, over)
    # Sampling at pixel centres folds the fine spectrum onto the coarse one.
    folded = spectrum.reshape(over, size, over, size).sum(axis=(0, 2))
    return np.maximum(np.fft.ifft2(folded).real, 0.0)


def central_share(fwhm: float) -> float:
    """Share of a Gaussian spot's light in the pixel that it is centred on."""
    return math.erf(0.5 / (fwhm * SIGMA_PER_FWHM * math.sqrt(2.0))) ** 2


@lru_cache(maxsize=8)
def boundary_kernel(a00: float, reach: int = 3) -> tuple[np.ndarray, np.ndarray]:
    """Shift of the upper and of the right boundary of a pixel per electron in its neighbours, px/e-.

    Arrays [2 reach + 1, 2 reach + 1], the pixel itself in the middle. They are those of the sensor that the flat
    source sees: areas of pixels change as its coefficients a say, in proportion to `a00` (1/e-, negative), the
    change of a pixel's own area. Areas leave the shifts open by a curl; as fields of charges have none, shifts are
    differences of a potential (Coulton et al. 2018), a(d) its Laplacian.
    """
    from calcamp.simulate.plugins.flat import bf_coefficients

    size = 64
    quarter = bf_coefficients() * (a00 / bf_coefficients()[0, 0])
    n = len(quarter)
    a = np.zeros((size, size))
    for i in range(1 - n, n):
        for j in range(1 - n, n):
            a[i, j] = quarter[abs(i), abs(j)]
    k = 2.0 * np.cos(2.0 * np.pi * np.fft.fftfreq(size)) - 2.0
    laplacian = k[:, None] + k[None, :]
    laplacian[0, 0] = 1.0  # a sums to nothing
    potential = np.fft.ifft2(np.fft.fft2(a) / laplacian).real
    potential = np.roll(potential, (size // 2, size // 2), (0, 1))
    right = np.roll(potential, 1, 1) - potential  # charge at d: of the pixel on the right less of this one
    upper = np.roll(potential, 1, 0) - potential
    cut = slice(size // 2 - reach, size // 2 + reach + 1)
    return upper[cut, cut].copy(), right[cut, cut].copy()


def collect(rng, mean: np.ndarray, charge: np.ndarray, a00: float, slices: int) -> np.ndarray:
    """Charge collected from light of `mean` (n, rows, columns), e-, in time slices, brighter-fatter included.

    Each slice sees the boundaries that the charge so far has moved; the first slice sees none of its own, so
    the effect is made larger by n/(n - 1), which gives the mean over the exposure that many slices would.
    `charge` is what the pixels held before. With `rng` None the mean is collected.
    """
    if not a00 or not mean.size:
        return mean.copy() if rng is None else rng.poisson(mean).astype(float)
    upper, right = boundary_kernel(a00)
    collected = np.zeros_like(mean)
    part, own = mean / slices, slices / max(slices - 1, 1)
    for _ in range(slices):
        light = part + _moved(part, own * collected + charge, upper, right)
        np.maximum(light, 0.0, out=light)
        collected += light if rng is None else rng.poisson(light)
    return collected


def _moved(light: np.ndarray, charge: np.ndarray, upper: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Light that crosses from pixel to pixel because their boundaries have moved."""
    change = np.zeros_like(light)
    across = _correlate(charge, right)[:, :, :-1] * 0.5 * (light[:, :, :-1] + light[:, :, 1:])
    change[:, :, :-1] += across
    change[:, :, 1:] -= across
    along = _correlate(charge, upper)[:, :-1, :] * 0.5 * (light[:, :-1, :] + light[:, 1:, :])
    change[:, :-1, :] += along
    change[:, 1:, :] -= along
    return change


def _correlate(charge: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    reach = kernel.shape[0] // 2
    rows, columns = charge.shape[1:]
    wide = np.pad(charge, ((0, 0), (reach, reach), (reach, reach)))
    out = np.zeros_like(charge)
    for i in range(kernel.shape[0]):
        for j in range(kernel.shape[1]):
            out += kernel[i, j] * wide[:, i : i + rows, j : j + columns]
    return out


def bleed(charge: np.ndarray, full_well: float) -> None:
    """Charge above `full_well` spills along the columns, half to each side, into the next free pixels."""
    for column in np.nonzero((charge > full_well).any(axis=0))[0]:
        line = charge[:, column].astype(float)
        for row in np.nonzero(line > full_well)[0]:
            excess, line[row] = line[row] - full_well, full_well
            for step in (1, -1):
                rest, at = 0.5 * excess, row + step
                while rest > 0 and 0 <= at < line.size:
                    taken = min(rest, max(full_well - line[at], 0.0))
                    line[at] += taken
                    rest -= taken
                    at += step
        charge[:, column] = line
