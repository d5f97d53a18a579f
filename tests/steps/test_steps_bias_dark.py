"""Steps of BIAS and DARK on one CCD: from raw files to tables and products, and the bias used by the dark."""

from __future__ import annotations

import json

import numpy as np
import pytest
from tests.analysis.frames_bias_dark import MINI, bias_frames, dark_frames

from calcamp.data.files import read_json
from calcamp.data.fitsfile import read_image
from calcamp.data.raw import write_raw
from calcamp.data.tables import table_rows
from calcamp.detector.arrays import assemble, quadrant_view
from calcamp.detector.dq import DQ
from calcamp.detector.geometry import QUADRANTS
from calcamp.steps import bias, dark
from calcamp.steps.runner import execute

RATE = 0.0014  # e-/s


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Day-folder with 5 bias and 4 dark frames of CCD1; one dark is truncated."""
    path = tmp_path_factory.mktemp("day")
    rng = np.random.default_rng(1)
    biases = {q: bias_frames(MINI, 5, rng, 1.2, column=0.2) for q in QUADRANTS}
    # the dark has the pattern of the bias: taken from the same electronics, here the mean of many biases
    darks = {q: dark_frames(MINI, 4, rng, RATE, hot=[(20, 30, 15.0)], cosmics=8)[0] for q in QUADRANTS}
    for test, frames, first, time in (("BIAS01", biases, 100, 0.0), ("DARK01", darks, 200, 565.0)):
        exposures = []
        for k in range(len(frames["E"])):
            name = f"EUC_{first + k}_120319D0{k}0000T_ROE1_CCD1.fits"
            write_raw(path / name, assemble({q: frames[q][k] for q in QUADRANTS}, MINI), {"OBSID": first + k})
            exposures.append(
                {
                    "obsid": first + k,
                    "column": 1,
                    "frame": k + 1,
                    "day_folder": str(path),
                    "log_row": {"exptime": time, "vstart": 0, "vend": 2086, "toi_ro": 1000},
                    "hk": None,
                    "files": {"1": {"name": name, "size": 0, "sha256": ""}},
                }
            )
        (path / f"{test}.json").write_text(json.dumps({"schema": 1, "test": test, "exposures": exposures}))
    return path


def run(family, subtask, task, folder, test, into, products=None, options=None):
    job = {
        "detector": MINI.as_dict(),
        "options": options or {},
        "prep_options": {"offset": "row", "scan": "pre", "use_mask": True, "use_bias": True, "use_flat": True, "cosmics": False},
        "products": products or {},
        "block": "NOSTROMO",
        "chamber": "TEST",
        "serial": "14471-19-01",
        "after": [],
    }  # fmt: skip
    status = execute(family, subtask, task, folder / f"{test}.json", 1, job, into)
    assert status == 0
    return read_json(into / f"{subtask}.json")


@pytest.fixture(scope="module")
def results(folder, tmp_path_factory):
    into = tmp_path_factory.mktemp("results")
    run("bias", "basic", bias.basic, folder, "BIAS01", into / "basic")
    run("bias", "meta", bias.meta, folder, "BIAS01", into / "meta")
    run("dark", "meta", dark.meta, folder, "DARK01", into / "dark")
    return into


def test_tables_of_an_earlier_run_do_not_outlive_a_crash(folder, tmp_path):
    """A later sub-task must not take them for those of this run."""

    def crash(ctx):
        ctx.write_table("read_noise", {"ccd": [1]})
        raise RuntimeError("on purpose")

    run(
        "bias",
        "basic",
        lambda ctx: ctx.write_table("read_noise", {"ccd": [1]}),
        folder,
        "BIAS01",
        tmp_path / "basic",
    )
    assert (tmp_path / "basic" / "read_noise.ecsv").is_file()
    with pytest.raises(AssertionError):
        run("bias", "basic", crash, folder, "BIAS01", tmp_path / "basic")
    assert not (tmp_path / "basic" / "read_noise.ecsv").is_file()


def test_frames_out_of_reach_are_no_missing_frames(folder, tmp_path, capsys):
    """Data that moved are found by the folder's name in the plan; without them the sub-task is tried again later."""
    content = read_json(folder / "BIAS01.json")
    for exposure in content["exposures"]:
        exposure["day_folder"] = f"/nowhere/{folder.name}"
    here = tmp_path / "BIAS01"
    here.mkdir()
    manifest = here / "BIAS01.json"
    manifest.write_text(json.dumps(content))
    seen = []
    with pytest.raises(AssertionError):
        run("bias", "basic", lambda ctx: seen.append(ctx.exposures), here, "BIAS01", here / "ccd1")
    assert seen == []
    assert "Mount it" in capsys.readouterr().err
    plan = tmp_path / "config" / "plan" / "BIAS01.json"
    plan.parent.mkdir(parents=True)
    plan.write_text(json.dumps({"gate": {"folders": [str(folder)]}}))
    run("bias", "basic", lambda ctx: seen.append(ctx.exposures), here, "BIAS01", here / "ccd1")
    assert {exposure.folder for exposure in seen[0]} == {folder}


def test_basic_writes_every_table(results):
    names = {p.stem for p in (results / "basic").glob("*.ecsv")}
    assert names >= {
        "read_noise",
        "offset_frames",
        "profiles",
        "spectrum",
        "spectrum_peaks",
        "settling",
        "offset_model",
    }
    rows = table_rows(results / "basic" / "read_noise.ecsv")
    img = [r for r in rows if r["region"] == "img" and r["method"] == "pairs"]
    assert [r["quadrant"] for r in img] == list(QUADRANTS)
    for row in img:
        assert abs(row["read_noise"] - 1.2) < 5 * row["read_noise_err"]
        assert abs(row["closure"] - 1) < 0.01
        assert row["flag"] == "" or row["flag"] is None
    assert len(table_rows(results / "basic" / "offset_frames.ecsv")) == 5 * 4


def test_master_bias_product(results):
    row = table_rows(results / "meta" / "master_bias.ecsv")[0]
    assert row["frames"] == 5
    assert row["fixed_pattern"] == pytest.approx(0.2, abs=0.05)
    path = next((results / "meta" / "products").glob("EUC_MASTERBIAS_CCD1_SN_14471-19-01_NOSTROMO.fits"))
    shapes = {name: read_image(path, name)[0] for name in ("STACK", "ERROR", "COUNT", "DQ")}
    assert all(plane.shape == MINI.ccd_shape for plane in shapes.values())
    assert np.median(shapes["ERROR"]) == pytest.approx(1.26 / 5**0.5, rel=0.05)
    assert shapes["COUNT"].max() == 5


def test_dark_tables_and_products(results):
    for row in table_rows(results / "dark" / "dark.ecsv"):
        assert abs(row["dark_current"] - RATE * 3600) < 5 * row["dark_current_err"]
        assert row["n_hot"] == 1
        assert row["n"] == 4
        assert row["bias_subtracted"] is False
        assert row["temperature"] is None
    hot = table_rows(results / "dark" / "hot_pixels.ecsv")
    assert {(r["row"], r["column"]) for r in hot} == {(20, 30)}
    mask, _ = read_image(next((results / "dark" / "products").glob("EUC_DKMSK_*")), "MASK")
    dq, _ = read_image(next((results / "dark" / "products").glob("EUC_DARK_*")), "DQ")
    for quadrant in QUADRANTS:
        assert quadrant_view(mask, quadrant, MINI)[20, MINI.prescan + 30] == 1
        assert quadrant_view(dq, quadrant, MINI)[20, MINI.prescan + 30] & int(DQ.HOT)
    assert mask.sum() == 4
    for subject in ("dark_exposures", "dark_tiles", "dark_histogram", "profiles", "hot_columns"):
        assert (results / "dark" / f"{subject}.ecsv").is_file()


def test_dark_with_a_bias_product_has_no_systematic(results, folder, tmp_path):
    path = next((results / "meta" / "products").glob("*.fits"))
    record = run(
        "dark",
        "meta",
        dark.meta,
        folder,
        "DARK01",
        tmp_path / "dark",
        {"bias": {"path": str(path), "sha256": "x"}},
    )
    for row in table_rows(tmp_path / "dark" / "dark.ecsv"):
        assert row["bias_subtracted"] is True
        assert row["systematic"] == 0
    assert record["status"] == "done"


def test_missing_and_single_frames_are_not_failures(folder, tmp_path):
    manifest = json.loads((folder / "DARK01.json").read_text())
    manifest["exposures"][1]["files"]["1"]["name"] = "absent.fits"
    manifest["exposures"] = manifest["exposures"][:2]
    (folder / "SHORT.json").write_text(json.dumps(manifest))
    record = run("dark", "meta", dark.meta, folder, "SHORT", tmp_path / "dark")
    assert [e["obsid"] for e in record["excluded"]] == [201]
    assert any(f["name"] == "MISSDATA" for f in record["flags"])
    manifest["exposures"] = []
    (folder / "NONE.json").write_text(json.dumps(manifest))
    run("dark", "meta", dark.meta, folder, "NONE", tmp_path / "dark0")
    run("bias", "basic", bias.basic, folder, "NONE", tmp_path / "basic0")
    run("bias", "meta", bias.meta, folder, "NONE", tmp_path / "meta0")
    assert table_rows(tmp_path / "dark0" / "dark.ecsv")[0]["dark_current"] is None


def test_many_frames_are_read_in_groups_with_the_same_result(results, folder, tmp_path, monkeypatch):
    monkeypatch.setattr(bias, "FRAMES_AT_ONCE", 2)
    run("bias", "meta", bias.meta, folder, "BIAS01", tmp_path / "meta")
    a, b = (table_rows(p / "meta" / "master_bias.ecsv") for p in (results, tmp_path))
    assert a == b
