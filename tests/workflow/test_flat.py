"""Flat-light families, run as a user does: data with faults in them, right flags, right numbers from the rest."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
from tests.support import assert_pulls
from tests.workflow.conftest import (
    ROOT,
    SESSION,
    calcamp,
    make_workspace,
    simulate_and_run,
    snakemake,
    verdict,
)

from calcamp.config.lookup import load_block, load_chamber, load_detector
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
    make_workspace(folder)
    name = block_mask(folder)
    session = make_workspace(folder, SESSION.split("tests:")[0] + TESTS.format(mask=name))
    faults = ("--fault", "missing_frame:1003", "--fault", "lamp_off:1009")
    simulate_and_run(session, "--seed", 5, *FAST, *faults)
    return folder


def block_mask(folder, ccd: int = 1) -> str:
    """A mask product of a block of bad pixels (quadrant H), in ``masks/``; its name."""
    detector = load_detector("ccd273-mini")
    serial = load_block("NOSTROMO", folder).serials[f"ccd{ccd}"]
    name = product_name("mask", "NOSTROMO", ccd, serial)
    bad = np.zeros(detector.ccd_shape, int)
    bad[100:140, 200:260] = 1
    (folder / "masks").mkdir(exist_ok=True)
    write_mask(folder / "masks" / name, bad, {"SN": serial, "CCD": f"CCD{ccd}"})
    return name


def truth(folder):
    content = json.loads((folder / "data_truth" / "D11_truth.json").read_text())
    return {(c["ccd"], c["quadrant"]): c for c in content["channels"]}


def rows(folder, test, subject):
    return table_rows(folder / "results" / "D11" / test / "tables" / f"{subject}.ecsv")


def test_gain_is_right_in_spite_of_faults(flats):
    channels = truth(flats)
    found, pulls = rows(flats, "PTC02_730", "ptc"), []
    assert len(found) == 12
    for row in found:
        true = channels[row["ccd"], row["quadrant"]]["gain_e_adu"]
        pulls.append((row["gain"] - true) / row["gain_err"])
        assert row["gain_err"] < 0.004 * true
        well = channels[row["ccd"], row["quadrant"]]["params"]["full_well"]["electrons"] / true
        if not row["turn_off_is_limit"]:
            assert abs(row["turn_off"] - well) < 0.08 * 65536
    assert_pulls(pulls, bias=0.2, what="gain")
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
    light = rows(flats, "FLATFLUX00_730", "illumination")
    assert len(light) == 12 * 64
    assert np.ptp([r["illumination"] for r in light]) == pytest.approx(0.12, abs=0.06)  # a bowl of 8 to 14 %
    command = ("chamber", "set-flux", "B_NOSTROMO", "results/D11/FLATFLUX00_730", "--reason", "test")
    refused = calcamp(*command, cwd=flats)  # the profile that comes with calcamp is not edited
    assert refused.returncode == 2
    assert "workspace" in refused.stderr
    (flats / "config" / "chambers").mkdir()
    shutil.copy(ROOT / "config" / "chambers" / "B_NOSTROMO.yaml", flats / "config" / "chambers")
    done = calcamp(*command, cwd=flats)
    assert done.returncode == 0, done.stderr
    mean = np.mean([item["value"] for item in times])
    assert load_chamber("B_NOSTROMO", flats).t_flat(730) == pytest.approx(mean, rel=1e-4)


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
        ("FLATFLUX00_730", ("flux_levels", "flux_illumination")),
    ):
        folder = flats / "results" / "D11" / test
        assert (folder / f"{test}_report.pdf").stat().st_size > 20_000
        for name in figures:
            assert (folder / "figures" / f"{name}.png").is_file(), f"{test}: {name}"


#: Every other kind of test of the families, with what its verdict must be and figures it must have.
KINDS = {
    "PTC01": ("pass", "ptc_curve ptc_tiles ptc_turn_off ptc_her", ""),
    "PTC02_148K": ("pass", "ptc_curve", ""),
    "PTC02_155R": ("pass", "ptc_curve", ""),
    "NL01": ("pass", "nl_curve nl_lamp", ""),
    "NL02_160R": ("pass", "nl_curve nl_lamp", "NL_DEGENERATE"),
    "FLAT01": ("pass", "flat_small_col001 flat_small_col003 flat_prnu flat_split", ""),
    "FLAT02_590": ("pass", "flat_small_col001 flat_small_col002 flat_split", ""),
}


@pytest.mark.parametrize("test", list(KINDS))
def test_every_kind_of_test_runs(test, tmp_path):
    """Raw frames to PDF at mini size; FLAT02 writes its individual flats too."""
    options = "{do: all, options: {indivflats: {write: true}}}" if test.startswith("FLAT02") else "{do: all}"
    session = make_workspace(tmp_path, SESSION.split("tests:")[0] + f"tests:\n  {test}: {options}\n")
    simulate_and_run(session, "--seed", 9, "--set", "flat.steps=1", "--jobs", 2)
    wanted, figures, note = KINDS[test]
    found = verdict(tmp_path, test)
    assert (found["status"], found["verdict"]) == ("complete", wanted), found["flags"]
    assert note in " ".join(f["cause"] for f in found["flags"])
    folder = tmp_path / "results" / "D11" / test
    assert (folder / f"{test}_report.pdf").stat().st_size > 20_000
    for name in figures.split():
        assert (folder / "figures" / f"{name}.png").is_file(), name
    if test.startswith("FLAT02"):
        written = list(
            (folder / "ccd1" / "indivflats" / "products").glob("EUC_FF_590nm_col*_ROE1_1*_CCD1.fits")
        )
        assert len(written) == 110


def test_non_linearity_and_flats_with_faults(tmp_path):
    """NL01 and FLAT_STB: lost and dark exposures, a CCD missing, a file cut short, a mask, a shutter of 1 ms jitter."""
    make_workspace(tmp_path)
    name = block_mask(tmp_path)
    entry = f"{{do: all, products: {{mask: {{1: masks/{name}}}}}}}"
    text = SESSION.split("tests:")[0] + f"tests:\n  NL01: {entry}\n  FLAT_STB: {entry}\n"
    session = make_workspace(tmp_path, text)
    faults = "missing_frame:1020 lamp_off:1046 missing_fits:1060:2 missing_frame:1091 lamp_off:1095 truncated:1098:3"
    options = [x for fault in faults.split() for x in ("--fault", fault)]
    options += ["--set", "flat.steps=1", "--set", "flat.shutter_jitter=1e-3", "--jobs", 2]
    simulate_and_run(session, "--seed", 25, *options)
    channels = truth(tmp_path)
    for test, dark in (("NL01", 1046), ("FLAT_STB", 1095)):
        found = verdict(tmp_path, test)
        assert "MISSDATA" in {f["name"] for f in found["flags"]}
        assert any(e["obsid"] == dark and "lamp off" in e["cause"] for e in found["excluded"]), found[
            "excluded"
        ]
    shutter = rows(tmp_path, "NL01", "shutter")[0]
    assert abs(shutter["t0"] - channels[1, "E"]["params"]["flat"]["t0"]) < 4 * shutter["t0_err"]
    curves = rows(tmp_path, "NL01", "nl_curve")
    for (ccd, quadrant), c in channels.items():
        own = [r for r in curves if (r["ccd"], r["quadrant"]) == (ccd, quadrant) and r["signal"] > 1300]
        assert own
        scale, x = c["params"]["nonlinearity"]["scale"], np.linspace(0, 1, 4001)
        z = scale * x * (0.5 + x * (-0.3 + x * 0.6)) / 100
        measured = 65536 * x * (1 + z)
        gauge = np.interp(16384, measured, x * 65536) / 16384
        for r in own:
            true = 100 * (r["signal"] / np.interp(r["signal"], measured, x * 65536) * gauge - 1)
            assert abs(r["nonlinearity"] - true) < 5 * r["nonlinearity_err"] + 0.01
    for row in rows(tmp_path, "FLAT_STB", "prnu"):
        assert row["prnu"] == pytest.approx(np.hypot(0.6, 0.05), abs=0.02)
        assert row["frames"] == (12 if row["ccd"] == 3 else 13)


def test_masks_change_data_quality_and_robust_statistics_only(tmp_path):
    """FLAT_STB, PTC02 and NL01 without and with a mask of CCD1: CCD2 and CCD3 to the last digit, CCD1 within its errors."""
    make_workspace(tmp_path)
    names = ("FLAT_STB", "PTC02_730", "NL01")
    plain = SESSION.split("tests:")[0] + "tests:\n" + "".join(f"  {n}: {{do: all}}\n" for n in names)
    session = make_workspace(tmp_path, plain)
    made = ("--seed", 12, "--set", "flat.steps=1", "--jobs", 2)
    simulate_and_run(session, *made)
    subjects = {
        "FLAT_STB": {"prnu": ("prnu",), "flat_frames": ("signal",)},
        "PTC02_730": {"ptc": ("gain", "a00", "a01"), "ptc_pairs": ("variance",)},
        "NL01": {"nl_frames": ("signal",)},
    }
    before = {(t, s): rows(tmp_path, t, s) for t, tables in subjects.items() for s in tables}
    raw = {t: rows(tmp_path, t, "offsets") for t in subjects}
    name = block_mask(tmp_path)
    session.write_text(plain.replace("{do: all}", f"{{do: all, products: {{mask: {{1: masks/{name}}}}}}}"))
    run = snakemake("-c2", cwd=tmp_path)
    assert run.returncode == 0, run.stdout + run.stderr
    for (test, subject), was in before.items():
        now = rows(tmp_path, test, subject)
        assert len(now) == len(was)
        for old, new in zip(was, now, strict=True):
            if old["ccd"] != 1:
                assert new == old
                continue
            if old.get("flag") or (subject == "ptc_pairs" and old["mu"] > 45_000):
                continue  # near the full well tiles and pixels come or go with the saturated ones
            if old["quadrant"] == "H" and "n" in old and subject != "ptc":
                assert new["n"] < old["n"]
            for quantity in subjects[test][subject]:
                # the pixels are the same but for 0.9 % of one quadrant, and so is the light they lie in
                light = 1e-4 * old[quantity] if quantity == "signal" else 0.0
                allowed = 0.6 * old[f"{quantity}_err"] + light + 1e-12
                assert new[quantity] == pytest.approx(old[quantity], abs=allowed), (test, subject)
    for test, was in raw.items():
        assert "mask" in verdict(tmp_path, test)["products_used"]
        others = [r for r in rows(tmp_path, test, "offsets") if r["ccd"] != 1]
        assert others == [r for r in was if r["ccd"] != 1]


def test_saturated_levels_of_flats(tmp_path):
    """A gain of 1 e-/ADU: two levels of FLATFLUX00 saturate and are told, the others suffice; FLAT_STB has no usable frame."""
    tests = "tests:\n  FLATFLUX00_730: {do: all}\n  FLAT_STB: {do: all}\n"
    session = make_workspace(tmp_path, SESSION.split("tests:")[0] + tests)
    made = ("--seed", 5, "--set", "flat.steps=1", "--set", "gain.gain=1.0", "--jobs", 2)
    simulate_and_run(session, *made)
    found = verdict(tmp_path, "FLATFLUX00_730")
    assert "SATURATION" in {f["name"] for f in found["flags"]}
    times = [h["value"] for h in found["headline"] if h["quantity"] == "saturation_time"]
    assert np.mean(times) == pytest.approx(3.6 / 3.45, rel=0.02)
    levels = rows(tmp_path, "FLATFLUX00_730", "flux_levels")
    assert {r["obsid"] for r in levels if r["used"]} == {1000, 1001}
    assert (tmp_path / "results/D11/FLATFLUX00_730/FLATFLUX00_730_report.pdf").stat().st_size > 20_000
    found = verdict(tmp_path, "FLAT_STB")
    assert (found["status"], found["verdict"]) == ("complete", "fail")
    assert {"SATURATION", "BADDATAPROD"} <= {f["name"] for f in found["flags"]}
    assert all(h["value"] is None for h in found["headline"] if h["quantity"] == "prnu")
    assert all(r["flag"] == "no usable frame" for r in rows(tmp_path, "FLAT_STB", "prnu"))


def test_flat_functional_test(tmp_path):
    """MOT_FF alone: its frames are those of the short PTC01; coefficients, converter and edge, to the PDF."""
    session = make_workspace(tmp_path, SESSION.split("tests:")[0] + "tests:\n  MOT_FF: {do: all}\n")
    made = ("--seed", 14, "--set", "flat.steps=8", "--set", "nonlinearity.scale=0", "--jobs", 2)
    simulate_and_run(session, *made)
    found = verdict(tmp_path, "MOT_FF")
    assert (found["status"], found["verdict"]) == ("complete", "pass"), found["flags"]
    assert found["frames"] == {"declared": 10, "found": 10, "used": 10}
    channels = truth(tmp_path)
    a, edge = [], []
    for row in rows(tmp_path, "MOT_FF", "bf"):
        made = channels[row["ccd"], row["quadrant"]]["params"]["flat"]["a"]
        a += [(row["a01"] - made[1][0]) / row["a01_err"], (row["a10"] - made[0][1]) / row["a10_err"]]
    assert_pulls(a, what="a01, a10")
    for row in rows(tmp_path, "MOT_FF", "her"):
        if row["edge"] == "serial":
            c = channels[row["ccd"], row["quadrant"]]
            h = c["params"]["hard_edge"]
            share = np.exp(-np.arange(20) / h["length"])
            late = h["deferred"] * (1 - np.exp(-32768 * c["gain_e_adu"] / h["deferred_scale"])) / share.sum()
            made = h["kernel"][0] + late / (32768 * c["gain_e_adu"])
            edge.append((row["her"] - made) / row["her_err"])
    assert abs(np.mean(edge)) < 1.5
    codes = rows(tmp_path, "MOT_FF", "adc")
    assert len(codes) == 12
    assert all(r["missing_codes"] == 0 and r["n"] > 1000 and abs(r["worst_significance"]) < 6 for r in codes)
    folder = tmp_path / "results" / "D11" / "MOT_FF"
    assert (folder / "MOT_FF_report.pdf").stat().st_size > 20_000
    for name in ("bf_kernel", "bf_width", "adc_bits", "ptc_her"):
        assert (folder / "figures" / f"{name}.png").is_file(), name


@pytest.mark.full
def test_non_linearity_end_to_end(tmp_path):
    """NL02 with its correction product, applied to PTC02: the gain comes right."""
    session = make_workspace(
        tmp_path, SESSION.split("tests:")[0] + "tests:\n  NL02: {do: all}\n  PTC02_730: {do: all}\n"
    )
    simulate_and_run(session, "--seed", 6, "--set", "flat.steps=4", "--jobs", 2)
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
        assert 0 < row["gain_err_linearity"] < row["gain_err"]
        assert row["gain"] != raw[row["ccd"], row["quadrant"]]["gain"]
    # The part from linearity is common to the channels and moves the mean; it is the smaller part of the errors.
    assert_pulls(deviations, bias=0.5, what="gain behind NL02")
    gains = {(r["ccd"], r["quadrant"]): r["gain"] for r in rows(tmp_path, "PTC02_730", "ptc")}
    tiles = [r for r in rows(tmp_path, "PTC02_730", "ptc_tiles") if r["gain"] is not None]
    pulls = [(r["gain"] - gains[r["ccd"], r["quadrant"]]) / r["gain_err"] for r in tiles]
    assert_pulls(pulls, excess=0.05, bias=0.1, what="gain of tiles behind NL02")


@pytest.mark.full
def test_brighter_fatter_reads_the_rows_of_its_surrogate(tmp_path):
    """BF01_730 on the frames of PTC02_730, one lost, one dark, CCD1 with a mask: coefficients and what the correction leaves."""
    make_workspace(tmp_path)
    name = block_mask(tmp_path)
    entry = f"{{do: all, products: {{mask: {{1: masks/{name}}}}}}}"
    text = SESSION.split("tests:")[0] + f"tests:\n  PTC02_730: {{do: [check]}}\n  BF01_730: {entry}\n"
    session = make_workspace(tmp_path, text)
    fast = ("--set", "flat.steps=8", "--set", "nonlinearity.scale=0", "--jobs", 2)
    fast += ("--fault", "missing_frame:1003", "--fault", "lamp_off:1009")
    simulate_and_run(session, "--seed", 8, *fast)
    found = verdict(tmp_path, "BF01_730")
    assert "MISSDATA" in {f["name"] for f in found["flags"]}
    assert any(e["obsid"] == 1009 and "lamp off" in e["cause"] for e in found["excluded"])
    checked = rows(tmp_path, "BF01_730", "bf_check")
    tops = {(r["ccd"], r["quadrant"]): r["turn_off"] for r in rows(tmp_path, "BF01_730", "bf")}
    assert all(r["signal"] < tops[r["ccd"], r["quadrant"]] for r in checked)  # nothing that is saturated
    window = max(r["n"] for r in checked if r["ccd"] == 2)
    assert all(r["n"] < window for r in checked if (r["ccd"], r["quadrant"]) == (1, "H"))
    channels, pulls = truth(tmp_path), []
    for row in rows(tmp_path, "BF01_730", "bf"):
        a = channels[row["ccd"], row["quadrant"]]["params"]["flat"]["a"]
        lags = {"a01": a[1][0], "a10": a[0][1], "a11": a[1][1]}
        pulls += [(row[n] - made) / row[f"{n}_err"] for n, made in lags.items()]
    assert_pulls(pulls, bias=0.2, what="a01, a10, a11")
    left = [r["rho01_after"] / r["rho01_after_err"] for r in checked]
    assert abs(np.mean(left)) < 4 / np.sqrt(len(left)) + 0.3
    for name in ("bf_rho01", "bf_width", "bf_image", "bf_kernel", "bf_boundaries"):
        assert (tmp_path / "results" / "D11" / "BF01_730" / "figures" / f"{name}.png").is_file()
    for row in rows(tmp_path, "BF01_730", "bf"):
        assert 7 < row["fwhm_x"] < row["fwhm_y"] < 11  # um; Niemi et al. 2015: 8.4 and 8.7 at 730 nm
        assert 0 < row["fwhm_x_slope"] < 1.0
