"""CHINJ01, CHINJ02 and CHINJ00: charge injected against gate and drain voltages."""

from __future__ import annotations

from pydantic import Field

from calcamp.campaign.common import INJECTION_DELAYS, injection_gate1, injection_gate2, scan
from calcamp.campaign.core import CHECK, HK, Column, Family, Need, Options, Subtask, Test, prep

_TOI_CH = 500  # us
#: Windows of id_dly / toi_ch in which each half takes up the charge (analysis page, 2.1).
WINDOWS = {"half_EF": (2.0, 3.0), "half_GH": (1.0, 2.0)}


def scanned(test: str) -> str:
    """The voltage that a test varies: IG1 or IDL."""
    return "IG1" if test.startswith("CHINJ01") else "IDL"


class ExtractOptions(Options):
    """Levels and profiles of the injected lines."""

    sigma: float = Field(
        6.0, gt=2, description="pixels farther from column pattern and line mean are left out"
    )
    max_saturated: int = Field(1000, ge=0, description="saturated pixels of a quadrant that raise SATURATION")


class MetaOptions(Options):
    """Curves of level against voltage."""

    relative_error: float = Field(
        0.005,
        gt=0,
        description="scatter of levels about the curve, share of the level, above which it is a bad fit",
    )
    linearity_error: float = Field(
        0.001,
        ge=0,
        description="non-linearity of the chain, which levels are not corrected for, share of a level",
    )


#: Keys of every injection test of this family: blocks of injected lines, shutter closed.
_BLOCKS = {
    "shuttr": 0,
    "IDH": 18,
    "chinj": 1,
    "chinj_on": 30,
    "chinj_of": 100,
    "id_wid": 60,
    "toi_ch": _TOI_CH,
}


def gate_columns(values, gate2: float = 6):
    """CHINJ01: injection gate 1 over `values` (V), once per half."""

    def columns(chamber) -> list[Column]:
        common = {"test": "CHINJ01", **_BLOCKS, "IDL": 11, **injection_gate2(gate2)}
        return [
            Column(1, {**common, "id_dly": delay * _TOI_CH, **injection_gate1(volts)})
            for delay in INJECTION_DELAYS
            for volts in values
        ]

    return columns


def _drain_columns(chamber) -> list[Column]:
    common = {"test": "CHINJ02", **_BLOCKS, **injection_gate1(4), **injection_gate2(6)}
    return [
        Column(1, {**common, "id_dly": delay * _TOI_CH, "IDL": volts})
        for delay in INJECTION_DELAYS
        for volts in scan(9.5, 12.5, 0.25)
    ]


def _functional_columns(chamber) -> list[Column]:
    columns = []
    for delay in INJECTION_DELAYS:
        for gate1, gate2, drain in ((4, 6, 13), (6, 4, 13), (4, 6, 16), (6, 4, 16)):
            keys = {
                "id_dly": delay * _TOI_CH,
                **injection_gate1(gate1),
                **injection_gate2(gate2),
                "IDL": drain,
            }
            comment = f"del{delay * _TOI_CH:.0f}_IG1{gate1:.1f}"
            columns.append(Column(1, {"test": "CHINJ00", **_BLOCKS, **keys, "comments": comment}))
    return columns


_NEEDS = (Need("mask"), Need("dq"), Need("gain"))
_SUBTASKS = (
    HK,
    CHECK,
    prep(offset="row", scan="pre", use_bias=False, use_flat=False),
    Subtask("extract", after=("check",), options=ExtractOptions, needs=_NEEDS, mem_mb=1000),
    Subtask("basic", after=("check", "extract"), mem_mb=400, runtime_min=3),
    Subtask(
        "meta",
        scope="block",
        after=("check", "extract"),
        options=MetaOptions,
        needs=(Need("gain"),),
        mem_mb=400,
        runtime_min=3,
    ),
)

FAMILY = Family(
    "injection",
    (
        Test(
            "CHINJ01",
            "CHINJ01",
            "injection",
            gate_columns(scan(2.5, 6.75, 0.25)),
            title="Charge injection against gate voltage",
            purpose="Injected charge against injection gate 1: threshold and notch level of every quadrant.",
            subtasks=_SUBTASKS,
        ),
        Test(
            "CHINJ02",
            "CHINJ02",
            "injection",
            _drain_columns,
            title="Charge injection against drain voltage",
            purpose="Injected charge against the low level of the injection drain: threshold of every quadrant.",
            subtasks=_SUBTASKS,
        ),
        Test(
            "CHINJ00",
            "CHINJ00",
            "injection",
            _functional_columns,
            title="Functional check of charge injection",
            purpose="Charge injection works in both halves; not for performance.",
            subtasks=(HK, CHECK),
            waived=(),
            campaign_types=("Mini", "devel"),
        ),
    ),
)
