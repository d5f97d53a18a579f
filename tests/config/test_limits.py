"""The limits file against the specification's table, and how limits are resolved."""

from __future__ import annotations

import copy
import math

import pytest

from calcamp.config.errors import ConfigError
from calcamp.config.limits import ALIASES, HK_FLAGS, NAMES, Limits, canonical_overrides, untagged
from calcamp.config.lookup import load_limits
from calcamp.config.yamlfile import dump_yaml

#: Keys loaded into every test (data formats, 4.4).
IN_TESTS = {
    *(f"CCD{ccd}_{kind}_{side}" for ccd in "123" for kind in ("TEMP", "OD", "IG1") for side in "TB"),
    *(f"{key}_{side}" for key in ("COMM_RD", "COMM_IG2", "VID_PCB_TEMP", "FPGA_PCB_TEMP") for side in "TB"),
    *("FPGA_BIAS_ID2", "RPSU_TEMP1", "RPSU_TEMP_2", "FPGA_VCCD_V", "RPSU_VCCD_V", "RPSU_28V_PRI_I"),
}
_HK_75 = """
CCD3_OD_T CCD2_OD_T CCD1_OD_T COMM_RD_T CCD2_IG1_T CCD1_IG1_T CCD3_TEMP_T CCD2_TEMP_T CCD1_TEMP_T CCD3_IG1_T COMM_IG2_T
VID_PCB_TEMP_T FPGA_PCB_TEMP_T CCD1_OD_B CCD2_OD_B CCD3_OD_B COMM_RD_B CCD2_IG1_B CCD3_IG1_B CCD1_TEMP_B CCD2_TEMP_B
CCD3_TEMP_B CCD1_IG1_B COMM_IG2_B VID_PCB_TEMP_B FPGA_PCB_TEMP_B FPGA_BIAS_DD FPGA_BIAS_OG FPGA_BIAS_ID1 FPGA_BIAS_ID2
FPGA_BIAS_ID_T FPGA_BIAS_ID_B FPGA_VRCLK_V FPGA_10VA_P_V FPGA_VICLK_V FPGA_5VA_P_V FPGA_5VREF_V FPGA_VCCD_V FPGA_1V5VD_P_V
FPGA_3V2_N_V FPGA_5VA_N_V RPSU_VCCD_V RPSU_VCLK_V RPSU_VAN_P_V RPSU_VAN_N_V RPSU_3V3VD_V RPSU_1V5VD_V RPSU_28V_PRI_V
RPSU_TEMP1 RPSU_VCCD_I RPSU_VCLK_I RPSU_VAN_P_I RPSU_VAN_N_I RPSU_3V3VD_I RPSU_1V5VD_I RPSU_28V_PRI_I RPSU_TEMP_2
ProtOvRideFlg hkInvalidFlg SPI_Inh_n 3v3ProtErr 5vProtErr V3v3ProtCnt V5ProtCnt VccdErrFlg VclkErrFlg VanErrFlg dacExeErr
hkTmErr spwTmTOFlg spwTmRspErrFlg spwTcPktErrFlg adcBsyErrFlg CDPUClkSw hkRamErr ADC_BSY_ERR_CNT pixelToErr spwStatus
spwTmPtypeFlag TwoCmdsErr SPW_STATUS_REG Out_of_range
"""
#: Columns of an HK file of ELVIS 7.5.X without TimeStamp (data formats, 4.3).
HK_75 = _HK_75.split()


@pytest.fixture(scope="module")
def limits() -> Limits:
    return load_limits()


def bounds(limit):
    return limit.low, limit.high


EVERYWHERE = {"saturation", "lost_pixels"}
RAW = {"offset", "offset_gradient", "read_noise"} | EVERYWHERE
FLAT = RAW | {"fluence", "flux"}
WARM = {"her", "injection_significance", "ramp_slope", "ramp_uniformity", "flat_signal", "spots_found"}
INJECTION = RAW | {"injection", "injection_gradient"}
POINT = RAW | {
    "background",
    "fwhm",
    "point_flux",
    "lock_scale",
    "lock_rotation",
    "lock_shift",
    "lock_missing",
}
XTALK = {"crosstalk_largest", "crosstalk_second"}


@pytest.mark.parametrize(
    ("test", "names"),
    [
        ("BIAS01", RAW),
        ("BIAS02", RAW),
        ("DARK01", RAW | {"dark_signal", "dark_scatter"}),
        ("COSMETICS00", EVERYWHERE | {"lost_area", "bad_columns", "clusters"}),
        ("STRAY00", EVERYWHERE | {"stray_light"}),
        ("MOT_WARM", RAW | WARM),
        ("PERSIST01", RAW | {"nonsaturation", "background", "persistence"}),
        ("FLAT01", FLAT),
        ("FLAT02_590", FLAT),
        ("FLAT_STB", FLAT | {"lamp_peak", "lamp_rms"}),
        ("PTC01", FLAT | {"her"}),
        ("PTC02_158K", FLAT | {"her"}),
        ("FLATFLUX00_2000", FLAT),
        ("NL01", FLAT | {"background_fluence"}),
        ("NL02", RAW),
        ("NL02_155R", RAW),
        ("BF01_730", FLAT),
        ("MOT_FF", FLAT | {"her"}),
        ("CHINJ01", INJECTION),
        ("TP21", INJECTION),
        ("FOCUS00_800", POINT | {"spot_fluence"}),
        ("PSF01_800", POINT | XTALK | {"peak", "psf_kernel"}),
        ("PSF02_148K", POINT | XTALK | {"peak", "psf_kernel"}),
        ("PSFLUX00_0", POINT | {"peak"}),
    ],
)
def test_which_limits_a_test_has(limits, test, names):
    assert set(limits.resolve(test)) == names
    assert set(limits.resolve(test + ".2")) == names


def test_figures(limits):
    bias = limits.resolve("BIAS01")
    assert bounds(bias["offset"]) == (-50, 50)
    assert bias["offset"].regions == ("pre", "img", "ove")
    assert bias["offset"].reference == "block_offset"
    assert bias["offset_gradient"].regions == ("img", "ove")
    assert bounds(bias["offset_gradient"]) == (-10, 10)
    assert bounds(bias["read_noise"]) == (0.86, 1.44)
    assert bias["read_noise"].flags == ("POORQUALDATA", "RON_OOL")
    assert bounds(bias["saturation"]) == (0, 0.1)
    assert bounds(bias["lost_pixels"]) == (0, 0)
    dark = limits.resolve("DARK01")
    assert dark["offset"].regions == ("pre", "ove")
    assert bounds(dark["dark_signal"]) == (-2, 5)
    assert bounds(limits.resolve("PTC01")["her"]) == (-1.5e-3, 1.5e-3)
    assert bounds(limits.resolve("FLAT01")["fluence"]) == (0.9, 1.1)
    assert bounds(limits.resolve("FLAT01")["flux"]) == (0.9, 1.1)
    focus, psf = limits.resolve("FOCUS00_590"), limits.resolve("PSF01_590")
    assert (bounds(focus["background"]), bounds(psf["background"])) == ((-5, 10), (-1, 5))
    assert (bounds(focus["fwhm"]), bounds(psf["fwhm"])) == ((0.5, 10), (1.2, 3.0))
    assert (bounds(focus["spot_fluence"]), bounds(psf["peak"])) == ((0.40, 0.75), (0.7, 1.3))
    assert bounds(focus["point_flux"]) == (0.8, 1.2)
    level = limits.resolve("CHINJ01")["injection"]
    assert (bounds(level), level.unpredicted, level.none_expected) == ((0.5, 1.5), (-10, 66191.36), (-5, 20))
    assert bounds(limits.resolve("CHINJ01")["injection_gradient"]) == (0.03, 0.45)


@pytest.mark.parametrize(
    ("name", "within", "beyond"),
    [
        ("lock_scale", (0.98, 1.02), (0.979, 1.021)),
        ("lock_rotation", (-2.0, 2.0), (-2.05, 2.05)),
        ("lock_shift", (0.0, 300.0, 1000.0), (1001.0,)),
        ("lock_missing", (0, 3), (4,)),
    ],
)
def test_a_pattern_beyond_the_tolerances_raises_stars_missing(limits, name, within, beyond):
    for test in ("FOCUS00_800", "PSF01_590", "PSF02_148K", "PSFLUX00_0"):
        limit = limits.resolve(test)[name]
        assert limit.flags == ("STARS_MISSING",)
        assert all(limit.judge(value) is True for value in within)
        assert all(limit.judge(value) is False for value in beyond)


def test_columns(limits):
    whole = limits.resolve("PERSIST01")
    assert whole["offset"].columns == (1,)
    assert whole["nonsaturation"].columns == (3,)
    assert whole["background"].columns == (2, 4)
    assert set(limits.resolve("PERSIST01", column=1)) == RAW | {"persistence"}
    assert set(limits.resolve("PERSIST01", column=2)) == EVERYWHERE | {"background", "persistence"}
    assert set(limits.resolve("PERSIST01", column=3)) == {"lost_pixels", "nonsaturation", "persistence"}
    warm = limits.resolve("MOT_WARM")
    assert (warm["offset"].columns, warm["read_noise"].columns) == ((2,), (1,))
    assert warm["read_noise"].regions == ("pre", "img", "ove")
    assert "fluence" not in limits.resolve("NL01", column=1)
    assert "fluence" in limits.resolve("NL01", column=2)
    assert "background_fluence" not in limits.resolve("NL01", column=2)


def test_every_limit_cites_its_source(limits):
    for quantity in limits.performance.values():
        assert all(rule.source for rule in quantity.rules)
        assert quantity.mode == "absolute" or quantity.formula or quantity.reference == "block_offset"
    assert all(group.source for group in limits.hk)


# ---- overrides -------------------------------------------------------------------------------------------
def test_overrides(limits):
    found = limits.resolve(
        "DARK01", block_overrides={"RON": [0.8, 1.6]}, session_overrides={"offset": [-20, None]}
    )
    assert (bounds(found["read_noise"]), found["read_noise"].origin) == ((0.8, 1.6), "block")
    assert found["read_noise"].regions == ("pre", "ove")
    assert (bounds(found["offset"]), found["offset"].origin) == ((-20, None), "session")
    both = limits.resolve(
        "DARK01", block_overrides={"RON": [0.8, 1.6]}, session_overrides={"read_noise": [0.7, 1.7]}
    )
    assert bounds(both["read_noise"]) == (0.7, 1.7)


def test_switched_off_and_added(limits):
    assert "read_noise" not in limits.resolve("DARK01", session_overrides={"RON": False})
    assert "her" not in limits.resolve("DARK01", block_overrides={"her": [0, 1]})
    assert bounds(limits.resolve("DARK01", session_overrides={"her": [0, 1]})["her"]) == (0, 1)


def test_override_of_a_column(limits):
    change = {"saturation": {"low": 0, "high": 0.5, "columns": [6, 7]}}
    assert bounds(limits.resolve("PTC01", column=5, session_overrides=change)["saturation"]) == (0, 0.1)
    assert bounds(limits.resolve("PTC01", column=6, session_overrides=change)["saturation"]) == (0, 0.5)
    assert "saturation" not in limits.resolve(
        "PTC01", column=9
    )  # 100 % of the full well is meant to saturate


def test_unknown_names(limits):
    with pytest.raises(ValueError, match="did you mean 'RON'"):
        canonical_overrides({"RONN": [1, 2]})
    assert limits.override_faults({"CCD1_TEMP_T": 1, "RON": 1, "FPGA_NOTHING": 1}).keys() == {"FPGA_NOTHING"}
    assert set(ALIASES.values()) <= set(NAMES)


# ---- rules: read mode, warm, block -------------------------------------------------------------------------
def _with_rule(limits: Limits, name: str, rule: dict) -> Limits:
    data = copy.deepcopy(limits.model_dump(exclude_unset=True))
    data["performance"][name]["rules"].append({"source": "test", **rule})
    return Limits.from_text(dump_yaml(data))


def test_rules_by_read_mode_warm_and_block(limits):
    other = _with_rule(limits, "read_noise", {"rdmode": ["rwd_bas_v"], "high": 2.0})
    assert bounds(other.resolve("BIAS02", rdmode="rwd_bas_v")["read_noise"]) == (0.86, 2.0)
    assert bounds(other.resolve("BIAS02", rdmode="fwd_bas")["read_noise"]) == (0.86, 1.44)
    assert bounds(other.resolve("BIAS02")["read_noise"]) == (0.86, 1.44)
    other = _with_rule(limits, "read_noise", {"warm": True, "high": 3.0})
    assert bounds(other.resolve("BIAS01", warm=True)["read_noise"]) == (0.86, 3.0)
    assert bounds(other.resolve("BIAS01")["read_noise"]) == (0.86, 1.44)
    other = _with_rule(limits, "read_noise", {"blocks": ["BORN"], "high": 4.0})
    assert bounds(other.resolve("BIAS01", block="BORN")["read_noise"]) == (0.86, 4.0)
    assert bounds(other.resolve("BIAS01", block="CURIE")["read_noise"]) == (0.86, 1.44)


# ---- judging -------------------------------------------------------------------------------------------------
def test_bounds_are_inclusive(limits):
    noise = limits.resolve("BIAS01")["read_noise"]
    assert noise.judge(0.86) is True
    assert noise.judge(1.44) is True
    assert noise.judge(math.nextafter(1.44, 2)) is False
    assert noise.judge(math.nan) is None
    assert noise.judge(None) is None
    offset = limits.resolve("BIAS01")["offset"]
    assert offset.judge(2700, 2650) is True
    assert offset.judge(2701, 2650) is False
    assert offset.judge(2700) is None
    assert offset.bounds(2650) == (2600, 2700)
    assert limits.resolve("FLAT01")["fluence"].bounds(1000) == (900, 1100)
    slope = limits.resolve("MOT_WARM")["ramp_slope"]
    assert slope.judge(1e9) is True


# ---- house-keeping ---------------------------------------------------------------------------------------------
def test_hk_is_complete(limits):
    found = limits.hk_limits("BIAS01")
    assert set(HK_75) <= set(found)
    assert len(HK_75) == 82
    assert {key for key, limit in found.items() if limit.in_tests} == IN_TESTS
    assert len(IN_TESTS) == 32


@pytest.mark.parametrize(
    ("key", "performance", "safe", "commanded"),
    [
        ("CCD2_OD_B", ("relative", -0.2, 0.2), (-0.3, 30), "OD_2_B"),
        ("COMM_RD_T", ("relative", -0.2, 0.2), (-0.3, 25), "RD_T"),
        ("CCD2_IG1_B", ("relative", -0.2, 0.2), (-20, 20), "IG1_2_B"),
        ("CCD3_IG1_B", ("relative", -0.2, 0.2), (-20, 20), "IG1_3_B"),
        ("COMM_IG2_B", ("relative", -0.2, 0.2), (-20, 20), "IG2_B"),
        ("FPGA_BIAS_ID1", ("relative", -0.2, 0.2), (-0.3, 25), "IDH"),
        ("FPGA_BIAS_ID2", ("relative", -0.2, 0.2), (-0.3, 25), "IDL"),
        ("CCD1_TEMP_T", ("absolute", -121, -119), (-133, 35), None),
        ("FPGA_BIAS_DD", ("absolute", 21.8, 22.2), (-0.3, 30), None),
        ("FPGA_BIAS_OG", ("absolute", 1.8, 2.2), (-20, 20), None),
        ("FPGA_VICLK_V", ("absolute", 7.2, 8.8), (7.2, 8.8), None),
        ("FPGA_5VREF_V", ("absolute", 4.9, 5.1), (4.9, 5.1), None),
        ("FPGA_3V2_N_V", ("absolute", -3.7, -2.7), (-3.7, -2.7), None),
        ("RPSU_VAN_N_V", ("absolute", -8.2, -6), (-8.2, -6), None),
        ("RPSU_1V5VD_V", ("absolute", 1.435, 1.575), (1.435, 1.575), None),
        ("RPSU_28V_PRI_V", ("absolute", 26, 29), (26, 29), None),
        ("RPSU_28V_PRI_I", ("absolute", 0.35, 0.5), (0.35, 0.5), None),
        ("RPSU_VAN_P_I", ("absolute", 0, 0.6), (0, 0.6), None),
    ],
)
def test_hk_figures(limits, key, performance, safe, commanded):
    limit = limits.hk_limits("BIAS01")[key]
    band = limit.performance
    assert (band.type, band.low, band.high) == performance
    assert (limit.safe.type, limit.safe.low, limit.safe.high) == ("absolute", *safe)
    assert limit.commanded == commanded


def test_hk_commands_of_each_side(limits):
    """Every commanded key ends as its house-keeping key does: the predecessor's slip is not repeated."""
    for key, limit in limits.hk_limits().items():
        if limit.commanded and key.endswith(("_T", "_B")):
            assert limit.commanded[-2:] == key[-2:]


def test_hk_passes(limits):
    cold, warm = limits.hk_limits("BIAS01"), limits.hk_limits("MOT_WARM")
    assert list(cold["CCD1_OD_T"].passes()) == ["command", "safe"]
    assert list(cold["CCD1_TEMP_T"].passes()) == ["performance", "safe"]
    assert list(warm["CCD1_TEMP_T"].passes()) == ["safe"]
    assert list(warm["CCD1_OD_T"].passes()) == ["command", "safe"]
    assert list(limits.hk_limits("BIAS01", warm=True)["CCD1_TEMP_T"].passes()) == ["safe"]


def test_hk_of_tests_at_other_temperatures(limits):
    for test, low, high in (
        ("PTC02_148K", -126, -124),
        ("PSF02_158K", -116, -114),
        ("PTC02_160R", -121, -119),
    ):
        band = limits.hk_limits(test)["CCD3_TEMP_B"].performance
        assert (band.low, band.high) == (low, high)


def test_severities(limits):
    critical = limits.critical_keys()
    assert len(critical) == 10
    hk = limits.hk_limits()
    assert [hk["CCD2_TEMP_B"].severity_of(v) for v in (-1, 0, 1, None)] == [2, 0, 2, 0]
    assert [hk["FPGA_PCB_TEMP_T"].severity_of(v) for v in (-1, 0, 1)] == [1, 0, 2]
    assert [hk["RPSU_TEMP1"].severity_of(v) for v in (-1, 1, 2)] == [0, 0, 0]


def test_hk_overrides(limits):
    found = limits.hk_limits(
        "BIAS01", session_overrides={"CCD1_TEMP_T": [-130, -110]}, block_overrides={"CCD1_OD_T": False}
    )
    assert found["CCD1_TEMP_T"].performance.low == -130
    assert found["CCD1_TEMP_T"].safe.low == -133
    assert found["CCD1_OD_T"].performance is None


def test_open_ends_of_hk_overrides(limits):
    found = limits.hk_limits(
        "BIAS01",
        session_overrides={"CCD1_TEMP_T": [None, -118]},
        block_overrides={"CCD2_TEMP_T": {"low": -125}},
    )
    assert bounds(found["CCD1_TEMP_T"].performance) == (-1e9, -118)
    assert bounds(found["CCD2_TEMP_T"].performance) == (-125, 1e9)


@pytest.mark.parametrize("change", [{"columns": [1]}, {"low": -125, "high": -115, "regions": ["pre"]}])
def test_hk_overrides_of_a_part_are_refused(limits, change):
    with pytest.raises(ValueError, match="expected low and high"):
        limits.hk_limits("BIAS01", session_overrides={"CCD1_TEMP_T": change})


def test_flags_are_those_of_the_file(limits):
    fixed = {key for group in limits.hk if group.performance.type == "identity" for key in group.keys}
    assert fixed == HK_FLAGS
    for key in fixed:
        with pytest.raises(ValueError, match=f"{key} is compared with fixed values.*limits file"):
            canonical_overrides({key: [0, 1]})
    assert "Spw" not in limits.override_faults({"FPGA_NOTHING": 1})["FPGA_NOTHING"]


def test_an_hk_override_takes_the_type_that_holds_for_the_test(limits):
    data = copy.deepcopy(limits.model_dump(exclude_unset=True))
    group = next(group for group in data["hk"] if "FPGA_BIAS_ID2" in group["keys"])
    band = {"type": "absolute", "low": 10, "high": 12}
    group["rules"] = [{"tests": ["BIAS01"], "performance": band, "source": "test"}]
    found = Limits.from_text(dump_yaml(data)).hk_limits(
        "BIAS01", session_overrides={"FPGA_BIAS_ID2": [9, 13]}
    )
    assert found["FPGA_BIAS_ID2"].performance.type == "absolute"


# ---- the file ----------------------------------------------------------------------------------------------------
def test_checksum(limits):
    text = limits.file.read_text()
    same = Limits.from_text("# another comment\n" + text)
    assert same.checksum() == limits.checksum()
    assert Limits.from_text(text.replace("low: 0.86", "low: 0.87")).checksum() != limits.checksum()
    assert limits.identity() == {"name": "default", "version": "1.0.0", "checksum": limits.checksum()}


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("low: 0.86, high: 1.44", "low: 1.44, high: 0.86", "swap them"),
        ("  read_noise:", "  readnoise:", "did you mean 'read_noise'"),
        ("mode: difference", "mode: differences", "expected 'absolute', 'difference' or 'factor'"),
        ("reference: block_offset", "reference: nothing", "expected 'block_offset'"),
        ("keys: [FPGA_BIAS_DD]", "keys: [FPGA_BIAS_OG]", "in two groups"),
        ("{FPGA_BIAS_ID2: IDL}", "{FPGA_BIAS_ID1: IDL}", "not among keys"),
        ("values: [12192, 2FA0]}  #", "low: 1, high: 2}  #", "identity needs values"),
        ('version: "1.0.0"', "version: 1.0", "expected text"),
    ],
)
def test_bad_limits_file(limits, old, new, words):
    text = limits.file.read_text()
    assert old in text
    with pytest.raises(ConfigError) as caught:
        Limits.from_text(text.replace(old, new, 1), "limits.yaml")
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("test", "name"), [("BIAS02.2", "BIAS02"), ("BIAS02", "BIAS02"), ("PTC02_155R.12", "PTC02_155R")]
)
def test_untagged(test, name):
    assert untagged(test) == name
