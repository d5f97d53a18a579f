"""Brighter-fatter effect: shifts of pixel boundaries from the coefficients a, and the correction of images.

Charge at a distance (i parallel, j serial) moves the boundaries of a pixel (Guyonnet et al. 2015, A&A 575, A41):
``serial[i, j]`` is the shift of the boundary towards higher columns, ``parallel[i, j]`` of that towards higher
rows, in 1/e-, j (i) counted from the pixel before the boundary. Mirror symmetry leaves
``serial(i, 1 - j) = -serial(i, j)`` and ``serial(-i, j) = serial(i, j)``. The area gained is

    a(i, j) = serial(i, j) - serial(i, j + 1) + parallel(i, j) - parallel(i + 1, j)

which is fewer equations than boundaries: shifts follow a smooth model (exponential integral of the distance) and
deviate from it as little as the measured a allow.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from calcamp.analysis.statistics import NAN, about


@dataclass(frozen=True)
class Kernel:
    """Boundary shifts; arrays are [lag parallel, lag serial], first quadrant."""

    serial: np.ndarray = field(metadata=about("1/e-", "shape (n, n): lags i = 0.., j = 1.."))
    parallel: np.ndarray = field(metadata=about("1/e-", "shape (n, n): lags i = 1.., j = 0.."))
    serial_err: np.ndarray = field(metadata=about("1/e-", "standard errors"))
    parallel_err: np.ndarray = field(metadata=about("1/e-", "standard errors"))
    scale: float = field(metadata=about("1/px", "p1 of the model p0 Ei(-p1 r) cos(angle)"))
    amplitude: float = field(metadata=about("1/e-", "p0"))
    flag: str = field(default="", metadata=about("", "why there is no kernel"))

    @property
    def ok(self) -> bool:
        return not self.flag

    @classmethod
    def from_rows(cls, rows: Sequence[Mapping]) -> Kernel:
        """From rows of the table ``bf_kernel`` of one channel."""
        n = max(int(row["distance"]) for row in rows)
        arrays = {name: np.zeros((n, n)) for name in ("serial", "serial_err", "parallel", "parallel_err")}
        for row in rows:
            lag, distance = int(row["lag"]), int(row["distance"]) - 1
            for name, array in arrays.items():
                array[(lag, distance) if name.startswith("serial") else (distance, lag)] = row[name]
        order = ("serial", "parallel", "serial_err", "parallel_err")
        return cls(*(arrays[name] for name in order), NAN, NAN)


def _unknowns(n: int) -> tuple[dict, dict]:
    """Index of serial(i, j), j >= 1, and parallel(i, j), i >= 1, among the unknowns."""
    serial = {(i, j): i * n + j - 1 for i in range(n) for j in range(1, n + 1)}
    parallel = {(i, j): n * n + (i - 1) * n + j for i in range(1, n + 1) for j in range(n)}
    return serial, parallel


def design(n: int) -> np.ndarray:
    """Matrix that makes a (n x n lags, row by row) of the boundary shifts."""
    serial, parallel = _unknowns(n)
    matrix = np.zeros((n * n, 2 * n * n))

    def add(row, where, lag, sign):
        # Beyond the last lag the shift is nil; j = 0 mirrors to j = 1.
        i, j = lag
        if where is serial and j <= 0:
            j, sign = 1 - j, -sign
        if where is parallel and i <= 0:
            i, sign = 1 - i, -sign
        if (i, j) in where:
            matrix[row, where[i, j]] += sign

    for i in range(n):
        for j in range(n):
            row = i * n + j
            add(row, serial, (i, j), 1.0)
            add(row, serial, (i, j + 1), -1.0)
            add(row, parallel, (i, j), 1.0)
            add(row, parallel, (i + 1, j), -1.0)
    return matrix


def _model(n: int, scale: float) -> np.ndarray:
    """Shifts of unit amplitude: Ei of the distance from the charge to the middle of the boundary, times the cosine."""
    from scipy.special import exp1

    serial, parallel = _unknowns(n)
    out = np.zeros(2 * n * n)
    for where, first in ((serial, True), (parallel, False)):
        for (i, j), k in where.items():
            along, across = (j - 0.5, i) if first else (i - 0.5, j)
            r = math.hypot(along, across)
            out[k] = exp1(scale * r) * along / r
    return out


def solve_kernel(a: np.ndarray, a_err: np.ndarray, n: int = 5) -> Kernel:
    """Boundary shifts from coefficients a.

    Parameters
    ----------
    a, a_err : ndarray, shape (lags, lags)
        1/e-, [parallel, serial].
    n : int
        Lags used.
    """
    n = min(n, a.shape[0])
    value, err = a[:n, :n].reshape(-1).copy(), a_err[:n, :n].reshape(-1)
    nothing = np.full((n, n), NAN)
    if not (np.isfinite(value).all() and (err > 0).all()):
        return Kernel(nothing, nothing, nothing, nothing, NAN, NAN, "no coefficients a")
    matrix = design(n)
    best = None
    outer = np.arange(1, n * n)
    weight = 1.0 / np.hypot(err[outer], 0.02 * np.abs(value[outer]))
    for scale in np.geomspace(0.1, 4.0, 60):
        shape = (matrix @ _model(n, scale))[outer]
        top = float(np.sum(weight**2 * shape * value[outer]))
        amplitude = top / float(np.sum(weight**2 * shape**2))
        chi2 = float(np.sum((weight * (value[outer] - amplitude * shape)) ** 2))
        if best is None or chi2 < best[0]:
            best = (chi2, scale, amplitude)
    _, scale, amplitude = best
    start = amplitude * _model(n, scale)
    # Least relative departure from the model, weighed against the errors of a.
    width = np.square(np.abs(start) + 1e-12)
    spread = matrix @ (width[:, None] * matrix.T)
    spread[np.diag_indices_from(spread)] += err**2
    gain = width[:, None] * matrix.T @ np.linalg.inv(spread)
    shifts = start + gain @ (value - matrix @ start)
    covariance = (gain * err**2) @ gain.T
    errors = np.sqrt(np.diag(covariance))
    half = n * n
    return Kernel(
        shifts[:half].reshape(n, n),
        shifts[half:].reshape(n, n),
        errors[:half].reshape(n, n),
        errors[half:].reshape(n, n),
        float(scale),
        float(amplitude),
    )


class Corrector:
    """Correction of images of one shape, with the kernel transformed once."""

    def __init__(self, kernel: Kernel, shape: tuple[int, int]):
        from scipy.fft import next_fast_len, rfft2

        n = kernel.serial.shape[0]
        self.shape, self.reach = shape, n + 1
        self.padded = tuple(next_fast_len(s + 2 * self.reach, real=True) for s in shape)
        serial, parallel = (np.zeros(self.padded, np.float32) for _ in range(2))
        for i in range(-n + 1, n):
            for j in range(-n + 1, n + 1):
                # Charge at +lag acts on the boundary: as a convolution the lag changes sign.
                sign, k = (1.0, j) if j >= 1 else (-1.0, 1 - j)
                if k <= n:
                    serial[-i, -j] = sign * kernel.serial[abs(i), k - 1]
                    parallel[-j, -i] = sign * kernel.parallel[k - 1, abs(i)]
        self.transforms = (rfft2(serial), rfft2(parallel))

    def shifts(self, charge: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Mean shift, px, of the boundaries towards higher columns and rows while `charge` (e-) is collected."""
        from scipy.fft import irfft2, rfft2

        r = self.reach
        wide = np.zeros(self.padded, np.float32)
        wide[: self.shape[0] + 2 * r, : self.shape[1] + 2 * r] = np.pad(charge, r, mode="symmetric")
        spectrum = rfft2(wide)
        cut = (slice(r, r + self.shape[0]), slice(r, r + self.shape[1]))
        # The charge that moves a boundary grows from nothing: half of the final shift on average.
        serial, parallel = (
            0.5 * irfft2(spectrum * transform, s=self.padded)[cut] for transform in self.transforms
        )
        return serial[:, :-1], parallel[:-1]

    @staticmethod
    def moved(shifts: tuple[np.ndarray, np.ndarray], light: np.ndarray) -> np.ndarray:
        """Charge that boundary shifts bring to each pixel from light on both sides of it, none to the outside."""
        serial, parallel = shifts
        out = np.zeros(light.shape, np.float32)
        flow = 0.5 * serial * (light[:, :-1] + light[:, 1:])
        out[:, :-1] += flow
        out[:, 1:] -= flow
        flow = 0.5 * parallel * (light[:-1] + light[1:])
        out[:-1] += flow
        out[1:] -= flow
        return out

    def correct(self, charge: np.ndarray, passes: int = 3) -> np.ndarray:
        """Charge as the light made it, e-; the sum over the image is kept.

        The collected charge moves the boundaries, the light that falls between them is what is wanted: the former is
        known, the latter is iterated.
        """
        shifts, light = self.shifts(charge), charge
        for _ in range(passes):
            light = charge - self.moved(shifts, light)
        return light


# ---- width ------------------------------------------------------------------------------------------------
PIXEL_UM = 12.0


@dataclass(frozen=True)
class Width:
    """Blur that the effect alone gives to a single bright pixel; arrays are per signal."""

    x: np.ndarray = field(metadata=about("um", "FWHM along the rows (serial)"))
    x_err: np.ndarray = field(metadata=about("um", "standard error"))
    y: np.ndarray = field(metadata=about("um", "FWHM along the columns (parallel)"))
    y_err: np.ndarray = field(metadata=about("um", "standard error"))
    ellipticity: np.ndarray = field(metadata=about("1", "(sx² - sy²)/(sx² + sy²)"))


def pixel_width(kernel: Kernel, charge: np.ndarray) -> Width:
    """FWHM that a single pixel of `charge` (e-) gets from the shifts of its own boundaries.

    Guyonnet et al. 2015, Eq. 11, on a pixel in the dark: neighbours receive w of the peak, and a Gaussian with that
    ratio at a distance of one pixel has sigma² = -12² / (2 ln w) um². This is the predecessor's figure, to be compared
    with Niemi et al. 2015.
    """
    charge = np.atleast_1d(np.asarray(charge, float))
    widths = np.full((2, len(charge)), NAN)
    errors = np.full((2, len(charge)), NAN)
    size = 2 * kernel.serial.shape[0] + 3
    corrector, middle = Corrector(kernel, (size, size)), size // 2
    for k, q in enumerate(charge):
        image = np.zeros((size, size), np.float32)
        image[middle, middle] = q
        after = image + corrector.moved(corrector.shifts(image), image)
        peak = float(after[middle, middle])
        neighbours = (after[middle, [middle - 1, middle + 1]], after[[middle - 1, middle + 1], middle])
        firsts = (
            (kernel.serial[0, 0], kernel.serial_err[0, 0]),
            (kernel.parallel[0, 0], kernel.parallel_err[0, 0]),
        )
        for axis, (values, (shift, err)) in enumerate(zip(neighbours, firsts, strict=True)):
            w = float(np.mean(values)) / peak
            if 0 < w < 1:
                widths[axis, k] = 2.3548 * PIXEL_UM / math.sqrt(-2.0 * math.log(w))
                errors[axis, k] = widths[axis, k] * abs(err / shift) / (2.0 * abs(math.log(w)))
    x2, y2 = widths[0] ** 2, widths[1] ** 2
    return Width(widths[0], errors[0], widths[1], errors[1], (x2 - y2) / (x2 + y2))


def niemi(wavelength_nm: float) -> tuple[float, float]:
    """FWHM along x and y, um, of a CCD273 at half full well (Niemi et al. 2015)."""
    return 41.0 * wavelength_nm**-0.24, 105.9 * wavelength_nm**-0.38
