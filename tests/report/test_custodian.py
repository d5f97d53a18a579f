"""The list for the custodian of the chamber profile, from the verdicts of a session."""

from __future__ import annotations

from pathlib import Path

from calcamp.report.custodian import lines, proposals

ROOT = Path("results/D11")


def verdict(*headline, **more):
    return {"status": "complete", "chamber": "B_NOSTROMO", "headline": list(headline), **more}


def focus(value, err=2e-4, **keys):
    return {"quantity": "best_focus", "value": value, "err": err, "wavelength": 800, **keys}


def flux(value, err, **keys):
    return {"quantity": "saturation_time", "value": value, "err": err, "wavelength": 800, **keys}


def test_focus_that_moved_is_proposed_with_its_command():
    plans = {"FOCUS00_800": {"chamber_data": {"mirror": 47.2, "saturation_time": 2.2}}}
    told = verdict(focus(47.23), focus(47.22, ccd=1), flux(2.21, 0.002, source="point"))
    entries = proposals(ROOT, {"FOCUS00_800": told}, plans)
    assert [e["what"] for e in entries] == ["focus", "saturation time, point source"]
    assert entries[0]["needed"] is True
    assert entries[0]["command"] == "calcamp chamber set-focus B_NOSTROMO results/D11/FOCUS00_800"
    assert entries[1]["needed"] is False
    text = lines(entries)
    assert "47.2 mm" in text[0]
    assert "CHANGE" in text[0]
    assert "no change" in text[1]


def test_differences_within_the_errors_need_nothing():
    plans = {"FOCUS00_800": {"chamber_data": {"mirror": 47.2}}}
    assert proposals(ROOT, {"FOCUS00_800": verdict(focus(47.21, 0.01))}, plans)[0]["needed"] is False
    assert proposals(ROOT, {"FOCUS00_800": verdict(focus(47.21))}, {})[0]["needed"] is None


def test_flux_of_the_flat_source_is_the_mean_of_the_channels():
    told = verdict(*(flux(3.5 + 0.1 * k, 0.01, ccd=1, quadrant=q) for k, q in enumerate("EFGH")))
    (entry,) = proposals(ROOT, {"FLATFLUX00_800": told}, {})
    assert abs(entry["found"] - 3.65) < 1e-9
    assert abs(entry["err"] - 0.005) < 1e-9
    assert "flat" in entry["what"]
    assert entry["needed"] is None
    light = {"saturation_time": {"3": 3.6, "4": 3.5}, "wavelength": {"3": 880, "4": 800}}
    (entry,) = proposals(ROOT, {"FLATFLUX00_800": told}, {"FLATFLUX00_800": {"chamber_data": light}})
    assert (entry["present"], entry["needed"]) == (3.5, True)
    assert entry["command"] == "calcamp chamber set-flux B_NOSTROMO results/D11/FLATFLUX00_800"


def shift(ccd, x, y, err=0.05):
    return [
        {"quantity": f"lock_shift_{axis}", "ccd": ccd, "value": value, "err": err}
        for axis, value in (("x", x), ("y", y))
    ]


def test_pattern_that_moved():
    (entry,) = proposals(ROOT, {"FOCUS00_800": verdict(*shift(1, 55.0, -3.0), *shift(2, 1.0, 2.0))}, {})
    assert entry["needed"] is True
    assert abs(entry["found"] - 55.08) < 0.01
    assert entry["err"] == 0.05
    assert "CCD1 x 55.00" in entry["change"]
    assert "CCD2 x 1.00" in entry["change"]
    assert entry["command"] == "calcamp chamber set-pattern B_NOSTROMO results/D11/FOCUS00_800"
    assert entry["command"] in lines([entry])[0]


def test_pattern_that_stayed():
    (entry,) = proposals(ROOT, {"FOCUS00_800": verdict(*shift(1, 5.0, -3.0))}, {})
    assert entry["needed"] is False
    assert "no change" in lines([entry])[0]


def test_what_was_not_measured_proposes_nothing():
    assert proposals(ROOT, {"FOCUS00_800": verdict(focus(None))}, {}) == []
    assert proposals(ROOT, {"FOCUS00_800": {"status": "failed", "headline": [focus(47.3)]}}, {}) == []
    assert proposals(ROOT, {"BIAS01": {}}, {}) == []
