"""Flat-light families, run as a user does: data with faults in them, right flags, right numbers from the rest."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
from tests.workflow.conftest import SESSION, calcamp, make_workspace, snakemake, verdict

from calcamp.config.lookup import load_block, load_detector
from calcamp.data.products import load_flat, load_gain, product_name, write_mask
from calcamp.data.tables import table_rows

pytestmark = pytest.mark.full  # minutes of sessions: make test keeps to the foundation's

TESTS = """\
tests:
  PTC02_730:
    do: all
    products: {{mask: {{1: masks/{mask}}}}}
  FLATFLUX00_730: {{do: all}}
  FLAT_STB: {{do: all}}
"""
FAST = ("--set", "flat.steps=1", "--set", "nonlinearity.scale=0")


@pytest.fixture(scope="module")
def flats(tmp_path_factory):
    """PTC02 with a missing frame, a lamp failure, saturated levels and a mask on CCD1; FLATFLUX00, FLAT_STB."""
    folder = tmp_path_factory.mktemp("flats")
    detector = load_detector("ccd273-mini")
    make_workspace(folder)
    serial = load_block("NOSTROMO", folder).serials["ccd1"]
    name = product_name("mask", "NOSTROMO", 1, serial)
    bad = np.zeros(detector.ccd_shape, int)
    bad[100:140, 200:260] = 1
    (folder / "masks").mkdir()
    write_mask(folder / "masks" / name, bad, {"SN": serial, "CCD": "CCD1"})
    session = make_workspace(folder, SESSION.split("tests:")[0] + TESTS.format(mask=name))
    faults = ("--fault", "missing_frame:1003", "--fault", "lamp_off:1009")
    done = calcamp("simulate", session, "--into", "data", "--seed", 5, *FAST, *faults, cwd=folder)
    assert done.returncode == 0, done.stderr
    run = snakemake("-c2", cwd=folder)
    assert run.returncode == 0, run.stdout + run.stderr
    return folder


def truth(folder):
    content = json.loads((folder / "data_truth" / "D11_truth.json").read_text())
    return {(c["ccd"], c["quadrant"]): c for c in content["channels"]}


def rows(folder, test, subject):
    return table_rows(folder / "results" / "D11" / test / "tables" / f"{subject}.ecsv")


def test_gain_is_right_in_spite_of_faults(flats):
    channels = truth(flats)
    found = rows(flats, "PTC02_730", "ptc")
    assert len(found) == 12
    for row in found:
        true = channels[row["ccd"], row["quadrant"]]["gain_e_adu"]
        assert abs(row["gain"] - true) < 4.5 * row["gain_err"]
        assert row["gain_err"] < 0.004 * true
        well = channels[row["ccd"], row["quadrant"]]["params"]["full_well"]["electrons"] / true
        if not row["turn_off_is_limit"]:
            assert abs(row["turn_off"] - well) < 0.08 * 65536
    pairs = rows(flats, "PTC02_730", "ptc_pairs")
    assert not any(1009 in (r["obsid"], r["obsid2"]) for r in pairs)
    masked = {r["n"] for r in pairs if r["ccd"] == 1 and r["quadrant"] == "H" and r["column"] == 1}
    assert max(masked) <= 512 * 516 - 40 * 60


def test_faults_are_told(flats):
    found = verdict(flats, "PTC02_730")
    assert "MISSDATA" in {f["name"] for f in found["flags"]}
    lamp = [e for e in found["excluded"] if e["obsid"] == 1009]
    assert lamp
    assert all("lamp off" in e["cause"] for e in lamp)
    assert found["frames"] == {"declared": 24, "found": 23, "used": 22}
    assert {h["quantity"] for h in found["headline"]} >= {
        "gain",
        "full_well",
        "bf_a00",
        "her",
        "ptc_read_noise",
    }


def test_gain_product_serves_other_tests(flats):
    path = next((flats / "results" / "D11" / "PTC02_730" / "products").glob("EUC_GAIN_730nm_*.fits"))
    gains = load_gain(path)
    assert len(gains) == 12
    table = {(r["ccd"], r["quadrant"]): r["gain"] for r in rows(flats, "PTC02_730", "ptc")}
    assert gains[2, "F"].value == pytest.approx(table[2, "F"])
    twin = load_gain(path.with_name("PTC02_730_GAIN_TB.xlsx"))
    assert twin[3, "H"].value == pytest.approx(table[3, "H"])


def test_flux_of_the_source(flats):
    channels = truth(flats)
    found = verdict(flats, "FLATFLUX00_730")
    assert found["verdict"] == "pass"
    times = [h for h in found["headline"] if h["quantity"] == "saturation_time"]
    assert len(times) == 12
    for item in times:
        true = 3.6 * channels[item["ccd"], item["quadrant"]]["gain_e_adu"] / 3.45
        assert item["value"] == pytest.approx(true, rel=0.08)  # illumination of the quadrant
    t0 = rows(flats, "FLATFLUX00_730", "shutter")[0]
    assert abs(t0["t0"] - channels[1, "E"]["params"]["flat"]["t0"]) < 5 * t0["t0_err"]
    chamber = calcamp(
        "chamber", "set-flux", "B_NOSTROMO", "results/D11/FLATFLUX00_730", "--reason", "test", cwd=flats
    )
    assert chamber.returncode in (0, 2)
    assert "730" in chamber.stdout + chamber.stderr or "workspace" in chamber.stdout + chamber.stderr


def test_flats_are_products_that_preparation_takes(flats):
    detector = load_detector("ccd273-mini")
    for row in rows(flats, "FLAT_STB", "prnu"):
        assert row["prnu"] == pytest.approx(np.hypot(0.6, 0.05), abs=0.02)
        assert row["frames"] == 15
    path = next((flats / "results" / "D11" / "FLAT_STB" / "products").glob("EUC_FF_*CCD1.fits"))
    made = load_flat(path, detector, ccd=1)
    assert made.error is not None
    assert np.nanmedian(made.data) == pytest.approx(1.0, abs=1e-3)
    dead = {(c["ccd"], c["quadrant"]): len(c["dead_pixels"]) for c in truth(flats).values()}
    for row in rows(flats, "FLAT_STB", "flat_defects"):
        assert row["n_dead"] == dead[row["ccd"], row["quadrant"]]
    lamp = rows(flats, "FLAT_STB", "lamp")[0]
    assert abs(lamp["drift"] - 0.3) < 5 * lamp["drift_err"]


def test_reports_have_their_figures(flats):
    for test, figures in (
        ("PTC02_730", ("ptc_curve", "ptc_residuals", "ptc_neighbours", "ptc_tiles", "ptc_her")),
        (
            "FLAT_STB",
            ("flat_prnu", "flat_small_col001", "flat_large_col001", "flat_histogram", "flat_lamp_1"),
        ),
        ("FLATFLUX00_730", ("flux_levels",)),
    ):
        folder = flats / "results" / "D11" / test
        assert (folder / f"{test}_report.pdf").stat().st_size > 20_000
        for name in figures:
            assert (folder / "figures" / f"{name}.png").is_file(), f"{test}: {name}"


@pytest.mark.full
def test_non_linearity_end_to_end(tmp_path):
    """NL02 with its correction product, applied to PTC02: the gain comes right."""
    session = make_workspace(
        tmp_path, SESSION.split("tests:")[0] + "tests:\n  NL02: {do: all}\n  PTC02_730: {do: all}\n"
    )
    done = calcamp(
        "simulate", session, "--into", "data", "--seed", 6, "--set", "flat.steps=4", "--jobs", 2, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    assert snakemake("-c2", cwd=tmp_path).returncode == 0
    channels = truth(tmp_path)
    shutter = rows(tmp_path, "NL02", "shutter")[0]
    assert abs(shutter["t0"] - channels[1, "E"]["params"]["flat"]["t0"]) < max(2e-3, 4 * shutter["t0_err"])
    product = next((tmp_path / "results" / "D11" / "NL02" / "products").glob("EUC_LINEARITY_*.fits"))
    shutil.copy(product, tmp_path / product.name)
    text = session.read_text().replace(
        "  PTC02_730: {do: all}", f"  PTC02_730: {{do: all, products: {{linearity: {product.name}}}}}"
    )
    session.write_text(text)
    raw = {(r["ccd"], r["quadrant"]): r for r in rows(tmp_path, "PTC02_730", "ptc")}
    assert snakemake("-c2", cwd=tmp_path).returncode == 0
    deviations = []
    for row in rows(tmp_path, "PTC02_730", "ptc"):
        c = channels[row["ccd"], row["quadrant"]]
        scale = c["params"]["nonlinearity"]["scale"]
        # the gauge: linear signals are right at 25 % of FDR
        gauge = 1 + scale * (0.5 * 0.25 - 0.3 * 0.25**2 + 0.6 * 0.25**3) / 100
        deviations.append((row["gain"] * gauge / c["gain_e_adu"] - 1) / (row["gain_err"] / row["gain"]))
        assert row["gain"] != raw[row["ccd"], row["quadrant"]]["gain"]
    assert abs(np.mean(deviations)) < 2.0
    assert np.std(deviations) < 2.0


@pytest.mark.full
def test_brighter_fatter_reads_the_rows_of_its_surrogate(tmp_path):
    """BF01_730 on the frames of PTC02_730: coefficients and what the correction leaves."""
    session = make_workspace(
        tmp_path, SESSION.split("tests:")[0] + "tests:\n  PTC02_730: {do: [check]}\n  BF01_730: {do: all}\n"
    )
    fast = ("--set", "flat.steps=8", "--set", "nonlinearity.scale=0", "--jobs", 2)
    done = calcamp("simulate", session, "--into", "data", "--seed", 8, *fast, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert snakemake("-c2", cwd=tmp_path).returncode == 0
    assert verdict(tmp_path, "BF01_730")["status"] == "complete"
    channels, pulls = truth(tmp_path), []
    for row in rows(tmp_path, "BF01_730", "bf"):
        a = channels[row["ccd"], row["quadrant"]]["params"]["flat"]["a"]
        pulls += [(row["a01"] - a[1][0]) / row["a01_err"], (row["a10"] - a[0][1]) / row["a10_err"]]
    assert abs(np.mean(pulls)) < 1.0
    assert np.std(pulls) < 1.6
    left = [r["rho01_after"] / r["rho01_after_err"] for r in rows(tmp_path, "BF01_730", "bf_check")]
    assert abs(np.mean(left)) < 4 / np.sqrt(len(left)) + 0.3
    assert (tmp_path / "results" / "D11" / "BF01_730" / "figures" / "bf_rho01.png").is_file()
