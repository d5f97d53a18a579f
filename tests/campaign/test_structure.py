"""Alignment of the EXP-LOG with the declared columns: by content, robust, fast."""

import random
from dataclasses import dataclass, field

import pytest

from calcamp.campaign.structure import align, candidate_runs, declare, expected_keys, progress, same


@dataclass
class Logged:
    obsid: int
    values: dict
    ccds: dict = field(default_factory=dict)


def column(frames, **keys):
    return {"frames": frames, "keys": {"test": "T", **keys}}


BIAS = [column(10, exptime=0)]
PTC = [
    column(n, exptime=t)
    for n, t in zip(
        [10] * 8 + [4] * 3, (0.17, 0.34, 0.68, 1.0, 1.7, 2.4, 2.7, 3.06, 3.4, 3.74, 4.08), strict=True
    )
]
CHINJ = [column(1, IG1_1_T=2.5 + 0.25 * i, id_dly=d, chinj=1) for d in (1250, 750) for i in range(18)]
FOCUS = [column(1, mirr_pos=47.2 + 0.2 * k, exptime=7.2, mirr_on=1, source="point") for k in range(-4, 5)]
NL02 = [column(3, exptime=0, wave=5), column(1, exptime=3.6, wave=5)]
for wave, full, levels in (
    (6, 73.4, (0.5, 0.7, 1, 2, 3, 5, 10, 15, 20, 25)),
    (5, 7.2, (15, 20, 25, 50, 70, 80, 85, 90, 95, 100, 110)),
):
    for p in levels:
        NL02 += [column(4, exptime=full * p / 100, wave=wave), column(1, exptime=3.6, wave=5)]
TP01 = []
for dly in (625, 375):
    TP01.append(column(1, id_dly=dly, chinj=1, v_tpump=0))
    TP01 += [
        column(1, id_dly=dly, chinj=1, v_tpump=1, toi_tp=t, v_tpmod=m)
        for t in (50, 200, 1000, 2000, 4000, 8000)
        for m in (123, 234, 341, 412)
    ]


def log(columns, first=1000, **override):
    """The perfect log of a test."""
    out = []
    for c in declare(columns):
        for _ in range(c.frames):
            values = {**c.values, **override}
            out.append(Logged(first + len(out), values, dict.fromkeys((1, 2, 3), values)))
    return out


def content(columns, number):
    return columns[number - 1]["keys"]


def frames_of(result):
    return [(c, f) for _, c, f in result.assignments]


@pytest.mark.parametrize("columns", [BIAS, PTC, CHINJ, FOCUS, NL02, TP01])
def test_a_perfect_log_checks_out(columns):
    result = align(columns, log(columns))
    assert result.checks_out
    assert not result.unexpected
    assert not result.messages
    assert [i for i, _, _ in result.assignments] == list(range(result.declared))
    counts = [sum(c == n + 1 for c, _ in frames_of(result)) for n in range(len(columns))]
    assert counts == [c["frames"] for c in columns]


@pytest.mark.parametrize("columns", [PTC, CHINJ, FOCUS, NL02, TP01])
@pytest.mark.parametrize("obsid_kept", [True, False], ids=["gap", "contiguous"])
def test_one_missing_frame_damages_only_its_column(columns, obsid_kept):
    truth = [(c, f) for _, c, f in align(columns, log(columns)).assignments]
    for gone in range(len(truth)):
        exposures = log(columns)
        del exposures[gone]
        if not obsid_kept:
            for n, e in enumerate(exposures):
                e.obsid = 1000 + n
        result = align(columns, exposures)
        (lacking,) = (m["column"] for m in result.missing)
        # In NL02 the 50 % level and the stability frames around it are commanded alike.
        assert content(columns, lacking) == content(columns, truth[gone][0]), gone
        assert abs(lacking - truth[gone][0]) <= 2
        assert not result.unexpected
        assert not result.mismatches
        assert result.wrong_columns == [lacking]
        if obsid_kept and 0 < gone < len(truth) - 1:
            assert result.missing == [{"column": truth[gone][0], "frame": truth[gone][1]}]


def test_a_frame_missing_in_identical_frames_is_placed_by_its_obsid():
    exposures = log(BIAS)
    del exposures[4:6]
    result = align(BIAS, exposures)
    assert result.missing == [{"column": 1, "frame": 5}, {"column": 1, "frame": 6}]
    assert "col001: 2 of 10 frames missing" in result.messages


def test_ended_too_early():
    result = align(PTC, log(PTC)[:35])
    assert not result.complete
    assert len(result.missing) == 92 - 35
    assert result.messages == ["Test ended too early: 35 of 92 frames, nothing after col004 frame 5"]


@pytest.mark.parametrize("aborted", range(1, 10))
@pytest.mark.parametrize("gap", [0, 3])
def test_aborted_and_restarted_bias(aborted, gap):
    exposures = log(BIAS)[:aborted] + log(BIAS, first=1000 + aborted + gap)
    result = align(BIAS, exposures)
    assert result.complete
    assert [i for i, _, _ in result.assignments] == list(range(aborted, aborted + 10))
    assert result.unexpected == list(range(1000, 1000 + aborted))


@pytest.mark.parametrize("columns", [PTC, CHINJ, FOCUS, NL02, TP01])
def test_aborted_and_restarted_with_contiguous_obsids(columns):
    total = len(log(columns))
    for aborted in {1, 2, 3, 5, total // 2, total - 2, total - 1}:
        exposures = log(columns)[:aborted] + log(columns, first=1000 + aborted)
        result = align(columns, exposures)
        assert result.checks_out, (aborted, result.messages)
        assert result.assignments[0][0] == aborted
        assert result.unexpected == list(range(1000, 1000 + aborted))


def test_wrong_serials_do_not_disturb_but_are_reported():
    exposures = log(PTC, sn_ccd1="other", operator="xyz")
    for e in exposures:
        e.values["exptime"] = e.values["exptime"] * 1.001
    equipment = {"sn_ccd1": "14471-19-01", "operator": "xyz"}
    result = align(PTC, exposures, equipment=equipment)
    assert result.complete
    assert not result.checks_out
    assert {m["key"] for m in result.mismatches} == {"sn_ccd1"}
    assert len(result.mismatches) == 92
    assert result.wrong_columns == []
    assert result.messages == ['sn_ccd1: "14471-19-01" NE "other", OBSID 1000-1091']


def test_a_wrong_value_is_a_mismatch_of_its_frame():
    exposures = log(PTC)
    exposures[88].values = {**exposures[88].values, "exptime": 9.0}
    result = align(PTC, exposures)
    assert result.complete
    assert [(m["obsid"], m["column"], m["key"], m["found"]) for m in result.mismatches] == [
        (1088, 11, "exptime", 9.0)
    ]


def test_a_whole_wrong_column():
    exposures = log(PTC)
    for e in exposures[-4:]:
        e.values = {**e.values, "exptime": 3.4}
    result = align(PTC, exposures)
    assert result.complete
    assert {m["column"] for m in result.mismatches} == {11}
    assert result.messages == ['exptime: "4.08" NE "3.4" in col011, OBSID 1088-1091']


def test_a_voltage_wrong_in_the_whole_test():
    exposures = log(CHINJ, IDH=17.0)
    del exposures[20]
    result = align(CHINJ, exposures)
    assert result.missing == [{"column": 21, "frame": 1}]
    assert {m["key"] for m in result.mismatches} == {"IDH"}


@pytest.mark.parametrize("where", [0, 1, 40, 85, 91, 92])
def test_a_foreign_exposure_is_unexpected(where):
    exposures = log(PTC)
    exposures.insert(
        where,
        Logged(
            0, {**exposures[0].values, "exptime": 55.0, "wave": 1, "source": "point"}, {1: {}, 2: {}, 3: {}}
        ),
    )
    for n, e in enumerate(exposures):
        e.obsid = 1000 + n
    result = align(PTC, exposures)
    assert result.checks_out
    assert result.unexpected == [1000 + where]


@pytest.mark.parametrize("copies", [1, 2])
def test_surplus_frames_of_a_late_column(copies):
    exposures = log(CHINJ)
    exposures[34:34] = [Logged(0, exposures[34].values, exposures[34].ccds) for _ in range(copies)]
    for n, e in enumerate(exposures):
        e.obsid = 1000 + n
    result = align(CHINJ, exposures)
    assert result.checks_out
    assert len(result.unexpected) == copies


def test_missing_rows_of_one_ccd():
    exposures = log(BIAS)
    del exposures[3].ccds[2]
    result = align(BIAS, exposures)
    assert not result.complete
    assert result.missing == [{"column": 1, "frame": 4, "obsid": 1003, "ccds": [2]}]


def test_rows_of_ccds_that_disagree():
    exposures = log(BIAS)
    exposures[3].ccds[2] = {**exposures[3].values, "rdmode": "rwd_bas_v"}
    (mismatch,) = align(BIAS, exposures).mismatches
    assert (mismatch["ccd"], mismatch["key"], mismatch["found"]) == (2, "rdmode", "rwd_bas_v")


def test_waived_and_absent_keys():
    exposures = log(BIAS, motr_siz=99)
    for e in exposures:
        e.values.pop("swelldly")
    assert align(BIAS, exposures).checks_out
    assert not align(BIAS, exposures, waived=()).checks_out


def test_pumping_mode_is_compared_only_where_the_log_records_it():
    constant = log(TP01, v_tp_mod=123)
    assert align(TP01, constant).checks_out
    exposures = log(TP01)
    exposures[5].values = {**exposures[5].values, "v_tp_mod": 412}
    assert [m["key"] for m in align(TP01, exposures).mismatches] == ["v_tp_mod"]


@pytest.mark.parametrize("columns", [BIAS, PTC, FOCUS])
@pytest.mark.parametrize("gap", [0, 12])
def test_repeats(columns, gap):
    n = len(log(columns))
    exposures = log(columns) + log(columns, first=1000 + n + gap)
    first = align(columns, exposures, entry=1, entries=2)
    second = align(columns, exposures, entry=2, entries=2)
    only = align(columns, exposures)
    assert first.assignments[0][0] == 0
    assert second.assignments[0][0] == n
    assert only.assignments[0][0] == n  # more runs than entries: the last
    assert first.complete
    assert second.complete
    assert not first.unexpected
    assert not second.unexpected


def test_repeats_with_an_aborted_start_between():
    exposures = log(PTC) + log(PTC, first=1092)[:35] + log(PTC, first=1092 + 35)
    first, second = (align(PTC, exposures, entry=k, entries=2) for k in (1, 2))
    assert first.assignments[0][0] == 0
    assert second.assignments[0][0] == 92 + 35
    assert len(second.unexpected) == 35


def test_a_repeat_not_there_yet():
    result = align(BIAS, log(BIAS), entry=2, entries=2)
    assert not result.assignments
    assert not result.complete


def test_nothing_in_the_log():
    result = align(BIAS, [])
    assert not result.complete
    assert len(result.missing) == 10
    assert result.messages == ["No exposure of this test is in the EXP-LOG"]


def test_progress_follows_an_acquisition():
    exposures = log(PTC)
    for n in range(93):
        assert progress(PTC, exposures[:n]) == (n, 92, 0)


def test_progress_sees_a_restart_at_once():
    old, new = log(PTC)[:35], log(PTC, first=1035)
    for n in range(5, 93):
        assert progress(PTC, old + new[:n]) == (n, 92, 0), n


def test_progress_counts_wrong_rows():
    exposures = log(PTC)[:30]
    exposures[12].values = {**exposures[12].values, "exptime": 0.5}
    assert progress(PTC, exposures) == (30, 92, 1)


def test_progress_of_a_second_run():
    exposures = log(BIAS) + log(BIAS, first=1020)[:4]
    assert progress(BIAS, exposures, entry=2) == (4, 10, 0)
    assert progress(BIAS, log(BIAS), entry=2) == (0, 10, 0)


def test_random_damage_never_mislabels():
    """Lost frames anywhere, up to one in ten: every frame kept keeps its column."""
    rng = random.Random(4)
    for columns in (PTC, CHINJ, FOCUS, NL02):
        truth = frames_of(align(columns, log(columns)))
        for _ in range(15):
            keep = [rng.random() > 0.1 for _ in truth]
            if not any(keep):
                continue
            exposures = [e for e, k in zip(log(columns), keep, strict=True) if k]
            result = align(columns, exposures)
            labels = [content(columns, c) for c, _ in frames_of(result)]
            assert labels == [content(columns, c) for (c, _), k in zip(truth, keep, strict=True) if k]


def test_expected_keys():
    values = expected_keys(column(3, v_tpmod=234), "BIAS01")
    assert values["IPHI"] == "I1I2I3"
    assert values["v_tp_mod"] == 234
    assert values["test"] == "T"
    assert "frames" not in values
    assert expected_keys({"frames": 1, "keys": {}}, "BIAS01")["test"] == "BIAS01"
    assert expected_keys({"frames": 1, "keys": {"IPHI3": 0}})["IPHI"] == "I1I2"
    assert expected_keys({"frames": 1, "keys": values}) == values  # complete keys stay as they are


def test_same():
    assert same(13, "13.0")
    assert same(100, 100.5)
    assert not same(100, 100.51)
    assert same(0, 1e-9)
    assert not same(0, 1e-6)
    assert not same(1.0, float("nan"))
    assert same("flat", "flat ")
    assert not same("flat", "point")


def test_a_test_repeated_many_times():
    declared = declare(NL02)
    one = log(NL02)
    many = [Logged(1000 + n, one[n % len(one)].values, one[n % len(one)].ccds) for n in range(2000)]
    runs = candidate_runs(declared, many)
    assert sum(run.complete for run in runs) == 2000 // 109


def test_a_waiting_gate_loads_only_the_standard_library():
    import subprocess
    import sys

    code = (
        "import sys, calcamp.campaign.structure as s, calcamp.campaign.duration\n"
        "s.align([{'frames': 1, 'keys': {}}], [])\n"
        "print([m for m in ('pydantic', 'yaml', 'ruamel', 'numpy', 'astropy') if m in sys.modules])"
    )
    assert (
        subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True
        ).stdout.strip()
        == "[]"
    )


def test_every_test_of_the_catalogue():
    """A lost frame and an aborted start, for all tests of the campaign with the columns they really have."""
    from calcamp.campaign.core import tests
    from calcamp.config.lookup import load_chamber

    rng = random.Random(1)
    chamber = load_chamber("B_NOSTROMO")
    for name, test in tests().items():
        declared = declare(test.columns(chamber), test)
        truth = frames_of(align(declared, log(declared)))
        assert len(truth) == sum(d.frames for d in declared), name
        for gone in rng.sample(range(len(truth)), min(3, len(truth))):
            exposures = log(declared)
            del exposures[gone]
            result = align(declared, exposures)
            lacking = [declared[m["column"] - 1].values for m in result.missing]
            assert lacking == [declared[truth[gone][0] - 1].values], (name, gone)
            assert not result.mismatches, (name, gone)
        aborted = len(truth) // 2
        exposures = log(declared)[:aborted] + log(declared, first=1000 + aborted)
        result = align(declared, exposures)
        assert result.checks_out, (name, result.messages)
        assert [i for i, _, _ in result.assignments] == list(range(aborted, aborted + len(truth))), name
