"""Session summary and readable log."""

from __future__ import annotations

import json
from datetime import UTC, datetime

from tests.report.report_fixtures import make_test, too_wide

from calcamp.report.summary import write_summary

NOW = datetime(2026, 1, 2, 3, 4, 5, 678000, tzinfo=UTC)


def make_session(root):
    make_test(root, "BIAS01", tables=False, images=False)
    make_test(root, "DARK01", failing=False, tables=False, images=False)
    (root / "config" / "plan").mkdir(parents=True)
    for name in ("BIAS01", "DARK01", "PTC01"):
        (root / "config" / "plan" / f"{name}.json").write_text("{}")
    (root / "config" / "20210220_104211").mkdir()
    (root / "config" / "20210220_104211" / "session_D11.yaml").write_text("session: D11\n")
    (root / "config" / "run.json").write_text(
        json.dumps({"pipeline_id": "FM20210220_104211", "configuration": "20210220_104211"})
    )
    for ccd, megabytes in ((1, 512.5), (2, 400.0)):
        record = root / "BIAS01" / f"ccd{ccd}" / "check" / "check.json"
        record.parent.mkdir(parents=True)
        record.write_text(json.dumps({"status": "done", "peak_mb": megabytes}))
    return root


def test_summary_lists_every_test(tmp_path):
    summary = write_summary(make_session(tmp_path), failed=True, now=NOW)
    on_disk = json.loads((tmp_path / "summary.json").read_text())
    assert on_disk == json.loads(json.dumps(summary))
    tests = {t["test"]: t for t in summary["tests"]}
    assert list(tests) == ["BIAS01", "DARK01", "PTC01"]
    assert tests["BIAS01"]["minutes"] == 0.58
    assert tests["BIAS01"]["peak_memory_mb"] == 512.5
    assert tests["BIAS01"]["verdict"] == "fail"
    assert tests["BIAS01"]["obsids"] == [17283, 17292]
    assert [f["name"] for f in tests["BIAS01"]["flags"]] == ["HK_OOL", "POORQUALDATA"]
    assert tests["DARK01"]["verdict"] == "pass"
    assert not tests["PTC01"]["executed"]
    assert [c["file"] for c in summary["configuration"]] == ["config/20210220_104211/session_D11.yaml"]
    assert (tmp_path / "summary.pdf").read_bytes().startswith(b"%PDF")
    assert "PTC01" in (tmp_path / "summary.html").read_text()


def test_log_has_the_old_form_and_the_closing_summary(tmp_path):
    write_summary(make_session(tmp_path), pdf=False, now=NOW)
    log = (tmp_path / "FM20210220_104211_D11.log").read_text()
    for line in ("2026-01-02 03:04:05,678 - INFO - _", "Pipeline ID: FM20210220_104211", "BLOCK ID: NOSTROMO",
                 "Executed in 0.6 minutes", "OBSIDs range = [17283, 17292]", "Raised Flags = ['HK_OOL', 'POORQUALDATA']", "#" * 70,
                 "Not executed: no verdict was written", "Task BIAS01 exited with Errors: False", "ALL PASSED"):  # fmt: skip
        assert line in log, line
    assert log.count("#" * 70) == 2


def test_hostile_text_in_summary_and_log(tmp_path):
    root = make_session(tmp_path)
    verdict = json.loads((root / "BIAS01" / "verdict.json").read_text())
    payload = "<script>x</script>\n2026-01-01 00:00:00,000 - INFO - forged"
    verdict.update(
        block=payload, chamber=payload, flags=[{"name": payload, "cause": payload, "scope": {"ccd": payload}}]
    )
    (root / "BIAS01" / "verdict.json").write_text(json.dumps(verdict))
    write_summary(root, pdf=False, now=NOW)
    assert "<script" not in (root / "summary.html").read_text()
    log = next(root.glob("*.log")).read_text()
    assert not [line for line in log.splitlines() if line.startswith("2026-01-01 00:00:00")]


def test_crash_is_an_error_and_a_broken_verdict_is_named(tmp_path):
    root = make_session(tmp_path)
    verdict = json.loads((root / "BIAS01" / "verdict.json").read_text())
    verdict["subtasks"]["basic"] = {"status": "crashed", "minutes": None, "reason": "CCD1: x"}
    (root / "BIAS01" / "verdict.json").write_text(json.dumps(verdict))
    (root / "DARK01" / "verdict.json").write_text("{")
    summary = write_summary(root, pdf=False, now=NOW)
    assert summary["ended_with_errors"]
    log = next(root.glob("*.log")).read_text()
    assert "Executed with ERROR(s)" in log
    assert "Task DARK01 was not executed" in log


def test_reports_still_being_made_are_named_unless_the_run_failed(tmp_path):
    root = make_session(tmp_path)
    (root / "BIAS01" / "BIAS01_report.pdf").touch()
    for failed, there in ((False, "DARK01/DARK01_report.pdf"), (True, None)):
        tests = {t["test"]: t for t in write_summary(root, failed=failed, pdf=False, now=NOW)["tests"]}
        assert tests["BIAS01"]["report"] == "BIAS01/BIAS01_report.pdf"
        assert tests["DARK01"]["report"] == there
        assert tests["PTC01"]["report"] is None  # not executed


def test_long_proposals_and_many_flags_stay_on_the_page(tmp_path):
    make_session(tmp_path)
    path = tmp_path / "BIAS01" / "verdict.json"
    verdict = json.loads(path.read_text())
    verdict["flags"] = 7 * verdict["flags"][:1] + verdict["flags"]
    verdict["headline"] = [
        *(
            {"quantity": f"lock_shift_{axis}", "ccd": ccd, "value": 107.766 + ccd, "err": 0.061}
            for ccd in (1, 2, 3)
            for axis in "xy"
        ),
        {
            "quantity": "saturation_time",
            "value": 2.154419,
            "err": 7.9e-5,
            "wavelength": 800,
            "source": "point",
        },
    ]
    path.write_text(json.dumps(verdict))
    (tmp_path / "config" / "plan" / "BIAS01.json").write_text(
        json.dumps({"judging": {"chamber_data": {"saturation_time": 2.2}}})
    )
    write_summary(tmp_path, pdf=False, now=NOW)
    text = (tmp_path / "summary.html").read_text()
    assert "HK_OOL (8), POORQUALDATA" in text
    assert "calcamp chamber set-pattern" in text
    assert "the profile with the result of FLATFLUX00 or PSFLUX00" in text
    assert too_wide(tmp_path / "summary.html") == []
