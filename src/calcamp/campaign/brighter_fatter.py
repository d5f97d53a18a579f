"""BF01, BF01 at wavelengths and MOT_FF: analyses of the frames of photon transfer tests (their surrogates)."""

from __future__ import annotations

from pydantic import Field

from calcamp.campaign.common import FLAT_WAVELENGTHS, flat_light
from calcamp.campaign.core import CHECK, HK, Family, Options, Subtask, Test
from calcamp.campaign.ptc import (
    NEEDS,
    PREP,
    MetaOptions,
    PairOptions,
    mot_ptc01_columns,
    ptc01_columns,
    ptc02_columns,
)


class KernelOptions(MetaOptions):
    """Covariance model and kernel."""

    kernel_lags: int = Field(5, ge=3, le=8, description="lags of the kernel")


class VerifyOptions(Options):
    """Correction of flats and what is left of the covariances."""

    pairs_per_level: int = Field(1, ge=1, description="pairs of each level that are corrected")
    window: int = Field(1024, ge=128, description="px; the middle of the image area that is corrected")
    passes: int = Field(3, ge=1, description="iterations of the correction")
    use_linearity: bool = Field(
        True, description="correct pixels by the linearity product, where one is named"
    )


_NEEDS = NEEDS
_PREP = PREP
_EXTRACT = (
    Subtask("extract_COV", after=("check",), options=PairOptions, needs=_NEEDS, mem_mb=1500, runtime_min=15),
    # The kernel product holds the twelve channels: one process.
    Subtask(
        "extract_BF",
        scope="block",
        after=("check", "extract_COV"),
        options=KernelOptions,
        needs=_NEEDS,
        mem_mb=800,
    ),
)


def _test(name: str, handle: str, columns, surrogate: str, wavelength: int) -> Test:
    return Test(
        name,
        handle,
        "brighter_fatter",
        columns,
        title=f"Brighter-fatter effect, {wavelength} nm",
        purpose="Coefficients and kernel of the brighter-fatter effect from covariances of flats, and the residual "
        f"after its correction. The frames are those of {surrogate}.",
        subtasks=(
            HK,
            CHECK,
            _PREP,
            *_EXTRACT,
            Subtask(
                "meta",
                after=("check", "extract_COV", "extract_BF"),
                options=VerifyOptions,
                needs=_NEEDS,
                mem_mb=1500,
                # Correcting and verifying the correction is one step here, two in the predecessor.
                aliases=("correct_BFE_G15", "extract_PTCs"),
            ),
        ),
        colour_blind=False,
        surrogate=surrogate,
        wavelength=wavelength,
        chamber_data=flat_light,
    )


FAMILY = Family(
    "brighter_fatter",
    (
        _test("BF01", "BF01", ptc01_columns, "PTC01", 800),
        *(
            _test(f"BF01_{w}", "BF01WAVE", ptc02_columns(f"PTC02_{w}", w), f"PTC02_{w}", w)
            for w in FLAT_WAVELENGTHS
        ),
        Test(
            "MOT_FF",
            "MOT_FF",
            "brighter_fatter",
            mot_ptc01_columns,
            title="Flat-field functional test",
            purpose="Covariances, code density of the ADCs and response at the hard edge, on the frames of PTC01 of the "
            "short functional campaign.",
            subtasks=(
                HK,
                CHECK,
                _PREP,
                *_EXTRACT,
                Subtask("extract_ADC", after=("check",), mem_mb=500),
                Subtask("extract_HER", scope="block", after=("check", "extract_COV"), mem_mb=500),
            ),
            colour_blind=False,
            surrogate="PTC01",
            wavelength=800,
            campaign_types=("MOT",),
            chamber_data=flat_light,
        ),
    ),
)
