"""Trap pumping: single traps that take charge from one packet and give it to another, cycle by cycle.

Every trap has a place inside its pixel; the clock table tells, step by step, which packet is above it and which is
nearest. While a packet is above, the occupancy relaxes to ``pc`` with the capture time; afterwards it decays with the
emission time. Each electron that joins another packet in a cycle moves one electron; how many do in all cycles is a
binomial number. `cycle_by_cycle` follows single electrons instead, to check this.
"""

from __future__ import annotations

from functools import cache

import numpy as np

from calcamp.detector.clocks import Clocking
from calcamp.detector.geometry import half_of
from calcamp.simulate.chain import Plugin, State

#: Default species: emission time us, share of the traps.
SPECIES = ((120.0, 0.25), (2000.0, 0.5), (20000.0, 0.25))


@cache
def clocks(name: str, register: str) -> Clocking:
    """Clock table of a register by the name of its file."""
    from calcamp.config.lookup import load_clocks

    return load_clocks(name).table(register)


def moved(clocking: Clocking, mode: int, half: str, position, step_us: float, tau, tau_c, pc, cycles: int):
    """Mean electrons that each packet near a trap gains, and those that change packet at all.

    Parameters
    ----------
    position, tau, tau_c, pc : ndarray, shape (traps,)
        Electrodes from the node; us; us; asymptotic probability of capture.

    Returns
    -------
    gain : ndarray, shape (traps, 7)
        Electrons per packet of the pixels -3 to +3 from the trap's own, mean over `cycles`.
    """
    position = np.asarray(position, float)
    gain = np.zeros((position.size, 7))
    # Traps of one half-electrode see the same sequence.
    cell = np.round(position * 2 - 0.5).astype(int)
    for group in np.unique(cell):
        here = np.flatnonzero(cell == group)
        seen = clocking.sequence(mode, half, group / 2 + 0.25)
        if not any(above for above, _ in seen) or all(above for above, _ in seen):
            continue
        gain[here] = _steady(seen, step_us, tau[here], tau_c[here], pc[here])
    return gain * cycles


def _steady(seen, step_us, tau, tau_c, pc):
    """Gains per cycle of the periodic state, one sequence, many traps."""
    keep, relax = np.exp(-step_us / tau), np.exp(-step_us / tau_c)
    filled = np.zeros_like(tau)
    for _ in range(3):  # the cycles before the periodic state forget the start
        gain = np.zeros((tau.size, 7))
        for above, packet in seen:
            after = pc + (filled - pc) * relax if above else filled * keep
            gain[:, packet + 3] += filled - after
            filled = after
    return gain


def cycle_by_cycle(rng, clocking, mode, half, position, step_us, tau, tau_c, pc, cycles):
    """As `moved` for one trap, following its electron step by step; returns the gains of one realisation."""
    seen = clocking.sequence(mode, half, position)
    gain, filled = np.zeros(7, int), False
    keep, relax = np.exp(-step_us / tau), np.exp(-step_us / tau_c)
    # Relaxation to occupancy pc: filled -> empty and empty -> filled with these probabilities.
    draws = rng.random((cycles, len(seen)))
    for cycle in draws:
        for (above, packet), u in zip(seen, cycle, strict=True):
            if above:
                flip = (1 - pc) * (1 - relax) if filled else pc * (1 - relax)
            else:
                flip = 1 - keep if filled else 0.0
            if u < flip:
                gain[packet + 3] += 1 if filled else -1
                filled = not filled
    return gain


def draw_traps(rng, number: int, species, width: float, pc, tau_c) -> dict:
    """`number` traps without their places."""
    tau0 = np.array([s[0] for s in species], float)
    share = np.array([s[1] for s in species], float)
    kind = rng.choice(len(species), number, p=share / share.sum())
    return {
        "species": kind.astype(np.int32),
        "tau_us": tau0[kind] * 10 ** rng.normal(0, width, number),
        "tau_c_us": rng.uniform(*tau_c, number),
        "pc": rng.uniform(*pc, number),
    }


class ParallelTraps(Plugin):
    """Traps of the image area, pumped along the columns."""

    name, stage, order = "traps", "pump", 0
    provides = frozenset({"pump"})
    settings = {  # noqa: RUF012
        "density": 2e-4,  # per pixel
        "species": SPECIES,  # emission time us, share
        "width": 0.1,  # dex, rms of log tau within a species
        "pc_min": 0.2,
        "pc_max": 1.0,
        "pairs": 0.02,  # share of the traps with a second one in the same pixel
        "clocks": "default",  # clock table, by name
    }

    def draw(self, rng, context):
        get, detector = context.settings, context.detector
        number = round(float(get["density"]) * detector.image_rows * detector.image_columns)
        row = rng.integers(0, detector.image_rows, number)
        column = rng.integers(0, detector.image_columns, number)
        twins = rng.choice(number, round(float(get["pairs"]) * number), replace=False)
        row, column = np.append(row, row[twins]), np.append(column, column[twins])
        traps = draw_traps(
            rng, row.size, get["species"], get["width"], (get["pc_min"], get["pc_max"]), (1.0, 4.0)
        )
        position = rng.uniform(0.5, 4.5, row.size)
        return {"row": row, "column": column, "position": position, **traps, "clocks": get["clocks"]}

    def active(self, exposure):
        return bool(int(exposure.keys.get("v_tpump", 0))) and exposure.reads_charge

    def apply(self, state: State):
        truth, keys, charge = state.truth[self.name], state.exposure.keys, state.need_charge()
        clocking = clocks(truth["clocks"], "parallel")
        if not truth["row"].size:
            return
        cycles = int(keys["v_tp_cnt"])
        level = charge[truth["row"], truth["column"]]
        gain = moved(
            clocking,
            int(keys["v_tpmod"]),
            half_of(state.truth.quadrant),
            truth["position"],
            clocking.step_us(float(keys["toi_tp"])),
            truth["tau_us"],
            truth["tau_c_us"],
            truth["pc"] * level / (level + 300.0),  # little charge is rarely caught
            cycles,
        )
        if not state.expectation:
            gain = fluctuate(state.random(self.name), gain, cycles)
        rows = truth["row"][:, None] + np.arange(-3, 4)[None, :]
        # Beyond the last row lies the injection structure, before the first the register: charge is lost there.
        inside = (rows >= 0) & (rows < charge.shape[0]) & (gain != 0)
        columns = np.broadcast_to(truth["column"][:, None], rows.shape)
        np.add.at(charge, (rows[inside], columns[inside]), gain[inside].astype(charge.dtype))
        np.maximum(charge, 0, out=charge)


def fluctuate(rng, gain: np.ndarray, cycles: int) -> np.ndarray:
    """Binomial numbers in place of means; what one packet loses the others gain."""
    total = np.clip(np.where(gain > 0, gain, 0).sum(axis=1), 0, cycles)
    drawn = rng.binomial(cycles, total / cycles)
    return gain * np.divide(drawn, total, out=np.zeros_like(total), where=total > 0)[:, None]


class SerialTraps(Plugin):
    """Traps of the serial register: every line is pumped by the same ones."""

    name, stage, order = "register_traps", "pump", 10
    settings = {  # noqa: RUF012
        "density": 0.01,  # per register element under the image columns
        "species": ((2.0, 0.3), (8.0, 0.7)),  # emission time us, share
        "width": 0.1,  # dex
        "pc_min": 0.2,
        "pc_max": 1.0,
        "clocks": "default",
    }

    def draw(self, rng, context):
        get = context.settings
        columns = context.detector.image_columns
        column = np.sort(rng.choice(columns, round(float(get["density"]) * columns), replace=False))
        traps = draw_traps(
            rng, column.size, get["species"], get["width"], (get["pc_min"], get["pc_max"]), (0.2, 0.6)
        )
        return {
            "column": column,
            "position": rng.uniform(0.5, 3.5, column.size),
            **traps,
            "clocks": get["clocks"],
        }

    def active(self, exposure):
        return bool(int(exposure.keys.get("s_tpump", 0))) and exposure.reads_charge

    def apply(self, state: State):
        truth, keys, charge = state.truth[self.name], state.exposure.keys, state.need_charge()
        clocking = clocks(truth["clocks"], "serial")
        if not truth["column"].size:
            return
        cycles = int(keys["s_tp_cnt"])
        level = np.median(charge[:100])
        gain = moved(
            clocking,
            int(keys["s_tpmod"]),
            half_of(state.truth.quadrant),
            truth["position"],
            clocking.step_us(float(keys["dwell_s"])),
            truth["tau_us"],
            truth["tau_c_us"],
            truth["pc"] * level / (level + 300.0),
            cycles,
        )
        # Each line is pumped on its own: a binomial number per trap and line.
        rng = state.random(self.name)
        for k, line in enumerate(gain):
            up = np.where(line > 0, line, 0).sum()
            if up <= 0:
                continue
            share = np.full(charge.shape[0], 1.0)
            if not state.expectation:
                share = rng.binomial(cycles, min(up / cycles, 1.0), charge.shape[0]) / up
            for shift in np.flatnonzero(line) - 3:
                column = truth["column"][k] + shift
                if 0 <= column < charge.shape[1]:
                    charge[:, column] += (share * line[shift + 3]).astype(charge.dtype)


PLUGINS = (ParallelTraps(), SerialTraps())
