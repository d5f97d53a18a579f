"""FLATFLUX00, FLAT01, FLAT02 and FLAT_STB: brightness of the flat source, pixel response, stability."""

from __future__ import annotations

from calcamp.campaign.common import FLAT_WAVELENGTHS, percent
from calcamp.campaign.core import CHECK, HK, Column, Family, Need, Subtask, Test, prep

FLATFLUX_WAVELENGTHS = (590, 2000, 730, 800, 880, 0)


def flat_columns(name: str, wavelength: int, levels, frames):
    """Columns of a FLAT test: `frames` at `levels` per cent of the flat source's saturation time."""

    def columns(chamber) -> list[Column]:
        times = percent(levels, chamber.t_flat(wavelength))
        wave = chamber.slot(wavelength)
        return [
            Column(n, {"test": name, "wave": wave, "exptime": time, "comments": f"EXP{time:.1e}"})
            for n, time in zip(frames, times, strict=True)
        ]

    return columns


def _flux_columns(name: str, wavelength: int):
    def columns(chamber) -> list[Column]:
        # The open slot is commanded by the flat source's time, all others by the point source's: what the
        # campaign commands (test catalogue, 7.10), not what its name suggests.
        if wavelength == 2000:
            times = percent([5, 20, 50, 80], chamber.t_flat(2000))
        else:
            times = percent([10, 30, 60, 80], chamber.t_point(wavelength))
        wave = chamber.slot(wavelength)
        return [Column(1, {"test": name, "wave": wave, "exptime": time}) for time in times]

    return columns


# A flat is not divided by a flat.
_PREP = prep(offset="row", scan="pre", use_flat=False)
_NEEDS = (Need("mask"), Need("dq"), Need("bias"), Need("gain"), Need("linearity"))

_FLUX_SUBTASKS = (
    HK,
    CHECK,
    _PREP,
    # The lamp and the shutter are common to the three CCDs: one fit for the block.
    Subtask("meta", scope="block", after=("check",), needs=_NEEDS, aliases=("extract_PTC", "extract_HER")),
)
_SUBTASKS = (
    HK,
    CHECK,
    _PREP,
    Subtask("indivflats", after=("check",), needs=_NEEDS),
    Subtask("masterflat", after=("check", "indivflats"), needs=_NEEDS),
    Subtask("prmask", after=("check", "masterflat"), needs=_NEEDS),
)


def _flux(wavelength: int) -> Test:
    name = f"FLATFLUX00_{wavelength}"
    return Test(
        name,
        "FLATFLUX00",
        "flat",
        _flux_columns(name, wavelength),
        title=f"Brightness of the flat source, {_label(wavelength)}",
        purpose="Saturation time of the flat source and offset of the shutter, to update the chamber profile.",
        subtasks=_FLUX_SUBTASKS,
        colour_blind=False,
        wavelength=wavelength,
    )


def _flat(name: str, handle: str, wavelength: int, levels, frames, title: str, purpose: str) -> Test:
    return Test(
        name,
        handle,
        "flat",
        flat_columns(name, wavelength, levels, frames),
        title=title,
        purpose=purpose,
        subtasks=_SUBTASKS,
        wavelength=wavelength,
    )


def _label(wavelength: int) -> str:
    return {0: "neutral density", 2000: "open slot"}.get(wavelength, f"{wavelength} nm")


_RESPONSE = "Master flats at each level, pixel response non-uniformity with its noise removed, mask of deviant pixels."

FAMILY = Family(
    "flat",
    (
        *(_flux(wavelength) for wavelength in FLATFLUX_WAVELENGTHS),
        _flat(
            "FLAT01",
            "FLAT01",
            800,
            (25, 50, 75),
            (80, 60, 30),
            "Pixel response at three fluences, 800 nm",
            _RESPONSE,
        ),
        *(
            _flat(
                f"FLAT02_{wavelength}",
                "FLAT02",
                wavelength,
                (25, 75),
                (80, 30),
                f"Pixel response, {wavelength} nm",
                _RESPONSE,
            )
            for wavelength in FLAT_WAVELENGTHS
        ),
        _flat(
            "FLAT_STB",
            "FLAT_STB",
            800,
            (30,),
            (15,),
            "Stability of the flat source",
            "Drift and scatter of the flat source over a series of equal exposures.",
        ),
    ),
)
