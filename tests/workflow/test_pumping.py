"""TP02 end to end with mini CCDs, one pumped frame missing: traps of the register found, the gap told."""

from __future__ import annotations

import pytest
from tests.workflow.conftest import SESSION, calcamp, make_workspace, snakemake, verdict

from calcamp.data.tables import table_rows

pytestmark = pytest.mark.full  # minutes of sessions: make test keeps to the foundation's


@pytest.fixture(scope="module")
def pumped(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pumping")
    session = make_workspace(folder, SESSION.split("tests:")[0] + "tests:\n  TP02: {do: all}\n")
    arguments = ("--seed", 9, "--first-obsid", 1000, "--fault", "truncated:1003")
    done = calcamp("simulate", session, "--into", "data", *arguments, cwd=folder)
    assert done.returncode == 0, done.stderr
    done = snakemake("-c2", cwd=folder)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def test_traps_of_the_register(pumped):
    result = verdict(pumped, "TP02")
    names = {f["name"] for f in result["flags"]}
    assert "SUBTASKCRASH" not in names
    assert "MISSDATA" in names
    traps = table_rows(pumped / "results" / "D11" / "TP02" / "tables" / "traps.ecsv")
    assert len(traps) >= 20
    assert all(0 <= t["pc"] <= 1 for t in traps if t["pc"] is not None)
    assert {h["quantity"] for h in result["headline"]} >= {"trap_count", "trap_density", "injection_level"}
    folder = pumped / "results" / "D11" / "TP02"
    assert (folder / "TP02_report.pdf").read_bytes().startswith(b"%PDF")
    assert len(list((folder / "products").glob("EUC_TRAPS_CCD*.fits"))) == 3
