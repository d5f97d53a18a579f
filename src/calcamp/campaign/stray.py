"""STRAY00: stray light of a chamber, partly manned: lamps and gauge are switched by hand between columns."""

from __future__ import annotations

from dataclasses import dataclass

from calcamp.campaign.core import CHECK, HK, Column, Family, Need, Subtask, Test, prep


@dataclass(frozen=True)
class Configuration:
    """One state of the chamber: a long exposure less a short one (columns; no short one: all of 0 s)."""

    name: str
    text: str
    long: int
    short: int | None = None
    dark: bool = True  # no light is wanted: judged


#: Columns of the test, from 1 (test catalogue, 12.1). The log does not say who switched which lamp.
CONFIGURATIONS = (
    Configuration("LABLIT", "lab lights on, F1", 2, 1),
    Configuration("LABOUTW1", "lab lights off, F1", 4, 3),
    Configuration("LABOUTW4", "lab lights off, F4", 6, 5),
    Configuration("TUNGSOFF", "tungsten lamp off too, F1", 8, 7),
    Configuration("GAUGEOFF", "pressure gauge off too, F1", 10, 9),
    Configuration("TUNGGAUON", "lamp and gauge on again, F1", 12, 11),
    Configuration("DARK-FF-F1", "flat source, F1", 13),
    Configuration("DARK-FF-F4", "flat source, F4", 14),
    Configuration("DARK-PSF-F1-1", "point source, F1, mirror 1 mm", 15),
    Configuration("DARK-PSF-F1-99", "point source, F1, mirror 99 mm", 16),
    Configuration("DARK-PSF-F4-1", "point source, F4, mirror 1 mm", 17),
    Configuration("DARK-PSF-F4-99", "point source, F4, mirror 99 mm", 18),
    Configuration("PSF-F1", "shutter open, point source, F1", 20, 19, dark=False),
    Configuration("PSF-F4", "shutter open, point source, F4", 22, 21, dark=False),
)
#: What a difference of two configurations says: (source of light, with, without).
ATTRIBUTION = (
    ("lab lights", "LABLIT", "LABOUTW1"),
    ("filter F1 against F4", "LABOUTW1", "LABOUTW4"),
    ("tungsten lamp", "LABOUTW1", "TUNGSOFF"),
    ("pressure gauge", "TUNGSOFF", "GAUGEOFF"),
    ("lamp and gauge", "TUNGGAUON", "GAUGEOFF"),
    ("point mode against flat mode, F1", "DARK-PSF-F1-1", "DARK-FF-F1"),
    ("mirror 99 against 1 mm, F1", "DARK-PSF-F1-99", "DARK-PSF-F1-1"),
    ("mirror 99 against 1 mm, F4", "DARK-PSF-F4-99", "DARK-PSF-F4-1"),
)


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
            subtasks=(
                HK,
                CHECK,
                prep(offset="row", scan="pre", use_flat=False),
                Subtask("basic", after=("check",), needs=(Need("mask"), Need("dq"), Need("gain"))),
            ),
            waived=(),
            campaign_types=("devel",),
        ),
    ),
)
