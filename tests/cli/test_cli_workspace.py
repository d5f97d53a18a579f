"""calcamp init, chamber, record and validate on a workspace."""

import json
import re
import shutil
import subprocess
import sys

import openpyxl
import pytest
from tests.cli.cli_support import NOSTROMO, tree, write_json

from calcamp.config.lookup import find_file, load_chamber


@pytest.fixture
def disks(tmp_path):
    for name in ("disk/data/12_Mar_19", "acq"):
        (tmp_path / name).mkdir(parents=True)
    return tmp_path


def init(calcamp, *more, block="NOSTROMO"):
    return calcamp(
        *("init", "CALCAMP", "--programme", "TRAIN", "--block", block, "--data", "disk"),
        *("--results", "disk/results_abc", "--acquisition", "acq", *more),
    )


@pytest.fixture
def home(calcamp, disks):
    done = init(calcamp)
    assert done.code == 0, done.err
    return disks / "CALCAMP" / "TRAIN" / "NOSTROMO"


# ---- init ----------------------------------------------------------------------------------------
def test_the_workspace_of_the_cook_book(home, disks):
    assert {p.name for p in home.iterdir()} == {"ANALYSIS", "SCRIPTS", "atCALDATA", "atMSSL3M", "config"}
    assert (home / "atCALDATA").resolve() == (disks / "disk").resolve()
    assert (home / "atMSSL3M").resolve() == (disks / "acq").resolve()
    analysis = home / "ANALYSIS"
    assert str((analysis / "results_atCALDATA").readlink()) == "../atCALDATA/results_abc"
    assert (disks / "disk" / "results_abc").is_dir()
    assert str((analysis / "cluster").readlink()) == "profiles/cluster"
    assert (analysis / "cluster" / "profile.yaml").is_file() or (
        analysis / "cluster" / "config.yaml"
    ).is_file()
    assert (home / "config" / "chambers" / "B_NOSTROMO.yaml").is_file()
    assert (analysis / "config" / "blocks" / "NOSTROMO.yaml").is_file()


def test_a_fresh_workspace_has_nothing_to_correct(home):
    from calcamp.campaign import workspace

    assert workspace.problems(home) == []


def test_its_inputs_work_as_they_are(calcamp, home):
    (scripts,) = (home / "SCRIPTS").glob("scripts_inputs_NOSTROMO_*_W*.yaml")
    (sessions,) = (home / "SCRIPTS").glob("sessions_builder_NOSTROMO_*_W*.yaml")
    assert calcamp("scripts", scripts.name, cwd=home / "SCRIPTS").code == 0
    done = calcamp("sessions", sessions.name, cwd=home / "SCRIPTS")
    assert done.code == 0, done.err
    assert (home / "ANALYSIS" / "D00.yaml").is_file()
    (folder,) = (home / "SCRIPTS").glob("SEQUENCES_*")
    told = calcamp("sessions", "deliver", folder.name, cwd=home / "SCRIPTS")
    assert told.code == 0
    assert "Scripts of block NOSTROMO" in told.out
    assert (home / "atMSSL3M" / folder.name / "D11" / "TEST_SEQUENCE_D11.txt").is_file()


@pytest.mark.parametrize("profile", [[], ["--profile", "cluster"]], ids=["default", "cluster"])
def test_snakemake_as_typed(home, profile):
    if profile:
        pytest.importorskip("snakemake_executor_plugin_slurm", reason="the cluster extra is not installed")
    command = [sys.executable, "-m", "snakemake", "-n", *profile, "--configfile", "D12.yaml"]
    done = subprocess.run(
        command, cwd=home / "ANALYSIS", capture_output=True, text=True, timeout=120, check=False
    )
    assert "not installed" not in done.stderr, done.stderr
    assert re.search(r"^all +1$", done.stdout + done.stderr, re.M), done.stderr + done.stdout


def test_nothing_is_overwritten(calcamp, home, disks):
    before = tree(disks)
    done = init(calcamp)
    assert done.code == 2
    assert "not empty" in done.err
    assert tree(disks) == before


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["--data", "absent"], "--data"),
        (["--acquisition", "absent"], "--acquisition"),
        (["--results", "absent/deep"], "--results"),
        (["--chamber", "B_NOSTRMO"], "B_NOSTROMO"),
        (["--programme", "../x"], "--programme"),
    ],
)
def test_bad_places_make_nothing(calcamp, disks, args, said):
    before = tree(disks)
    done = init(calcamp, *args)
    assert done.code == 2
    assert said in done.err
    assert tree(disks) == before
    assert not (disks / "CALCAMP").exists()


def test_an_unknown_block_names_the_likely_one(calcamp, disks):
    done = init(calcamp, block="NOSTRMO")
    assert done.code == 2
    assert "NOSTROMO" in done.err


def test_a_new_block_lacks_its_serials(calcamp, disks):
    done = init(calcamp, "--new-block", "--chamber", "B_BORN", block="HAL")
    assert done.code == 0, done.err
    assert "the serial of ccd1 is missing" in done.err


# ---- validate ------------------------------------------------------------------------------------
def test_validate_finds_broken_links_missing_serials_and_absent_data(calcamp, home, disks):
    assert calcamp("validate", home).code == 0
    assert calcamp("validate", ".", cwd=home).code == 0
    shutil.rmtree(disks / "acq")
    block = home / "config" / "blocks" / "NOSTROMO.yaml"
    block.write_text(block.read_text().replace("14888-88-82", "14XXX-XX-XX"))
    session = home / "ANALYSIS" / "D12.yaml"
    session.write_text(session.read_text().replace("12_Mar_19", "13_Mar_19"))
    inputs = next((home / "SCRIPTS").glob("scripts_inputs_*"))
    inputs.write_text(inputs.read_text().replace("BIAS01: 1", "BIAS09: 1"))
    done = calcamp("validate", home)
    assert done.code == 2
    assert "atMSSL3M: broken link" in done.err
    assert re.search(r"NOSTROMO\.yaml:\d+: hardware\.ccd2: the serial of ccd2 is missing", done.err)
    assert re.search(r"D12\.yaml:\d+: .*13_Mar_19", done.err)
    assert re.search(r"scripts_inputs.*:\d+: toWrite\.BIAS09: unknown handle", done.err)


# ---- chamber -------------------------------------------------------------------------------------
def verdict(folder, test, quantity, entries, unit, **more):
    folder = folder / test
    folder.mkdir(parents=True, exist_ok=True)
    headline = [{"quantity": quantity, "unit": unit, "n": 5, **entry} for entry in entries]
    found = {
        "test": test,
        "session": "D00",
        "chamber": "B_NOSTROMO",
        "status": "complete",
        "headline": headline,
    }
    write_json(folder / "verdict.json", {**found, **more})
    return folder


FOCUS = [{"ccd": c, "value": 47.21 + c / 1000, "err": 0.002} for c in (1, 2, 3)]


def test_show(calcamp, home):
    done = calcamp("chamber", "show", "B_NOSTROMO", cwd=home / "ANALYSIS")
    assert done.code == 0
    assert re.search(r"800 nm +0\.175 +0\.35 +0\.875 +1\.75 +2\.625 +3\.15 +3\.5", done.out)
    found = json.loads(calcamp("chamber", "show", "B_NOSTROMO", "--json").out)
    assert found["slots"][3]["flat"]["50"] == 1.75


def test_focus_from_a_result_reaches_the_scripts_and_can_be_undone(calcamp, home, disks):
    work = home / "SCRIPTS"
    write_json(work / "in.json", {**NOSTROMO, "toWrite": {"FOCUS00": 1, "BIAS01": 1}, "outpath": "old"})
    assert calcamp("scripts", "in.json", cwd=work).code == 0
    profile = home / "config" / "chambers" / "B_NOSTROMO.yaml"
    before = profile.read_text()
    result = verdict(disks / "disk" / "results_abc" / "D00", "FOCUS00_800", "best_focus", FOCUS, "mm")
    done = calcamp("chamber", "set-focus", "B_NOSTROMO", result, "--who", "custodian", cwd=work)
    assert done.code == 0, done.err
    changed = load_chamber("B_NOSTROMO", work)
    assert set(changed.mirror.values()) == {47.212}
    assert changed.history[-1].who == "custodian"
    assert changed.history[-1].source == "FOCUS00_800 of session D00, best_focus 47.212 +- 0.0012 mm"
    assert "# mm" in profile.read_text()
    assert [line for line in before.splitlines() if line.startswith("#")] == [
        line for line in profile.read_text().splitlines() if line.startswith("#")
    ]
    told = calcamp("scripts", "in.json", "-o", "new", "--diff", "old", cwd=work).out
    assert told.count("mirr_pos:") == 4
    assert "(columns 1-9, +0.012)" in told
    assert "exptime" not in told
    assert "1 test unchanged" in told
    assert calcamp("chamber", "undo", "B_NOSTROMO", cwd=work).code == 0
    assert set(load_chamber("B_NOSTROMO", work).mirror.values()) == {47.2}
    assert calcamp("chamber", "undo", "B_NOSTROMO", cwd=work).code == 2
    assert "4 tests" not in calcamp("scripts", "in.json", "-o", "last", "--diff", "old", cwd=work).err
    packaged = find_file("chambers", "B_NOSTROMO", disks)
    assert packaged.resolve() != profile.resolve()
    assert set(load_chamber("B_NOSTROMO", disks).mirror.values()) == {47.2}


def test_flux_from_a_result(calcamp, home, disks):
    entries = [{"value": 3.62, "err": 0.01}]
    result = verdict(disks, "FLATFLUX00_800", "saturation_time", entries, "s")
    assert calcamp("chamber", "set-flux", "B_NOSTROMO", result / "verdict.json", cwd=home).code == 0
    assert load_chamber("B_NOSTROMO", home).t_flat(800) == 3.62
    result = verdict(disks, "PSFLUX00_590", "saturation_time", [{"value": 11.5, "err": 0.1}], "s")
    assert calcamp("chamber", "set-flux", "B_NOSTROMO", result, cwd=home).code == 0
    assert load_chamber("B_NOSTROMO", home).t_point(590) == 11.5
    assert calcamp("chamber", "undo", "B_NOSTROMO", cwd=home).code == 0
    assert calcamp("chamber", "undo", "B_NOSTROMO", cwd=home).code == 0
    after = load_chamber("B_NOSTROMO", home)
    assert (after.t_flat(800), after.t_point(590)) == (3.5, 12)


def test_focus_of_one_wavelength(calcamp, home):
    calcamp("chamber", "set-focus", "B_NOSTROMO", "47.3", "--wavelength", "800", cwd=home)
    assert load_chamber("B_NOSTROMO", home).mirror == {1: 47.2, 2: 47.2, 3: 47.2, 4: 47.3, 5: 47.2, 6: 47.2}


def test_an_unknown_chamber_or_value_changes_nothing(calcamp, home, disks):
    before = tree(home / "config")
    good = [{"value": 47.21, "err": 0.001}]
    other = verdict(disks / "a", "FOCUS00_800", "best_focus", good, "mm", chamber="A_MAX")
    failed = verdict(disks / "b", "FOCUS00_800", "best_focus", good, "mm", status="failed")
    empty = verdict(disks / "c", "FOCUS00_800", "best_focus", [{"value": None}], "mm")
    unit = verdict(disks / "d", "FOCUS00_800", "best_focus", good, "um")
    wrong = verdict(disks / "e", "BIAS01", "best_focus", good, "mm")
    for args, said in (
        (("set-focus", "B_NOSTRMO", "47.2"), "B_NOSTROMO"),
        (("set-focus", "B_NOSTROMO", "nan"), "not a value"),
        (("set-focus", "B_NOSTROMO", "67.2"), "--force"),
        (("set-focus", "B_NOSTROMO", "47.21", "--wavelength", "640"), "640"),
        (("set-focus", "B_NOSTROMO", "absent"), "no such result"),
        (("set-focus", "B_NOSTROMO", other), "A_MAX"),
        (("set-focus", "B_NOSTROMO", failed), "failed"),
        (("set-focus", "B_NOSTROMO", empty), "no measured best_focus"),
        (("set-focus", "B_NOSTROMO", unit), "um"),
        (("set-focus", "B_NOSTROMO", wrong), "FOCUS00 or PSF01"),
        (("set-flux", "B_NOSTROMO", "3.5"), "--source"),
        (("set-flux", "B_NOSTROMO", "3.5", "--source", "flat"), "--wavelength"),
        (
            ("set-flux", "B_NOSTROMO", "-3.5", "--source", "flat", "--wavelength", "800"),
            "above 0|No such option",
        ),
        (("set-flux", "B_NOSTROMO", "35", "--source", "flat", "--wavelength", "800"), "--force"),
        (("undo", "B_NOSTROMO"), "no change"),
    ):
        done = calcamp("chamber", *args, cwd=home)
        assert done.code == 2, (args, done.out)
        assert re.search(said, done.err), done.err
    assert tree(home / "config") == before


def test_a_profile_that_comes_with_calcamp_is_not_edited(calcamp, disks):
    path = find_file("chambers", "B_NOSTROMO", disks)
    before = path.read_text()
    done = calcamp("chamber", "set-focus", "B_NOSTROMO", "47.3")
    assert done.code == 2
    assert "not edited" in done.err
    assert path.read_text() == before


def test_another_profile_is_copied_into_the_workspace_when_it_is_changed(calcamp, home):
    done = calcamp("chamber", "set-focus", "A_MAX", "96.3", cwd=home / "ANALYSIS")
    assert done.code == 0
    assert (home / "config" / "chambers" / "A_MAX.yaml").is_file()
    assert load_chamber("A_MAX", home / "ANALYSIS").mirror[1] == 96.3


def test_undo_refuses_what_was_edited_by_hand_since(calcamp, home):
    calcamp("chamber", "set-focus", "B_NOSTROMO", "47.3", cwd=home)
    path = home / "config" / "chambers" / "B_NOSTROMO.yaml"
    path.write_text(path.read_text().replace("{1: 47.3", "{1: 47.4"))
    done = calcamp("chamber", "undo", "B_NOSTROMO", cwd=home)
    assert done.code == 2
    assert "by hand" in done.err


# ---- record --------------------------------------------------------------------------------------
def test_record_from_a_session_yaml(calcamp, home, disks):
    results = disks / "disk" / "results_abc" / "D12"
    for test, first in (("BIAS01", 17283), ("BIAS02", 17273)):
        verdict(
            *(results, test, "read_noise", [{"ccd": 1, "quadrant": "E", "value": 1.2, "err": 0.01}], "ADU"),
            **{
                "block": "NOSTROMO",
                "session": "D12",
                "obsids": [first, first + 9],
                "day_folders": ["12_Mar_19"],
            },
        )
    done = calcamp("record", "D12.yaml", "--workbook", "../RECORD.xlsx", cwd=home / "ANALYSIS")
    assert done.code == 0, done.err
    assert "rows added: 2" in done.out
    rows = list(openpyxl.load_workbook(home / "RECORD.xlsx")["TESTS_RECORD"].values)
    assert [row[:6] for row in rows[1:]] == [
        ("NOSTROMO", "BIAS02", "D12", "12_Mar_19", 17273, 17282),
        ("NOSTROMO", "BIAS01", "D12", "12_Mar_19", 17283, 17292),
    ]
    again = calcamp("record", results, "-w", home / "RECORD.xlsx", "--json")
    assert json.loads(again.out)["state"] == "unchanged"


def test_record_says_when_the_workbook_is_open(calcamp, home, disks):
    results = disks / "disk" / "results_abc" / "D12"
    verdict(results, "BIAS01", "read_noise", [], "ADU", block="NOSTROMO", session="D12")
    (home / ".~lock.R.xlsx#").write_text(",anna,pc,;")
    done = calcamp("record", results, "-w", home / "R.xlsx", "--wait", "0")
    assert done.code == 1
    assert "anna" in done.err
    assert "queued" in done.err


def test_record_refuses_bad_input(calcamp, home, disks):
    assert calcamp("record", disks / "disk", "-w", "R.xlsx").code == 2
    assert calcamp("record", "absent.yaml", "-w", "R.xlsx").code == 2
    results = disks / "D12"
    verdict(results, "BIAS01", "read_noise", [], "ADU", block="NOSTROMO", session="D12")
    assert calcamp("record", results, "-w", "R.ods").code == 2
    done = calcamp("record", results, "-w", "R.xlsx", "-t", "BIAS02")
    assert done.code == 2
    assert "BIAS01" in done.err
    (results / "BIAS01" / "verdict.json").write_text("{")
    assert calcamp("record", results, "-w", "R.xlsx").code == 2
