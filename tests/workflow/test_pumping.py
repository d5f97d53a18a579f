"""Trap pumping end to end with mini CCDs, and what may go wrong in it.

TP02 and TP21: traps of the register, one frame broken, catalogues joined. TP11: an image area without a trap, a
frame missing, one saturated, a mask: the right flags, no crash, a report.
"""

from __future__ import annotations

import json

import numpy as np
import pytest
from tests.workflow.conftest import SESSION, calcamp, make_workspace, snakemake, verdict

from calcamp.config.lookup import load_block, load_detector
from calcamp.data.fitsfile import read_fits_table
from calcamp.data.products import write_mask
from calcamp.data.raw import read_raw
from calcamp.data.tables import table_rows
from calcamp.detector.arrays import quadrant_view

pytestmark = pytest.mark.full  # minutes of sessions: make test keeps to the foundation's

TESTS = "tests:\n  TP02: {do: all}\n  TP11: {do: all}\n  TP21: {do: all}\n"
# TP02 is 1000 to 1017, TP11 1018 to 1067: reference, then the times 50, 200, 1000 us ... in the modes 123, 234, 341, 412.
BROKEN, ABSENT, SATURATED = 1003, 1023, 1027  # of TP02; mode 123 at 200 us (CCD1); mode 123 at 1000 us (CCD3)
MASKED = slice(200, 230)  # image columns of CCD2 E


def saturate(folder) -> None:
    """A third of the upper half of a frame at the edge of the ADC, as after a flash of light."""
    from astropy.io import fits

    path = next((folder / "data").glob(f"*/*_{SATURATED}_*CCD3*.fits"))
    with fits.open(path, mode="update", do_not_scale_image_data=True) as hdus:
        image = next(hdu for hdu in hdus if hdu.data is not None)
        rows = image.data.shape[0]
        image.data[int(0.6 * rows) : int(0.9 * rows)] = 32767  # 65535 with BZERO
    detector = load_detector("ccd273-mini")
    assert (quadrant_view(read_raw(path, detector).data, "E", detector) == 65535).any()


def mask(folder) -> None:
    detector = load_detector("ccd273-mini")
    bad = np.zeros(detector.ccd_shape, np.int32)
    view = quadrant_view(bad, "E", detector)
    view[:, detector.prescan + MASKED.start : detector.prescan + MASKED.stop] = 1
    block = folder / "config" / "blocks" / "NOSTROMO.yaml"
    serial = load_block(str(block), folder).serials["ccd2"]
    name = f"EUC_MASK_NOSTROMO_CCD2_SN_{serial}.fits"
    write_mask(folder / name, bad, {"SN": serial, "BLOCKID": "NOSTROMO"})
    block.write_text(block.read_text() + f"products: {{mask: {{2: ../../{name}}}}}\n")


@pytest.fixture(scope="module")
def pumped(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pumping")
    session = make_workspace(folder, SESSION.split("tests:")[0] + TESTS)
    faults = ("--fault", f"truncated:{BROKEN}", "--fault", f"missing_fits:{ABSENT}:1")
    arguments = ("--seed", 9, "--first-obsid", 1000, "--set", "traps.density=0", *faults)
    done = calcamp("simulate", session, "--into", "data", *arguments, cwd=folder)
    assert done.returncode == 0, done.stderr
    saturate(folder)
    mask(folder)
    done = snakemake("-c2", cwd=folder)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def flags(folder, test) -> list[tuple]:
    return [(f["name"], f["cause"], f["scope"]) for f in verdict(folder, test)["flags"]]


@pytest.mark.parametrize("test", ["TP02", "TP11", "TP21"])
def test_nothing_crashes_and_a_report_is_made(pumped, test):
    assert "SUBTASKCRASH" not in {name for name, _, _ in flags(pumped, test)}
    folder = pumped / "results" / "D11" / test
    assert (folder / f"{test}_report.pdf").read_bytes().startswith(b"%PDF")
    assert "was not made" not in (folder / f"{test}_report.html").read_text()
    assert len(list((folder / "products").glob("EUC_TRAPS_CCD*.fits"))) == 3


@pytest.mark.parametrize("test", ["TP02", "TP21"])
def test_traps_of_the_register(pumped, test):
    assert ("MISSDATA" in {name for name, _, _ in flags(pumped, test)}) == (test == "TP02")
    traps = table_rows(pumped / "results" / "D11" / test / "tables" / "traps.ecsv")
    assert len(traps) >= 20
    assert all(0 <= t["pc"] <= 1 for t in traps if t["pc"] is not None)
    quantities = {h["quantity"] for h in verdict(pumped, test)["headline"]}
    assert quantities >= {"trap_count", "trap_density", "injection_level"}


def test_the_catalogues_of_two_tests_are_joined(pumped):
    tests = [f"results/D11/{test}" for test in ("TP02", "TP21")]
    done = calcamp("products", "traps", *tests, "--promote", "--json", cwd=pumped)
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout)
    assert summary["found_by_several"] >= 0.6 * summary["traps"]
    traps = read_fits_table(pumped / "calproducts" / "traps" / "EUC_TRAPS_NOSTROMO.fits", "TRAPS")
    status = [s for s, n in zip(traps["status"], traps["n_found"], strict=True) if n == 2]
    # One trap has one emission time, whatever the test.
    assert status.count("differs") <= 0.1 * len(status)


def test_an_area_without_traps(pumped):
    traps = table_rows(pumped / "results" / "D11" / "TP11" / "tables" / "traps.ecsv")
    assert len(traps) <= 8  # a quarter of a false dipole is expected in each of twelve quadrants
    counts = [
        h["value"]
        for h in verdict(pumped, "TP11")["headline"]
        if h["quantity"] == "trap_count" and not h["species"]
    ]
    assert len(counts) == 12
    assert max(counts) <= 3


def test_a_missing_time_and_a_saturated_frame_are_told(pumped):
    found = flags(pumped, "TP11")
    gaps = {
        (s["ccd"], s.get("quadrant"), cause) for name, cause, s in found if name == "MISSDATA" and "ccd" in s
    }
    for quadrant in "EF":
        assert (1, quadrant, "mode 123 lacks 200 us") in gaps
        assert (3, quadrant, "mode 123 lacks 1000 us") in gaps
    assert not any(ccd == 2 for ccd, _, _ in gaps)
    saturated = {(s.get("ccd"), s.get("quadrant")) for name, _, s in found if name == "SATURATION"}
    assert {(3, "E"), (3, "F")} <= saturated


def test_masked_pixels_are_not_searched(pumped):
    search = table_rows(pumped / "results" / "D11" / "TP11" / "tables" / "search.ecsv")
    pairs = {(r["ccd"], r["quadrant"]): r["pairs"] for r in search}
    rows = load_detector("ccd273-mini").image_rows - 1
    lost = pairs[2, "F"] - pairs[2, "E"]
    assert lost == pytest.approx((MASKED.stop - MASKED.start) * rows, rel=0.2)
