"""FOCUS00, PSF01, PSFLUX00 and PSF02: the point sources, their focus, brightness and shape; cross-talk."""

from __future__ import annotations

from dataclasses import replace

from pydantic import Field

from calcamp.campaign.common import DITHER, POINT_WAVELENGTHS, TEMPERATURES, percent
from calcamp.campaign.core import CHECK, HK, Column, Family, Need, Options, Subtask, Test, prep

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


class LockOptions(Options):
    """Finding the pattern, and a first look at the spots of every frame."""

    threshold: float = Field(10.0, gt=0, description="detection, standard deviations of 4 x 4 pixel means")
    least_adu: float = Field(
        30.0, ge=0, description="detection, ADU per pixel of 4 x 4 pixel means, at least"
    )
    match_px: float = Field(8.0, gt=0, description="a star and its source are at most this far apart [px]")
    residual_px: float = Field(4.0, gt=0, description="rms of the stars about the transform, at most [px]")
    least_stars: int = Field(8, ge=3, description="stars that must be matched for a lock")
    missing_stars: int = Field(3, ge=0, description="stars of a CCD that may be missing")
    rotation_deg: float = Field(
        2.0, ge=0, le=180, description="rotation that is looked for, either sign [deg]"
    )
    scale: float = Field(
        0.02, ge=0, lt=1, description="difference of the scale from 1 that is looked for, either sign"
    )
    shift_px: float = Field(1000.0, ge=0, description="shift that is looked for [px]")
    stamp_radius: int = Field(20, ge=3, description="half the side of a stamp, its centre left out [px]")
    aperture_px: float = Field(10.0, gt=0, description="radius of the aperture [px]")
    saturation_adu: float = Field(
        58000.0, gt=0, description="signal from which a pixel counts as saturated: it may bleed [ADU]"
    )
    ring_px: float = Field(
        14.0, gt=0, description="the level beside a spot is taken farther out than this [px]"
    )


class ShapeOptions(Options):
    """Gaussians fitted to the spots."""

    stamp_radius: int = Field(20, ge=3, description="half the side of a stamp, its centre left out [px]")
    fit_radius: float = Field(12.0, gt=0, description="pixels of the fit, or 4 sigma if that is more [px]")
    aperture_px: float = Field(10.0, gt=0, description="radius of the aperture [px]")
    saturation_adu: float = Field(
        58000.0, gt=0, description="signal from which a pixel counts as saturated: it may bleed [ADU]"
    )
    ring_px: float = Field(
        14.0, gt=0, description="the level beside a spot is taken farther out than this [px]"
    )
    reject_sigma: float = Field(
        6.0, gt=0, description="pixels farther from the model are left out (cosmic rays)"
    )
    largest_chi2: float = Field(
        0.0, ge=0, description="chi2 per degree of freedom beyond which a fit is bad; 0: none is"
    )


class PsfShapeOptions(ShapeOptions):
    """Gaussians fitted to the spots, also after correction of the brighter-fatter effect."""

    correct_bf: bool = Field(
        True, description="fit the spots once more, corrected with the bf_kernel product, where one is named"
    )
    bf_passes: int = Field(3, ge=1, description="iterations of the correction")


class FocusOptions(Options):
    """Focus curves and focal plane."""

    clip_sigma: float = Field(6.0, gt=1, description="points farther from a focus curve are left out")
    plane_clip_sigma: float = Field(4.0, gt=1, description="spots farther from the focal plane are left out")
    least_spots: int = Field(4, ge=1, description="spots with a focus that a CCD must have")
    effective_saturation: float = Field(
        55000.0, gt=0, description="peak of a saturating spot above offset [ADU]"
    )


class FluxOptions(Options):
    """Brightness of the spots."""

    effective_saturation: float = Field(
        55000.0, gt=0, description="peak of a saturating spot above offset [ADU]"
    )
    max_fraction: float = Field(
        0.95, gt=0, le=1, description="spots with a peak above this share of it are left out"
    )
    exposure_jitter: float = Field(
        2e-4, ge=0, description="rms of the exposure, relative, added to the errors"
    )


class PsfOptions(FluxOptions):
    """Size and shape against fluence, the detector's kernel."""

    least_peak: float = Field(1000.0, ge=0, description="spots with a fainter peak do not count [ADU]")
    clip_sigma: float = Field(5.0, gt=1, description="measurements farther from the line are left out")


class BayesOptions(Options):
    """Forward model of spots: optics, diffusion and pixels, with a posterior."""

    stamp_radius: int = Field(10, ge=3, description="half the side of the stamps of the model [px]")
    widths: int = Field(7, ge=3, description="points of the grid over the diffraction pattern's width")
    correct_bf: bool = Field(
        True, description="correct the stamps with the bf_kernel product, where one is named"
    )
    bf_passes: int = Field(3, ge=1, description="iterations of the correction")


class CrosstalkOptions(Options):
    """Ghosts of bright spots in the other channels."""

    source_adu: float = Field(250.0, gt=0, description="pixels of a source above this are used [ADU]")
    mask_grow: int = Field(
        5, ge=0, description="victims' own sources are left out with so many pixels around them"
    )
    lags: int = Field(
        1, ge=0, description="lags along the read-out that are fitted beside, to each side [px]"
    )
    largest_err: float = Field(
        1e-4, gt=0, description="a coefficient with a larger error counts as not measured"
    )
    significance: float = Field(3.0, gt=0, description="a coefficient beyond this many errors counts as seen")


def pattern_data(test, chamber, detector) -> dict:
    """Where the stars should be, on this detector."""
    return {"pattern": None if chamber.pattern is None else chamber.spots().on(detector)}


def optics_data(test, chamber, detector) -> dict:
    """Width of the optics at the test's wavelength, px, None where the profile has no figure."""
    optics = chamber.optics
    width = None if optics is None else optics.fwhm_px.get(test.wavelength)
    return {"optics_fwhm": width, "optics_err": None if width is None else optics.err}


def expectations(test, chamber, detector) -> dict:
    """What limits of spots are relative to: the chamber's saturation time and width."""
    return {
        "saturation_time": chamber.saturation_time.point.get(test.wavelength),
        "fwhm": chamber.fwhm.get(test.wavelength),
        "mirror": chamber.mirror_nominal(chamber.slot(test.wavelength)),
    }


_NEEDS = (
    Need("mask"),
    Need("dq"),
    Need("bias"),
    Need("gain"),
    Need("flat", per_wavelength=True),
    Need("linearity"),
)
# The lock comes first and needs nothing of the check. With a lock product (a pattern as it was found
# before) it starts from there: that is what the predecessor called relock.
_LOCK = Subtask(
    "lock",
    options=LockOptions,
    needs=(Need("mask"), Need("dq"), Need("gain"), Need("lock")),
    aliases=("relock",),
    chamber_data=pattern_data,
    mem_mb=800,
    runtime_min=5,
)
_CHECK = replace(CHECK, after=("lock",))
_PREP = prep(offset="row", scan="pre", use_flat=True)
_PREP = replace(_PREP, needs=(*_PREP.needs, Need("flat", per_wavelength=True)))

_FOCUS_SUBTASKS = (
    HK,
    _LOCK,
    _CHECK,
    Subtask("basic", after=("lock", "check"), options=ShapeOptions, needs=_NEEDS, mem_mb=800),
    # The focal plane is one of all three CCDs.
    Subtask("meta", scope="block", after=("check", "basic"), options=FocusOptions, mem_mb=500),
)
_FLUX_SUBTASKS = (
    HK,
    _LOCK,
    _CHECK,
    _PREP,
    Subtask("basic", after=("lock", "check"), options=ShapeOptions, needs=_NEEDS, mem_mb=800),
    Subtask("meta", scope="block", after=("check", "basic"), options=FluxOptions, mem_mb=500),
)
_PSF_SUBTASKS = (
    HK,
    _LOCK,
    _CHECK,
    _PREP,
    Subtask(
        "basic",
        after=("lock", "check"),
        options=PsfShapeOptions,
        needs=(*_NEEDS, Need("bf_kernel", per_wavelength=True)),
        # Shapes before and after the brighter-fatter correction are one step here, three in the predecessor.
        aliases=("corrBFE_G15", "basic_nobfe"),
        mem_mb=1200,
    ),
    Subtask(
        "bayes",
        after=("lock", "check", "basic"),
        options=BayesOptions,
        needs=(*_NEEDS, Need("bf_kernel", per_wavelength=True)),
        runtime_min=20,
    ),
    Subtask(
        "meta",
        scope="block",
        after=("check", "basic"),
        options=PsfOptions,
        chamber_data=optics_data,
        mem_mb=800,
    ),
    Subtask(
        "xtalk_sex",
        after=("lock", "check"),
        options=CrosstalkOptions,
        needs=(Need("mask"), Need("dq")),
        mem_mb=800,
    ),
    # Ghosts of a spot may be in any of the twelve channels.
    Subtask(
        "xtalk_build",
        scope="block",
        after=("check", "xtalk_sex"),
        options=CrosstalkOptions,
        needs=(Need("mask"), Need("dq")),
        mem_mb=1500,
    ),
    Subtask(
        "xtalk_meta",
        scope="block",
        after=("check", "xtalk_build"),
        options=CrosstalkOptions,
        needs=(Need("gain"),),
        mem_mb=500,
    ),
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
        chamber_data=expectations,
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
        chamber_data=expectations,
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
        chamber_data=expectations,
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
