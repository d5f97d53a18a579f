"""Traps of the register, from lines to the table of traps: what the steps of TP02 make of simulated lines."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from tests.support import assert_pulls

from calcamp.analysis.pumping import line_profile
from calcamp.config.lookup import load_clocks
from calcamp.detector.geometry import QUADRANTS, half_of
from calcamp.simulate.plugins import pumping as physics
from calcamp.steps import pumping as steps
from calcamp.steps import runner

CLOCKS = load_clocks("default").table("serial")
TIMES, CYCLES, GAIN, LEVEL = (0.0, 4.75, 14.3, 28.6), 5000, 3.5, 44000.0
LINES, PLACES, NOISE, READ = 100, 512, 0.002, 4.5  # noise of the injection, share; read noise, e-


def lines_of(rng, pattern, traps, half, mode, dwell):
    """Lines of one frame, ADU: pattern of the injection, its noise, every line pumped on its own."""
    charge = LEVEL * pattern[None, :] * (1 + NOISE * rng.normal(size=(LINES, PLACES)))
    if mode:
        gain = physics.moved(
            CLOCKS,
            mode,
            half,
            traps["position"],
            CLOCKS.step_us(dwell),
            traps["tau"],
            traps["tau_c"],
            traps["pc"],
            CYCLES,
        )
        for k, line in enumerate(gain):
            up = np.where(line > 0, line, 0).sum()
            if up <= 0:
                continue
            drawn = rng.binomial(CYCLES, min(up / CYCLES, 1.0), LINES) / up
            for shift in np.flatnonzero(line) - 3:
                if 0 <= traps["column"][k] + shift < PLACES:
                    charge[:, traps["column"][k] + shift] += drawn * line[shift + 3]
    charge += READ * rng.normal(size=charge.shape)
    return (charge / GAIN + 0.3 * rng.normal(size=(LINES, 1))).astype(np.float32)


def draw(rng, number, apart=6):
    """Traps of a register, at least `apart` places from each other."""
    places = 1 + apart * rng.permutation((PLACES - 4) // apart)[:number]
    return {
        "column": np.sort(places),
        "position": rng.uniform(0.5, 3.5, number),
        "tau": np.exp(rng.uniform(np.log(2), np.log(20), number)),
        "tau_c": rng.uniform(0.2, 0.6, number),
        "pc": rng.uniform(0.2, 1.0, number),
    }


class Context(SimpleNamespace):
    """What the steps ask of their context, without files."""

    temperature = runner.Context.temperature

    def rows(self, subtask, subject, ccd=None):
        return self.known.get(subject, [])

    def flag(self, name, cause, **scope):
        self.flags.append((name, cause))

    def gains(self, ccd=None):
        return dict.fromkeys(QUADRANTS, (GAIN, 0.0, False))

    def write_table(self, subject, table, **more):
        names = list(table)
        self.known[subject] = [
            dict(zip(names, row, strict=True)) for row in zip(*table.values(), strict=True)
        ]

    def write_product(self, *arguments):
        pass


def measure(rng, traps, quadrant, distort=1.0):
    """Table of traps of one quadrant; `distort` multiplies the dwells that the lines were pumped with."""
    modes = CLOCKS.modes
    used = [
        {"mode": m, "time": t, "use": True, "quadrant": quadrant, "idl": 11.0} for m in modes for t in TIMES
    ]
    ctx = Context(
        test="TP02",
        ccd=1,
        serial="1",
        block="B",
        job={"clocks": CLOCKS.as_dict()},
        options={
            "serial_tau_c_us": 0.4,
            "serial_tau_min_us": 1.0,
            "serial_tau_max_us": 60.0,
            "serial_false_per_quadrant": 0.02,
        },
        known={"injection": used},
        flags=[],
        notes={},
        exposures=[],
    )
    half, pattern = half_of(quadrant), 1 + 0.05 * rng.normal(size=PLACES)
    profiles = {(0, 0.0): lines_of(rng, pattern, traps, half, 0, 0.0)}
    for mode in modes:
        for time in TIMES:
            profiles[mode, time] = lines_of(rng, pattern, traps, half, mode, time * distort)
    masked = np.zeros((LINES, PLACES), bool)
    stack = {"frames": {}, "reference": None, "levels": [LEVEL / GAIN], "mask": None, "cycles": CYCLES}
    stack |= {"first": 0, "lines": LINES}
    steps._serial_stack(ctx, stack, {k: line_profile(v, masked) for k, v in profiles.items()}, quadrant)
    results = steps._Results(ctx)
    results.quadrant(quadrant, stack)
    results.write()
    steps.meta(ctx)
    return ctx


def expected(traps, quadrant):
    """(mode, trap's place) -> number of the trap, of those that a mode shows."""
    shown = CLOCKS.for_quadrant(quadrant)
    out = {}
    for k, place in enumerate(traps["position"]):
        for position, terms in shown.items():
            if abs(position - place) <= 0.25:
                out |= {(mode, int(traps["column"][k])): k for mode in terms}
    return out


def test_errors_of_a_profile_are_those_of_its_lines():
    rng = np.random.default_rng(1)
    pattern = 1 + 0.05 * rng.normal(size=PLACES)
    none = {name: np.empty(0) for name in ("column", "position", "tau", "tau_c", "pc")}
    pulls = []
    for _ in range(20):
        profile, err = line_profile(
            lines_of(rng, pattern, none, "half_EF", 0, 0.0), np.zeros((LINES, PLACES), bool)
        )
        pulls += (
            (0.5 * (profile[:-1] - profile[1:]) - 0.5 * LEVEL / GAIN * -np.diff(pattern)) / err
        ).tolist()
    # Neighbours share a place: half of them are independent.
    assert_pulls(pulls, n=len(pulls) // 2, what="half-differences of profiles")


@pytest.mark.parametrize("quadrant", QUADRANTS)
def test_traps_of_the_register(quadrant):
    """Completeness, false dipoles, and emission times from 2 to 20 us, in every quadrant."""

    false = missed = number = 0
    ratio, pulls, chi2, dof = [], [], 0.0, 0
    for seed in range(12):
        rng = np.random.default_rng([ord(quadrant), seed])
        traps = draw(rng, 30)
        ctx = measure(rng, traps, quadrant)
        known = expected(traps, quadrant)
        found = {(t["mode"], t["image_column"]): t for t in ctx.known["traps"]}
        false += len(set(found) - set(known))
        missed += len(set(known) - set(found))
        number += len(known)
        for key in set(found) & set(known):
            t, k = found[key], known[key]
            if t["status"] != "ok":
                continue
            ratio.append(t["tau"] / traps["tau"][k])
            pulls.append(np.log(ratio[-1]) * t["tau"] / t["tau_err"])
            chi2, dof = chi2 + t["chi2"], dof + t["dof"]
    assert missed <= 0.05 * number
    assert false <= 1
    assert len(ratio) >= 0.9 * number
    assert abs(np.median(ratio) - 1) < 0.02
    assert 0.85 <= np.sqrt(np.mean(np.square(pulls))) <= 1.15
    assert 0.8 < chi2 / dof < 1.2


def test_times_that_were_not_as_commanded_are_told():
    """The error of the model is found, and counts: emission times are not claimed to be better than the clock."""
    rng = np.random.default_rng(5)
    traps = draw(rng, 80)
    good, bad = measure(rng, traps, "E"), measure(rng, traps, "E", distort=1.4)
    assert good.notes["model_error"] < 0.004
    assert not good.flags
    assert bad.notes["model_error"] > 0.03
    assert any(name == "BADFIT" and "pumping equation" in cause for name, cause in bad.flags)


def test_a_trap_at_the_end_of_the_register_is_no_dipole_elsewhere():
    rng = np.random.default_rng(6)
    position = next(p for p, t in CLOCKS.for_quadrant("E").items() if next(iter(t.values())).pair == 0)
    traps = {
        "column": np.array([PLACES - 1]),
        "position": np.array([position]),
        "tau": np.array([5.0]),
        "tau_c": np.array([0.4]),
        "pc": np.array([0.9]),
    }
    ctx = measure(rng, traps, "E")
    assert [d["kind"] for d in ctx.known["dipoles"]] == ["edge"]
    assert ctx.known["traps"] == []
