"""PTC01 and PTC02: photon transfer curves at wavelengths, temperatures and reset-drain voltages."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from calcamp.campaign.common import (
    FLAT_WAVELENGTHS,
    RESET_DRAINS,
    TEMPERATURES,
    flat_light,
    percent,
    reset_drain,
)
from calcamp.campaign.core import CHECK, HK, Column, Family, Need, Options, Subtask, Test, prep

PTC01_LEVELS = (5, 10, 20, 30, 50, 70, 80, 90, 100, 110, 120)  # per cent of saturation
PTC01_FRAMES = (10, 10, 10, 10, 10, 10, 10, 10, 4, 4, 4)
PTC02_LEVELS = (10, 30, 50, 70, 80, 90)
PTC02_FRAMES = (4,) * 6


def ptc_columns(name: str, wavelength: int, levels, frames, keys: dict | None = None):
    """Columns of a photon transfer curve: `frames` flats at `levels` per cent of saturation."""

    def columns(chamber) -> list[Column]:
        common = {"test": name, "wave": chamber.slot(wavelength), **(keys or {})}
        times = percent(levels, chamber.t_flat(wavelength))
        return [Column(n, {**common, "exptime": time}) for n, time in zip(frames, times, strict=True)]

    return columns


ptc01_columns = ptc_columns("PTC01", 800, PTC01_LEVELS, PTC01_FRAMES, {"vstart": 0, "vend": 2086})
#: The short set of the functional campaign (MOT), which MOT_FF reads.
mot_ptc01_columns = ptc_columns("PTC01", 800, (10, 30, 50, 70, 90), (2,) * 5, {"vstart": 0, "vend": 2086})


def ptc02_columns(name: str, wavelength: int, keys: dict | None = None):
    """Columns of a PTC02 test, also read by the brighter-fatter tests."""
    return ptc_columns(name, wavelength, PTC02_LEVELS, PTC02_FRAMES, keys)


class PairOptions(Options):
    """Covariances of pairs of flats."""

    lags: int = Field(
        8, ge=2, le=16, description="covariances are measured to so many lags in both directions"
    )
    clip_sigma: float = Field(5.5, ge=4, description="clip of the difference images, sigma; corrected for")
    max_flux_difference: float = Field(
        0.1, gt=0, description="pairs whose fluxes differ by more are left out"
    )
    use_linearity: bool = Field(
        True, description="correct pixels by the linearity product, where one is named"
    )


class MetaOptions(Options):
    """Covariance model, turn-off, gain of tiles."""

    noise: Literal["overscan", "free"] = Field(
        "overscan",
        description="overscan: the noise of the scans is one more measurement of the curve's noise; free: it is not",
    )
    model_b: bool | None = Field(
        None, description="coefficients b of Astier et al. 2019: yes, no, or only where the data ask for them"
    )
    max_level: float | None = Field(
        None, gt=0, description="ADU: no pair above is fitted; by default the turn-off decides"
    )


# One offset per row would put noise into the covariances along the rows: the smooth course is taken.
PREP = prep(offset="smooth", scan="pre", use_flat=False)
NEEDS = (Need("mask"), Need("dq"), Need("bias"), Need("gain"), Need("linearity"))
EXTRACT = Subtask(
    "extract_PTC", after=("check",), options=PairOptions, needs=NEEDS, mem_mb=1500, runtime_min=15
)
_SUBTASKS = (
    HK,
    CHECK,
    PREP,
    EXTRACT,
    # The gain product holds the twelve channels: one process.
    Subtask(
        "meta", scope="block", after=("check", "extract_PTC"), options=MetaOptions, needs=NEEDS, mem_mb=800
    ),
    # Profiles behind the edges are taken while extract_PTC has the frames in memory.
    Subtask("extract_HER", scope="block", after=("check", "extract_PTC"), needs=NEEDS, mem_mb=500),
)
_PURPOSE = (
    "Gain, read noise, full well and brighter-fatter coefficients from the covariances of pairs of flats; "
    "response at the hard edge of the image."
)


def _test(name: str, handle: str, columns, wavelength: int, condition: str) -> Test:
    return Test(
        name,
        handle,
        "ptc",
        columns,
        title=f"Photon transfer curve, {condition}",
        purpose=_PURPOSE,
        subtasks=_SUBTASKS,
        colour_blind=False,
        wavelength=wavelength,
        chamber_data=flat_light,
    )


FAMILY = Family(
    "ptc",
    (
        _test("PTC01", "PTC01", ptc01_columns, 800, "800 nm"),
        *(
            _test(f"PTC02_{w}", "PTC02WAVE", ptc02_columns(f"PTC02_{w}", w), w, f"{w} nm")
            for w in FLAT_WAVELENGTHS
        ),
        *(
            _test(f"PTC02_{t}K", "PTC02TEMP", ptc02_columns(f"PTC02_{t}K", 800), 800, f"800 nm at {t} K")
            for t in TEMPERATURES
        ),
        *(
            _test(
                f"PTC02_{r}R",
                "PTC02RD",
                ptc02_columns(f"PTC02_{r}R", 800, reset_drain(r)),
                800,
                f"800 nm, reset drain {r / 10:.1f} V",
            )
            for r in RESET_DRAINS
        ),
    ),
)
