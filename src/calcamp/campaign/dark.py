"""DARK01: dark current, hot pixels and columns at the length of a science exposure."""

from __future__ import annotations

from calcamp.campaign.core import CHECK, HK, Column, Family, Need, Options, Subtask, Test, prep


class MetaOptions(Options):
    """Master dark, dark current and hot pixels."""

    cosmic_sigma: float = 5.0
    cosmic_grow: int = 1  # pixels by which hits are grown
    hot_sigma: float = 5.0
    column_sigma: float = 7.0  # significance of a hot or dead column
    background_box: int = 64  # px, of the background that hot pixels stand above
    hot_rate_e_s: float = 0.05  # e-/s, a hot pixel must exceed both
    reference_temperature_K: float = 153.0
    activation_eV: float = 0.65


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
