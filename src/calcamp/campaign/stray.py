"""STRAY00: stray light of a chamber, partly manned: lamps and gauge are switched by hand between columns."""

from __future__ import annotations

from calcamp.campaign.core import CHECK, HK, Column, Family, Test


def _columns(chamber) -> list[Column]:
    common = {"test": "STRAY00"}
    made = []
    for wave, label in (
        (1, "LABLIT"),
        (1, "LABOUTW1"),
        (4, "LABOUTW4"),
        (1, "TUNGSOFF"),
        (1, "GAUGEOFF"),
        (1, "TUNGGAUON"),
    ):
        for time in (0, 100):
            made.append(Column(1, {**common, "exptime": time, "shuttr": 0, "wave": wave, "comments": label}))
    for wave in (1, 4):
        made.append(Column(1, {**common, "exptime": 300, "shuttr": 0, "wave": wave, "comments": "DARK-FF"}))
    point = {**common, "source": "point", "mirr_on": 1}
    for wave in (1, 4):
        for mirror in (1, 99):
            keys = {"exptime": 300, "shuttr": 0, "wave": wave, "mirr_pos": mirror, "comments": "DARK-PSF"}
            made.append(Column(1, {**point, **keys}))
    for wave in (1, 4):
        for time, label in ((5, "PSF-S"), (50, "PSF-L")):
            keys = {"exptime": time, "shuttr": 1, "wave": wave, "mirr_pos": 50, "comments": label}
            made.append(Column(1, {**point, **keys}))
    return made


FAMILY = Family(
    "stray",
    (
        Test(
            "STRAY00",
            "STRAY00",
            "stray",
            _columns,
            title="Stray light of the chamber",
            purpose="Light that reaches the CCDs with the shutter closed, and where it comes from.",
            subtasks=(HK, CHECK),
            waived=(),
            campaign_types=("devel",),
        ),
    ),
)
