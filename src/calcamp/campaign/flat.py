"""FLATFLUX00, FLAT01, FLAT02 and FLAT_STB: brightness of the flat source, pixel response, stability."""

from __future__ import annotations

from pydantic import Field, model_validator

from calcamp.campaign.common import FLAT_WAVELENGTHS, flat_light, percent
from calcamp.campaign.core import CHECK, HK, Column, Family, Need, Options, Subtask, Test, prep

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


class FluxOptions(Options):
    """Brightness of the flat source."""

    lamp_rms: float = Field(
        5e-4, gt=0, description="relative scatter of the lamp from exposure to exposure, at least"
    )
    max_fraction: float = Field(
        0.8, gt=0, le=1, description="share of FDR above which levels are left out of the fit"
    )
    shutter_error_s: float = Field(1e-3, gt=0, description="error of the shutter table, s")
    use_shutter_table: bool = Field(
        True, description="take the chamber's shutter table as a measurement of t0"
    )


class IndividualOptions(Options):
    """Frames brought to one flux, outliers left out, stacked by level."""

    cosmic_sigma: float = Field(
        6.0, ge=4, description="pixels this far from the median of the first frames are left out"
    )
    write: bool = Field(False, description="write every single flat with the illumination divided out (FITS)")
    box: int = Field(25, ge=8, description="px; structure larger than that is illumination")
    use_linearity: bool = Field(
        True, description="correct pixels by the linearity product, where one is named"
    )


class MasterOptions(Options):
    """Master flats and pixel response non-uniformity."""

    box: int = Field(25, ge=8, description="px; structure larger than that goes to the large-scale flat")
    defect_sigma: float = Field(
        5.0, ge=3, description="pixels beyond are no part of the non-uniformity; corrected for"
    )
    a00: float = Field(
        -8.7e-7, le=0, description="1/e-, a00 of the brighter-fatter effect, which lowers contrast"
    )


class MaskOptions(Options):
    """Mask of deviant pixels."""

    dead: float = Field(0.5, ge=0, lt=1, description="response below: dead")
    low: float = Field(0.8, gt=0, lt=1, description="response below: low")
    high: float = Field(1.2, gt=1, description="response above: high")
    over: float = Field(1.5, gt=1, description="response above: over")
    deviant_sigma: float = Field(
        7.0, ge=3, description="deviant beyond so many rms of the response map, at every level"
    )
    column_sigma: float = Field(7.0, gt=0, description="significance of a column defect")
    column_depth: float = Field(0.03, ge=0, description="a column defect deviates at least so much")

    @model_validator(mode="after")
    def _order(self):
        return self.in_order("dead", "low", "high", "over")


# A flat is not divided by a flat.
_PREP = prep(offset="smooth", scan="pre", use_flat=False)
_NEEDS = (Need("mask"), Need("dq"), Need("bias"), Need("gain"), Need("linearity"))

_FLUX_SUBTASKS = (
    HK,
    CHECK,
    _PREP,
    # The lamp and the shutter are common to the three CCDs: one fit for the block.
    Subtask(
        "meta",
        scope="block",
        after=("check",),
        options=FluxOptions,
        chamber_data=flat_light,
        aliases=("extract_PTC", "extract_HER"),
        mem_mb=500,
    ),
)
_SUBTASKS = (
    HK,
    CHECK,
    _PREP,
    Subtask(
        "indivflats", after=("check",), options=IndividualOptions, needs=_NEEDS, mem_mb=1800, runtime_min=20
    ),
    Subtask(
        "masterflat", after=("check", "indivflats"), options=MasterOptions, needs=(Need("gain"),), mem_mb=1500
    ),
    Subtask("prmask", after=("check", "masterflat"), options=MaskOptions, mem_mb=1500),
    # Drift and scatter of the lamp are what the twelve channels have in common.
    Subtask("stability", scope="block", after=("check", "indivflats"), mem_mb=500),
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
        chamber_data=flat_light,
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
        chamber_data=flat_light,
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
