"""Cross-talk of the bench: frames with steps of charge in one channel, the command and its files."""

from __future__ import annotations

import json

import numpy as np
import pytest

from calcamp.analysis import crosstalk_bench as bench
from calcamp.analysis.crosstalk import CHANNELS
from calcamp.cli.roetab import find_frames, read_catalogue
from calcamp.config.lookup import load_detector
from calcamp.data.files import InputError
from calcamp.data.products import load_crosstalk
from calcamp.data.raw import write_raw
from calcamp.data.tables import table_rows
from calcamp.detector.arrays import assemble
from support import assert_pulls

LEVELS = (0.0, 700.0, 5200.0, 13000.0, 24000.0, 37000.0, 52000.0)


def charge(rng, shape, columns):
    """Steps of charge down the rows of a channel, each pixel with the noise of its injection, ADU."""
    steps = np.repeat(LEVELS, int(np.ceil(shape[0] / len(LEVELS))))[: shape[0]]
    out = np.zeros(shape)
    out[:, :columns] = steps[:, None] + np.sqrt(steps)[:, None] * rng.standard_normal((shape[0], columns))
    return out


def frame(rng, source, c, shape, columns, late=0.0):
    """Twelve channels, ADU: offset with a drift of the rows, noise, charge in the source and what it leaves in the others."""
    light = charge(rng, shape, columns)
    later = np.roll(light, 1, axis=1)
    out = []
    for v in range(12):
        drift = 2800 + 0.5 * np.sin(np.arange(shape[0]) / 40 + v)[:, None]
        signal = light if v == source else c[source, v] * ((1 - late) * light + late * later)
        out.append(np.rint(drift + signal + 1.3 * rng.standard_normal(shape)))
    return out


def couplings(rng):
    c = 5e-6 * rng.standard_normal((12, 12))
    c[0, 4], c[1, 4], c[6, 0] = 8e-4, 1.1e-4, -3e-4
    np.fill_diagonal(c, 0.0)
    return c


def test_lines_of_the_victims():
    """A sixteenth of a quadrant: pulls of 132 pairs, errors in proportion to those of the full size."""
    rng = np.random.default_rng(1)
    c, shape, columns = couplings(rng), (526, 583), 440
    pulls, errors = [], []
    for source in range(12):
        raw = frame(rng, source, c, shape, columns)
        levels = [bench.above_background(q, 450, shape[1] - 20)[:, 1:columns] for q in raw]
        steps = bench.measure_steps(levels, source, 113)
        assert steps.level == pytest.approx(LEVELS, abs=25)
        found = bench.fit_steps(steps, source)
        assert not found.reason
        others = [v for v in range(12) if v != source]
        pulls += list(((found.coefficient - c[source]) / found.err)[others])
        errors += list(found.err[others])
        assert np.nanmax(np.abs(found.quadratic / found.quadratic_err)) < 4.5
    assert_pulls(pulls, excess=0.1, what="lines")
    assert (
        np.median(errors) < 4 * 1.4e-7 * 2
    )  # 1.4e-7 at full size, four times that on a sixteenth; as a gate twice
    assert 65536 * np.median(errors) < 0.15  # the predecessor's unit


def test_a_bent_coupling_is_seen():
    rng = np.random.default_rng(2)
    c, shape, columns = couplings(rng), (526, 583), 440
    raw = frame(rng, 0, c, shape, columns)
    light = raw[0] - 2800.0
    raw[7] = np.rint(raw[7] + rng.uniform(-0.5, 0.5, shape) + 1e-9 * light**2)
    levels = [bench.above_background(q, 450, shape[1] - 20)[:, 1:columns] for q in raw]
    found = bench.fit_steps(bench.measure_steps(levels, 0, 113), 0)
    assert found.quadratic[7] == pytest.approx(1e-9, rel=0.1)
    assert found.chi2_dof[7] > 10
    assert found.err[7] > 3 * found.err[8]  # a line is not what is there: its error says so


def test_what_comes_late_at_the_edges_is_left_out():
    """Steps along the columns: pixels within two of a step do not count."""
    rng = np.random.default_rng(3)
    steps = np.repeat([0.0, 20000.0, 40000.0], 150)
    light = np.broadcast_to(steps, (200, 450))
    victim = 3e-4 * np.roll(light, 1, axis=1)
    channels = [
        light + rng.standard_normal(light.shape) if v == 0 else victim + rng.standard_normal(light.shape)
        for v in range(12)
    ]
    made = bench.measure_steps(channels, 0, 400)
    assert made.n.max() <= 200 * 148
    found = bench.fit_steps(made, 0)
    assert found.coefficient[3] == pytest.approx(3e-4, abs=4 * found.err[3])


def test_no_charge_has_a_reason():
    dark = [np.random.default_rng(4).standard_normal((100, 100)) for _ in range(12)]
    assert "100 ADU" in bench.fit_steps(bench.measure_steps(dark, 0, 100), 0).reason


# ---- the command ----------------------------------------------------------------------------------------------
@pytest.fixture
def run(tmp_path):
    """(catalogue, data folder, couplings) of three sources on mini CCDs."""
    rng = np.random.default_rng(5)
    detector = load_detector("ccd273-mini")
    shape, c = (detector.rows, detector.columns), couplings(rng)
    data = tmp_path / "data"
    data.mkdir()
    lines = ["CHANNELS,OBSID"]
    for n, source in enumerate(("1E", "1F", "2G")):
        raw = frame(rng, CHANNELS.index(source), c, shape, 440)
        for ccd in (1, 2, 3):
            quadrants = {q: raw[CHANNELS.index(f"{ccd}{q}")].clip(0, 65535).astype(np.uint16) for q in "EFGH"}
            name = f"EUC_{500 + n}_120319D0700{n:02d}T_ROE1_CCD{ccd}.fits"
            write_raw(data / name, assemble(quadrants, detector), {})
        lines.append(f"{source},{500 + n}")
    catalogue = tmp_path / "ROE_TAB.csv"
    catalogue.write_text("\n".join(lines) + "\n")
    return catalogue, data, c


def test_bench_run_to_its_report(calcamp, run, tmp_path):
    catalogue, data, c = run
    asked = ("products", "roetab", catalogue, data, "--block", "NOSTROMO", "--detector", "ccd273-mini")
    done = calcamp(*asked, "--json", cwd=tmp_path)
    assert done.code == 1, done.err  # 1E > 2E is beyond the requirement
    told = json.loads(done.out)
    assert {(v["source"], v["victim"], v["requirement"]) for v in told["violators"]} == {
        ("1E", "2E", "largest"),
        ("1F", "2E", "second"),
    }
    matrix, err = load_crosstalk(tmp_path / told["product"])
    for source in (0, 1, 6):
        others = [v for v in range(12) if v != source]
        assert np.abs((matrix[source] - c[source]) / err[source])[others].max() < 4.5
    assert np.isnan(matrix[2]).all()
    assert len(table_rows(tmp_path / "roetab" / "crosstalk.ecsv")) == 33
    assert len(table_rows(tmp_path / "roetab" / "steps.ecsv")) == 3 * 12 * len(LEVELS)
    assert (tmp_path / "roetab" / "crosstalk_bench_NOSTROMO.pdf").stat().st_size > 20_000
    again = calcamp(*asked, "--no-report", "--against", told["product"], cwd=tmp_path)
    assert "33 pairs, rms difference 0.00 ADU" in again.out


def test_what_cannot_be_read(calcamp, run, tmp_path):
    catalogue, data, _ = run
    for text, word in (
        ("SOURCE OBSID\n1E 500\n", "no column CHANNELS"),
        ("CHANNELS OBSID\n4E 500\n", "4E 500"),
        ("CHANNELS OBSID\n1E 500\n1E 501\n", "given twice"),
        ("CHANNELS;OBSID\n", "names no exposure"),
        ("CHANNELS\tOBSID\n1E\t777\n", "no frame of OBSID 777"),
    ):
        catalogue.write_text(text)
        done = calcamp("products", "roetab", catalogue, data, "--block", "NOSTROMO", cwd=tmp_path)
        assert done.code == 2
        assert word in done.err
        assert "Traceback" not in done.err
    catalogue.write_text("# bench of March\n CHANNELS  OBSID\n 1E 500\n")
    assert read_catalogue(catalogue) == {"1E": 500}
    with pytest.raises(InputError, match="CCD1 and CCD2 and CCD3"):
        find_frames(tmp_path, 500)
