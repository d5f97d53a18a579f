"""Cross-talk of several wavelengths joined: the command, its files, and the requirement judged on the means."""

from __future__ import annotations

import json

import numpy as np
import pytest

from calcamp.analysis.crosstalk import CHANNELS
from calcamp.data.files import sha256
from calcamp.data.fitsfile import write_product
from calcamp.data.products import crosstalk_images, load_crosstalk, provenance
from calcamp.data.tables import table_rows

ERR = 2.3e-6  # of one wave


def truth():
    """All that is allowed: one dominant coupling per victim within 6e-4, the others within 7.6e-5."""
    c = 1e-5 * np.random.default_rng(1).standard_normal((12, 12))
    c[CHANNELS.index("1G"), CHANNELS.index("3F")] = 5.7e-4
    c[CHANNELS.index("2H"), CHANNELS.index("3F")] = -6.6e-5
    np.fill_diagonal(c, np.nan)
    return c


def make_test(folder, wave, c, rng, block="NOSTROMO", **more):
    """Results folder of PSF01 at a wavelength, as far as the command looks at it."""
    path = folder / f"PSF01_{wave}" / "block" / "EUC_CROSSTALK.fits"
    path.parent.mkdir(parents=True)
    err = np.full((12, 12), ERR) * rng.uniform(0.9, 1.2, (12, 12))
    measured = c + err * rng.standard_normal((12, 12))
    cards = provenance(session="D21", block=block, chamber="B", test=f"PSF01_{wave}")
    write_product(path, cards, crosstalk_images(measured, np.where(np.isfinite(c), err, np.nan)))
    cells = [
        {"check": "crosstalk_largest", "high": 6.0e-4},
        {"check": "crosstalk_second", "high": 7.6e-5},
    ]
    verdict = {
        "session": "D21",
        "test": f"PSF01_{wave}",
        "block": block,
        "chamber": "B_NOSTROMO",
        "status": "complete",
        "compliance": cells,
        "products": [
            {"kind": "crosstalk", "file": "block/EUC_CROSSTALK.fits", "sha256": sha256(path), "ccd": None}
        ],
    }
    (folder / f"PSF01_{wave}" / "verdict.json").write_text(json.dumps({**verdict, **more}))
    return folder / f"PSF01_{wave}"


@pytest.fixture
def waves(tmp_path):
    rng = np.random.default_rng(3)
    return [make_test(tmp_path, wave, truth(), rng) for wave in (590, 730, 800, 880)]


def test_four_waves_meet_the_requirement(calcamp, waves, tmp_path):
    done = calcamp("products", "crosstalk", *waves, "--json", cwd=tmp_path)
    assert done.code == 0, done.out + done.err
    told = json.loads(done.out)
    assert told["ok"]
    assert told["violators"] == told["unmeasured"] == told["differing"] == []
    assert told["median_err"] < 1.5 * 1.1e-6  # spec 5.1: four waves
    mean, err = load_crosstalk(tmp_path / told["product"])
    pulls = ((mean - truth()) / err)[~np.eye(12, dtype=bool)]
    assert abs(pulls.mean()) < 0.29
    assert 0.81 < pulls.std() < 1.21  # 132 pairs, 99.9 %
    rows = table_rows(tmp_path / "crosstalk" / "crosstalk.ecsv")
    assert len(rows) == 132
    assert all(row["n"] == 4 for row in rows)
    assert (tmp_path / "crosstalk" / "crosstalk_NOSTROMO.pdf").stat().st_size > 20_000


def test_exactly_the_seeded_violators(calcamp, tmp_path):
    seeded = {("1E", "2E", "largest"): 8e-4, ("1F", "2E", "second"): 1.2e-4, ("3G", "1H", "second"): -8.6e-5}
    c = truth()
    for (source, victim, _), value in seeded.items():
        c[CHANNELS.index(source), CHANNELS.index(victim)] = value
    c[CHANNELS.index("2F"), CHANNELS.index("1H")] = 3e-4  # dominant and allowed
    rng = np.random.default_rng(4)
    waves = [make_test(tmp_path, wave, c, rng) for wave in (590, 730, 800, 880)]
    done = calcamp("products", "crosstalk", *waves, "--json", "--into", "joined", "--no-report", cwd=tmp_path)
    assert done.code == 1
    told = json.loads(done.out)
    assert {(v["source"], v["victim"], v["requirement"]) for v in told["violators"]} == set(seeded)
    text = calcamp("products", "crosstalk", *waves, "--into", "joined", "--no-report", cwd=tmp_path)
    assert "1E -> 2E" in text.out
    assert "NOT met" in text.out


def test_a_ghost_of_one_wavelength_is_named(calcamp, waves, tmp_path):
    rng = np.random.default_rng(5)
    c = truth()
    c[CHANNELS.index("1E"), CHANNELS.index("2G")] += 3e-5
    ghost = make_test(tmp_path / "more", 590, c, rng)
    done = calcamp("products", "crosstalk", ghost, *waves[1:], "--json", "--no-report", cwd=tmp_path)
    assert json.loads(done.out)["differing"] == ["1E>2G"]


def test_promoted_product_stands_in_the_block(calcamp, waves, tmp_path):
    done = calcamp("products", "crosstalk", *waves, "--promote", "--no-report", cwd=tmp_path)
    assert done.code == 0, done.err
    block = (tmp_path / "config" / "blocks" / "NOSTROMO.yaml").read_text()
    assert "crosstalk:" in block
    listed = json.loads(calcamp("products", "list", "NOSTROMO", "--json", cwd=tmp_path).out)
    assert any(row["kind"] == "crosstalk" and row["found"] for row in listed)


def test_what_cannot_be_joined(calcamp, waves, tmp_path):
    other = make_test(tmp_path / "other", 590, truth(), np.random.default_rng(6), block="HAL")
    changed = make_test(tmp_path / "changed", 590, truth(), np.random.default_rng(7))
    (changed / "block" / "EUC_CROSSTALK.fits").open("ab").write(b" ")
    none = make_test(tmp_path / "none", 590, truth(), np.random.default_rng(8), products=[])
    for tests, word in (
        ((waves[0],), "one test"),
        ((waves[0], waves[0]), "twice"),
        ((waves[1], other), "blocks HAL and NOSTROMO"),
        ((waves[1], changed), "changed since"),
        ((waves[1], none), "made no crosstalk"),
        ((waves[1], tmp_path), "no verdict.json"),
    ):
        done = calcamp("products", "crosstalk", *tests, cwd=tmp_path)
        assert done.code == 2, tests
        assert word in done.err
        assert "Traceback" not in done.err
