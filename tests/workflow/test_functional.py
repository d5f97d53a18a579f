"""MOT_WARM, PERSIST01 and STRAY00 from raw frames to verdicts, and the faults that MOT_WARM must name."""

from __future__ import annotations

import pytest
from tests.workflow.conftest import calcamp, make_workspace, snakemake, verdict

from calcamp.data.tables import table_rows

pytestmark = pytest.mark.full  # minutes of sessions: make test keeps to the foundation's

SESSION = """\
session: D11
block: NOSTROMO
mode: aim
data: {root: data, day_folders: [12_Mar_19]}
results: results
tests:
"""


def run(folder, tests, *options):
    session = make_workspace(folder, SESSION + "".join(f"  {test}: {{do: all}}\n" for test in tests))
    made = calcamp("simulate", session, "--into", "data", "--seed", 5, *options, cwd=folder)
    assert made.returncode == 0, made.stderr
    done = snakemake("-c2", cwd=folder)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


@pytest.fixture(scope="module")
def functional(tmp_path_factory):
    # OBSIDs 1000 to 1007, 1008 to 1019, 1020 to 1041; the lab lights of STRAY00 are 1020 and 1021
    folder = tmp_path_factory.mktemp("functional")
    return run(folder, ("MOT_WARM", "PERSIST01", "STRAY00"), "--fault", "light_leak:1021")


def rows(folder, test, subject):
    return table_rows(folder / "results" / "D11" / test / "tables" / f"{subject}.ecsv")


def test_a_healthy_warm_block_is_go(functional):
    judged = verdict(functional, "MOT_WARM")
    assert judged["verdict"] == "go", judged["flags"]
    assert judged["flags"] == []
    assert (functional / "results/D11/MOT_WARM/MOT_WARM_report.pdf").read_bytes().startswith(b"%PDF")
    assert {r["found"] for r in rows(functional, "MOT_WARM", "spots")} == {5}
    wanted = [r for r in rows(functional, "MOT_WARM", "go") if r["injection_wanted"]]
    assert {r["quadrant"] for r in wanted} == {"E", "F"}


def test_persistence_is_found(functional):
    judged = verdict(functional, "PERSIST01")
    assert judged["verdict"] == "pass", judged["flags"]
    found = rows(functional, "PERSIST01", "persistence")
    assert len(found) == 12
    # 8 e- trapped, 300 s: 4.9 e- of them in the first frame; the gain is nominal, true ones differ by 5 %
    assert all(4.0 < r["persistence"] < 6.0 and not r["is_limit"] for r in found)
    assert sum(r["tau"] for r in found) / 12 == pytest.approx(300, abs=20)


def test_stray_light_is_attributed(functional):
    judged = verdict(functional, "STRAY00")
    assert {f["name"] for f in judged["flags"]} == {"SOURCEON"}
    assert all(f["scope"]["obsids"] == [1021] for f in judged["flags"])
    sources = rows(functional, "STRAY00", "stray_sources")
    lab = [r for r in sources if r["source"] == "lab lights"]
    assert all(r["significance"] > 50 for r in lab)
    assert all(
        abs(r["significance"]) < 5 for r in sources if r["source"] in ("tungsten lamp", "pressure gauge")
    )


FAULTS = [
    ("missing_frame:1004", "MISSDATA", {"REQNOTMET"}),
    pytest.param("no_injection", "FLUENCE_OOL", set(), marks=pytest.mark.full),
    pytest.param("lamp_off:1004", "SOURCEOFF", {"UNDERPERFORM"}, marks=pytest.mark.full),
    (
        "dead_quadrant",
        "DEADQUAD",
        {"POORQUALDATA", "RON_OOL", "UNDERPERFORM", "REQNOTMET"},
    ),
    pytest.param("offset_step:1001:1:E", "POORQUALDATA", set(), marks=pytest.mark.full),
    pytest.param("hk_unsafe", "HK_OOL", set(), marks=pytest.mark.full),
]


@pytest.mark.parametrize(("fault", "cause", "consequences"), FAULTS)
def test_a_fault_is_no_go_with_its_cause_first(tmp_path, fault, cause, consequences):
    run(tmp_path, ("MOT_WARM",), "--fault", fault)
    judged = verdict(tmp_path, "MOT_WARM")
    assert judged["verdict"] == "no_go"
    assert judged["flags"][0]["name"] == cause
    others = [f for f in judged["flags"] if f["name"] != cause]
    assert {f["name"] for f in others} <= consequences
    assert all(cause in f["consequence_of"] or f["consequence_of"] for f in others)
