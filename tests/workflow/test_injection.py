"""CHINJ02 end to end with mini CCDs: thresholds near the simulated ones, report made."""

from __future__ import annotations

import json

import pytest
from tests.workflow.conftest import SESSION, make_workspace, simulate_and_run, verdict

from calcamp.simulate.plugins.injection import characteristics

pytestmark = pytest.mark.full  # minutes of sessions: make test keeps to the foundation's


@pytest.fixture(scope="module")
def injected(tmp_path_factory):
    folder = tmp_path_factory.mktemp("injection")
    session = make_workspace(folder, SESSION.split("tests:")[0] + "tests:\n  CHINJ02: {do: all}\n")
    simulate_and_run(session, "--seed", 5)
    return folder


def test_thresholds_are_those_of_the_simulation(injected):
    result = verdict(injected, "CHINJ02")
    assert result["status"] == "complete"
    assert "SUBTASKCRASH" not in {f["name"] for f in result["flags"]}
    truth = json.loads((injected / "data_truth" / "D11_truth.json").read_text())
    known = {
        (c["ccd"], c["quadrant"]): characteristics(c["params"]["injection"])["threshold_idl"]
        for c in truth["channels"]
    }
    found = [h for h in result["headline"] if h["quantity"] == "injection_threshold"]
    assert len(found) == 12
    for h in found:
        assert h["kind"] == "IDL"
        assert abs(h["value"] - known[h["ccd"], h["quadrant"]]) < 0.015


def test_the_report_is_made(injected):
    folder = injected / "results" / "D11" / "CHINJ02"
    assert (folder / "CHINJ02_report.pdf").read_bytes().startswith(b"%PDF")
    html = (folder / "CHINJ02_report.html").read_text()
    assert "Threshold in IDL" in html
    assert "was not made" not in html
