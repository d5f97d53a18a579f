"""BF01, BF01 at wavelengths and MOT_FF: analyses of the frames of photon transfer tests (their surrogates)."""

from __future__ import annotations

from calcamp.campaign.common import FLAT_WAVELENGTHS
from calcamp.campaign.core import CHECK, HK, Family, Need, Subtask, Test, prep
from calcamp.campaign.ptc import mot_ptc01_columns, ptc01_columns, ptc02_columns

_NEEDS = (Need("mask"), Need("dq"), Need("bias"), Need("gain"), Need("linearity"))
_PREP = prep(offset="row", scan="pre", use_flat=False)
_EXTRACT = (
    Subtask("extract_COV", after=("check",), needs=_NEEDS),
    Subtask("extract_BF", after=("check", "extract_COV"), needs=_NEEDS),
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
                needs=_NEEDS,
                # Correcting and verifying the correction is one step here, two in the predecessor.
                aliases=("correct_BFE_G15", "extract_PTCs"),
            ),
        ),
        colour_blind=False,
        surrogate=surrogate,
        wavelength=wavelength,
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
                Subtask("extract_ADC", after=("check",), needs=_NEEDS),
                Subtask("extract_HER", after=("check",), needs=_NEEDS),
            ),
            colour_blind=False,
            surrogate="PTC01",
            wavelength=800,
            campaign_types=("MOT",),
        ),
    ),
)
