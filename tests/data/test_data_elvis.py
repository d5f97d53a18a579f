import pytest

from calcamp.data import elvis


def test_counts_of_the_interface_description():
    assert {v: len(elvis.explog_columns(v)) for v in elvis.VERSIONS} == {
        "7.5.X": 81, "7.2.X": 81, "6.5.X": 81, "6.3.0": 81, "6.1.0": 78, "6.0.0": 78, "5.7.05": 69,
    }  # fmt: skip
    assert [len(elvis.hk_columns(v)) for v in ("7.5.X", "7.2.X", "6.5.X", "6.3.0")] == [83, 80, 76, 72]
    assert len(elvis.SCRIPT_DEFAULTS) == 70
    assert len(elvis.COMPARED_KEYS) == len(set(elvis.COMPARED_KEYS)) == 59
    assert len(elvis.HK_LOADED_KEYS) == len(set(elvis.HK_LOADED_KEYS)) == 32


def test_lists_hold_no_name_twice():
    for version in elvis.VERSIONS:
        assert len(set(elvis.explog_columns(version))) == len(elvis.explog_columns(version))
    for version in ("7.5.X", "7.2.X", "6.5.X", "6.3.0", "5.7.05"):
        assert len(set(elvis.hk_columns(version))) == len(elvis.hk_columns(version))


def test_places_named_in_the_interface_description():
    columns = elvis.explog_columns()
    assert (columns[0], columns[16], columns[54], columns[80]) == ("ObsID", "exptime", "wave", "RD_B")
    assert next(iter(elvis.SCRIPT_DEFAULTS)) == "frames"
    assert list(elvis.SCRIPT_DEFAULTS)[-1] == "roe-tab"
    assert set(elvis.SCRIPT_UNITS) == set(elvis.SCRIPT_DEFAULTS)
    assert elvis.hk_columns()[-2:] == ("SPW_STATUS_REG", "Out_of_range")


def test_versions():
    assert elvis.version_key("7.5.3") == "7.5.X"
    assert elvis.version_key("6.0.2") == "6.0.0"
    assert elvis.explog_version(elvis.explog_columns("6.1.0")) == "6.1.0"
    assert elvis.explog_version(["ObsID"]) is None
    for wrong in ("9.0", "", "x"):
        with pytest.raises(ValueError, match="not known"):
            elvis.version_key(wrong)
    with pytest.raises(ValueError, match="not known"):
        elvis.hk_columns("6.0.0")


def test_keys_fit_together():
    assert set(elvis.HK_LOADED_KEYS) <= set(elvis.hk_columns())
    assert set(elvis.HK_COMMANDED) <= set(elvis.hk_columns())
    assert set(elvis.HK_COMMANDED.values()) <= set(elvis.explog_columns())
    assert elvis.HK_COMMANDED["CCD3_IG1_B"] == "IG1_3_B"
    assert set(elvis.SCRIPT_TO_LOG.values()) <= set(elvis.explog_columns())
    assert {elvis.log_name(key) for key in elvis.COMPARED_KEYS} <= set(elvis.explog_columns())
    assert elvis.iphi_text({}) == "I1I2I3"
    assert elvis.iphi_text({"IPHI4": 1, "IPHI1": 0}) == "I2I3I4"


def test_units_of_house_keeping():
    assert [
        elvis.hk_unit(k) for k in ("CCD1_OD_T", "RPSU_28V_PRI_I", "RPSU_TEMP1", "SPI_Inh_n", "TimeStamp")
    ] == ["V", "A", "deg_C", "", ""]


def test_every_new_name_is_reached_from_6_0():
    reached = {new for name in elvis.explog_columns("6.0.0") for new in elvis.current_names(name)}
    absent = set(elvis.explog_columns()) - reached
    assert absent == {
        "rdmode",
        "swellw",
        "swelldly",
        "v_tpump",
        "s_tpump",
        "v_tp_mod",
        "s_tp_mod",
        "motr",
        "source",
        "mirr_on",
    }
