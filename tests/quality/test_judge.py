"""Verdicts of BIAS01 and DARK01 from hand-made tables: good ones, and one fault at a time."""

import json

import pytest

from calcamp.quality.family import families
from calcamp.quality.judge import judge


def names(verdict):
    return [flag["name"] for flag in verdict["flags"]]


def failing(verdict):
    return [cell for cell in verdict["compliance"] if cell["ok"] is False]


def headline(verdict, quantity, **keys):
    return [
        h
        for h in verdict["headline"]
        if h["quantity"] == quantity and all(h.get(k) == v for k, v in keys.items())
    ]


def flag(verdict, name):
    return next(f for f in verdict["flags"] if f["name"] == name)


@pytest.mark.parametrize("family", ["bias", "dark"])
def test_a_good_test_passes(family, request):
    verdict = request.getfixturevalue(family).judge()
    assert verdict["verdict"] == "pass"
    assert verdict["status"] == "complete"
    assert verdict["flags"] == []
    assert verdict["flag_mask"] == 0
    assert all(cell["ok"] for cell in verdict["compliance"])
    assert verdict["frames"]["used"] == verdict["frames"]["declared"] == verdict["frames"]["found"]
    assert verdict["subtasks"]["check"] == {"status": "done", "minutes": 1.5, "reason": ""}
    json.dumps(verdict, allow_nan=False)


def test_every_key_of_the_design(bias):
    keys = [
        "schema",
        "calcamp_version",
        "block",
        "session",
        "test",
        "chamber",
        "elvis",
        "serials",
        "script",
        "obsids",
        "day_folders",
        "frames",
        "started",
        "ended",
        "options",
        "report",
        "status",
        "verdict",
        "subtasks",
        "flags",
        "compliance",
        "headline",
        "excluded",
        "limits",
        "inputs",
    ]
    verdict = bias.judge()
    assert not set(keys) - set(verdict)
    assert verdict["obsids"] == [17283, 17292]
    assert verdict["started"] == "2019-03-12T07:10:40"
    assert verdict["limits"]["name"] == "default"
    assert len(verdict["limits"]["checksum"]) == 64
    assert len(verdict["inputs"]) == 30


def test_offset_step_in_one_quadrant_of_one_frame(bias):
    """Acceptance hint 3: red in exactly that quadrant, with its OBSID, POORQUALDATA only."""
    for row in bias.rows("offsets", obsid=17286, ccd=2, quadrant="F"):
        row["offset"] += 60
    verdict = bias.judge()
    assert names(verdict) == ["POORQUALDATA"]
    assert verdict["verdict"] == "fail"
    cells = failing(verdict)
    assert {(c["check"], c["ccd"], c["quadrant"]) for c in cells} == {("offset", 2, "F")}
    assert {c["region"] for c in cells} == {"pre", "img", "ove"}
    assert all(c["obsids"] == [17286] and c["n_violating"] == 1 and c["n"] == 10 for c in cells)
    assert all(not c["low"] <= c["value"] <= c["high"] for c in cells)
    assert verdict["flags"][0]["scope"] == {"ccd": 2, "quadrant": "F", "obsids": [17286]}


def test_a_frame_left_out_by_rule_is_judged_but_is_in_no_headline(bias):
    for row in bias.rows("offsets", obsid=17286, ccd=2, quadrant="F"):
        row["offset"] += 60
    (row,) = bias.rows("selection", obsid=17286, ccd=2, quadrant="F")
    row.update(use=False, cause="offset step")
    verdict = bias.judge()
    assert names(verdict) == ["POORQUALDATA"]
    (entry,) = headline(verdict, "offset", ccd=2, quadrant="F", region="img")
    assert entry["n"] == 9
    assert entry["value"] == pytest.approx(2713.2)
    assert verdict["excluded"] == [
        {"obsid": 17286, "ccd": 2, "quadrant": "F", "cause": "offset step", "by": "rule"}
    ]
    assert verdict["frames"]["used"] == 10  # other quadrants of it are


def test_a_frame_left_out_by_the_analyst_is_not_judged(bias):
    for row in bias.rows("offsets", obsid=17286):
        row["offset"] += 60
    bias.judging["excluded"] = [{"obsid": 17286, "ccd": None, "quadrant": None, "cause": "door open"}]
    verdict = bias.judge()
    assert verdict["verdict"] == "pass"
    assert verdict["frames"] == {"declared": 10, "found": 10, "used": 9}
    assert verdict["excluded"][0]["by"] == "analyst"


def test_a_frame_missing_in_the_middle(bias):
    """Acceptance hint 4."""
    gone = bias.manifest["exposures"].pop(4)
    bias.manifest.update(
        status="incomplete", reason="1 of 10 frames missing", missing=[{"column": 1, "frame": 5}]
    )
    for subject in ("hk", "frames", "offsets", "selection"):
        bias.tables[subject] = [row for row in bias.tables[subject] if row["obsid"] != gone["obsid"]]
    verdict = bias.judge()
    assert names(verdict) == ["MISSDATA"]
    assert verdict["flags"][0]["cause"] == "col001: frame 5 missing"
    assert verdict["verdict"] is None
    assert verdict["status"] == "incomplete"
    assert not failing(verdict)
    assert verdict["frames"] == {"declared": 10, "found": 9, "used": 9}


def test_no_exposure_at_all(bias):
    bias.manifest.update(
        exposures=[],
        status="incomplete",
        reason="nothing in the log",
        missing=[{"column": 1, "frame": n} for n in range(1, 11)],
    )
    # the sub-tasks say that they have nothing: a consequence, no fault of the device
    empty = [{"name": "BADDATAPROD", "cause": "no usable frame", "scope": {"ccd": c}} for c in (1, 2, 3)]
    bias.tables, bias.products = {}, []
    bias.records = [{**r, "flags": empty} if r["subtask"] == "meta" else r for r in bias.records]
    verdict = bias.judge()
    assert set(names(verdict)) == {"MISSDATA", "UNKNOWN"}
    assert verdict["verdict"] is None
    assert verdict["obsids"] == []
    assert all(cell["ok"] is None and cell["value"] is None for cell in verdict["compliance"])
    assert all(entry["value"] is None for entry in verdict["headline"])
    assert len(headline(verdict, "read_noise_e")) == 12


def test_noise_out_of_limits(bias):
    for row in bias.rows("offsets", ccd=1, quadrant="G"):
        row["noise"] = row["noise_vison"] = 1.6
    for row in bias.rows("read_noise", ccd=1, quadrant="G"):
        row["read_noise"] = 1.6
    verdict = bias.judge()
    assert names(verdict) == ["RON_OOL", "POORQUALDATA", "UNDERPERFORM"]
    assert flag(verdict, "POORQUALDATA")["consequence_of"] == ["RON_OOL"]
    assert flag(verdict, "UNDERPERFORM")["consequence_of"] == ["RON_OOL"]
    assert {(c["ccd"], c["quadrant"]) for c in failing(verdict)} == {(1, "G")}


def test_bounds_are_inclusive(bias):
    for row in bias.rows("offsets", ccd=1, quadrant="G"):
        row["noise"] = 1.44
        row["offset"] = bias.judging["offsets"]["1"]["G"] - 50
    assert bias.judge()["verdict"] == "pass"


def test_a_new_limit_judges_the_same_tables(bias):
    bias.judging["limits"]["read_noise"].update(low=0.8, high=1.1)
    verdict = bias.judge()
    assert set(names(verdict)) == {"RON_OOL", "POORQUALDATA", "UNDERPERFORM"}
    assert sum(c["check"] == "read_noise" for c in failing(verdict)) == 36


def test_limits_as_objects_of_config(bias):
    from calcamp.config.lookup import load_limits

    limits = load_limits("default")
    verdict = judge(
        {**bias.judging, "limits": None, "hk_limits": None}, bias.manifest, bias.tables, bias.records, bias.products,
        limits=limits.resolve("BIAS01", rdmode="fwd_bas"), hk_limits=limits.hk_limits("BIAS01"),
    )  # fmt: skip
    assert verdict["verdict"] == "pass"


def test_saturated_and_lost_pixels(bias):
    bias.rows("frames", obsid=17284, ccd=3, quadrant="H")[0].update(saturated_fraction=0.2)
    bias.rows("frames", obsid=17285, ccd=1, quadrant="E")[0].update(lost=3)
    verdict = bias.judge()
    assert names(verdict) == ["LOSTPIXELS", "SATURATION", "POORQUALDATA"]
    assert flag(verdict, "LOSTPIXELS")["scope"] == {"ccd": 1, "quadrant": "E", "obsids": [17285]}


def test_dead_quadrant_explains_its_noise(bias):
    for row in bias.rows("offsets", ccd=2, quadrant="E"):
        row.update(noise=0.0, noise_vison=0.0, offset=0.0)
    verdict = bias.judge()
    assert names(verdict)[0] == "DEADQUAD"
    assert all("DEADQUAD" in f["consequence_of"] for f in verdict["flags"][1:])
    assert "DEADCCD" not in names(verdict)


def test_dead_ccd(bias):
    for row in bias.rows("offsets", ccd=2):
        row.update(noise=None, noise_vison=0.0, offset=0.0)
    verdict = bias.judge()
    assert names(verdict)[0] == "DEADCCD"
    assert names(verdict).count("DEADQUAD") == 4


def test_light_in_a_bias(bias):
    for row in bias.rows("offsets", ccd=2, region="img"):
        row["offset"] += 25
    verdict = bias.judge()
    assert names(verdict) == ["SOURCEON"] * 4 + ["POORQUALDATA"] * 4
    assert all(f["consequence_of"] == ["SOURCEON"] for f in verdict["flags"][4:])


def test_light_in_a_dark(dark):
    for row in dark.rows("dark_exposures", ccd=1):
        row["signal_adu"] = 40.0
    verdict = dark.judge()
    assert names(verdict)[0] == "SOURCEON"
    assert set(names(verdict)) == {"SOURCEON", "FLUENCE_OOL", "POORQUALDATA"}
    assert flag(verdict, "FLUENCE_OOL")["consequence_of"] == ["SOURCEON"]
    assert flag(verdict, "POORQUALDATA")["consequence_of"] == ["SOURCEON", "FLUENCE_OOL"]


def test_dark_signal_when_only_the_check_ran(dark):
    del dark.tables["dark_exposures"]
    del dark.tables["dark"]
    cells = [c for c in dark.judge()["compliance"] if c["check"] == "dark_signal"]
    assert [c["value"] for c in cells] == [0.1] * 12


def test_dark_current_limit(dark):
    dark.rows("dark", ccd=3, quadrant="H")[0].update(is_limit=True, dark_current=0.01)
    (entry,) = headline(dark.judge(), "dark_current", ccd=3, quadrant="H")
    assert entry["is_limit"] is True
    assert entry["value"] == 4.2
    assert entry["err"] is None


def test_numbers_not_measured_are_null(bias):
    for row in bias.rows("read_noise", ccd=1, quadrant="E"):
        row["read_noise"] = None
    verdict = bias.judge()
    (entry,) = headline(verdict, "read_noise", ccd=1, quadrant="E", region="img")
    assert entry["value"] is None
    assert entry["err"] is None
    (entry,) = headline(verdict, "read_noise_e", ccd=1, quadrant="E")
    assert entry["value"] is None


def test_read_noise_in_electrons(bias):
    (entry,) = headline(bias.judge(), "read_noise_e", ccd=1, quadrant="E")
    assert entry["value"] == pytest.approx(1.2 * 3.5)
    assert entry["gain_nominal"] is True
    bias.judging["gains"] = {"1": {"E": [3.2, 0.1]}}
    (entry,) = headline(bias.judge(), "read_noise_e", ccd=1, quadrant="E")
    assert entry["value"] == pytest.approx(1.2 * 3.2)
    assert entry["err"] == pytest.approx(((0.001 * 3.2) ** 2 + (1.2 * 0.1) ** 2) ** 0.5)
    assert entry["gain_nominal"] is False


def test_gain_named_in_a_record(bias):
    bias.records[-1]["job"] = {"products": {"gain": {"numbers": {1: {"E": 3.1}}}}}
    (entry,) = headline(bias.judge(), "read_noise_e", ccd=1, quadrant="E")
    assert entry["value"] == pytest.approx(1.2 * 3.1)


def test_a_crash(bias):
    crashed = next(r for r in bias.records if r["subtask"] == "basic" and r["ccd"] == 2)
    crashed.update(
        status="crashed",
        reason="ValueError: no",
        crash={"obsid": 17285, "error": "ValueError: no", "traceback": ["File x", "ValueError: no"]},
    )
    skipped = next(r for r in bias.records if r["subtask"] == "meta" and r["ccd"] == 2)
    skipped.update(status="skipped", reason="basic crashed")
    bias.products.pop(1)
    verdict = bias.judge()
    assert names(verdict) == ["SUBTASKCRASH"]
    assert verdict["flags"][0]["cause"] == "basic of CCD2 crashed while reading OBSID 17285: ValueError: no"
    assert verdict["status"] == "failed"
    assert verdict["verdict"] is None
    assert verdict["subtasks"]["basic"]["traceback"][-1] == "ValueError: no"
    assert verdict["subtasks"]["basic"]["ccds"] == [2]
    assert verdict["subtasks"]["meta"]["status"] == "skipped"


def test_killed_for_memory(bias):
    bias.records[2].update(
        status="crashed",
        reason="killed by signal 9",
        crash={"obsid": None, "error": "killed by signal 9", "traceback": []},
    )
    verdict = bias.judge()
    assert names(verdict) == ["LOWMEMORY", "SUBTASKCRASH"]


def test_record_lost(bias):
    bias.records = [r for r in bias.records if r["subtask"] != "meta"]
    verdict = bias.judge()
    assert names(verdict) == ["UNKNOWN"]
    assert verdict["subtasks"]["meta"]["status"] == "missing"


def test_bad_products(bias):
    bias.products[0]["invalid_fraction"] = 0.3
    bias.products.pop(2)
    verdict = bias.judge()
    assert [f["scope"]["ccd"] for f in verdict["flags"]] == [1, 3]
    assert set(names(verdict)) == {"BADDATAPROD"}


def test_flags_of_steps_are_taken_over(bias):
    bias.records[2]["flags"] = [
        {"name": "BADDATA", "cause": "OBSID 17284 is truncated", "scope": {"ccd": 2, "obsid": 17284}}
    ]
    verdict = bias.judge()
    assert names(verdict) == ["BADDATA"]
    assert verdict["flags"][0]["scope"] == {"ccd": 2, "obsids": [17284]}
    assert verdict["verdict"] is None


def test_wrong_serials_are_a_note(bias):
    bias.manifest["mismatches"] = [
        {"obsid": 17283, "column": 1, "key": "sn_ccd1", "expected": "a", "found": "b"}
    ]
    verdict = bias.judge()
    assert names(verdict) == ["MISSDATA"]
    assert verdict["verdict"] == "pass"


def test_wrong_voltage_in_the_log(bias):
    bias.manifest["mismatches"] = [
        {"obsid": o, "column": 1, "key": "IDL", "expected": 13.0, "found": 11.0}
        for o in (17283, 17284, 17290)
    ]
    verdict = bias.judge()
    assert names(verdict) == ["WRONG_ROE_CONF", "MISSDATA"]
    assert (
        verdict["flags"][0]["cause"]
        == 'logged, not as commanded: IDL: "13.0" NE "11.0", OBSID 17283-17284, 17290'
    )
    assert verdict["flags"][1]["consequence_of"] == ["WRONG_ROE_CONF"]
    assert verdict["verdict"] == "fail"


def test_missing_file_of_one_ccd(bias):
    bias.manifest["exposures"][2]["files"]["2"] = None
    verdict = bias.judge()
    assert names(verdict) == ["MISSDATA"]
    assert verdict["flags"][0]["scope"] == {"ccd": 2, "obsids": [17285]}


def test_temperature(dark):
    for row in dark.rows("hk", key="CCD2_TEMP_T"):
        row.update(mean=-117.0, min=-117.1, max=-116.9)
    verdict = dark.judge()
    assert names(verdict) == ["CCDTEMP_OOL"]
    assert verdict["flags"][0]["scope"]["ccd"] == 2


def test_families_are_found():
    assert {"bias", "dark"} <= set(families())


def test_unknown_family_is_judged_by_its_limits(bias):
    bias.judging["family"] = "something_new"
    verdict = bias.judge()
    assert verdict["verdict"] == "pass"
    assert verdict["headline"] == []


def test_many_frames_are_judged(bias):
    for subject in ("frames", "offsets", "selection", "hk"):
        rows = bias.tables[subject]
        bias.tables[subject] = [{**row, "obsid": row["obsid"] + 10 * n} for n in range(17) for row in rows]
    for row in bias.rows("selection", ccd=2):
        row.update(use=False, cause="x")
    verdict = bias.judge()
    assert {(e["ccd"], e["cause"]) for e in verdict["excluded"]} == {(2, "x")}
    assert len({e["obsid"] for e in verdict["excluded"]}) == 170


def saturation_cells(verdict):
    return {
        (c["check"], c["column"]): c
        for c in verdict["compliance"]
        if c["check"] in ("saturation", "nonsaturation") and (c["ccd"], c["quadrant"]) == (1, "E")
    }


def test_limits_that_differ_between_columns(bias):
    """As in PERSIST01: one column must saturate, the others must not."""
    for row in bias.tables["frames"]:
        row["column"] = 1 if row["frame"] <= 5 else 2
        row["saturated_fraction"] = 0.0 if row["column"] == 1 else 0.15
    bias.judging["structure"] = {"columns": [{}, {}]}
    whole = bias.judging["limits"]["saturation"]
    wanted = {
        **whole,
        "name": "nonsaturation",
        "low": 0.002,
        "high": 0.2,
        "flags": ["POORQUALDATA", "NONSATURATION"],
    }
    assert names(bias.judge())[0] == "SATURATION"
    bias.judging["column_limits"] = {"2": {"saturation": None, "nonsaturation": wanted}}
    verdict = bias.judge()
    assert verdict["verdict"] == "pass"
    cells = saturation_cells(verdict)
    assert sorted(cells) == [("nonsaturation", 2), ("saturation", 1)]
    assert cells["nonsaturation", 2]["low"] == 0.002
    bias.judging["column_limits"]["2"]["nonsaturation"]["low"] = 0.16
    assert names(bias.judge())[0] == "NONSATURATION"


def test_expected_offsets_by_channel(bias):
    bias.judging["offsets"] = {
        f"{c}{q}": v for c, quads in bias.judging["offsets"].items() for q, v in quads.items()
    }
    assert bias.judge()["verdict"] == "pass"


def test_without_expected_offsets_there_is_nothing_to_compare_with(bias):
    bias.judging["offsets"] = {}
    cells = [c for c in bias.judge()["compliance"] if c["check"] == "offset"]
    assert {(c["ok"], c["reason"]) for c in cells} == {(None, "nothing to compare with")}
