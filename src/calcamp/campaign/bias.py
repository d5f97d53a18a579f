"""BIAS01 and BIAS02: offset structure and read-out noise, forward and with reversed parallel clocks."""

from __future__ import annotations

from pydantic import Field

from calcamp.campaign.core import CHECK, HK, Column, Family, Need, Options, Subtask, Test, prep

#: Summing-well width and delay that go with a read mode, us (test catalogue, section 4).
SUMMING_WELL = {
    "fwd_bas": (8.4, 5.625),
    "fwd_e2v": (7.15, 6.725),
    "rwd_bas_v": (8.4, 5.625),
    "rwd_bas_s": (6.5, 0.175),
    "rwd_bas_vs": (6.5, 0.175),
}


class BasicOptions(Options):
    """Read noise and its parts, offset model, profiles."""

    clip_sigma: float = Field(5.0, gt=1, description="pixels farther from their region's level are left out")
    model_degree: int = Field(3, ge=0, le=9, description="of the 2-D offset model")
    spectrum: bool = Field(True, description="look for interference in the read-out stream")
    line_extra_px: int = Field(
        0,
        ge=0,
        description="pixels clocked and not stored at the end of a line, for the times of the spectrum",
    )
    spectrum_frames: int = Field(
        1, ge=1, description="frames whose read-out stream is analysed: more finds weaker interference"
    )


class MetaOptions(Options):
    """Master bias."""

    clip_sigma: float = Field(3.0, gt=1, description="values of a pixel farther from the others are left out")
    clip_iterations: int = Field(3, ge=1, description="iterations of that clip")


def _columns(name: str, rdmode: str):
    width, delay = SUMMING_WELL[rdmode]
    keys = {
        "test": name,
        "shuttr": 0,
        "comments": "BIAS",
        "rdmode": rdmode,
        "swellw": width,
        "swelldly": delay,
    }
    return lambda chamber: [Column(10, keys)]


_PREP = prep(offset="smooth", scan="pre", use_bias=False, use_flat=False)
_NEEDS = (Need("mask"), Need("dq"))  # all in ADU: the gain enters in judging
_SUBTASKS = (
    HK,
    CHECK,
    _PREP,
    Subtask("basic", after=("check",), options=BasicOptions, needs=_NEEDS, mem_mb=1100),
    Subtask("meta", after=("check",), options=MetaOptions, needs=_NEEDS, mem_mb=1800),
)

FAMILY = Family(
    "bias",
    (
        Test(
            "BIAS01",
            "BIAS01",
            "bias",
            _columns("BIAS01", "fwd_bas"),
            title="Offset structure and read-out noise, nominal read mode",
            purpose="Offset level, drift and structure of every quadrant, read-out noise and its parts, and the "
            "master bias used by other tests.",
            subtasks=_SUBTASKS,
        ),
        Test(
            "BIAS02",
            "BIAS02",
            "bias",
            _columns("BIAS02", "rwd_bas_v"),
            title="Offset structure and read-out noise, reversed parallel clocks",
            purpose="As BIAS01 with the parallel clocks reversed, which keeps charge of the image area out of the "
            "read-out: the difference to BIAS01 is spurious charge and read-out dark signal.",
            subtasks=_SUBTASKS,
        ),
    ),
)
