"""``calcamp mask`` and ``calcamp stars`` on simulated frames of one CCD."""

from __future__ import annotations

import json

import numpy as np
import pytest
from tests.workflow.conftest import calcamp

from calcamp.config.lookup import load_chamber, load_detector
from calcamp.data.elvis import SCRIPT_DEFAULTS
from calcamp.data.names import raw_stem
from calcamp.data.products import load_mask
from calcamp.data.raw import write_raw
from calcamp.detector.arrays import quadrant_view
from calcamp.detector.dq import DQ
from calcamp.simulate import Exposure
from calcamp.simulate.plugins.spots import Spots
from calcamp.simulate.scene import Scene, chamber_settings

MINI = load_detector("ccd273-mini")
SETTINGS = {"response.dead": 20, "response.clusters": 1}


@pytest.fixture(scope="module")
def frames(tmp_path_factory):
    """Three biases (1 to 3), three flats (4 to 6) and a frame of spots (7) of CCD1."""
    folder = tmp_path_factory.mktemp("frames")
    chamber = load_chamber("B_NOSTROMO")
    scene = Scene(MINI, 4, {}, {**chamber_settings(chamber, MINI), **SETTINGS})
    flat = {"exptime": 1.75, "shuttr": 1, "wave": 4}
    point = {"exptime": 1.1, "shuttr": 1, "wave": 4, "source": "point", "mirr_on": 1, "mirr_pos": 47.2}
    dark = {"exptime": 0.0, "shuttr": 0, "wave": 4}
    for obsid, keys in enumerate([dark] * 3 + [flat] * 3 + [point], 1):
        exposure = Exposure(obsid, {**SCRIPT_DEFAULTS, **keys}, elapsed_s=100.0 * obsid)
        for ccd, frame, _ in scene.frames(exposure, (1,)):
            write_raw(folder / f"{raw_stem(obsid, exposure.start, ccd)}.fits", frame, [])
    return folder, scene


def request(folder, **changes):
    content = {
        "CCD": "CCD1",
        "sn_ccd": "14888-88-81",
        "tag": "TRY",
        "outpath": "masks",
        "inputs_dkmask": {"OBSID_list": [1, 2, 3], "datapath": "."},
        "inputs_flmask": {"OBSID_list": "flats.txt", "datapath": "."},
        **changes,
    }
    (folder / "flats.txt").write_text("4\n5\n6\n")
    (folder / "mask.json").write_text(json.dumps(content))
    return folder / "mask.json"


def test_masks_without_a_session(frames):
    folder, scene = frames
    done = calcamp("mask", request(folder), "--detector", "ccd273-mini", cwd=folder)
    assert done.returncode == 0, done.stderr
    names = sorted(p.name for p in (folder / "masks").iterdir())
    stem = "TRY_CCD1_SN_14888-88-81.fits"
    assert names == sorted(f"EUC_{kind}_{stem}" for kind in ("DKMASK", "FLMASK", "MASK", "DQ"))
    bits, serial = load_mask(folder / "masks" / f"EUC_DQ_{stem}", MINI)
    assert serial == "14888-88-81"
    image = MINI.region("img", trimmed=False)
    for quadrant in "EFGH":
        truth = scene.channel(1, quadrant)["response"]
        dq = quadrant_view(bits, quadrant, MINI)[image]
        assert (dq[truth["dead_row"], truth["dead_column"]] & np.uint32(DQ.DEAD)).all()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"CCD": 7}, "1, 2 or 3"),
        ({"inputs_dkmask": {"OBSID_list": [99]}}, "OBSID 99"),
        ({"inputs_dkmask": {"OBSIDS": [1]}}, "OBSIDS"),
        ({"doDarkMusk": True}, "doDarkMusk"),
        ({"inputs_dkmask": {"OBSID_list": [1, 2, 3], "thresholds": [1]}}, "[low, high]"),
    ],
)
def test_bad_requests_are_refused(frames, tmp_path, changes, said):
    folder, _ = frames
    changes.get("inputs_dkmask", {}).setdefault("datapath", str(folder))
    done = calcamp("mask", request(tmp_path, **changes), "--detector", "ccd273-mini", cwd=tmp_path)
    assert done.returncode == 2
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_stars_are_found_and_named(frames, tmp_path):
    folder, scene = frames
    image = next(folder.glob("EUC_7_*_CCD1.fits"))
    table = tmp_path / "Pattern_CCD1.txt"
    done = calcamp("stars", image, "--detector", "ccd273-mini", "--into", table, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    found = {
        line.split("\t")[0]: tuple(map(float, line.split("\t")[1:]))
        for line in table.read_text().splitlines()[2:]
    }
    assert len(found) == 20
    for quadrant in "EFGH":
        truth = scene.channel(1, quadrant)
        x, y = truth["spots"]["x"], truth["spots"]["y"]
        assert len(Spots.positions(truth, MINI)[0]) == 5
        for k, spot in enumerate("ABCDE"):
            assert found[quadrant + spot] == pytest.approx((x[k], y[k]), abs=0.5)
    assert table.with_suffix(".reg").read_text().count("color=green") == 20
    again = calcamp("stars", image, "--detector", "ccd273-mini", "--into", table, cwd=tmp_path)
    assert again.returncode == 2
    assert "--replace" in again.stderr


def test_a_frame_without_stars_says_so(frames, tmp_path):
    folder, _ = frames
    image = next(folder.glob("EUC_1_*_CCD1.fits"))
    done = calcamp("stars", image, "--detector", "ccd273-mini", "--into", tmp_path / "P.txt", cwd=tmp_path)
    assert done.returncode == 1
    assert "--identify" in done.stderr
