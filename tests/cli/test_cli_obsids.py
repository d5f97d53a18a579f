"""calcamp obsids: limits and day-folders found go into the session file, comments kept."""

import json
import shutil

from tests.faults.dayfolder import DayFolder
from tests.workflow.conftest import calcamp, make_workspace

SESSION = """\
# the first session of NOSTROMO
session: D11
block: NOSTROMO     # never change
data: {root: data, day_folders: [12_Mar_19]}   # the morning
results: results
tests:
  BIAS02: {do: all}            # first
  BIAS01: {obsids: [1, 10], do: [check]}  # wrong limits
  DARK01:                      # long one
    do: all
"""
DARK = {"frames": 4, "keys": {"exptime": 565, "shuttr": 0}}


def acquire(folder, dark=True):
    from calcamp.campaign.core import find_test
    from calcamp.config.lookup import load_chamber

    chamber = load_chamber("B_NOSTROMO")
    day = DayFolder(folder / "data" / "12_Mar_19", first=17273)
    for name in ("BIAS02", "BIAS01"):
        for column in find_test(name).columns(chamber):
            day.expose({"frames": column.frames, "keys": column.keys}, name, column.frames, files=False)
    if dark:
        after = DayFolder(folder / "data" / "13_Mar_19", first=17405)
        for column in find_test("DARK01").columns(chamber):
            after.expose({"frames": column.frames, "keys": column.keys}, "DARK01", column.frames, files=False)


def test_what_was_found_is_written_and_comments_stay(tmp_path):
    make_workspace(tmp_path, SESSION)
    acquire(tmp_path)
    shown = calcamp("obsids", "D11.yaml", cwd=tmp_path)
    assert shown.returncode == 0, shown.stderr
    assert "BIAS02: 10 of 10 frames, OBSID 17273-17282" in shown.stdout
    assert (tmp_path / "D11.yaml").read_text() == SESSION
    assert calcamp("obsids", "D11.yaml", "--write", cwd=tmp_path).returncode == 0
    text = (tmp_path / "D11.yaml").read_text()
    assert "BIAS02: {do: all, obsids: [17273, 17282]}" in text
    assert "BIAS01: {obsids: [17283, 17292], do: [check]}" in text
    assert "obsids: [17405, 17408]" in text
    assert "day_folders: [12_Mar_19, 13_Mar_19]" in text
    for comment in (
        "# the first session",
        "# never change",
        "# the morning",
        "# first",
        "# wrong limits",
        "# long one",
    ):
        assert comment in text
    again = calcamp("obsids", "D11.yaml", "--write", cwd=tmp_path)
    assert "nothing to change" in again.stdout
    assert calcamp("validate", "D11.yaml", cwd=tmp_path).returncode == 0


def test_limits_that_hold_a_whole_run_stay(tmp_path):
    """The test was repeated: which run counts is the analyst's choice."""
    from calcamp.campaign.core import find_test
    from calcamp.config.lookup import load_chamber

    text = "".join(SESSION.partition("tests:")[:2]) + "\n  BIAS02: {do: all, obsids: [17273, 17282]}\n"
    make_workspace(tmp_path, text)
    day = DayFolder(tmp_path / "data" / "12_Mar_19", first=17273)
    for column in find_test("BIAS02").columns(load_chamber("B_NOSTROMO")) * 2:
        day.expose({"frames": column.frames, "keys": column.keys}, "BIAS02", column.frames, files=False)
    done = calcamp("obsids", "D11.yaml", "--write", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "OBSID 17273-17282" in done.stdout
    assert "nothing to change" in done.stdout
    assert (tmp_path / "D11.yaml").read_text() == text


def test_a_test_that_is_not_there_is_not_written(tmp_path):
    make_workspace(tmp_path, SESSION)
    acquire(tmp_path, dark=False)
    done = calcamp("obsids", "D11.yaml", "--write", "--json", cwd=tmp_path)
    assert done.returncode == 1
    assert json.loads(done.stdout)["tests"]["DARK01"]["obsids"] is None
    assert "17405" not in (tmp_path / "D11.yaml").read_text()
    shutil.rmtree(tmp_path / "data")
    assert calcamp("obsids", "D11.yaml", cwd=tmp_path).returncode == 1
