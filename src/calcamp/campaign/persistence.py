"""PERSIST01: latent signal after a strongly saturating, defocused exposure."""

from __future__ import annotations

from calcamp.campaign.core import CHECK, HK, Column, Family, Need, Subtask, Test, prep


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
                Subtask("basic", after=("check",), needs=_NEEDS, aliases=("satur_masks",)),
                Subtask("meta", after=("check", "basic"), needs=_NEEDS),
            ),
            waived=(),
        ),
    ),
)
