"""Power spectrum of the read-out stream: the pixels in the order and at the times they were read.

A line is read at one pixel per pixel time, then nothing is sampled until the next line. The spectrum is
made from frames minus the mean frame (no fixed pattern), in two steps that keep the true sampling
times: a Fourier transform along each line, and one across the lines of each frequency with the phase of the
lines' start. Narrow interference then stands out coherently over the whole frame.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np

from calcamp.analysis.statistics import NAN, about, clipped


@dataclass(frozen=True)
class Peak:
    """A narrow line of the spectrum."""

    frequency: float = field(metadata=about("Hz", "of the peak; folded at half the pixel rate"))
    frequency_err: float = field(metadata=about("Hz", "spacing of the bins as a uniform error, and noise"))
    amplitude: float = field(metadata=about("ADU", "of the sine wave in a frame"))
    amplitude_err: float
    ratio: float = field(metadata=about("1", "power over the local noise power"))
    log10_chance: float = field(
        metadata=about(
            "1", "log10 of the probability that noise makes one such peak anywhere in the spectrum"
        )
    )


@dataclass(frozen=True)
class Spectrum:
    """One-sided power spectral density of the noise of one frame."""

    frequency: np.ndarray = field(metadata=about("Hz", "of `power`"))
    power: np.ndarray = field(metadata=about("ADU²/Hz", "power spectral density"))
    power_err: np.ndarray
    component: np.ndarray = field(metadata=about("", "rows: from row means; pixels: from pixels along lines"))
    peaks: tuple[Peak, ...]
    resolution: float = field(metadata=about("Hz", "1 / duration of the read-out"))
    residuals: int


def line_time(toi_ro: float, columns: int, pixel_time: float, extra: int = 0) -> float:
    """Seconds from line to line: four clock steps of `toi_ro` us, then the pixels of a line.

    `extra` pixels are clocked and not stored: the duration model of the scripts has 9 (29 overscan pixels,
    of which a frame holds 20).
    """
    return 4e-6 * toi_ro + pixel_time * (columns + extra)


def read_out_spectrum(
    residuals: Iterable[np.ndarray],
    frames: int,
    pixel_time: float,
    line_time: float,
    chance: float = 1e-3,
    most: int = 20,
) -> Spectrum:
    """Spectrum and significant peaks from frames minus their mean.

    Parameters
    ----------
    residuals : iterable of (rows, columns) arrays, ADU
        Frames minus the mean frame; only one is in memory at a time. NaN is left out.
    frames : int
        Frames in that mean, at least 2: a residual has 1 − 1/frames of the power of a frame.
    pixel_time, line_time : float
        Seconds from pixel to pixel, and from the start of a line to the start of the next.
    chance : float
        Peaks are listed when noise alone makes one as high in this share of spectra.
    most : int
        At most so many peaks, the most significant first.

    Notes
    -----
    The power of a bin over the local noise is exponential for noise, so K residuals give a gamma
    distribution; the probability is multiplied by the number of independent bins. Side lobes of the window
    (copies at multiples of the line rate, because of the pauses) are recognised by place and height.
    The amplitude is that of the highest bin over the response there to a frequency between the bins.
    The interference has another phase in every frame, so the mean frame holds 1/√frames of it: that is part
    of the error of the amplitude.
    """
    lines = rows_power = ratio = power = noise = None
    number = 0
    window = None
    for residual in residuals:
        work = _quiet(residual)
        window = window or _Window.of(work.shape, pixel_time, line_time)
        parts = _two_steps(work, window)
        row_power = _row_power(work, line_time)
        if number == 0:
            lines, power, noise, ratio, rows_power = (
                parts[0],
                parts[1],
                parts[2],
                parts[1] / parts[2],
                row_power,
            )
        else:
            lines, power, noise = lines + parts[0], power + parts[1], noise + parts[2]
            ratio, rows_power = ratio + parts[1] / parts[2], rows_power + row_power
        number += 1
    if number == 0 or frames < 2:
        empty = np.empty(0)
        return Spectrum(empty, empty, empty, np.empty(0, str), (), NAN, 0)
    norm = number * (1 - 1 / frames)
    peaks = _peaks(ratio / number, power / norm, noise / norm, number, frames, window, chance, most)
    frequency, density, err, component = _density(lines / norm, rows_power / norm, number, window)
    return Spectrum(frequency, density, err, component, peaks, 1 / (window.rows * line_time), number)


@dataclass(frozen=True)
class _Window:
    """Sampling of a frame."""

    rows: int
    columns: int
    length: int
    pixel_time: float
    line_time: float

    @classmethod
    def of(cls, shape, pixel_time, line_time) -> _Window:
        """The transform along lines is padded to a line's time at least: copies at the line rate are told apart."""
        rows, columns = shape
        least = max(columns, round(line_time / pixel_time))
        return cls(rows, columns, 1 << (least - 1).bit_length(), pixel_time, line_time)

    @property
    def half(self) -> int:
        """Frame bins to either side of a line bin, so that every frequency is covered once."""
        return min(math.ceil(0.5 * self.rows * self.line_time * self.step), self.rows // 2 - 1)

    @property
    def step(self) -> float:
        """Spacing of the frequencies of the first step, Hz."""
        return 1 / (self.length * self.pixel_time)

    @property
    def weight(self) -> float:
        """Sum of the window over all pixels."""
        return float(np.hanning(self.rows + 2)[1:-1].sum()) * self.columns

    def frequency(self, j, m):
        """Frequency of line bin `j` and frame bin `m`, Hz."""
        return j * self.step + m / (self.rows * self.line_time)


def _quiet(residual: np.ndarray) -> np.ndarray:
    """float32 residual without its mean; NaN and values beyond 5 sigma (cosmic rays) set to 0."""
    stride = max(1, int(math.sqrt(residual.size / 40_000)))
    sample = clipped(residual[::stride, ::stride], 5.0, rounded=0)
    work = residual.astype(np.float32)
    work -= np.float32(sample.mean)
    work[~(np.abs(work) <= np.float32(5 * math.hypot(sample.std, 0.41)))] = 0.0
    return work


@lru_cache(maxsize=1)
def _phases(window: _Window) -> np.ndarray:
    """Phase of the start of each line at each line frequency, times a Hann window, (rows, bins) complex64.

    The window keeps the far side lobes of a strong line from hiding weak ones.
    """
    frequencies = np.arange(window.length // 2 + 1) * window.step
    taper = np.hanning(window.rows + 2)[1:-1].astype(np.float32)
    # start of row 64 a + b: product of two short tables instead of millions of exponentials
    tables = []
    for rows in (np.arange(64), 64 * np.arange(-(-window.rows // 64))):
        tables.append(
            np.exp(-2j * np.pi * np.outer(rows * window.line_time, frequencies)).astype(np.complex64)
        )
    phases = np.empty((window.rows, frequencies.size), np.complex64)
    for block, coarse in enumerate(tables[1]):
        rows = slice(64 * block, min(64 * block + 64, window.rows))
        np.multiply(tables[0][: rows.stop - rows.start], coarse, out=phases[rows])
        phases[rows] *= taper[rows, None]
    return phases


def _two_steps(work, window):
    """(mean power along lines (bins,), power at fine frequencies (fine, bins), local noise (1, bins))."""
    from scipy import fft

    along = fft.rfft(work, window.length, axis=1)
    mean_power = np.einsum("ij,ij->j", along.real, along.real) + np.einsum("ij,ij->j", along.imag, along.imag)
    along *= _phases(window)
    across = fft.fft(along, axis=0, overwrite_x=True)
    half = window.half
    chosen = np.concatenate([across[-half:], across[: half + 1]])
    fine = chosen.real**2 + chosen.imag**2
    # The median of few bins is rough and a strong line fills its bin: smooth over neighbours.
    local = np.median(fine[::4], axis=0, keepdims=True) / np.float32(math.log(2))
    padded = np.pad(local[0], 20, mode="edge")
    smooth = np.median(np.lib.stride_tricks.sliding_window_view(padded, 41), axis=1)[None, :].astype(
        np.float32
    )
    # At the lowest frequencies row noise rises steeply: there each bin stands for itself.
    smooth[:, :24] = local[:, :24]
    local = smooth
    return mean_power.astype(np.float64) / window.rows, fine, np.maximum(local, np.float32(1e-20))


def _row_power(work, line_time) -> np.ndarray:
    """One-sided power spectral density of the row means of a difference, ADU²/Hz, from 1/duration up."""
    from scipy import fft

    means = work.mean(axis=1, dtype=np.float64)
    transform = fft.rfft(means - means.mean())
    return (np.abs(transform) ** 2 * 2 * line_time / len(means))[1:]


def _density(lines, rows_power, number, window):
    """Frequencies, densities, errors and component of the table: row means below half the line rate."""
    low = np.arange(1, len(rows_power) + 1) / (window.rows * window.line_time)
    edges = np.unique(np.rint(np.geomspace(1, len(rows_power) + 1, 41)).astype(int)) - 1
    count = np.diff(edges)
    value = np.add.reduceat(rows_power, edges[:-1]) / count
    at = np.add.reduceat(low, edges[:-1]) / count
    # bins of width 1/(line of pixels) are independent at every second point of the padded transform
    j = np.arange(2, len(lines), 2)
    high = lines[j] * 2 * window.pixel_time / window.columns
    err = high / math.sqrt(window.rows * number)
    return (
        np.concatenate([at, j * window.step]),
        np.concatenate([value, high]),
        np.concatenate([value / np.sqrt(count * number), err]),
        np.array(["rows"] * len(at) + ["pixels"] * len(j)),
    )


def _peaks(ratio, power, noise, number, frames, window, chance, most) -> tuple[Peak, ...]:
    """Significant peaks, the strongest first, without side lobes."""
    from scipy.special import gammaincc

    # neighbouring bins are not independent, but the highest of them counts: all are trials
    trials = max(ratio.size, 1)
    limit = 1 + 40 / number
    tail = chance / trials
    x = np.linspace(1, limit, 4000)
    above = gammaincc(number, number * x) < tail
    cut = float(x[np.argmax(above)]) if above.any() else limit
    ratio = ratio.copy()
    m, j = np.nonzero(ratio > cut)
    m, j = m[j > 0], j[j > 0]
    order = np.argsort(-power[m, j])[:5000]  # by power: copies are weaker than the line
    j, m = j[order], m[order]
    # copies of the slow drift of the offset, which sits next to zero frequency
    drift = (0.0, float(ratio[:, 0].max()))
    ratio[:, 0] = 0  # slower than half the line rate: seen in the row means
    found: list[tuple[float, float]] = [drift]
    peaks: list[Peak] = []
    for a, b in zip(j, m, strict=True):
        frequency, value = float(window.frequency(a, b - window.half)), float(ratio[b, a])
        if any(_is_copy(frequency, value, *other, window) for other in found):
            continue
        found.append((frequency, value))
        if len(peaks) < most:
            height = float(power[b, a]), float(noise[0, a]), _response(power[:, a], b, noise[0, a], window)
            peaks.append(_peak(frequency, value, *height, number, frames, trials, window))
        if len(found) > 10 * most:
            break
    return tuple(peaks)


def _is_copy(frequency, value, other, strength, window) -> bool:
    """Whether a peak is a side lobe or a copy, at a multiple of the line rate, of a stronger one."""
    rate = 1 / window.line_time
    # drift is broad: what is left of it reaches a few per cent of the line rate
    near = 4 / (window.rows * window.line_time) if other else 0.05 * rate
    for centre in (other, -other):
        distance = frequency - centre
        off = distance - rate * round(distance / rate)
        if abs(off) > max(near, 1e-3 * rate * math.log10(max(strength, 10))):
            continue
        # the line bin that shows the copy is up to half a step nearer
        x = max(abs(distance) - 0.5 * window.step, 0.0) * window.columns * window.pixel_time
        lobe = float(np.sinc(x)) ** 2 if x < 0.5 else 1 / (math.pi * x) ** 2
        if value < 3 * strength * lobe + 10:
            return True
    return False


def _response(column, b, noise, window) -> float:
    """Amplitude of a sine wave in its highest bin, relative to one at the centre of a frame and a line bin.

    Between bins the Hann window across lines loses up to 15 %, and the line bin up to sinc(½ columns/length).
    The place between bins follows from the higher neighbour in the spectrum: its amplitude over that of the
    highest bin is (1 + x)/(2 − x) at a distance of x bins towards it.

    Parameters
    ----------
    column : (fine,) array
        Power at the fine frequencies of one line bin.
    b : int
        Highest bin.
    noise : float
        Local noise power.
    """
    sides = [side for side in (-1, 1) if 0 <= b + side < len(column)]
    side = max(sides, key=lambda side: column[b + side])
    signal = max(float(column[b] - noise), 1e-20)
    root = math.sqrt(max(float(column[b + side] - noise), 0.0) / signal)
    # the highest bin is the nearest; where a line bin ends, the only neighbour may be on the far side
    least = 0.0 if len(sides) == 2 else -0.5
    x = side * min(max((2 * root - 1) / (root + 1), least), 0.5)
    along = (b - window.half + x) / (window.rows * window.line_time) * window.columns * window.pixel_time
    return float(np.sinc(x) / (1 - x**2) * np.sinc(along))


def _peak(frequency, ratio, power, noise, response, number, frames, trials, window) -> Peak:
    from scipy.special import gammaincc

    p = float(gammaincc(number, number * ratio))
    # the regularised gamma function underflows for strong lines: its leading term in logarithms
    log_p = (
        math.log10(p)
        if p > 1e-290
        else -number * ratio / math.log(10) + (number - 1) * math.log10(number * ratio)
    )
    scale = 4 / (window.weight * response) ** 2
    amplitude2, one = max(power - noise, 0.0) * scale, noise * scale
    amplitude, err = math.sqrt(amplitude2), math.sqrt(one)
    if amplitude2 > 0:
        # of the power: the wave times the noise, and the noise alone
        err = min(err, math.sqrt(one * (2 * amplitude2 + one) / (4 * amplitude2 * number)))
        mean2 = 1 / (2 * frames * number)
        # the root of a power with errors is low on average
        unbiased = amplitude * (1 + 0.5 * (min(err / amplitude, 0.5) ** 2 + mean2))
        # a share of the true amplitude, which is known by 1/found: variance of 1/(1 + x) to its third term
        err = math.hypot(err, amplitude * math.sqrt(mean2 * (1 + 9 * mean2 + 75 * mean2**2)))
        amplitude = unbiased
    resolution = 1 / (window.rows * window.line_time)
    return Peak(
        frequency,
        0.5 * resolution / math.sqrt(max(ratio, 1)) + 0.29 * resolution,
        amplitude,
        err,
        ratio,
        min(log_p + math.log10(trials), 0.0),
    )
