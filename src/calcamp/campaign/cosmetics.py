"""COSMETICS00: defect masks from biases and flats."""

from __future__ import annotations

from pydantic import Field, model_validator

from calcamp.campaign.common import percent
from calcamp.campaign.core import CHECK, HK, Column, Family, Need, Options, Subtask, Test


class MasksOptions(Options):
    """Thresholds of the search for defects."""

    dark_sigma: float = Field(
        5.5, gt=0, description="frames without light: bright pixels stand out by this, in local scatters"
    )
    dark_least: float = Field(2.0, ge=0, description="and by this [ADU]")
    dark_column_least: float = Field(0.1, ge=0, description="bright columns stand out by this [ADU]")
    pattern_sigma: float = Field(
        6.0, gt=0, description="and of the read-out's own column pattern by so many of its rms"
    )
    flat_sigma: float = Field(5.5, gt=0, description="flats: pixels deviate by this, in local scatters")
    dead: float = Field(0.5, ge=0, lt=1, description="relative response below which a pixel is dead")
    low: float = Field(0.8, gt=0, lt=1, description="relative response below which a pixel is low")
    high: float = Field(1.2, gt=1, description="relative response above which a pixel is high")
    over: float = Field(1.5, gt=1, description="relative response above which a pixel is over-responsive")
    column_sigma: float = Field(7.0, gt=0, description="least significance of a column, whole or partial")
    column_least: float = Field(0.05, ge=0, description="least deviation of a column in response")
    vote: float = Field(0.7, gt=0, le=1, description="share of the frames that must show a defect")
    dark_box: int = Field(64, ge=8, description="box of the background of frames without light [px]")
    flat_box: int = Field(32, ge=8, description="box of the background of flats [px]")
    dark_rate_e_s: float = Field(
        0.05, ge=0, description="a master dark without bits: least rate of a hot pixel [e-/s]"
    )

    @model_validator(mode="after")
    def _order(self):
        return self.in_order("dead", "low", "high", "over")


def _columns(chamber) -> list[Column]:
    (time,) = percent([50], chamber.t_flat(800))
    return [
        Column(5, {"test": "COSMETICS00", "exptime": 0, "shuttr": 0, "wave": 4, "comments": "BIAS"}),
        Column(
            5,
            {
                "test": "COSMETICS00",
                "exptime": time,
                "shuttr": 1,
                "wave": chamber.slot(800),
                "comments": "FLAT",
            },
        ),
    ]


FAMILY = Family(
    "cosmetics",
    (
        Test(
            "COSMETICS00",
            "COSMETICS00",
            "cosmetics",
            _columns,
            title="Cosmetics masks",
            purpose="Masks of dark and photo-response defects, needed by the analysis of most other tests.",
            subtasks=(
                HK,
                CHECK,
                Subtask(
                    "masks",
                    after=("check",),
                    options=MasksOptions,
                    needs=(Need("flat", per_wavelength=True), Need("dark"), Need("gain")),
                    mem_mb=1700,
                ),
                Subtask("meta", after=("check", "masks"), needs=(Need("mask"), Need("dq")), mem_mb=800),
            ),
            waived=(),
            wavelength=800,
        ),
    ),
)
