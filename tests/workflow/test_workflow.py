"""The workflow as a user sees it: preview, run, re-run, changes, crashes, incomplete tests."""

from __future__ import annotations

import json
import os
import shutil

import pytest
from tests.workflow.conftest import (
    SESSION,
    calcamp,
    cpu_of_children,
    make_workspace,
    planned_jobs,
    snakemake,
    tables,
    verdict,
)

from calcamp.data.tables import table_rows

QUICK_S = (
    4.5  # of CPU; 3 s of wall on a quiet machine, which `make bench` prints: here others share the cores
)


def only(*tests: str) -> str:
    """The session with these entries only: small runs keep the tests quick."""
    return SESSION.split("tests:")[0] + "tests:\n" + "".join(f"  {test}\n" for test in tests)


def edit(folder, old, new, name="D11.yaml"):
    path = folder / name
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def test_preview_is_complete_before_any_data(tmp_path, finished):
    make_workspace(tmp_path)
    before = snakemake("-n", cwd=tmp_path)
    assert before.returncode == 0, before.stderr
    jobs = planned_jobs(before.stdout + before.stderr)
    assert jobs["acquire"] == 3
    assert jobs["check"] == 9
    assert jobs["bias_basic"] == 6
    assert jobs["report"] == 3
    assert jobs["total"] == sum(n for name, n in jobs.items() if name != "total")


def test_a_session_runs_to_reports(finished):
    for test in ("BIAS01", "BIAS02", "DARK01"):
        folder = finished / "results" / "D11" / test
        frames = 4 if test == "DARK01" else 10
        assert (folder / f"{test}_report.pdf").read_bytes().startswith(b"%PDF")
        assert verdict(finished, test)["frames"] == {"declared": frames, "found": frames, "used": frames}
        assert "SUBTASKCRASH" not in {f["name"] for f in verdict(finished, test)["flags"]}
    assert (finished / "results" / "D11" / "summary.json").is_file()
    assert list((finished / "results" / "D11").glob("FM*_D11.log"))
    assert calcamp("verify", "results/D11", cwd=finished).returncode == 0


def test_nothing_is_done_twice(finished, tmp_path):
    before = cpu_of_children()
    again = snakemake("-c2", cwd=finished)
    assert again.returncode == 0
    assert "Nothing to be done" in again.stdout + again.stderr
    assert cpu_of_children() - before < QUICK_S


def test_wait_mode_on_finished_data_redoes_nothing(finished):
    again = snakemake("-n", "--config", "mode=wait", cwd=finished)
    assert "Nothing to be done" in again.stdout + again.stderr, again.stdout + again.stderr


@pytest.fixture
def done(finished, tmp_path):
    """A private copy of the finished campaign: results, data and Snakemake's memory of them."""
    folder = tmp_path / "work"
    shutil.copytree(finished, folder, symlinks=True)
    return folder


def test_a_new_limit_rejudges_and_measures_nothing(done):
    edit(done, "BIAS01: {do: all}", "BIAS01: {do: all, limits: {RON: [0.0, 0.5]}}")
    jobs = planned_jobs("".join((r := snakemake("-n", cwd=done)) and (r.stdout, r.stderr)))
    assert set(jobs) == {"judge", "report", "conclude", "summary", "session_report", "all", "total"}
    assert snakemake("-c2", cwd=done).returncode == 0
    flags = {f["name"] for f in verdict(done, "BIAS01")["flags"]}
    assert "RON_OOL" in flags
    assert verdict(done, "BIAS01")["verdict"] == "fail"


def test_a_report_that_was_deleted_is_made_again(done):
    gone = [done / "results/D11/BIAS01/BIAS01_report.pdf", done / "results/D11/DARK01/verdict.json"]
    for path in gone:
        path.unlink()
    jobs = planned_jobs((r := snakemake("-n", cwd=done)).stdout + r.stderr)
    assert {n: c for n, c in jobs.items() if n in ("acquire", "check", "judge", "report")} == {
        "judge": 1,
        "report": 2,
    }
    run = calcamp("run", "D11.yaml", "-c2", "--quiet", "all", cwd=done)
    assert run.returncode == 0, run.stderr
    assert all(path.is_file() for path in gone)


def test_a_new_gain_measures_nothing_again_in_adu(done):
    """Bias is measured in ADU: a gain is judged with, and the electrons of the verdict follow."""
    before = verdict(done, "BIAS01")["headline"]
    numbers = ", ".join(f"{ccd}: {{E: 7.0, F: 7.0, G: 7.0, H: 7.0}}" for ccd in (1, 2, 3))
    block = done / "config" / "blocks" / "NOSTROMO.yaml"
    block.write_text(block.read_text() + f"\nproducts: {{gain: {{{numbers}}}}}\n")
    jobs = planned_jobs((r := snakemake("-n", cwd=done)).stdout + r.stderr)
    assert {name: jobs.get(name) for name in ("judge", "report", "dark_meta", "bias_basic", "bias_meta", "check")} == {
        "judge": 3, "report": 3, "dark_meta": 3, "bias_basic": None, "bias_meta": None, "check": None,
    }  # fmt: skip
    edit(done, "  BIAS02: {do: all}\n  DARK01: {do: all}\n", "")
    assert snakemake("-c2", cwd=done).returncode == 0
    judged = verdict(done, "BIAS01")
    for old, new in zip(before, judged["headline"], strict=True):
        if old["quantity"] == "read_noise_e":
            assert new["value"] == pytest.approx(2 * old["value"])
            assert (old["gain_nominal"], new["gain_nominal"]) == (True, False)
    assert judged["products_used"]["gain"] == {
        "verdict": {str(c): dict.fromkeys("EFGH", 7.0) for c in (1, 2, 3)}
    }


def test_a_subtask_added_later_plans_only_itself_and_the_report(done):
    edit(done, "DARK01: {do: all}", "DARK01: {do: [check, prep, meta]}")
    result = snakemake("-n", cwd=done)
    assert set(planned_jobs(result.stdout + result.stderr)) == {
        "prep",
        "judge",
        "report",
        "conclude",
        "summary",
        "session_report",
        "all",
        "total",
    }
    assert snakemake("-c2", cwd=done).returncode == 0
    assert len(list((done / "results/D11/DARK01/ccd1/prep").glob("*_proc.fits"))) == 4


def test_a_changed_raw_frame_reruns_its_test_only(fresh):
    done = fresh
    (done / "D11.yaml").write_text(only("BIAS01: {do: [check]}", "DARK01: {do: [check]}"))
    assert snakemake("-c2", cwd=done).returncode == 0
    log = json.loads((done / "results/D11/BIAS01/manifest.json").read_text())
    obsid = log["exposures"][3]["obsid"]
    frame = next((done / "data" / "12_Mar_19").glob(f"EUC_{obsid}_*_CCD2.fits"))
    # The same content with a new time: nothing. Another content: exactly that test.
    frame.touch()
    same = snakemake("-n", cwd=done)
    assert "Nothing to be done" in same.stdout + same.stderr
    content = bytearray(frame.read_bytes())
    content[-5000] ^= 1
    frame.write_bytes(content)
    assert calcamp("verify", "results/D11", cwd=done).returncode == 1
    changed = snakemake("-n", cwd=done)
    jobs = planned_jobs(changed.stdout + changed.stderr)
    assert jobs["acquire"] == 1
    assert jobs["check"] == 3  # of BIAS01; DARK01 stays as it is
    assert jobs["judge"] == 1


def test_a_crash_is_named_and_tried_again(done):
    mask = done / "not_a_mask.fits"
    mask.write_bytes(b"no FITS file")
    edit(done, "DARK01: {do: all}", "DARK01: {do: all, products: {mask: {2: not_a_mask.fits}}}")
    run = snakemake("-c2", cwd=done)
    assert run.returncode != 0
    judged = verdict(done, "DARK01")
    crash = next(f for f in judged["flags"] if f["name"] == "SUBTASKCRASH")
    assert "not_a_mask.fits" in crash["cause"]
    assert crash["scope"]["ccd"] == 2
    assert {
        r["ccd"] for r in judged["headline"] if r["quantity"] == "dark_current" and r["value"] is not None
    } >= {1, 3}
    assert (done / "results/D11/DARK01/DARK01_report.pdf").is_file()
    # The next run tries just that again, and succeeds once the cause is gone.
    again = planned_jobs((r := snakemake("-n", cwd=done)).stdout + r.stderr)
    assert again["dark_meta"] == 1
    edit(done, ", products: {mask: {2: not_a_mask.fits}}", "")
    assert snakemake("-c2", cwd=done).returncode == 0
    assert "SUBTASKCRASH" not in {f["name"] for f in verdict(done, "DARK01")["flags"]}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (SESSION.replace("BIAS02: {do: all}", "BIAS01: {do: all}"), ["D11.yaml:11", "BIAS01"]),
        (SESSION.replace("results: results", "reslts: results"), ["D11.yaml", "reslts", "results"]),
        (SESSION.replace("mode: aim", "mode: 3"), ["D11.yaml:5", "mode"]),
        (SESSION.replace("BIAS01:", "BIAS1:"), ["BIAS1", "BIAS01"]),
        (SESSION.replace("BIAS01: {do: all}", "FOCUS00: {do: all}"), ["FOCUS00_800"]),
        (SESSION.replace("block: NOSTROMO", "block: NOSTRMO"), ["NOSTRMO", "NOSTROMO"]),
        (
            SESSION.replace("results: results", "results: results\nchamber: B_NOSTRMO"),
            ["B_NOSTRMO", "B_NOSTROMO"],
        ),
        (SESSION.replace("12_Mar_19", "13_Mar_19"), ["13_Mar_19", "does not exist"]),
        (
            SESSION.replace("BIAS01: {do: all}", "BIAS01: {do: all, obsids: [1, 10]}"),
            ["BIAS01", "no exposure"],
        ),
        (
            SESSION.replace("BIAS01: {do: all}", "BIAS01: {do: all, options: {basic: {clip_sgma: 4}}}"),
            ["clip_sgma", "clip_sigma"],
        ),
        (SESSION.replace("BIAS01: {do: all}", "BIAS01: {do: [check, bascic]}"), ["bascic", "basic"]),
        (
            SESSION.replace("BIAS01: {do: all}", "BIAS1: {do: all, optons: {}}"),
            ["optons", "'options'", "'BIAS1'", "'BIAS01'"],
        ),
    ],
    ids=[
        "duplicate",
        "misspelt",
        "type",
        "test",
        "handle",
        "block",
        "chamber",
        "folder",
        "obsids",
        "option",
        "subtask",
        "several",
    ],
)
def test_bad_input_is_told_with_a_remedy(fresh, text, said):
    (fresh / "D11.yaml").write_text(text)
    checked = calcamp("validate", "D11.yaml", cwd=fresh)
    assert checked.returncode == 2
    run = snakemake("-c1", cwd=fresh)
    assert run.returncode != 0
    for output in (checked.stdout + checked.stderr, run.stdout + run.stderr):
        assert "Traceback" not in output
        for word in said:
            assert word in output, output


def test_log_without_a_needed_column(fresh):
    log = next((fresh / "data" / "12_Mar_19").glob("EXP_LOG_*.txt"))
    log.write_text(log.read_text().replace("\ttest\t", "\ttset\t"))
    checked = calcamp("validate", "D11.yaml", cwd=fresh)
    assert checked.returncode == 2
    assert log.name in checked.stderr
    assert "test" in checked.stderr
    assert "Traceback" not in checked.stderr


def test_validate_says_what_would_run(campaign):
    said = calcamp("validate", "D11.yaml", cwd=campaign)
    assert said.returncode == 0, said.stderr
    assert "BIAS01" in said.stdout
    assert "10 exposures expected, 10 found" in said.stdout
    assert "min of analysis" in said.stdout


def test_faults_of_the_data_are_verdicts(tmp_path):
    session = make_workspace(tmp_path, only("BIAS01: {do: [check, basic]}"))
    faults = [
        "truncated:17003:2",
        "missing_fits:17004:1",
        "missing_hk:17005",
        "missing_frame:17006",
        "zero_frame:17008:3",
    ]
    options = [x for f in faults for x in ("--fault", f)]
    made = calcamp(
        "simulate", session, "--into", "data", "--seed", 6, "--first-obsid", 17000, *options, cwd=tmp_path
    )
    assert made.returncode == 0, made.stderr
    run = snakemake("-c2", cwd=tmp_path)
    assert run.returncode == 0, run.stdout + run.stderr
    judged = verdict(tmp_path, "BIAS01")
    assert judged["status"] == "incomplete"
    assert "MISSDATA" in {f["name"] for f in judged["flags"]}
    causes = {(e["obsid"], e["ccd"]): e["cause"] for e in judged["excluded"]}
    assert (17003, 2) in causes
    assert (17008, 3) in causes
    assert judged["frames"]["found"] == 9
    noise = [h for h in judged["headline"] if h["quantity"] == "read_noise" and h["region"] == "img"]
    assert len(noise) == 12
    assert all(h["value"] is not None and 0.9 < h["value"] < 1.5 for h in noise)


def test_an_incomplete_test_is_looked_at_again(fresh):
    (fresh / "D11.yaml").write_text(only("DARK01: {do: [check]}"))
    log = next((fresh / "data" / "12_Mar_19").glob("EXP_LOG_*.txt"))
    lines = log.read_bytes().splitlines(keepends=True)
    dark = [i for i, line in enumerate(lines) if b"\tDARK01\t" in line]
    log.write_bytes(b"".join(lines[: dark[-6]]))  # the last two exposures are still to come
    assert snakemake("-c2", cwd=fresh).returncode == 0
    assert verdict(fresh, "DARK01")["status"] == "incomplete"
    assert "Nothing to be done" in (r := snakemake("-n", cwd=fresh)).stdout + r.stderr
    log.write_bytes(b"".join(lines))
    jobs = planned_jobs((r := snakemake("-n", cwd=fresh)).stdout + r.stderr)
    assert jobs["acquire"] == 1
    assert snakemake("-c2", cwd=fresh).returncode == 0
    assert verdict(fresh, "DARK01")["status"] == "complete"


def test_other_limits_late_house_keeping_and_moved_data(fresh):
    """What the session asks for decides, not what an earlier run found; a blank in the path does no harm."""
    text = only("BIAS01: {do: [check], obsids: [1000, 1007]}").replace(
        "results: results", "results: my results"
    )
    (fresh / "D11.yaml").write_text(text)
    folder = fresh / "my results" / "D11" / "BIAS01"

    def judged() -> dict:
        run = snakemake("-c2", cwd=fresh)
        assert run.returncode == 0, run.stdout + run.stderr
        return json.loads((folder / "verdict.json").read_text())

    def flags_of_readings() -> dict[int, set]:
        found = {}
        for row in table_rows(folder / "tables" / "hk.ecsv"):
            found.setdefault(row["obsid"], set()).add(row["flag"])
        return found

    late, damaged = (next((fresh / "data/12_Mar_19").glob(f"HK_{n}_*")) for n in (1002, 1004))
    late.rename(fresh / late.name)
    content = damaged.read_bytes()
    damaged.write_bytes(b"")
    first = judged()
    assert first["status"] == "incomplete"
    assert first["frames"]["used"] == 8
    assert "SUBTASKCRASH" not in {f["name"] for f in first["flags"]}
    readings = flags_of_readings()
    assert (readings[1002], readings[1004]) == ({"no file"}, {"unreadable"})
    assert "no file" not in readings[1003] | readings[1005]
    # House-keeping that came late, or again, is looked at.
    (fresh / late.name).rename(late)
    assert planned_jobs((r := snakemake("-n", cwd=fresh)).stdout + r.stderr)["acquire"] == 1
    damaged.write_bytes(content)
    judged()
    assert not {"no file", "unreadable"} & set.union(*flags_of_readings().values())
    # Other limits, other exposures; limits that lead to the same exposures change nothing.
    edit(fresh, "[1000, 1007]", "[1000, 1009]")
    whole = judged()
    assert whole["status"] == "complete"
    assert whole["frames"]["used"] == 10
    edit(fresh, ", obsids: [1000, 1009]", "")
    assert "Nothing to be done" in (r := snakemake("-n", cwd=fresh)).stdout + r.stderr
    # Data on another disk: nothing to do; a new run of a sub-task finds them there.
    (fresh / "data").rename(fresh / "raw")
    edit(fresh, "root: data", "root: raw")
    assert "Nothing to be done" in (r := snakemake("-n", cwd=fresh)).stdout + r.stderr
    edit(fresh, "do: [check]", "do: [check], exclude: {1003: dropped rows}")
    moved = judged()
    assert moved["frames"]["used"] == 9
    assert not {"MISSDATA", "BADDATAPROD"} & {f["name"] for f in moved["flags"]}
    # Out of reach is no fault of the data.
    (fresh / "raw").rename(fresh / "gone")
    edit(fresh, "1003: dropped rows", "1003: dropped rows, 1005: too")
    lost = snakemake("-c2", cwd=fresh)
    assert lost.returncode != 0
    assert "does not exist; correct data.root" in lost.stdout + lost.stderr
    assert json.loads((folder / "verdict.json").read_text())["frames"]["used"] == 9


def test_frames_left_out_by_hand_are_listed(fresh):
    done, obsid = fresh, 1002
    (fresh / "D11.yaml").write_text(only(f"BIAS01: {{do: [check], exclude: {{CCD2/{obsid}: dropped rows}}}}"))
    assert snakemake("-c2", cwd=done).returncode == 0
    excluded = verdict(done, "BIAS01")["excluded"]
    assert any(
        e["obsid"] == obsid and e["ccd"] == 2 and e["by"] == "analyst" and "dropped rows" in e["cause"]
        for e in excluded
    )


def test_twenty_tests_preview_quickly(campaign, tmp_path):
    """Before any data, and with data there."""
    entries = [f"  {t}.{n}: {{do: all}}\n" for n in range(1, 8) for t in ("BIAS01", "BIAS02", "DARK01")][:20]
    make_workspace(tmp_path, SESSION.split("tests:")[0] + "tests:\n" + "".join(entries))
    for data in (False, True):
        if data:
            shutil.copytree(campaign / "data", tmp_path / "data", copy_function=os.link)
        before = cpu_of_children()
        preview = snakemake("-n", "-q", cwd=tmp_path)
        assert preview.returncode == 0, preview.stderr
        assert cpu_of_children() - before < QUICK_S


def test_repeats_take_the_fitting_runs(tmp_path):
    text = SESSION.split("tests:")[0] + "tests:\n  BIAS02: {do: [check]}\n  BIAS02.2: {do: [check]}\n"
    session = make_workspace(tmp_path, text)
    assert calcamp("simulate", session, "--into", "data", "--first-obsid", 100, cwd=tmp_path).returncode == 0
    run = snakemake("-c2", cwd=tmp_path)
    assert run.returncode == 0, run.stdout + run.stderr
    assert verdict(tmp_path, "BIAS02")["obsids"] == [100, 109]
    assert verdict(tmp_path, "BIAS02.2")["obsids"] == [110, 119]


def test_same_tables_twice(finished, fresh):
    (fresh / "D11.yaml").write_text(only("DARK01: {do: all}"))
    assert snakemake("-c2", cwd=fresh).returncode == 0
    assert tables(fresh, "DARK01") == tables(finished, "DARK01")


def test_snakefile_has_no_forbidden_words():
    from tests.workflow.conftest import ROOT

    for path in [ROOT / "Snakefile", *(ROOT / "rules").glob("*.smk")]:
        code = "\n".join(line.split("#")[0] for line in path.read_text().splitlines())
        assert "temp(" not in code
        assert "run:" not in code.replace("script:", "")
        assert "checkpoints." not in code
