"""Every write of the gate, of a step and of the judge fails once: nothing half made is taken for whole."""

from __future__ import annotations

import os
import shutil

import pytest
from tests.faults.writes import FailingDisk
from tests.workflow.conftest import SESSION, make_workspace

from calcamp.data.files import read_json

ONE = SESSION.split("tests:")[0] + "tests:\n  DARK01: {do: [check]}\n"


@pytest.fixture(scope="module")
def planned(campaign, tmp_path_factory):
    """A workspace with the plan files written, its plan, as the Snakefile holds it."""
    from calcamp.campaign import plan

    folder = tmp_path_factory.mktemp("disk")
    shutil.copytree(campaign / "data", folder / "data", copy_function=os.link)
    make_workspace(folder, ONE)
    before = os.getcwd()
    os.chdir(folder)
    made = plan.load(["D11.yaml"], {})
    made.write_run({})
    yield made
    os.chdir(before)


def steps(planned) -> dict:
    """What each rule runs: name -> (function, what it must leave)."""
    from calcamp.steps import acquire, check, judge, runner

    results = planned.results
    manifest, test = results.manifest("DARK01"), results.test("DARK01")

    def step(subtask, task, ccd):
        record = results.record("DARK01", subtask, ccd)
        given = ["--ccd", str(ccd)] if ccd else []
        options = ["--options", planned.job("DARK01", subtask, ccd), "--into", str(record.parent)]
        return lambda: runner.run(
            "check", {subtask: task}, [subtask, "--manifest", str(manifest), *given, *options]
        ), record

    found = {
        "acquire": (
            lambda: acquire.main(
                ["--plan", str(planned.plan_path("DARK01")), "--look", "0", "--into", str(manifest)]
            ),
            manifest,
        ),
        "hk": step("hk", check.hk, None),
    }
    found |= {f"check{ccd}": step("check", check.check, ccd) for ccd in (1, 2, 3)}
    found["judge"] = (
        lambda: judge.main(["--plan", str(planned.plan_path("DARK01")), "--folder", str(test)]),
        results.verdict("DARK01"),
    )
    return found


def tried(function) -> int:
    try:
        return function()
    except OSError:
        return 1


def content(folder) -> dict[str, bytes]:
    """Tables below a folder."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*.ecsv"))}


@pytest.mark.full
def test_every_write_fails_once(planned, capsys):
    made = steps(planned)
    for name in ("acquire", "hk", "check1", "check2", "check3"):
        assert made[name][0]() == 0
    test = planned.results.test("DARK01")
    assert made["judge"][0]() == 0
    expected, total = content(test), 0
    root = planned.results.root.resolve()
    for name in ("acquire", "hk", "check1", "judge"):
        function, leaves = made[name]
        for k in range(1, 200):
            # The rule's output is removed before it runs again, as Snakemake does.
            leaves.unlink()
            with FailingDisk(root, k) as disk:
                status = tried(function)
            if disk.count < k:
                assert status == 0
                break
            total += 1
            if status == 0:  # what failed was no more than the flush of a folder
                assert read_json(leaves), f"{name}: write {k} failed and the step says that it ended well"
            assert not leaves.exists() or read_json(leaves), f"{name}: half a product, write {k}"
            said = capsys.readouterr()
            if name.startswith(("hk", "check")):
                assert "MB free for" in said.err or not said.err
            assert function() == 0, f"{name}: does not resume after write {k}"
            assert content(test) == expected
            leaves.exists() or pytest.fail(f"{name}: leaves nothing after write {k}")
        else:
            pytest.fail("more writes than were looked for")
    print(f"{total} writes failed, one after the other")
    assert total > 40
