"""Small pieces shared by the families' column definitions: groups of keys and exposure times."""

from __future__ import annotations

import math
from collections.abc import Iterable

#: Dwell of the injection-drain pulse, in units of `toi_ch`: the first injects the half of E and F, the
#: second the half of G and H. This is why every injection test has two blocks of columns.
INJECTION_DELAYS = (2.5, 1.5)

#: Dither stage of the point-source tests that move the spots over the pixel grid.
DITHER = {"motr_on": 1, "motr_cnt": 2, "motr_siz": 120}

#: Wavelengths, nm, in the order in which tests are written.
FLAT_WAVELENGTHS = (590, 730, 880)
POINT_WAVELENGTHS = (590, 730, 800, 880)
TEMPERATURES = (148, 158)  # K, set by the operator, not commanded
RESET_DRAINS = (155, 160, 165)  # 10 x V


def injection_gate1(volts: float) -> dict[str, float]:
    """The six keys of injection gate 1 at one voltage."""
    return {f"IG1_{ccd}_{half}": volts for half in "TB" for ccd in (1, 2, 3)}


def injection_gate2(volts: float) -> dict[str, float]:
    """Both keys of injection gate 2 at one voltage."""
    return {"IG2_T": volts, "IG2_B": volts}


def reset_drain(tenths: int) -> dict[str, float]:
    """Both keys of the reset drain, from tenths of a volt as in the test names (155 is 15.5 V)."""
    return {"RD_T": tenths / 10, "RD_B": tenths / 10}


def percent(levels: Iterable[float], full: float) -> list[float]:
    """Exposure times, s, at `levels` per cent of the saturation time `full`, not rounded."""
    return [level / 100 * full for level in levels]


def scan(first: float, last: float, step: float) -> list[float]:
    """Values ``first + i step``, ``ceil((last - first)/step + 1)`` of them (test catalogue, 7.4)."""
    return [first + i * step for i in range(math.ceil((last - first) / step + 1))]


def flat_light(test, chamber, detector) -> dict:
    """What limits on flat light are relative to: saturation times, s, and wavelengths by filter slot, shutter table."""
    times = {slot: chamber.saturation_time.flat.get(nm) for slot, nm in chamber.filter_wheel.items()}
    table = chamber.shutter_table()
    return {
        "saturation_time": {str(slot): time for slot, time in sorted(times.items()) if time},
        "wavelength": {str(slot): nm for slot, nm in sorted(chamber.filter_wheel.items())},
        "shutter": None
        if table is None
        else {"name": table.shutter, "commanded": list(table.commanded), "actual": list(table.actual)},
    }
