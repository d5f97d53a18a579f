"""Flat light: lamp, shutter, illumination, pixel response, brighter-fatter effect, full well; response of the chain."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from calcamp.detector.geometry import flips
from calcamp.simulate.chain import Plugin, State
from calcamp.simulate.plugins.light import Response
from calcamp.simulate.seeds import stream

FDR = 65536.0  # ADU above offset: 100 %
MEAN_GAIN = 3.45  # e-/ADU, of the gains that are drawn: chambers were tuned to their blocks
#: Coefficients a(lag parallel, lag serial) of the brighter-fatter effect, 1/e- (analysis of flats, 8.4).
BF_PARALLEL_SERIAL = {
    (1, 0): 1.6e-7,
    (0, 1): 0.9e-7,
    (1, 1): 0.35e-7,
    (2, 0): 0.25e-7,
    (0, 2): 0.20e-7,
    (2, 1): 0.13e-7,
    (1, 2): 0.13e-7,
    (2, 2): 0.08e-7,
}
#: Means above which a Poisson draw is replaced by a normal one of the same variance.
_NORMAL_ABOVE = 400.0


def bf_coefficients(scale: float = 1.0) -> np.ndarray:
    """a [lag parallel, lag serial], 1/e-, lags 0 to 2; a00 makes the sum over all lags zero."""
    a = np.zeros((3, 3))
    for lag, value in BF_PARALLEL_SERIAL.items():
        a[lag] = value * scale
    weight = np.outer([1, 2, 2], [1, 2, 2])
    a[0, 0] = -float((a * weight).sum())
    return a


def illumination(shape: tuple[int, int], slot: int, ccd: int, quadrant: str) -> np.ndarray:
    """Flat light over a quadrant's image area, canonical, float32; mean 1 over the CCD.

    A bowl of 8 to 14 % from centre to corner and a tilt of up to 1.5 %, another for each filter and CCD,
    continuous over the quadrants.
    """
    rng = stream(20190312, "illumination", slot, ccd)
    fall, x0, y0 = rng.uniform(0.08, 0.14), rng.uniform(-0.2, 0.2), rng.uniform(-0.2, 0.2)
    tilt_x, tilt_y = rng.uniform(-0.015, 0.015, 2)
    rows, columns = shape
    flip_rows, flip_columns = flips(quadrant)
    x = (np.arange(columns) + 0.5) / columns - 1.0  # -1 at the outer edge, 0 at the centre of the CCD
    y = (np.arange(rows) + 0.5) / rows - 1.0
    x, y = (-x if flip_columns else x), (-y if flip_rows else y)
    along_x = -0.5 * fall * ((x - x0) ** 2 - 1 / 3 - x0**2) + tilt_x * x
    along_y = -0.5 * fall * ((y - y0) ** 2 - 1 / 3 - y0**2) + tilt_y * y
    return (1.0 + along_y[:, None] + along_x[None, :]).astype(np.float32)


@lru_cache(maxsize=24)
def prnu_map(seed: int, shape: tuple[int, int], slot: int, white: float, column: float, large: float):
    """Relative response of the pixels of a channel, mean 1, float32.

    White and column structure (0.8 of it common to all filters) and structure of 25 to 100 px.
    """

    def layers(rng):
        return rng.standard_normal(shape, dtype=np.float32), rng.standard_normal(shape[1], dtype=np.float32)

    shared, own = layers(stream(seed, "prnu")), layers(stream(seed, "prnu", slot))
    pixels, columns = (0.8 * a + 0.6 * b for a, b in zip(shared, own, strict=True))
    out = np.float32(1.0) + np.float32(white) * pixels + np.float32(column) * columns[None, :]
    if large:
        from scipy.ndimage import zoom

        coarse = stream(seed, "prnu", "large").standard_normal((shape[0] // 60 + 3, shape[1] // 60 + 3))
        fine = zoom(coarse, [n / c for n, c in zip(shape, coarse.shape, strict=True)], order=3)
        out += (large * fine / fine.std()).astype(np.float32)
    out /= out.mean(dtype=np.float64)
    return out


class FlatLight(Plugin):
    """The flat source: charge of an exposure with the shutter open, brighter-fatter effect included.

    The charge comes in steps: each adds Poisson(mu/n [1 + n/(n-1) sum a q]) electrons, which reproduces the
    covariances of Astier et al. 2019 (A&A 629, A36, Eq. 20) with b = 0 (analysis of flats, 8.4).
    """

    name, stage, order = "flat", "collect", -50
    provides = frozenset({"light"})
    settings = {  # noqa: RUF012
        "saturation": None,  # {slot: s} to reach FDR with a gain of 3.45; from the chamber
        "t0": None,  # s, true minus commanded time; from the chamber's shutter table
        "shutter_jitter": 1e-4,  # s rms
        "lamp_drift": 0.3,  # %/h
        "lamp_jitter": 2e-4,  # relative rms from exposure to exposure, common to all channels
        "prnu": 0.6,  # % rms, white
        "prnu_column": 0.05,  # % rms, of columns
        "prnu_large": 0.1,  # % rms, 25 to 100 px
        "stray": 0.0,  # e-/px in every exposure with the shutter commanded, whatever its time
        "steps": 8,  # of the brighter-fatter effect; 1: none
        "bf_scale": 1.0,
        "uniform": 0,  # 1: no illumination structure
    }

    def chamber_settings(self, chamber, detector):
        times = {slot: chamber.saturation_time.flat.get(nm) for slot, nm in chamber.filter_wheel.items()}
        out: dict[str, object] = {"saturation": {slot: time for slot, time in times.items() if time}}
        table = chamber.shutter_table()
        if table is not None:
            late = [b - a for a, b in zip(table.commanded, table.actual, strict=True) if 0 < a < 50]
            if late:
                out["t0"] = float(np.median(late))
        return out

    def draw(self, rng, context):
        s = context.settings
        return {
            "saturation": {int(k): float(v) for k, v in (s["saturation"] or {}).items()},
            "mean_gain": MEAN_GAIN,
            "t0": 0.03 if s["t0"] is None else float(s["t0"]),
            "shutter_jitter": float(s["shutter_jitter"]),
            "lamp_drift": float(s["lamp_drift"]),
            "lamp_jitter": float(s["lamp_jitter"]),
            "prnu_seed": int(rng.integers(2**31)),
            "prnu": float(s["prnu"]),
            "prnu_column": float(s["prnu_column"]),
            "prnu_large": float(s["prnu_large"]),
            "stray": float(s["stray"]),
            "steps": int(s["steps"]),
            "uniform": int(s["uniform"]),
            "a": bf_coefficients(float(s["bf_scale"]) * rng.uniform(0.95, 1.05)),
        }

    def active(self, exposure):
        lit = bool(int(exposure.keys.get("shuttr", 0))) and exposure.reads_charge
        return lit and exposure.keys.get("source", "flat") == "flat"

    def level(self, state: State) -> float:
        """Mean charge of the exposure over the CCD, e-, and what made it in the record."""
        truth, exposure = state.truth[self.name], state.exposure
        slot = int(exposure.keys.get("wave", 4))
        full = truth["saturation"].get(slot, 3.5)
        time, lamp = exposure.exptime, 1.0 + truth["lamp_drift"] / 100 * exposure.elapsed_s / 3600
        if time > 0:
            time += truth["t0"]
        if not state.expectation and state.common is not None:
            shutter, jitter = state.common(self.name).standard_normal(2)
            lamp *= 1.0 + truth["lamp_jitter"] * jitter
            time += truth["shutter_jitter"] * shutter if time > 0 else 0.0
        for kind in ("lamp_off", "lamp_low"):
            value = state.disturbed(kind)
            lamp *= 1.0 if value is None else value
        state.record |= {"lamp": float(lamp), "true_time_s": float(time)}
        return FDR * truth["mean_gain"] / full * max(time, 0.0) * lamp + truth["stray"]

    def apply(self, state: State):
        truth = state.truth[self.name]
        level = self.level(state)
        if level <= 0:
            return
        mean = self.expected_light(state, level)
        charge = state.need_charge()
        if state.expectation:
            charge += mean
            return
        charge += collect(mean, truth["a"], truth["steps"], state.random(self.name))

    @staticmethod
    def expected_light(state: State, level: float) -> np.ndarray:
        """Mean charge of the pixels, e-, for a mean `level` over the CCD."""
        truth, detector = state.truth["flat"], state.detector
        slot = int(state.exposure.keys.get("wave", 4))
        shape = detector.image_shape
        parts = (truth["prnu"] / 100, truth["prnu_column"] / 100, truth["prnu_large"] / 100)
        mean = prnu_map(truth["prnu_seed"], shape, slot, *parts) * np.float32(level)
        if not truth["uniform"]:
            mean *= illumination(shape, slot, state.truth.ccd, state.truth.quadrant)
        Response.apply_to(mean, state.truth["response"])
        return mean


def collect(mean: np.ndarray, a: np.ndarray, steps: int, rng: np.random.Generator) -> np.ndarray:
    """Charge of pixels with the brighter-fatter effect, float32, from their mean charge `mean`, e-."""
    if steps <= 1 or not a.any():
        return _poisson(rng, mean)
    share = mean / np.float32(steps)
    charge = np.zeros_like(mean)
    moved = _Convolution(a * (steps / (steps - 1)), mean.shape)
    for step in range(steps):
        expected = share if step == 0 else share * (np.float32(1.0) + moved(charge))
        charge += _poisson(rng, expected)
    return charge


def _poisson(rng: np.random.Generator, mean: np.ndarray) -> np.ndarray:
    """Poisson counts, float32; above `_NORMAL_ABOVE` a normal draw of the same variance."""
    if float(mean.min()) < _NORMAL_ABOVE:
        bright = mean >= _NORMAL_ABOVE
        if not bright.any() or float(bright.mean()) < 0.9:
            return rng.poisson(np.maximum(mean, 0.0)).astype(np.float32)
        out = _normal(rng, np.maximum(mean, 0.0))
        out[~bright] = rng.poisson(np.maximum(mean[~bright], 0.0))
        return out
    return _normal(rng, mean)


def _normal(rng: np.random.Generator, mean: np.ndarray) -> np.ndarray:
    out = rng.standard_normal(mean.shape, dtype=np.float32)
    out *= np.sqrt(mean)
    out += mean
    return out


class _Convolution:
    """sum over lags of a(lag) q(shifted by the lag), mirrored at the edges, by a real FFT."""

    def __init__(self, a: np.ndarray, shape: tuple[int, int]):
        from scipy.fft import next_fast_len, rfft2

        self.reach = max(a.shape) - 1
        self.shape = shape
        self.padded = tuple(next_fast_len(n + 2 * self.reach, real=True) for n in shape)
        kernel = np.zeros(self.padded, np.float32)
        for i in range(-a.shape[0] + 1, a.shape[0]):
            for j in range(-a.shape[1] + 1, a.shape[1]):
                kernel[i, j] = a[abs(i), abs(j)]
        self.transform = rfft2(kernel)

    def __call__(self, charge: np.ndarray) -> np.ndarray:
        from scipy.fft import irfft2, rfft2

        r = self.reach
        wide = np.zeros(self.padded, np.float32)
        wide[: self.shape[0] + 2 * r, : self.shape[1] + 2 * r] = np.pad(charge, r, mode="symmetric")
        out = irfft2(rfft2(wide) * self.transform, s=self.padded)
        return out[r : r + self.shape[0], r : r + self.shape[1]]


class FullWell(Plugin):
    """Charge above the full well spills over along its column, evenly to both sides, until all wells hold it.

    Pixels that share charge have less noise: the variance of flats drops there. What is above the capacity of
    whole columns is lost.
    """

    name, stage, order = "full_well", "collect", 90
    settings = {"electrons": None, "capacity": 1.25}  # noqa: RUF012 - e-, None: drawn; capacity over it

    def draw(self, rng, context):
        value = rng.uniform(195e3, 205e3)
        given = context.settings["electrons"]
        return {
            "electrons": float(value if given is None else given),
            "capacity": float(context.settings["capacity"]),
        }

    def apply(self, state: State):
        truth = state.truth[self.name]
        if state.charge is None or float(state.charge.max()) <= truth["electrons"]:
            return
        state.charge = bloom(state.charge, truth["electrons"], truth["capacity"] * truth["electrons"])


def bloom(charge: np.ndarray, well: float, capacity: float, passes: int = 24) -> np.ndarray:
    """Charge after spilling along the columns; conserved up to what columns cannot hold.

    A pixel above `well` gives the excess over the mean of its neighbourhood, half to each side.
    """
    out = np.minimum(charge, capacity)
    for _ in range(passes):
        over = np.maximum(out - np.float32(well), 0.0)
        if not over.any():
            break
        # Above the well the barrier is down: the excess levels out between neighbours.
        give = 0.5 * over
        out -= give
        half = 0.5 * give
        out[1:] += half[:-1]
        out[:-1] += half[1:]
        out[0] += half[0]
        out[-1] += half[-1]
    return np.minimum(out, capacity)


class SaturationTail(Plugin):
    """Parallel transfer near the full well: part of the last rows' charge arrives after them."""

    name, stage, order = "saturation_tail", "transfer", 60
    settings = {"cti": 1e-6, "start": 0.9}  # noqa: RUF012 - per transfer far from the well; share of the well where it grows

    def draw(self, rng, context):
        return {"cti": float(context.settings["cti"]), "start": float(context.settings["start"])}

    def active(self, exposure):
        return exposure.reads_charge

    @staticmethod
    def inefficiency(signal, truth: dict, well: float):
        """Charge transfer inefficiency per transfer at a signal, e-."""
        over = np.maximum(np.asarray(signal, float) / well - truth["start"], 0.0)
        return truth["cti"] * (1.0 + 50.0 * over / 0.1)

    def apply(self, state: State):
        truth, detector = state.truth[self.name], state.detector
        if state.signal is None or not detector.parallel_overscan or not truth["cti"]:
            return
        n = detector.image_rows
        last = state.signal[n - 1].copy()
        if float(last.max()) <= 0:
            return
        cti = self.inefficiency(last, truth, state.truth["full_well"]["electrons"])
        tail = np.maximum(last, 0.0) * (1.0 - (1.0 - cti) ** n)
        for row, share in enumerate((0.7, 0.2, 0.1)):
            state.signal[n + row] += (share * tail).astype(np.float32)
        state.signal[n - 1] -= tail.astype(np.float32)


class Nonlinearity(Plugin):
    """Integral non-linearity of the whole chain: measured = linear (1 + Z(linear/FDR)/100)."""

    name, stage, order = "nonlinearity", "nonlinearity", 0
    settings = {"kind": "polynomial", "scale": None}  # noqa: RUF012 - none, polynomial or low (with the low-signal term)

    def draw(self, rng, context):
        scale = rng.uniform(0.5, 1.5)
        given = context.settings["scale"]
        return {"kind": str(context.settings["kind"]), "scale": float(scale if given is None else given)}

    def apply(self, state: State):
        truth = state.truth[self.name]
        if state.signal is None or truth["kind"] in ("none", "0") or not truth["scale"]:
            return
        x = np.maximum(state.signal, 0.0) / np.float32(FDR * state.truth.gain)
        state.signal *= 1.0 + nonlinearity(x, truth) / np.float32(100.0)


def nonlinearity(x, truth: dict):
    """Z, %, at x = linear signal over FDR (analysis of flats, 8.3)."""
    x = np.asarray(x)
    z = x * (0.5 + x * (-0.3 + x * 0.6))
    if truth["kind"] == "low":
        z = z + 2.0 * np.exp(-(x - 0.05) / 0.1)
    return (truth["scale"] * z).astype(x.dtype) if truth["kind"] not in ("none", "0") else np.zeros_like(x)


class HardEdge(Plugin):
    """What follows the edge of the image in the serial stream: electronics (linear) and deferred charge."""

    name, stage, order = "hard_edge", "nonlinearity", 10
    settings = {"amplitude": None, "deferred": 3.0, "deferred_scale": 2e4, "length": 3.0}  # noqa: RUF012 - 1; e-; e-; px

    def draw(self, rng, context):
        s = context.settings
        amplitude = rng.uniform(1e-4, 5e-4)
        return {
            "kernel": (amplitude if s["amplitude"] is None else float(s["amplitude"]))
            * np.array([1, 0.4, 0.15]),
            "deferred": float(s["deferred"]),
            "deferred_scale": float(s["deferred_scale"]),
            "length": float(s["length"]),
        }

    def active(self, exposure):
        return exposure.reads_charge

    def apply(self, state: State):
        if state.signal is None:
            return
        truth, detector = state.truth[self.name], state.detector
        first, stop = detector.prescan, detector.prescan + detector.image_columns
        rows = slice(0, detector.image_rows)
        edge = state.signal[rows, stop - 1].copy()
        start = state.signal[rows, first].copy()
        if float(edge.mean()) <= 0 and float(start.mean()) <= 0:
            return
        for k, h in enumerate(truth["kernel"]):
            state.signal[rows, stop + k] += np.float32(h) * edge
            state.signal[rows, first + k] -= np.float32(h) * start
        if truth["deferred"]:
            trapped = truth["deferred"] * (1.0 - np.exp(-np.maximum(edge, 0.0) / truth["deferred_scale"]))
            k = np.arange(detector.overscan)
            share = np.exp(-k / truth["length"])
            state.signal[rows, stop:] += (trapped[:, None] * share / share.sum()).astype(np.float32)


PLUGINS = (FlatLight(), FullWell(), SaturationTail(), Nonlinearity(), HardEdge())
