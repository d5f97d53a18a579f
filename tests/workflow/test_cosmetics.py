"""COSMETICS00 from raw frames to masks that other tests use; promotion and refusal of a wrong serial."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
from tests.workflow.conftest import calcamp, make_workspace, simulate_and_run, snakemake, verdict

from calcamp.config.lookup import load_detector
from calcamp.data.products import load_mask
from calcamp.data.tables import table_rows
from calcamp.detector.dq import DQ

pytestmark = pytest.mark.full  # minutes of sessions: make test keeps to the foundation's

SESSION = """\
session: D11
block: NOSTROMO
mode: aim
data: {root: data, day_folders: [12_Mar_19]}
results: results
tests:
  BIAS01: {do: all}
  DARK01: {do: all}
  COSMETICS00: {do: all}
"""


@pytest.fixture(scope="module")
def masked(tmp_path_factory):
    """A campaign run once, its masks promoted."""
    folder = tmp_path_factory.mktemp("cosmetics")
    session = make_workspace(folder, SESSION)
    defects = ("response.clusters=2", "response.partial_columns=1", "response.over=2")
    settings = [word for item in defects for word in ("--set", item)]
    simulate_and_run(session, "--seed", 5, *settings)
    return folder


@pytest.fixture
def copy(masked, tmp_path):
    folder = tmp_path / "work"
    shutil.copytree(masked, folder, symlinks=True)
    return folder


def rows(folder, test, subject):
    return table_rows(folder / "results" / "D11" / test / "tables" / f"{subject}.ecsv")


def test_masks_are_made_and_judged(masked):
    judged = verdict(masked, "COSMETICS00")
    assert judged["status"] == "complete"
    assert judged["verdict"] in ("pass", "fail")
    assert (masked / "results/D11/COSMETICS00/COSMETICS00_report.pdf").read_bytes().startswith(b"%PDF")
    kinds = {(p["kind"], p["ccd"]) for p in judged["products"]}
    assert {(kind, ccd) for kind in ("mask", "dq", "dark_mask", "flat_mask") for ccd in (1, 2, 3)} <= kinds
    bad = [h for h in judged["headline"] if h["quantity"] == "bad_pixels"]
    assert len(bad) == 12
    assert all(h["value"] > 300 for h in bad)  # the partial column alone


def test_the_old_mask_and_the_bits_agree(masked):
    detector = load_detector("ccd273-mini")
    folder = masked / "results/D11/COSMETICS00/products"
    old, serial = load_mask(folder / "EUC_MASK_NOSTROMO_CCD1_SN_14888-88-81.fits", detector)
    bits, same = load_mask(folder / "EUC_DQ_NOSTROMO_CCD1_SN_14888-88-81.fits", detector)
    assert serial == same == "14888-88-81"
    from calcamp.detector.dq import BADMASK

    assert np.array_equal(old != 0, (bits & np.uint32(BADMASK | DQ.WHOLE_COL)) != 0)


def promote(folder, *kinds):
    for kind in kinds:
        done = calcamp("products", "promote", "results/D11/COSMETICS00", "--kind", kind, cwd=folder)
        assert done.returncode == 0, done.stderr
    return done


def test_promoted_masks_change_data_quality_and_robust_statistics_only(copy):
    before = {
        "read_noise": {
            (r["ccd"], r["quadrant"], r["region"], r["method"]): r for r in rows(copy, "BIAS01", "read_noise")
        },
        "dark": {(r["ccd"], r["quadrant"]): r for r in rows(copy, "DARK01", "dark")},
        "offsets": rows(copy, "BIAS01", "offsets"),
    }
    promote(copy, "mask", "dq")
    dark = calcamp("products", "promote", "results/D11/DARK01", "--kind", "dark", cwd=copy)
    assert dark.returncode == 0, dark.stderr
    hot = sum(h["value"] for h in verdict(copy, "DARK01")["headline"] if h["quantity"] == "hot_pixels")
    listed = calcamp("products", "list", "NOSTROMO", cwd=copy)
    assert listed.stdout.count("COSMETICS00") == 6
    block = (copy / "config/blocks/NOSTROMO.yaml").read_text()
    assert "calproducts/mask/EUC_MASK_NOSTROMO_CCD2_SN_14888-88-82.fits" in block
    run = snakemake("-c2", cwd=copy)
    assert run.returncode == 0, run.stdout + run.stderr
    assert set(verdict(copy, "BIAS01")["products_used"]) >= {"mask", "dq"}
    for row in rows(copy, "BIAS01", "read_noise"):
        was = before["read_noise"][row["ccd"], row["quadrant"], row["region"], row["method"]]
        assert row["read_noise"] == pytest.approx(was["read_noise"], abs=was["read_noise_err"])
    for row in rows(copy, "DARK01", "dark"):
        was = before["dark"][row["ccd"], row["quadrant"]]
        assert row["dark_current"] == pytest.approx(was["dark_current"], abs=2 * was["dark_current_err"])
    assert rows(copy, "BIAS01", "offsets") == before["offsets"]
    # a new COSMETICS00 compares itself with the mask in use, and takes the hot pixels of the master dark
    changes = rows(copy, "COSMETICS00", "mask_changes")
    assert all(r["vanished"] == 0 and r["kept"] + r["new"] == r["masked"] for r in changes)
    counted = sum(r["hot"] for r in rows(copy, "COSMETICS00", "cosmetics") if r["mask"] == "merged")
    assert counted >= hot > 0


def test_a_former_mask_is_kept(copy):
    promote(copy, "mask")
    target = copy / "calproducts/mask/EUC_MASK_NOSTROMO_CCD1_SN_14888-88-81.fits"
    target.write_bytes(target.read_bytes() + b"\0" * 2880)
    done = promote(copy, "mask")
    assert "kept the former one" in done.stdout
    assert len(list(target.parent.glob("EUC_MASK_NOSTROMO_CCD1_*.fits"))) == 2


def test_a_mask_of_another_ccd_is_refused(copy):
    block = copy / "config/blocks/NOSTROMO.yaml"
    text = block.read_text()
    block.write_text(text.replace("14888-88-81", "14888-88-99"))
    done = calcamp("products", "promote", "results/D11/COSMETICS00", "--kind", "mask", cwd=copy)
    assert done.returncode == 2
    assert "14888-88-81" in done.stderr
    assert "14888-88-99" in done.stderr
    assert not (copy / "calproducts/mask").exists()
    # named by hand, it is refused when it is used
    path = copy / "results/D11/COSMETICS00/ccd1/masks/products/EUC_MASK_NOSTROMO_CCD1_SN_14888-88-81.fits"
    shutil.copy(path, copy / "wrong.fits")
    session = copy / "D11.yaml"
    session.write_text(
        SESSION.replace("BIAS01: {do: all}", "BIAS01: {do: all, products: {mask: {1: wrong.fits}}}").replace(
            "  DARK01: {do: all}\n  COSMETICS00: {do: all}\n", ""
        )
    )
    run = snakemake("-c2", cwd=copy)
    assert run.returncode != 0
    crash = next(f for f in verdict(copy, "BIAS01")["flags"] if f["name"] == "SUBTASKCRASH")
    assert "14888-88-99" in crash["cause"]
    assert crash["scope"]["ccd"] == 1
