"""PERSIST01: latent signal after a strongly saturating, defocused exposure."""

from __future__ import annotations

from pydantic import Field, model_validator

from calcamp.campaign.core import CHECK, HK, Column, Family, Need, Options, Subtask, Test, prep


class BasicOptions(Options):
    """Classes of pixels about the saturated areas."""

    bright: float = Field(
        55000.0, gt=0, description="pixels above this are no surroundings, nor those near [ADU]"
    )
    halo: int = Field(5, ge=0, description="px by which they are grown")
    inner: int = Field(10, ge=0, description="surroundings begin so far away [px]")
    reach: int = Field(60, ge=1, description="and end here [px]")

    @model_validator(mode="after")
    def _order(self):
        return self.in_order("inner", "reach")


def _columns(chamber) -> list[Column]:
    # Slots 4 and 2 are fixed numbers here, whatever the filter wheel holds.
    common = {"test": "PERSIST01", "flushes": 3, "mirr_on": 1}
    dark = {**common, "shuttr": 0, "source": "flat", "wave": 4, "mirr_pos": chamber.mirror_nominal(4)}
    exposed = {
        **common,
        "shuttr": 1,
        "source": "point",
        "wave": 2,
        "mirr_pos": chamber.mirror_nominal(2) - 10,
    }
    return [
        Column(5, {**dark, "exptime": 0, "comments": "RESET"}),
        Column(3, {**dark, "exptime": 565, "comments": "REFER."}),
        Column(1, {**exposed, "exptime": 600, "comments": "EXPOSE"}),
        Column(3, {**dark, "exptime": 565, "comments": "LATENT"}),
    ]


_NEEDS = (Need("mask"), Need("dq"), Need("bias"), Need("gain"))

FAMILY = Family(
    "persistence",
    (
        Test(
            "PERSIST01",
            "PERSIST01",
            "persistence",
            _columns,
            title="Persistence after saturation",
            purpose="Signal left in saturated pixels in the darks that follow, with its decay.",
            subtasks=(
                HK,
                CHECK,
                prep(offset="row", scan="pre", use_flat=False),
                Subtask(
                    "basic",
                    after=("check",),
                    options=BasicOptions,
                    needs=_NEEDS,
                    aliases=("satur_masks",),
                ),
                Subtask("meta", after=("check", "basic"), needs=_NEEDS),
            ),
            waived=(),
        ),
    ),
)
