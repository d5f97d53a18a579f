"""DARK01: dark current, hot pixels and columns at the length of a science exposure."""

from __future__ import annotations

from pydantic import Field

from calcamp.campaign.core import CHECK, HK, Column, Family, Need, Options, Subtask, Test, prep


class MetaOptions(Options):
    """Master dark, dark current and hot pixels."""

    cosmic_sigma: float = Field(5.0, gt=0, description="cosmic rays stand out by this, in noise")
    cosmic_grow: int = Field(1, ge=0, description="px by which hits are grown")
    hot_sigma: float = Field(5.0, gt=0, description="hot pixels stand out by this, in errors")
    column_sigma: float = Field(7.0, gt=0, description="significance of a hot or dead column")
    background_box: int = Field(64, ge=8, description="px, of the background that hot pixels stand above")
    hot_rate_e_s: float = Field(0.05, ge=0, description="e-/s, which a hot pixel must also exceed")
    reference_temperature_K: float = Field(
        153.0, gt=0, description="temperature that the dark current is scaled to [K]"
    )
    activation_eV: float = Field(0.65, gt=0, description="energy used to scale the dark current [eV]")


FAMILY = Family(
    "dark",
    (
        Test(
            "DARK01",
            "DARK01",
            "dark",
            lambda chamber: [
                Column(4, {"test": "DARK01", "shuttr": 0, "exptime": 565.0, "comments": "DARK"})
            ],
            title="Dark current, hot pixels and hot columns",
            purpose="Dark current at the length of a science exposure, its non-uniformity, hot pixels and columns.",
            subtasks=(
                HK,
                CHECK,
                prep(offset="smooth", scan="pre", use_flat=False),
                Subtask(
                    "meta",
                    after=("check",),
                    options=MetaOptions,
                    needs=(Need("mask"), Need("dq"), Need("bias"), Need("gain")),
                    mem_mb=1800,
                ),
            ),
        ),
    ),
)
