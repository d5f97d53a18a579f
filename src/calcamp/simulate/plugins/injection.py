"""Charge injection: fill and spill of a well at the head of each column, line by line.

Electrons flow from the drain (ID) over the barrier under IG1 into the well under IG2 while the drain is pulsed
to IDL; when it is back at IDH the excess spills over the barrier again. The well has a deeper part, the notch,
whose charge cannot leave. Currents over a barrier follow the transistor law (EKV): the difference of
``softplus((barrier - potential)/s)**2`` of the two sides. Nothing here knows the model that is fitted.
"""

from __future__ import annotations

from statistics import NormalDist

import numpy as np

from calcamp.detector.geometry import SCRIPT_SUFFIX_HALF, half_of
from calcamp.simulate.chain import Plugin, State

#: Window of id_dly / toi_ch in which the phases of a half take up the charge (analysis page, 2.1).
WINDOWS = {"half_EF": (2.0, 3.0), "half_GH": (1.0, 2.0)}
_IG_POTENTIAL = 7.5  # V above the gate voltage, in the injection region
_NOTCH_POTENTIAL = 2.5  # V, deeper than the rest of IG2
_STEPS = 60
_STRIPS = 51


def packet(truth: dict, ig1, ig2, idl, idh=18.0, width_us=60.0, spill_us=500.0):
    """Charge left after fill and spill, e-, without noise; broadcast over its arguments.

    The potential under the gates varies across the width of a column: strips of it fill and spill, each for
    itself, and the packet is their mean.
    """
    ig1, ig2, idl = np.broadcast_arrays(*(np.asarray(v, float) for v in (ig1, ig2, idl)))
    # Strips are sharper than their spread: enough of them that the mean is smooth.
    shifts = truth["strips"] * np.array([NormalDist().inv_cdf((k + 0.5) / _STRIPS) for k in range(_STRIPS)])
    each = _strip(truth, ig1[..., None] + shifts, ig2[..., None], idl[..., None], idh, width_us, spill_us)
    return each.mean(axis=-1)


def _strip(truth, ig1, ig2, idl, idh, width_us, spill_us):
    notch, slope = np.float64(truth["notch_e"]), np.float64(truth["slope_e_v"])
    first = np.asarray(ig1, float) + _IG_POTENTIAL + truth["threshold_shift"]
    second = np.asarray(ig2, float) + _IG_POTENTIAL + truth["knee_shift"]
    soft = truth["softness"]
    barrier = -soft * np.logaddexp(-first / soft, -second / soft)  # electrons must pass both gates
    shape = np.broadcast_shapes(np.shape(barrier), notch.shape, slope.shape, np.shape(idl))
    charge = np.zeros(shape)
    for drain, time in ((idl, width_us), (idh, spill_us)):
        # Steps grow: the currents fall by orders of magnitude as the well levels out.
        edges = time * np.expm1(np.linspace(0, 9.0, _STEPS + 1)) / np.expm1(9.0)
        supply = np.square(np.logaddexp(0.0, (barrier - np.asarray(drain, float)) / soft))
        for step in np.diff(edges):
            charge = _advance(charge, step, truth["rate_e_us"], supply, barrier, second, notch, slope, soft)
    return charge


def _advance(charge, step, rate, supply, barrier, second, notch, slope, soft):
    """One implicit Euler step of the well's charge."""
    in_notch = charge < notch
    level = np.where(
        in_notch,
        second + _NOTCH_POTENTIAL * (1 - charge / notch),
        second - (charge - notch) / slope,
    )
    drop = np.where(in_notch, _NOTCH_POTENTIAL / notch, 1.0 / slope)
    over = (barrier - level) / soft
    back = np.logaddexp(0.0, over)
    current = rate * (supply - back**2)
    stiffness = rate * 2 * back / (1 + np.exp(-np.clip(over, -60, 60))) / soft * drop
    moved = step * current / (1 + step * stiffness)
    # Not beyond the edge of the notch in one step: its capacity is another.
    bounded = np.where(in_notch, np.minimum(moved, notch - charge + 1e-6), np.maximum(moved, notch - charge))
    return np.maximum(charge + bounded, 0.0)


def characteristics(truth: dict, ig2=6.0, idl=11.0, ig1=4.0) -> dict[str, float]:
    """Threshold and notch of the noise-free curve, as an engineer reads them off a finely sampled one.

    Threshold: where the curve passes half of its straight part (drawn on from 0.5 to 1.5 V above it); notch:
    the level 3 V beyond IG2.
    """
    volts = np.linspace(idl - 9.5, ig2 + 3.0, 501)
    curve = packet(truth, volts, ig2, idl)
    top = volts[np.argmax(curve)]
    part = (volts > top + 0.35) & (volts < min(top + 1.5, ig2 - 0.75))
    line = np.polyval(np.polyfit(volts[part], curve[part], 1), volts)
    before = volts <= top
    at = np.interp(0.0, (curve - 0.5 * line)[before], volts[before])
    drains = np.linspace(ig1 + 5.5, ig1 + 9.5, 301)
    fall = packet(truth, ig1, ig2, drains)
    full = fall[0]
    drain_at = np.interp(0.0, (0.5 * full - fall), drains)
    return {
        "threshold_ig1": float(at),
        "threshold_idl": float(drain_at),
        "notch_e": float(packet(truth, ig2 + 3.0, ig2, idl)),
        "level_e": float(packet(truth, ig1, ig2, idl)),
    }


class Injection(Plugin):
    """Lines of injected charge, in the half whose phases are open when the drain pulse ends."""

    name, stage, order = "injection", "inject", 0
    provides = frozenset({"inject"})
    settings = {  # noqa: RUF012
        "threshold_shift": None,  # V, of the barrier under IG1; None: drawn, rms 0.05
        "slope_e_v": None,  # e-/V; None: drawn about 21000, rms 5 %
        "notch_e": None,  # e-; None: drawn about 2100, rms 5 %
        "strips": None,  # V, rms of the potential across a column; None: drawn between 0.08 and 0.12
        "noise": 0.002,  # of the level, per pixel
        "columns": 0.05,  # rms of the pattern from column to column
        "phase": None,  # first injected line; None: 0
        "first_line": None,  # deficit of the first line of a block; None: drawn between 0.005 and 0.05
        "spill": None,  # of the level, in the first line after a block; None: drawn between 0.001 and 0.005
        "wrong_half": None,  # of the level; None: drawn between 0 and 0.05
        "gradient": 0.01,  # change of the level from the first to the last row
        "cti": 0.0,  # share of a packet left behind per transfer
        "bad_columns": 0,  # columns that take no charge
    }

    def draw(self, rng, context):
        get = context.settings

        def value(key, drawn):
            return float(drawn if get[key] is None else get[key])

        columns = context.detector.image_columns
        pattern = rng.normal(0, float(get["columns"]), columns)
        bad = rng.choice(columns, int(get["bad_columns"]), replace=False)
        return {
            "threshold_shift": value("threshold_shift", rng.normal(0, 0.05)),
            "knee_shift": rng.normal(0.12, 0.04),
            "slope_e_v": value("slope_e_v", 21000 * rng.normal(1, 0.05)),
            "notch_e": value("notch_e", 2100 * rng.normal(1, 0.05)),
            "strips": value("strips", rng.uniform(0.08, 0.12)),
            "softness": 0.03,  # V, ideality times kT/e at 153 K
            "rate_e_us": 900.0,
            "noise": float(get["noise"]),
            "phase": int(get["phase"] or 0),
            "first_line": value("first_line", rng.uniform(0.005, 0.05)),
            "spill": value("spill", rng.uniform(0.001, 0.005)),
            "spill_lines": 1.0,  # e-folding length of the spill
            "wrong_half": value("wrong_half", rng.uniform(0.0, 0.05)),
            "gradient": float(get["gradient"]) * rng.uniform(-1, 1),
            "cti": float(get["cti"]),
            "pattern": np.clip(1 + pattern, 0.2, 2.0),
            "bad_columns": np.sort(bad).astype(np.int32),
        }

    def active(self, exposure):
        return exposure.reads_charge and bool(int(exposure.keys.get("chinj", 0)))

    def apply(self, state: State):
        if state.disturbed("no_injection") is not None:
            return
        keys, truth = state.exposure.keys, state.truth[self.name]
        half = half_of(state.truth.quadrant)
        letter = next(k for k, v in SCRIPT_SUFFIX_HALF.items() if v == half)
        level = packet(
            truth,
            float(keys[f"IG1_{state.truth.ccd}_{letter}"]),
            float(keys[f"IG2_{letter}"]),
            float(keys["IDL"]),
            float(keys["IDH"]),
            float(keys["id_wid"]),
            float(keys["toi_ch"]),
        )
        # Columns differ in the area of their wells.
        level = float(level) * truth["pattern"]
        low, high = WINDOWS[half]
        if not low <= float(keys["id_dly"]) / float(keys["toi_ch"]) <= high:
            level = level * truth["wrong_half"]
        level[truth["bad_columns"]] = 0.0
        if state.disturbed("no_injection") is not None:
            level = np.zeros_like(level)
        cycle = int(keys["chinj_on"]), int(keys["chinj_of"])
        rows = self.rows(truth, *cycle, state.detector.image_rows)
        lines = (rows[:, None] * level[None, :]).astype(np.float32)
        # Of the rows that are read, without the first lines of a block.
        first, last = state.detector.read_rows(int(keys["vstart"]), int(keys["vend"]))
        window = slice(first, min(last, rows.size))
        plateau = rows[window][self.plateau(truth, *cycle, rows.size)[window]]
        half = np.sort(level)[level.size // 4 : level.size - level.size // 4]  # odd columns left out
        state.record["injection_e"] = float(half.mean() * plateau.mean()) if plateau.size else 0.0
        if not state.expectation and truth["noise"]:
            noise = state.random(self.name).standard_normal(lines.shape, dtype=np.float32)
            noise *= np.float32(truth["noise"])
            noise += np.float32(1.0)
            lines *= noise
        if truth["cti"]:
            lines = deferred(lines, truth["cti"])
        charge = state.need_charge()
        charge += lines

    @staticmethod
    def plateau(truth: dict, on: int, off: int, image_rows: int, skip: int = 2) -> np.ndarray:
        """Rows of the blocks without the first `skip` of each."""
        row = np.arange(image_rows)
        place = (row - truth["phase"]) % (on + off)
        return (place >= skip) & (place < on) & (row >= truth["phase"])

    @staticmethod
    def rows(truth: dict, on: int, off: int, image_rows: int) -> np.ndarray:
        """Level of every image row relative to the plateau."""
        row = np.arange(image_rows)
        place = (row - truth["phase"]) % (on + off)
        level = np.where(place < on, 1.0, 0.0)
        level[place == 0] -= truth["first_line"]
        after = place - on
        level = np.where(
            after >= 0, truth["spill"] * np.exp(-np.maximum(after, 0) / truth["spill_lines"]), level
        )
        level[row < truth["phase"]] = 0.0
        return level * (1 + truth["gradient"] * (row / image_rows - 0.5))


def deferred(lines: np.ndarray, cti: float, length: float = 3.0, reach: int = 15) -> np.ndarray:
    """Charge of each row after the transfers to the node: a share lags behind and comes out in later rows."""
    lost = lines * (cti * (np.arange(lines.shape[0]) + 1))[:, None].astype(np.float32)
    weights = np.exp(-np.arange(reach) / length)
    weights /= weights.sum()
    out = lines - lost
    for k, weight in enumerate(weights, 1):
        out[k:] += np.float32(weight) * lost[:-k]
    return out


PLUGINS = (Injection(),)
