"""NL01, NL02 and NL02 against reset-drain voltage: end-to-end non-linearity."""

from __future__ import annotations

from pydantic import Field

from calcamp.campaign.common import RESET_DRAINS, flat_light, reset_drain
from calcamp.campaign.core import CHECK, HK, Column, Family, Need, Options, Subtask, Test, prep

#: Fluences, per cent of saturation.
NL01_LEVELS = (0.5, 0.7, 1, 2, 3, 5, 10, 20, 30, 55, 70, 80, 85, 90, 95, 100, 110)
#: NL02: neutral density first, 880 nm after it, with an overlap from 15 to 25 %.
NL02_FAINT = (0.5, 0.7, 1, 2, 3, 5, 10, 15, 20, 25)
NL02_BRIGHT = (15, 20, 25, 50, 70, 80, 85, 90, 95, 100, 110)
#: Against the reset drain: the ladder of NL01, split at 20 % without an overlap.
RD_FAINT = tuple(level for level in NL01_LEVELS if level < 20)
RD_BRIGHT = tuple(level for level in NL01_LEVELS if level >= 20)


def ladder(common: dict, steady: int, parts, frames=4):
    """Columns of a non-linearity test.

    Three background frames and a stability frame at the wavelength `steady`, then each level of each
    part (wavelength, per cent of that wavelength's saturation time, frames) followed by a stability frame.

    Parameters
    ----------
    common : keys of all columns
    steady : wavelength of background and stability frames, nm
    parts : (wavelength, levels) or (wavelength, levels, frames) in order
    frames : frames per level where a part does not say
    """

    def columns(chamber) -> list[Column]:
        slot = chamber.slot(steady)
        stability = Column(
            1, {**common, "exptime": 0.5 * chamber.t_flat(steady), "wave": slot, "comments": "STAB"}
        )
        made = [Column(3, {**common, "exptime": 0, "wave": slot, "comments": "BGD"}), stability]
        number = 0
        for wavelength, levels, *own_frames in parts:
            full, wave = chamber.t_flat(wavelength), chamber.slot(wavelength)
            for level in levels:
                number += 1
                keys = {"exptime": level / 100 * full, "wave": wave, "comments": f"Fluence{number}"}
                made += [Column(own_frames[0] if own_frames else frames, {**common, **keys}), stability]
        return made

    return columns


class CurveOptions(Options):
    """Joint fit of non-linearity, lamp, shutter and background."""

    track_degree: int = Field(2, ge=1, le=6, description="of the polynomial in time that follows the lamp")
    lamp_floor: float = Field(
        5e-5, gt=0, description="relative jitter of the lamp from exposure to exposure, at least"
    )
    shutter_error_s: float = Field(1e-3, gt=0, description="error of the shutter table, s")
    use_shutter_table: bool = Field(
        True, description="take the chamber's shutter table as a measurement of t0"
    )


_NEEDS = (Need("mask"), Need("dq"), Need("bias"), Need("gain"))
_SUBTASKS = (
    HK,
    CHECK,
    prep(offset="smooth", scan="pre", use_flat=False),
    Subtask("extract", after=("check",), needs=_NEEDS, aliases=("extract_PTC",), mem_mb=1200, runtime_min=20),
    # Lamp track and shutter offset are common to the three CCDs: one fit for the block.
    Subtask(
        "NL",
        scope="block",
        after=("check", "extract"),
        options=CurveOptions,
        chamber_data=flat_light,
        mem_mb=800,
    ),
    Subtask("satCTE", after=("check", "extract"), mem_mb=500),
)
_PURPOSE = (
    "Integral non-linearity of every quadrant, corrected for lamp drift and shutter; transfer near full well."
)


def _test(name: str, handle: str, columns, condition: str, wavelength: int | None = None) -> Test:
    return Test(
        name,
        handle,
        "nonlinearity",
        columns,
        title=f"Non-linearity, {condition}",
        purpose=_PURPOSE,
        subtasks=_SUBTASKS,
        waived=(),
        wavelength=wavelength,
        chamber_data=flat_light,
    )


FAMILY = Family(
    "nonlinearity",
    (
        _test("NL01", "NL01", ladder({"test": "NL01"}, 0, [(0, NL01_LEVELS)]), "neutral density", 0),
        _test(
            "NL02",
            "NL02",
            ladder({"test": "NL02"}, 880, [(0, NL02_FAINT), (880, NL02_BRIGHT)]),
            "neutral density and 880 nm",
        ),
        *(
            _test(
                f"NL02_{r}R",
                "NL02RD",
                ladder({"test": f"NL02_{r}R", **reset_drain(r)}, 880, [(0, RD_FAINT), (880, RD_BRIGHT)]),
                f"reset drain {r / 10:.1f} V",
            )
            for r in RESET_DRAINS
        ),
    ),
)
