"""COSMETICS00: defect masks from biases and flats."""

from __future__ import annotations

from calcamp.campaign.common import percent
from calcamp.campaign.core import CHECK, HK, Column, Family, Need, Subtask, Test


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
                Subtask("masks", after=("check",), needs=(Need("flat", per_wavelength=True), Need("dark"))),
                Subtask("meta", after=("check", "masks")),
            ),
            waived=(),
        ),
    ),
)
