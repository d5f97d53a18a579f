"""``calcamp chamber set-pattern``: the pattern that a star lock found becomes the chamber's."""

from __future__ import annotations

import json

import pytest

from calcamp.config.lookup import load_chamber, load_detector
from calcamp.data.tables import write_table

MOVED = {1: (12.5, -7.0), 2: (40.0, 3.0), 3: (-5.0, 21.0)}


def make_result(folder, home, detector="ccd273", missing=(), nowhere=(), **more):
    """Results folder of FOCUS00_800 whose stars are those of B_JAN19, moved by `MOVED`."""
    geometry = load_detector(detector)
    places = load_chamber("B_NOSTROMO", home).spots().on(geometry)
    rows = []
    for ccd, spots in places.items():
        for name, (x, y) in spots.items():
            at = x + MOVED[ccd][0], y + MOVED[ccd][1]
            seen = f"{ccd}{name}" not in missing
            lost = f"{ccd}{name}" in nowhere
            row = {"ccd": int(ccd), "quadrant": name[0], "spot": name[1], "x_nominal": x, "y_nominal": y}
            row |= {"x_expected": None if lost else at[0] + 0.2, "y_expected": None if lost else at[1] - 0.1}
            row |= {
                "x_phys": at[0] if seen and not lost else None,
                "y_phys": at[1] if seen and not lost else None,
            }
            rows.append(row)
    folder = folder / "D00" / "FOCUS00_800"
    (folder / "ccd1" / "lock").mkdir(parents=True)
    (folder / "tables").mkdir()
    write_table(folder / "tables" / "stars.ecsv", {key: [r[key] for r in rows] for key in rows[0]})
    (folder / "ccd1" / "lock" / "lock.json").write_text(json.dumps({"job": {"detector": geometry.as_dict()}}))
    verdict = {"test": "FOCUS00_800", "session": "D00", "status": "complete", "headline": []}
    (folder / "verdict.json").write_text(json.dumps({**verdict, "chamber": "B_NOSTROMO", **more}))
    return folder


@pytest.fixture
def home(tmp_path):
    (tmp_path / "config" / "chambers").mkdir(parents=True)
    return tmp_path


@pytest.mark.parametrize("detector", ["ccd273", "ccd273-mini"])
def test_found_pattern_becomes_the_chambers_and_can_be_taken_back(calcamp, home, detector):
    before = load_chamber("B_NOSTROMO", home).spots()
    result = make_result(home / "results", home, detector)
    done = calcamp("chamber", "set-pattern", "B_NOSTROMO", result, "--who", "custodian", cwd=home)
    assert done.code == 0, done.err
    assert "pattern: B_JAN19 -> B_NOSTROMO_D00_FOCUS00_800" in done.out
    chamber = load_chamber("B_NOSTROMO", home)
    found = chamber.spots()
    per = 1.0 if detector == "ccd273" else 4.0  # full-size px of one px of the detector
    for ccd, spots in before.positions.items():
        for name, (x, y) in spots.items():
            assert found.xy(ccd, name)[0] == pytest.approx(x + per * MOVED[ccd][0], abs=0.02)
            assert found.xy(ccd, name)[1] == pytest.approx(y + per * MOVED[ccd][1], abs=0.3)
    assert chamber.history[-1].what == "pattern B_JAN19 -> B_NOSTROMO_D00_FOCUS00_800"
    assert chamber.history[-1].source.startswith("FOCUS00_800 of session D00, 60 of 60 stars")
    assert found.history[0].who == "custodian"
    assert "after pattern B_JAN19" in found.history[0].what
    assert calcamp("chamber", "set-pattern", "B_NOSTROMO", result, cwd=home).code == 2  # the name is taken
    calcamp("chamber", "set-focus", "B_NOSTROMO", "47.3", cwd=home)
    assert calcamp("chamber", "undo", "B_NOSTROMO", cwd=home).code == 0
    assert calcamp("chamber", "undo", "B_NOSTROMO", cwd=home).code == 0
    after = load_chamber("B_NOSTROMO", home)
    assert after.spots().positions == before.positions
    assert set(after.mirror.values()) == {47.2}
    assert len(after.history) == 5


def test_missing_stars_are_taken_only_when_asked(calcamp, home):
    result = make_result(home / "results", home, missing=("2EA", "3GC"))
    refused = calcamp("chamber", "set-pattern", "B_NOSTROMO", result, cwd=home)
    assert refused.code == 2
    assert "2EA, 3GC" in refused.err
    assert "--allow-missing" in refused.err
    assert load_chamber("B_NOSTROMO", home).pattern == "B_JAN19"
    assert not (home / "config" / "chambers" / "patterns").exists()
    done = calcamp(
        "chamber", "set-pattern", "B_NOSTROMO", result, "--allow-missing", "--name", "B_NEW", cwd=home
    )
    assert done.code == 0, done.err
    chamber = load_chamber("B_NOSTROMO", home)
    x, y = chamber.spots().xy(2, "EA")
    assert chamber.pattern == "B_NEW"
    assert (x, y) == pytest.approx((581.00 + 40.2, 3741.10 + 2.9), abs=0.02)  # where the transform puts it
    assert "not seen, placed by the transform: 2EA, 3GC" in chamber.spots().history[0].what


def test_what_is_refused(calcamp, home):
    unlocked = make_result(home / "a", home, nowhere=[f"2{q}{s}" for q in "EFGH" for s in "ABCDE"])
    other = make_result(home / "b", home, chamber="A_MAX")
    failed = make_result(home / "c", home, status="failed")
    wrong = make_result(home / "d", home, test="BIAS01")
    bare = make_result(home / "e", home)
    (bare / "tables" / "stars.ecsv").unlink()
    for result, word in (
        (unlocked, "CCD2 has no star lock"),
        (other, "A_MAX"),
        (failed, "failed"),
        (wrong, "PSF01"),
        (bare, "no table of its stars"),
        (home / "absent", "no such result"),
    ):
        done = calcamp("chamber", "set-pattern", "B_NOSTROMO", result, cwd=home)
        assert done.code == 2, word
        assert word in done.err
    assert load_chamber("B_NOSTROMO", home).pattern == "B_JAN19"
