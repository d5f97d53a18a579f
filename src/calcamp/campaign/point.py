"""FOCUS00, PSF01, PSFLUX00 and PSF02: the point sources, their focus, brightness and shape; cross-talk."""

from __future__ import annotations

from dataclasses import replace

from calcamp.campaign.common import DITHER, POINT_WAVELENGTHS, TEMPERATURES, percent
from calcamp.campaign.core import CHECK, HK, Column, Family, Need, Subtask, Test, prep

PSFLUX_WAVELENGTHS = (590, 730, 800, 880, 0)
PSF_LEVELS = (5, 25, 50, 75, 90)  # per cent of saturation at the peak
PSF01_FRAMES = (20, 15, 10, 4, 4)
PSF02_FRAMES = (20, 14, 10, 4, 4)


def focus_columns(name: str, wavelength: int, step: float = 0.2):
    """Nine mirror positions, mm, `step` apart around the nominal focus."""

    def columns(chamber) -> list[Column]:
        wave = chamber.slot(wavelength)
        nominal = chamber.mirror_nominal(wave)
        (time,) = percent([60], chamber.t_point(wavelength))
        common = {"test": name, "source": "point", "mirr_on": 1, "wave": wave, "exptime": time}
        return [
            Column(1, {**common, "mirr_pos": nominal + step * k, "comments": f"F{k:.1f}"})
            for k in range(-4, 5)
        ]

    return columns


def spot_columns(name: str, wavelength: int, levels, frames):
    """Dithered spots at nominal focus: `frames` at `levels` per cent of the point source's saturation time."""

    def columns(chamber) -> list[Column]:
        wave = chamber.slot(wavelength)
        common = {
            "test": name,
            "source": "point",
            "mirr_on": 1,
            "mirr_pos": chamber.mirror_nominal(wave),
            "wave": wave,
            **DITHER,
        }
        times = percent(levels, chamber.t_point(wavelength))
        return [Column(n, {**common, "exptime": time}) for n, time in zip(frames, times, strict=True)]

    return columns


_NEEDS = (
    Need("mask"),
    Need("dq"),
    Need("bias"),
    Need("gain"),
    Need("flat", per_wavelength=True),
    Need("linearity"),
)
# The checks of spots need to know where the spots are, so the lock comes first.
_LOCK = Subtask("lock", needs=(Need("mask"), Need("dq")))
_RELOCK = Subtask("relock", needs=(Need("lock", required=True),), production=False)
_CHECK = replace(CHECK, after=("lock",))
_PREP = prep(offset="row", scan="pre", use_flat=True)
_PREP = replace(_PREP, needs=(*_PREP.needs, Need("flat", per_wavelength=True)))

_FOCUS_SUBTASKS = (
    HK,
    _LOCK,
    _RELOCK,
    _CHECK,
    Subtask("basic", after=("lock", "check"), needs=_NEEDS),
    # Tilt and curvature of the focal plane need all three CCDs.
    Subtask("meta", scope="block", after=("check", "basic"), needs=_NEEDS),
)
_FLUX_SUBTASKS = (
    HK,
    _LOCK,
    _RELOCK,
    _CHECK,
    _PREP,
    Subtask("meta", scope="block", after=("check",), needs=_NEEDS, aliases=("basic",)),
)
_PSF_SUBTASKS = (
    HK,
    _LOCK,
    _RELOCK,
    _CHECK,
    _PREP,
    Subtask(
        "basic",
        after=("lock", "check"),
        needs=(*_NEEDS, Need("bf_kernel", per_wavelength=True)),
        # Shapes before and after the brighter-fatter correction are one step here, three in the predecessor.
        aliases=("corrBFE_G15", "basic_nobfe"),
    ),
    Subtask("bayes", after=("check", "basic"), needs=_NEEDS),
    Subtask("meta", after=("check", "basic"), needs=_NEEDS),
    Subtask("xtalk_sex", after=("lock", "check"), needs=_NEEDS),
    # Ghosts of a spot may be in any of the twelve channels.
    Subtask("xtalk_build", scope="block", after=("check", "xtalk_sex"), needs=_NEEDS),
    Subtask("xtalk_meta", scope="block", after=("check", "xtalk_build"), needs=(Need("gain"),)),
)


def _focus(wavelength: int) -> Test:
    name = f"FOCUS00_{wavelength}"
    return Test(
        name,
        "FOCUS00",
        "point",
        focus_columns(name, wavelength),
        title=f"Best focus of the point sources, {wavelength} nm",
        purpose="Best position of the focus mirror, width of the spots there, tilt of the focal plane.",
        subtasks=_FOCUS_SUBTASKS,
        colour_blind=False,
        wavelength=wavelength,
    )


def _psf(name: str, handle: str, wavelength: int, frames, condition: str) -> Test:
    return Test(
        name,
        handle,
        "point",
        spot_columns(name, wavelength, PSF_LEVELS, frames),
        title=f"Shape of the point sources against fluence, {condition}",
        purpose="Size and shape of spots against fluence, the CCD's part of the point spread function, optical "
        "cross-talk.",
        subtasks=_PSF_SUBTASKS,
        waived=(),
        colour_blind=False,
        wavelength=wavelength,
    )


def _flux(wavelength: int) -> Test:
    name = f"PSFLUX00_{wavelength}"
    label = "neutral density" if wavelength == 0 else f"{wavelength} nm"
    return Test(
        name,
        "PSFLUX00",
        "point",
        spot_columns(name, wavelength, (10, 30, 60, 80), (1,) * 4),
        title=f"Brightness of the point sources, {label}",
        purpose="Saturation time of the point sources, to update the chamber profile.",
        subtasks=_FLUX_SUBTASKS,
        waived=(),
        colour_blind=False,
        wavelength=wavelength,
    )


FAMILY = Family(
    "point",
    (
        *(_focus(w) for w in POINT_WAVELENGTHS),
        *(_psf(f"PSF01_{w}", "PSF01", w, PSF01_FRAMES, f"{w} nm") for w in POINT_WAVELENGTHS),
        *(_flux(w) for w in PSFLUX_WAVELENGTHS),
        *(_psf(f"PSF02_{t}K", "PSF02", 800, PSF02_FRAMES, f"800 nm at {t} K") for t in TEMPERATURES),
    ),
)
