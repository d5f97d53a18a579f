"""The catalogue: which handles a campaign type has, and which tests a handle stands for.

Full is the flight campaign. MOT, Mini and devel are short sets; where they change a test, the changed
test is declared here beside its campaign, and the analysis is that of the family.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from functools import cache

from calcamp.campaign.core import CampaignError, Column, Test, families, tests
from calcamp.config.errors import did_you_mean

#: Handles of the flight campaign in catalogue order.
FULL = (
    *("BIAS01", "BIAS02", "DARK01", "CHINJ01", "CHINJ02", "TP01", "TP11", "TP02", "TP21"),
    *("FLATFLUX00", "FLAT01", "FLAT02", "FLAT_STB", "PTC01", "PTC02WAVE", "PTC02TEMP", "PTC02RD"),
    *("BF01", "BF01WAVE", "NL01", "NL02", "NL02RD", "FOCUS00", "PSF01", "PSFLUX00", "PSF02"),
    *("PERSIST01", "MOT_WARM", "COSMETICS00"),
)

CAMPAIGN_TYPES = ("Full", "Mini", "MOT", "devel")

_TAG = re.compile(r"([A-Z]+[0-9A-Z_]*)(\.[0-9]+)?")


@dataclass(frozen=True)
class Planned:
    """A test to be written: its name with the iteration tag, and what it is."""

    name: str  # FOCUS00_590.2: file names, inventory, scheduler, sessions
    test: Test  # commands the untagged name


def split_tag(name: str) -> tuple[str, str]:
    """Separate ``BIAS01.2`` into ``("BIAS01", ".2")``; the tag is empty when there is none.

    Raises
    ------
    CampaignError
        The name is malformed.
    """
    match = _TAG.fullmatch(name)
    if match is None:
        raise CampaignError(
            f"{name!r} is not a name of a test or handle: capital letters, digits and _, with an iteration tag "
            "such as .2 at the end where a test is repeated"
        )
    return match[1], match[2] or ""


@cache
def handles(campaign: str = "Full") -> dict[str, tuple[Test, ...]]:
    """Handle → its tests, both in the order in which they are written.

    Raises
    ------
    CampaignError
        There is no such campaign type.
    """
    makers = {"Full": _full, "MOT": _mot, "Mini": _mini, "devel": _devel}
    if campaign not in makers:
        raise CampaignError(f"unknown campaign type {campaign!r}: one of {', '.join(CAMPAIGN_TYPES)}")
    return makers[campaign]()


def expand(asked: str, campaign: str = "Full") -> list[Planned]:
    """The tests of a handle, which may carry an iteration tag: it ends each test's name.

    Raises
    ------
    CampaignError
        Malformed or unknown handle; the likely one is named.
    """
    handle, tag = split_tag(asked)
    known = handles(campaign)
    if handle not in known:
        raise CampaignError(f"unknown handle {asked!r} in campaign type {campaign}{_hint(handle, campaign)}")
    return [Planned(test.name + tag, test) for test in known[handle]]


def _hint(handle: str, campaign: str) -> str:
    elsewhere = [kind for kind in CAMPAIGN_TYPES if kind != campaign and handle in handles(kind)]
    if elsewhere:
        return f"; it belongs to campaign type {' and '.join(elsewhere)}"
    if handle in tests():
        return f"; {handle} is a test, its handle is {tests()[handle].handle}"
    return f"; {did_you_mean(handle, handles(campaign))}"


def _grouped() -> dict[str, tuple[Test, ...]]:
    found: dict[str, list[Test]] = {}
    for family in families().values():
        for test in family.tests:
            found.setdefault(test.handle, []).append(test)
    return {handle: tuple(members) for handle, members in found.items()}


def _full() -> dict[str, tuple[Test, ...]]:
    grouped = _grouped()
    return {handle: grouped[handle] for handle in FULL}


def _changed(base: Test, campaign: str, columns=None, **fields) -> Test:
    return replace(base, columns=columns or base.columns, campaign_types=(campaign,), **fields)


def _frames(base: Test, frames: int):
    """Columns of `base` with another number of frames."""
    return lambda chamber: [Column(frames, column.keys) for column in base.columns(chamber)]


def _mot() -> dict[str, tuple[Test, ...]]:
    """The short functional campaign."""
    from calcamp.campaign.injection import gate_columns
    from calcamp.campaign.ptc import mot_ptc01_columns
    from calcamp.campaign.pumping import parallel_columns

    known = tests()
    bias = known["BIAS01"]
    made = [
        _changed(bias, "MOT", _frames(bias, 5)),
        _changed(known["CHINJ01"], "MOT", gate_columns([3 + 0.75 * i for i in range(8)], gate2=7.5)),
        _changed(known["TP01"], "MOT", parallel_columns("TP01", 11, times=(200,))),
        _changed(known["TP02"], "MOT"),
        _changed(known["PTC01"], "MOT", mot_ptc01_columns),
        known["MOT_FF"],
    ]
    return {test.handle: (test,) for test in made}


def _mini() -> dict[str, tuple[Test, ...]]:
    """The dry run, for a chamber with a slot at 640 nm."""
    from calcamp.campaign.flat import flat_columns
    from calcamp.campaign.point import focus_columns, spot_columns
    from calcamp.campaign.pumping import functional_columns

    known = tests()
    bias, dark = known["BIAS01"], known["DARK01"]
    flat = known["FLAT02_590"]
    return {
        "BIAS01": (_changed(bias, "Mini", _frames(bias, 3)),),
        "DARK01": (_changed(dark, "Mini", _frames(dark, 1)),),
        "CHINJ00": (known["CHINJ00"],),
        "TP00": (_changed(known["TP00"], "Mini", functional_columns(500)),),
        # Commanded under a name of its own; file and inventory say FLAT01.
        "FLAT01": (
            _changed(
                known["FLAT01"],
                "Mini",
                flat_columns("FLAT01_800", 800, (25, 50, 75), (1, 1, 1)),
                surrogate="FLAT01_800",
            ),
        ),
        "FLAT02": tuple(
            _changed(
                flat,
                "Mini",
                flat_columns(f"FLAT02_{w}", w, (50,), (2,)),
                name=f"FLAT02_{w}",
                title=f"Pixel response, {w} nm" if w else "Pixel response, neutral density",
                wavelength=w,
            )
            for w in (0, 590, 640, 730, 880)
        ),
        "FOCUS00": tuple(
            _changed(known[f"FOCUS00_{w}"], "Mini", focus_columns(f"FOCUS00_{w}", w, step=0.1))
            for w in (590, 800, 880)
        ),
        "PSF01": (
            _changed(known["PSF01_800"], "Mini", spot_columns("PSF01_800", 800, (25, 50, 75), (4, 4, 4))),
        ),
    }


def _devel() -> dict[str, tuple[Test, ...]]:
    """Reserve tests, and HENK01: a long NL02 with faint levels."""
    from calcamp.campaign.nonlinearity import ladder

    known = tests()
    henk = _changed(
        known["NL02"],
        "devel",
        ladder(
            {"test": "NL02"},
            880,
            [
                (0, (0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5, 0.75, 1, 1.5, 2, 3, 5), 10),
                (880, (10, 15, 20, 30, 40, 50, 60, 70, 80, 90), 4),
            ],
        ),
        name="HENK01",
        handle="HENK01",
        surrogate="NL02",
    )
    return {test.handle: (test,) for test in (known["CHINJ00"], known["TP00"], known["STRAY00"], henk)}
