"""MOT_WARM: first functional test of a block, warm and in air, which decides whether the pumps start."""

from __future__ import annotations

from calcamp.campaign.bias import SUMMING_WELL
from calcamp.campaign.common import injection_gate1, injection_gate2, percent
from calcamp.campaign.core import CHECK, HK, Column, Family, Need, Subtask, Test


def _columns(chamber) -> list[Column]:
    common = {"test": "MOT_WARM", "toi_ro": 500}

    def offset(mode: str, comment: str) -> Column:
        width, delay = SUMMING_WELL[mode]
        keys = {
            "exptime": 0,
            "shuttr": 0,
            "rdmode": mode,
            "swellw": width,
            "swelldly": delay,
            "comments": comment,
        }
        return Column(1, {**common, **keys})

    def spots(wavelength: int) -> Column:
        wave = chamber.slot(wavelength)
        (time,) = percent([50], chamber.t_point(wavelength))
        keys = {"exptime": time, "wave": wave, "source": "point", "mirr_on": 1, "comments": "PNT"}
        return Column(1, {**common, **keys, "mirr_pos": chamber.mirror_nominal(wave)})

    injected = {
        "exptime": 0,
        "shuttr": 0,
        "IDL": 10.5,
        "IDH": 18,
        **injection_gate1(4.5),
        **injection_gate2(7),
        "toi_ch": 250,
        "id_wid": 60,
        "id_dly": 2.5 * 250,
        "chin_dly": 0,
        "chinj": 1,
        "chinj_on": 30,
        "chinj_of": 50,
        "comments": "CHINJ",
    }
    (time,) = percent([50], chamber.t_flat(800))
    return [
        offset("rwd_bas_vs", "RWDVS"),
        offset("rwd_bas_v", "RWDV"),
        offset("fwd_bas", "RAMP"),
        Column(1, {**common, **injected}),
        Column(1, {**common, "exptime": time, "wave": chamber.slot(800), "comments": "FLAT"}),
        *(spots(wavelength) for wavelength in (590, 730, 880)),
    ]


FAMILY = Family(
    "warm",
    (
        Test(
            "MOT_WARM",
            "MOT_WARM",
            "warm",
            _columns,
            title="Readiness test, warm and in air",
            purpose="Offsets, ramp, injection, flat and spots of a warm block: go or no-go for pumping down.",
            subtasks=(
                HK,
                CHECK,
                Subtask(
                    "basic",
                    after=("check",),
                    needs=(Need("mask"), Need("dq"), Need("gain")),
                    chamber_data=lambda test, chamber, detector: {
                        "filter_wheel": {str(slot): nm for slot, nm in chamber.filter_wheel.items()}
                    },
                ),
            ),
            waived=(),
        ),
    ),
)
