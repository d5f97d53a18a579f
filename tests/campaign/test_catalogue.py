"""The catalogue: every handle, every chamber, the short campaigns."""

import math
import subprocess
import sys

import pytest

from calcamp.campaign import catalogue
from calcamp.campaign.core import CampaignError, families
from calcamp.campaign.core import tests as known_tests
from calcamp.campaign.scripts import prepare
from calcamp.config.lookup import load_chamber, names_of
from calcamp.data.elvis import SCRIPT_DEFAULTS
from calcamp.data.files import InputError

EQUIPMENT = {
    "operator": "unk",
    "sn_ccd1": "14888-88-81",
    "sn_ccd2": "14888-88-82",
    "sn_ccd3": "14888-88-83",
    "sn_roe": "FM15",
    "sn_rpsu": "FM15",
}

# Test catalogue, section 1: tests of a handle, columns, frames per test.
INDEX = """
BIAS01 | BIAS01 | 1 | 10
BIAS02 | BIAS02 | 1 | 10
DARK01 | DARK01 | 1 | 4
CHINJ01 | CHINJ01 | 36 | 36
CHINJ02 | CHINJ02 | 26 | 26
TP01 | TP01 | 50 | 50
TP11 | TP11 | 50 | 50
TP02 | TP02 | 18 | 18
TP21 | TP21 | 18 | 18
FLATFLUX00 | FLATFLUX00_590 FLATFLUX00_2000 FLATFLUX00_730 FLATFLUX00_800 FLATFLUX00_880 FLATFLUX00_0 | 4 | 4
FLAT01 | FLAT01 | 3 | 170
FLAT02 | FLAT02_590 FLAT02_730 FLAT02_880 | 2 | 110
FLAT_STB | FLAT_STB | 1 | 15
PTC01 | PTC01 | 11 | 92
PTC02WAVE | PTC02_590 PTC02_730 PTC02_880 | 6 | 24
PTC02TEMP | PTC02_148K PTC02_158K | 6 | 24
PTC02RD | PTC02_155R PTC02_160R PTC02_165R | 6 | 24
BF01 | BF01 | 11 | 92
BF01WAVE | BF01_590 BF01_730 BF01_880 | 6 | 24
NL01 | NL01 | 36 | 89
NL02 | NL02 | 44 | 109
NL02RD | NL02_155R NL02_160R NL02_165R | 36 | 89
FOCUS00 | FOCUS00_590 FOCUS00_730 FOCUS00_800 FOCUS00_880 | 9 | 9
PSF01 | PSF01_590 PSF01_730 PSF01_800 PSF01_880 | 5 | 53
PSFLUX00 | PSFLUX00_590 PSFLUX00_730 PSFLUX00_800 PSFLUX00_880 PSFLUX00_0 | 4 | 4
PSF02 | PSF02_148K PSF02_158K | 5 | 52
PERSIST01 | PERSIST01 | 4 | 12
MOT_WARM | MOT_WARM | 8 | 8
COSMETICS00 | COSMETICS00 | 2 | 10
"""


def nostromo():
    return load_chamber("B_NOSTROMO")


def columns(name, campaign="Full", chamber=None):
    """Complete columns of a test, as (frames, keys)."""
    for members in catalogue.handles(campaign).values():
        for test in members:
            if test.name == name:
                (made,) = prepare([catalogue.Planned(name, test)], chamber or nostromo(), EQUIPMENT)
                return made.columns
    raise AssertionError(f"{name} is not in {campaign}")


def minutes(name, campaign="Full"):
    (planned,) = [
        catalogue.Planned(t.name, t)
        for m in catalogue.handles(campaign).values()
        for t in m
        if t.name == name
    ]
    return prepare([planned], nostromo(), EQUIPMENT)[0].minutes


def test_full_has_29_handles_56_tests_and_2076_frames():
    handles = catalogue.handles("Full")
    assert len(handles) == 29
    planned = [item for handle in handles for item in catalogue.expand(handle)]
    assert len(planned) == 56
    prepared = prepare(planned, nostromo(), EQUIPMENT)
    assert sum(test.line.frames for test in prepared) == 2076


@pytest.mark.parametrize("line", INDEX.strip().splitlines(), ids=lambda line: line.split(" ")[0])
def test_index_of_the_catalogue(line):
    handle, names, n_columns, frames = (part.strip() for part in line.split("|"))
    planned = catalogue.expand(handle)
    assert [item.name for item in planned] == names.split()
    for test in prepare(planned, nostromo(), EQUIPMENT):
        assert len(test.columns) == int(n_columns)
        assert test.line.frames == int(frames)


def test_handles_come_in_the_order_of_the_index():
    assert list(catalogue.handles("Full")) == [line.split(" ")[0] for line in INDEX.strip().splitlines()]


def chambers():
    return [name for name in names_of("chambers") if name[:2] in ("A_", "B_")]


@pytest.mark.parametrize("name", chambers())
def test_every_handle_writes_for_every_chamber_that_has_the_wavelengths(name):
    chamber = load_chamber(name)
    has = set(chamber.filter_wheel.values())
    for handle in catalogue.FULL:
        for planned in catalogue.expand(handle):
            needed = {590, 730, 880, 800} if planned.test.handle == "MOT_WARM" else {planned.test.wavelength}
            lacking = needed & {2000, 640} - has
            if lacking:
                with pytest.raises(InputError) as error:
                    prepare([planned], chamber, EQUIPMENT)
                text = str(error.value)
                assert name in text
                assert str(lacking.pop()) in text
                assert planned.name in text
            else:
                assert prepare([planned], chamber, EQUIPMENT)[0].columns


def test_known_chambers_are_those_of_the_catalogue():
    assert (
        len([name for name in chambers() if name not in ("A_FEB18", "A_JUL18", "A_JUN18", "A_JUN18B")]) == 23
    )


def test_a_640_nm_chamber_names_the_missing_2000_nm_and_the_test():
    with pytest.raises(InputError, match=r"A_CBE_AUG18.*2000 nm.*FLATFLUX00_2000"):
        prepare(catalogue.expand("FLATFLUX00"), load_chamber("A_CBE_AUG18"), EQUIPMENT)


# ---- values --------------------------------------------------------------------------------------
def close(a, b):
    return math.isclose(a, b, rel_tol=1e-9, abs_tol=1e-12)


def test_focus00_800_of_the_worked_example():
    made = columns("FOCUS00_800")
    for k, column in zip(range(-4, 5), made, strict=True):
        keys = column.keys
        assert column.frames == 1
        assert close(keys["exptime"], 1.32)
        assert close(keys["mirr_pos"], 47.2 + 0.2 * k)
        assert keys["comments"] == f"F{float(k)}"
        assert (keys["source"], keys["mirr_on"], keys["wave"], keys["shuttr"]) == ("point", 1, 4, 1)
    assert close(minutes("FOCUS00_800"), 14.223535) or abs(minutes("FOCUS00_800") - 14.223535) < 5e-7


def test_tp02_of_the_worked_example():
    from calcamp.campaign.duration import frame_seconds

    times = {0: 41.4907920, 4.75: 43.8657920, 14.3: 48.6407920, 28.6: 55.7907920}
    expected = []
    for delay in (625, 375):
        expected.append((delay, 0, 0, 23, "BGD", 27.1907920))
        expected += [(delay, 1, dwell, mode, "", time) for dwell, time in times.items() for mode in (23, 31)]
    made = columns("TP02")
    assert len(made) == len(expected) == 18
    for column, (delay, pump, dwell, mode, comment, time) in zip(made, expected, strict=True):
        keys = column.keys
        found = (keys["id_dly"], keys["s_tpump"], keys["dwell_s"], keys["s_tpmod"], keys["comments"])
        assert found == (delay, pump, dwell, mode, comment)
        constant = {
            "IDL": 11,
            "IG2_T": 6,
            "IG2_B": 6,
            "vend": 100,
            "chinj": 1,
            "chinj_on": 2066,
            "chinj_of": 0,
        }
        constant |= {"id_wid": 60, "toi_ch": 250, "s_tp_cnt": 5000, "v_tpump": 0, "shuttr": 0}
        constant |= {f"IG1_{n}_{half}": 4 for n in (1, 2, 3) for half in "TB"}
        assert {key: keys[key] for key in constant} == constant
        assert abs(frame_seconds(keys) - time) < 1e-7
    assert abs(minutes("TP02") - 13.558904) < 5e-7


NL02 = """
1 3 0 5 BGD|2 1 3.6 5 STAB|3 4 0.367 6 Fluence1|4 1 3.6 5 STAB|5 4 0.5138 6 Fluence2|6 1 3.6 5 STAB|7 4 0.734 6 Fluence3
8 1 3.6 5 STAB|9 4 1.468 6 Fluence4|10 1 3.6 5 STAB|11 4 2.202 6 Fluence5|12 1 3.6 5 STAB|13 4 3.67 6 Fluence6
14 1 3.6 5 STAB|15 4 7.34 6 Fluence7|16 1 3.6 5 STAB|17 4 11.01 6 Fluence8|18 1 3.6 5 STAB|19 4 14.68 6 Fluence9
20 1 3.6 5 STAB|21 4 18.35 6 Fluence10|22 1 3.6 5 STAB|23 4 1.08 5 Fluence11|24 1 3.6 5 STAB|25 4 1.44 5 Fluence12
26 1 3.6 5 STAB|27 4 1.8 5 Fluence13|28 1 3.6 5 STAB|29 4 3.6 5 Fluence14|30 1 3.6 5 STAB|31 4 5.04 5 Fluence15
32 1 3.6 5 STAB|33 4 5.76 5 Fluence16|34 1 3.6 5 STAB|35 4 6.12 5 Fluence17|36 1 3.6 5 STAB|37 4 6.48 5 Fluence18
38 1 3.6 5 STAB|39 4 6.84 5 Fluence19|40 1 3.6 5 STAB|41 4 7.2 5 Fluence20|42 1 3.6 5 STAB|43 4 7.92 5 Fluence21
44 1 3.6 5 STAB
"""


def test_nl02_of_the_worked_example():
    rows = [row.split() for line in NL02.strip().splitlines() for row in line.split("|")]
    made = columns("NL02")
    assert len(made) == len(rows) == 44
    for column, (_, frames, time, wave, comment) in zip(made, rows, strict=True):
        assert column.frames == int(frames)
        assert close(column.keys["exptime"], float(time))
        assert (column.keys["wave"], column.keys["comments"]) == (int(wave), comment)
        assert (column.keys["source"], column.keys["shuttr"]) == ("flat", 1)
    assert abs(minutes("NL02") - 178.759132) < 5e-7


def test_nl02_against_the_reset_drain_does_not_overlap():
    made = columns("NL02_155R")
    levels = [c for c in made if c.keys["comments"].startswith("Fluence")]
    assert [c.keys["comments"] for c in levels] == [f"Fluence{n}" for n in range(1, 18)]
    assert sum(c.keys["wave"] == 6 for c in levels) == 7
    assert {c.keys["RD_T"] for c in made} == {15.5}
    assert {c.keys["RD_B"] for c in made} == {15.5}


def test_chinj01_scans_the_gate_once_per_half():
    made = columns("CHINJ01")
    gates = [2.5 + 0.25 * i for i in range(18)]
    assert [c.keys["IG1_2_B"] for c in made] == gates * 2
    assert [c.keys["id_dly"] for c in made] == [1250] * 18 + [750] * 18
    assert {c.keys["IDL"] for c in made} == {11}


def test_chinj02_scans_the_drain():
    made = columns("CHINJ02")
    assert [c.keys["IDL"] for c in made] == [9.5 + 0.25 * i for i in range(13)] * 2


def test_tp01_blocks_begin_with_a_background():
    made = columns("TP01")
    assert [n for n, c in enumerate(made, 1) if c.keys["comments"] == "BGD"] == [1, 26]
    assert (made[0].keys["v_tpump"], made[0].keys["toi_tp"], made[0].keys["v_tp_cnt"]) == (0, 1000, 5000)
    pumped = [(c.keys["toi_tp"], c.keys["v_tpmod"]) for c in made[1:25]]
    assert pumped == [(t, m) for t in (50, 200, 1000, 2000, 4000, 8000) for m in (123, 234, 341, 412)]
    assert {c.keys["IDL"] for c in columns("TP11")} == {10.5}


def test_flat_comments_follow_c_formatting():
    assert [c.keys["comments"] for c in columns("FLAT01")] == ["EXP8.8e-01", "EXP1.8e+00", "EXP2.6e+00"]
    assert [c.frames for c in columns("FLAT01")] == [80, 60, 30]


def test_flatflux_times_are_those_of_the_point_source_but_for_the_open_slot():
    assert [round(c.keys["exptime"], 9) for c in columns("FLATFLUX00_800")] == [0.22, 0.66, 1.32, 1.76]
    assert [round(c.keys["exptime"], 9) for c in columns("FLATFLUX00_2000")] == [0.005, 0.02, 0.05, 0.08]


def test_ptc01_psf_and_persist():
    assert [c.frames for c in columns("PTC01")] == [10] * 8 + [4] * 3
    assert [round(c.keys["exptime"] / 3.5, 9) for c in columns("PTC01")] == [
        *(0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 0.8, 0.9, 1.0, 1.1, 1.2),
    ]
    assert [c.frames for c in columns("PSF01_800")] == [20, 15, 10, 4, 4]
    assert [c.frames for c in columns("PSF02_148K")] == [20, 14, 10, 4, 4]
    keys = columns("PSF01_800")[0].keys
    assert (keys["motr_on"], keys["motr_cnt"], keys["motr_siz"], keys["mirr_pos"]) == (1, 2, 120, 47.2)
    persist = columns("PERSIST01")
    assert [c.keys["comments"] for c in persist] == ["RESET", "REFER.", "EXPOSE", "LATENT"]
    assert [c.frames for c in persist] == [5, 3, 1, 3]
    assert close(persist[2].keys["mirr_pos"], 37.2)
    assert {c.keys["flushes"] for c in persist} == {3}


def test_mot_warm_is_read_in_its_order():
    made = columns("MOT_WARM")
    assert [c.keys["comments"] for c in made] == [
        "RWDVS",
        "RWDV",
        "RAMP",
        "CHINJ",
        "FLAT",
        "PNT",
        "PNT",
        "PNT",
    ]
    assert {c.keys["toi_ro"] for c in made} == {500}
    assert (made[0].keys["rdmode"], made[0].keys["swellw"], made[0].keys["swelldly"]) == (
        "rwd_bas_vs",
        6.5,
        0.175,
    )
    assert made[3].keys["id_dly"] == 625
    assert [c.keys["wave"] for c in made[5:]] == [1, 3, 5]


def test_brighter_fatter_commands_its_surrogate():
    assert {c.keys["test"] for c in columns("BF01")} == {"PTC01"}
    assert {c.keys["test"] for c in columns("BF01_730")} == {"PTC02_730"}
    assert known_tests()["BF01_730"].log_name == "PTC02_730"


def test_every_column_commands_its_test():
    for members in catalogue.handles().values():
        for test in members:
            assert {c.keys["test"] for c in test.columns(nostromo())} == {test.log_name}


def test_summing_well_goes_with_the_read_mode():
    from calcamp.data.elvis import SUMMING_WELL

    for members in catalogue.handles().values():
        for test in members:
            for column in columns(test.name):
                keys = column.keys
                assert (keys["swellw"], keys["swelldly"]) == SUMMING_WELL[keys["rdmode"]]


def test_no_key_is_unknown_to_elvis():
    for campaign in catalogue.CAMPAIGN_TYPES:
        chamber = load_chamber("A_CBE_AUG18" if campaign == "Mini" else "B_NOSTROMO")
        for members in catalogue.handles(campaign).values():
            for test in members:
                for column in test.columns(chamber):
                    assert set(column.keys) <= set(SCRIPT_DEFAULTS)


# ---- other campaigns -----------------------------------------------------------------------------
def test_mot():
    counts = {
        test.name: (len(test.columns(nostromo())), sum(c.frames for c in test.columns(nostromo())))
        for members in catalogue.handles("MOT").values()
        for test in members
    }
    assert counts == {
        "BIAS01": (1, 5),
        "CHINJ01": (16, 16),
        "TP01": (10, 10),
        "TP02": (18, 18),
        "PTC01": (5, 10),
        "MOT_FF": (5, 10),
    }
    gates = [c.keys["IG1_1_T"] for c in columns("CHINJ01", "MOT")]
    assert gates[:8] == [3 + 0.75 * i for i in range(8)]
    assert {c.keys["IG2_T"] for c in columns("CHINJ01", "MOT")} == {7.5}
    assert {c.keys["test"] for c in columns("MOT_FF", "MOT")} == {"PTC01"}


def test_mini_needs_a_640_nm_chamber():
    chamber = load_chamber("A_CBE_AUG18")
    flat = columns("FLAT01", "Mini", chamber)
    assert [c.keys["test"] for c in flat] == ["FLAT01_800"] * 3
    assert [c.frames for c in columns("BIAS01", "Mini", chamber)] == [3]
    focus = columns("FOCUS00_590", "Mini", chamber)
    assert close(focus[0].keys["mirr_pos"], 95.5 - 0.4)
    assert [t.name for t in catalogue.handles("Mini")["FLAT02"]] == [
        *("FLAT02_0", "FLAT02_590", "FLAT02_640", "FLAT02_730", "FLAT02_880"),
    ]
    psf = columns("PSF01_800", "Mini", chamber)
    assert [c.keys["wave"] for c in psf] == [4] * 3
    assert {c.keys["s_tp_cnt"] for c in columns("TP00", "Mini", chamber)[24:]} == {500}
    with pytest.raises(InputError, match="640"):
        prepare(catalogue.expand("FLAT02", "Mini"), nostromo(), EQUIPMENT)


def test_reserve_tests():
    chinj = columns("CHINJ00", "devel")
    assert [c.keys["comments"] for c in chinj] == [
        *("del1250_IG14.0", "del1250_IG16.0", "del1250_IG14.0", "del1250_IG16.0"),
        *("del750_IG14.0", "del750_IG16.0", "del750_IG14.0", "del750_IG16.0"),
    ]
    assert {c.keys["chinj_of"] for c in chinj} == {100}
    tp = columns("TP00", "devel")
    assert len(tp) == 36
    assert tp[0].keys["comments"] == "V123_200"
    assert tp[24].keys["comments"] == "S23_0"
    assert {c.keys["s_tp_cnt"] for c in tp[24:]} == {100}
    stray = columns("STRAY00", "devel")
    assert len(stray) == 22
    assert [c.keys["comments"] for c in stray[12:14]] == ["DARK-FF"] * 2
    assert [(c.keys["wave"], c.keys["mirr_pos"]) for c in stray[14:18]] == [(1, 1), (1, 99), (4, 1), (4, 99)]
    henk = columns("HENK01", "devel")
    assert (len(henk), sum(c.frames for c in henk)) == (48, 197)
    assert {c.keys["test"] for c in henk} == {"NL02"}


# ---- names ---------------------------------------------------------------------------------------
def test_a_tag_ends_each_test_name_and_is_not_commanded():
    planned = catalogue.expand("FOCUS00.2")
    assert [p.name for p in planned] == ["FOCUS00_590.2", "FOCUS00_730.2", "FOCUS00_800.2", "FOCUS00_880.2"]
    made = prepare(planned, nostromo(), EQUIPMENT)
    assert {c.keys["test"] for test in made for c in test.columns if test.name == "FOCUS00_800.2"} == {
        "FOCUS00_800"
    }


@pytest.mark.parametrize(
    "bad", ["BIAS01.", "BIAS01.x", "BIAS01.1.2", "bias01", "", ".2", "BIAS01 ", "BIAS01.-1"]
)
def test_malformed_names_are_refused(bad):
    with pytest.raises(CampaignError, match="not a name"):
        catalogue.expand(bad)


@pytest.mark.parametrize(
    ("asked", "hint"),
    [
        ("BIAS0l", "not a name|BIAS01"),
        ("MOT_FF", "MOT"),
        ("PTC02_730", "PTC02WAVE"),
        ("CHINJ03", "CHINJ01|CHINJ02"),
    ],
)
def test_unknown_handles_name_what_would_be_right(asked, hint):
    with pytest.raises(CampaignError, match=hint):
        catalogue.expand(asked)


def test_unknown_campaign_type():
    with pytest.raises(CampaignError, match="Full"):
        catalogue.handles("Medium")


# ---- sub-tasks -----------------------------------------------------------------------------------
def test_subtasks_read_only_what_is_there_and_aliases_are_unique():
    for family in families().values():
        for test in family.tests:
            names = [s.name for s in test.subtasks]
            assert len(names) == len(set(names))
            aliases = [a for s in test.subtasks for a in s.aliases]
            assert len(aliases) == len(set(aliases))
            assert not set(aliases) & set(names)
            for position, subtask in enumerate(test.subtasks):
                assert set(subtask.after) <= set(names[:position]), f"{test.name} {subtask.name}"
                assert subtask.scope in ("ccd", "block")
            assert test.title
            assert test.purpose


@pytest.mark.parametrize(
    ("test", "old", "new"),
    [
        ("PERSIST01", "satur_masks", "basic"),
        ("BF01", "correct_BFE_G15", "meta"),
        ("BF01_730", "extract_PTCs", "meta"),
        ("NL02", "extract_PTC", "extract"),
        ("PSF01_800", "corrBFE_G15", "basic"),
        ("PSF01_800", "basic_nobfe", "basic"),
        ("TP01", "injection", "extract"),
    ],
)
def test_names_of_the_predecessor_are_understood(test, old, new):
    assert known_tests()[test].subtask(old).name == new


def test_production_leaves_out_prep_and_relock():
    for test in known_tests().values():
        spared = {s.name for s in test.subtasks if not s.production}
        assert spared <= {"hk", "prep", "relock"}


def test_waived_keys_and_colour_follow_the_catalogue():
    compared = {name for name, test in known_tests().items() if not test.waived}
    for name in ("NL01", "NL02_155R", "COSMETICS00", "PERSIST01", "MOT_WARM", "PSF01_590", "PSF02_148K"):
        assert name in compared
    for name in (
        "BIAS01",
        "DARK01",
        "CHINJ01",
        "TP21",
        "FLAT02_590",
        "FLATFLUX00_0",
        "PTC02_155R",
        "BF01",
        "FOCUS00_800",
    ):
        assert name not in compared
    for name, test in known_tests().items():
        expected = name.startswith(("PTC", "FLATFLUX", "BF01", "PSF", "FOCUS", "MOT_FF"))
        assert test.colour_blind is not expected


def test_the_campaign_is_light():
    """The Snakefile is parsed by every job: no heavy import comes with the catalogue."""
    code = (
        "import sys; from calcamp.campaign.catalogue import handles; handles(); "
        "bad = {'numpy', 'astropy', 'scipy', 'matplotlib', 'openpyxl'} & set(sys.modules); sys.exit(str(bad) if bad else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
