"""House-keeping: three passes, extremes, readings that are not there."""

import math

import pytest

from calcamp.config.lookup import load_limits
from calcamp.quality.hk import commanded_key, judge_band, judge_hk, judge_value
from calcamp.quality.limits import Band, read_hk_limits

COMMANDED = {"IG1_2_T": 6.0, "IG1_2_B": 4.0, "OD_1_T": 26.0, "IDL": 13.0}
KEYS = ("CCD2_IG1_B", "CCD2_IG1_T", "CCD1_OD_T", "CCD1_TEMP_T", "RPSU_28V_PRI_I")


@pytest.fixture(scope="module")
def limits():
    found = read_hk_limits(load_limits("default").hk_limits("BIAS01"))
    return {key: found[key] for key in KEYS}


GOOD = {
    "CCD2_IG1_B": 4.0,
    "CCD2_IG1_T": 6.0,
    "CCD1_OD_T": 26.0,
    "CCD1_TEMP_T": -120.0,
    "RPSU_28V_PRI_I": 0.42,
}


def rows(obsids=(1, 2), **changes):
    out = []
    for obsid in obsids:
        for key, value in GOOD.items():
            row = {
                "obsid": obsid,
                "key": key,
                "commanded": None,
                "mean": value,
                "std": 0,
                "min": value,
                "max": value,
                "n": 71,
            }
            if (key, obsid) in changes.get("at", {}):
                row.update(changes["at"][key, obsid])
            out.append(row)
    return out


LOGGED = {1: COMMANDED, 2: COMMANDED}


def run(table, limits, **more):
    cells, flags = judge_hk(table, limits, logged=LOGGED, **more)
    return {(c.check, c.keys["key"]): c for c in cells}, flags


def test_good(limits):
    cells, flags = run(rows(), limits)
    assert not flags
    assert len(cells) == 10
    assert all(c.ok and c.n == 2 for c in cells.values())
    assert cells["hk_command", "CCD2_IG1_B"].value == 0
    assert cells["hk_performance", "CCD1_TEMP_T"].keys["ccd"] == 1


def test_bottom_gate_compares_with_the_bottom_command(limits):
    assert limits["CCD2_IG1_B"].commanded == commanded_key("CCD2_IG1_B") == "IG1_2_B"
    assert commanded_key("CCD3_IG1_B") == "IG1_3_B"
    assert commanded_key("COMM_RD_B") == "RD_B"
    assert commanded_key("FPGA_BIAS_ID2") == "IDL"
    assert commanded_key("CCD1_TEMP_T") is None
    table = rows(at={("CCD2_IG1_B", n): {"mean": 6.0, "min": 6.0, "max": 6.0} for n in (1, 2)})
    cells, flags = run(table, limits)
    assert cells["hk_command", "CCD2_IG1_B"].ok is False
    assert cells["hk_command", "CCD2_IG1_B"].value == 2.0
    assert [f.name for f in flags] == ["HK_OOL"]  # IG1 alone does not make WRONG_ROE_CONF


def test_extremes_count(limits):
    table = rows(at={("CCD1_OD_T", 2): {"max": 26.3}})
    cells, flags = run(table, limits)
    cell = cells["hk_command", "CCD1_OD_T"]
    assert cell.ok is False
    assert cell.value == pytest.approx(0.3)
    assert cell.obsids == [2]
    assert (cell.n, cell.n_violating) == (2, 1)
    assert [f.name for f in flags] == ["HK_OOL"]
    assert flags[0].scope == {"key": "CCD1_OD_T", "obsids": [2]}


def test_bounds_are_inclusive(limits):
    table = rows(
        at={("CCD1_OD_T", 2): {"mean": 26.2, "min": 26.2, "max": 26.2}, ("CCD1_TEMP_T", 1): {"max": -119.0}}
    )
    assert not run(table, limits)[1]


def test_a_setting_off_in_every_exposure(limits):
    table = rows(at={("CCD1_OD_T", n): {"mean": 27.0, "min": 27.0, "max": 27.0} for n in (1, 2)})
    assert {f.name for f in run(table, limits)[1]} == {"HK_OOL", "WRONG_ROE_CONF"}


def test_temperature_out_of_performance(limits):
    table = rows(at={("CCD1_TEMP_T", 1): {"mean": -118.0, "min": -118.1, "max": -117.9}})
    cells, flags = run(table, limits)
    assert [f.name for f in flags] == ["CCDTEMP_OOL"]
    assert cells["hk_performance", "CCD1_TEMP_T"].ok is False
    assert cells["hk_safe", "CCD1_TEMP_T"].ok is True


def test_warm_tests_have_no_absolute_performance():
    warm = read_hk_limits(load_limits("default").hk_limits("MOT_WARM"))
    table = [{"obsid": 1, "key": "CCD1_TEMP_T", "mean": 20.0, "min": 20.0, "max": 20.0, "n": 3}]
    cells, flags = judge_hk(table, {"CCD1_TEMP_T": warm["CCD1_TEMP_T"]})
    assert not flags
    assert [c.check for c in cells] == ["hk_safe"]
    assert cells[0].ok


def test_not_measured_is_flagged_and_never_passes(limits):
    nothing = {"mean": None, "min": None, "max": None, "n": 0}
    cells, flags = run(rows(at={("CCD1_TEMP_T", 1): nothing}), limits)
    assert [f.name for f in flags] == ["MISSDATA"]
    assert flags[0].scope["obsids"] == [1]
    assert "CCD1_TEMP_T" in flags[0].cause
    cell = cells["hk_performance", "CCD1_TEMP_T"]
    assert (cell.ok, cell.n, cell.n_unmeasured) == (True, 1, 1)
    cells, _ = run(rows(at={("CCD1_TEMP_T", n): {"mean": math.nan} for n in (1, 2)}), limits)
    assert cells["hk_performance", "CCD1_TEMP_T"].ok is None


def test_no_file_of_an_exposure(limits):
    _, flags = run(rows(), limits, obsids=[1, 2, 3])
    assert [(f.name, f.scope["obsids"]) for f in flags] == [("MISSDATA", [3])]
    assert flags[0].cause == "No house-keeping of 1 of 3 exposures"


def test_no_command_is_not_compared(limits):
    cells, flags = judge_hk(rows(), limits)
    state = {(c.check, c.keys["key"]): (c.ok, c.reason) for c in cells}
    assert state["hk_command", "CCD1_OD_T"] == (None, "no commanded value OD_1_T")
    assert not flags


def test_calibration_of_the_roe(limits):
    table = rows(at={("CCD1_OD_T", n): {"mean": 27.0, "min": 27.0, "max": 27.0} for n in (1, 2)})
    assert not run(table, limits, calibration={"CCD1_OD_T": {"slope": 1.0, "intercept": -1.0}})[1]


def test_one_value_for_the_monitor(limits):
    assert judge_value("CCD1_OD_T", 26.1, 26.0, limits).ok is True
    state = judge_value("CCD1_OD_T", 26.3, COMMANDED, limits)
    assert (state.ok, state.performance, state.safe) == (False, "above", "ok")
    assert judge_value("CCD1_TEMP_T", -140.0, None, limits).passes == {
        "performance": "below",
        "safe": "below",
    }
    assert judge_value("CCD1_TEMP_T", math.nan, None, limits).ok is None
    assert judge_value("CCD1_OD_T", 26.0, None, limits).performance == "no command"
    assert judge_value("nothing", 1.0, None, limits).ok is True


def test_identity():
    every = read_hk_limits(load_limits("default").hk_limits(""))
    key = next((k for k, v in every.items() if v.safe and v.safe.type == "identity"), None)
    if key is None:
        pytest.skip("no register limits in the limits file")
    right = every[key].safe.values[0]
    assert judge_value(key, right, None, every).ok is True
    assert judge_value(key, 77777, None, every).safe == "differs"


@pytest.mark.parametrize(
    ("value", "state"),
    [
        (12192, "ok"),
        (12192.0, "ok"),
        ("12192", "ok"),
        (12192.04, "differs"),
        (12192.0000001, "differs"),
        (12193, "differs"),
        (None, "not measured"),
    ],
)
def test_identity_is_exact(value, state):
    assert judge_band(value, Band("identity", values=(12192, "2FA0"))) == state


def test_minus_zero_is_zero():
    assert judge_band(-0.0, Band("identity", values=(0,))) == "ok"
    assert judge_band(1e-12, Band("identity", values=(0,))) == "differs"
