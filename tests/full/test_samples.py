"""DARK01 of the sample data, full size, made by others: from a session YAML to the PDF, against its truth."""

from __future__ import annotations

import json
import math

import pytest
from tests.workflow.conftest import ROOT, snakemake

from calcamp.data.tables import table_rows

SAMPLES = ROOT.parent / "shared" / "samples" / "full-size"
pytestmark = [
    pytest.mark.full,
    pytest.mark.samples,
    pytest.mark.skipif(not SAMPLES.is_dir(), reason="no sample data beside the repository"),
]

SESSION = f"""\
session: D11
block: NOSTROMO
mode: aim
data: {{root: {SAMPLES}, day_folders: [12_Mar_19]}}
results: results
tests:
  DARK01: {{do: all, obsids: [17200, 17203]}}
"""


@pytest.fixture(scope="module")
def truth() -> dict:
    return json.loads((SAMPLES / "truth.json").read_text())


@pytest.fixture(scope="module")
def results(tmp_path_factory, truth):
    """The sample's session, run with the gains of its truth in the block file."""
    folder = tmp_path_factory.mktemp("samples")
    (folder / "config" / "blocks").mkdir(parents=True)
    gains = {
        int(ccd[3:]): {q: values["gain_e_per_adu"] for q, values in quadrants.items()}
        for ccd, quadrants in truth["quadrants"].items()
    }
    block = (ROOT / "config" / "blocks" / "NOSTROMO.yaml").read_text()
    (folder / "config" / "blocks" / "NOSTROMO.yaml").write_text(
        block + f"products:\n  gain: {gains}\n".replace("'", "")
    )
    (folder / "D11.yaml").write_text(SESSION)
    run = snakemake("-c2", cwd=folder)
    assert run.returncode == 0, run.stdout + run.stderr
    return folder / "results" / "D11" / "DARK01"


def test_report_and_verdict(results):
    assert (results / "DARK01_report.pdf").read_bytes().startswith(b"%PDF")
    judged = json.loads((results / "verdict.json").read_text())
    assert judged["frames"] == {"declared": 4, "found": 4, "used": 4}
    # The serials in the log are test names: said, and nothing stops.
    assert "MISSDATA" in {f["name"] for f in judged["flags"]}


def test_offsets_and_noise(results, truth):
    rows = [r for r in table_rows(results / "tables" / "offsets.ecsv") if r["region"] == "pre"]
    assert len(rows) == 48
    for row in rows:
        true = truth["quadrants"][f"CCD{row['ccd']}"][row["quadrant"]]
        drift = 0.3 * math.sin(2 * math.pi * row["obsid"] / 9 + row["ccd"])
        assert abs(row["offset"] - true["offset_adu"] - drift) < 0.05
    for ccd in (1, 2, 3):
        for quadrant in "EFGH":
            noise = [r["noise"] for r in rows if (r["ccd"], r["quadrant"]) == (ccd, quadrant)]
            true = truth["quadrants"][f"CCD{ccd}"][quadrant]["read_noise_adu_before_adc"]
            assert abs(sum(noise) / len(noise) / true - 1) < 0.01


def test_image_level(results, truth):
    bump = 0.6 * (0.05 * (1 - math.exp(-20)) + 0.5 / 12)  # its mean over the image area
    for row in table_rows(results / "tables" / "frames.ecsv"):
        true = truth["quadrants"][f"CCD{row['ccd']}"][row["quadrant"]]
        dark = truth["dark_e_per_pixel_per_s"] * truth["exptime_s"] / true["gain_e_per_adu"]
        assert abs(row["level_image"] - truth["image_minus_prescan_adu"] - bump - dark) < 0.05


def test_hot_pixels(results, truth):
    found = {
        (r["ccd"], r["quadrant"], r["row"], r["column"]): r
        for r in table_rows(results / "tables" / "hot_pixels.ecsv")
    }
    for ccd, quadrants in truth["quadrants"].items():
        for quadrant, true in quadrants.items():
            for row, column, tenths in true["hot_pixels_row_col_in_image_area_and_tenths_of_e_per_s"]:
                if tenths < 50:
                    continue
                item = found[int(ccd[3:]), quadrant, row, column]
                assert abs(item["rate_adu"] / (tenths / 10 / true["gain_e_per_adu"]) - 1) < 0.05
                assert abs(item["rate_e"] / (tenths / 10) - 1) < 0.05


def test_dark_current_says_that_no_bias_was_given(results, truth):
    true = truth["dark_e_per_pixel_per_s"] * 3600
    for row in table_rows(results / "tables" / "dark.ecsv"):
        assert row["systematic"] > 10 * row["dark_current_err"]
        assert abs(row["dark_current"] - true) < 2 * row["systematic"]
        if row["is_limit"]:
            assert row["dark_current_limit95"] > true
