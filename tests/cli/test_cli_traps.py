"""calcamp products traps: the catalogues of several tests become one table of the block."""

from __future__ import annotations

import json

import numpy as np
import pytest
from tests.analysis.test_trap_catalogue import at, catalogue
from typer.testing import CliRunner

from calcamp.cli.products import app
from calcamp.config.lookup import load_block
from calcamp.data.files import InputError, sha256, write_json
from calcamp.data.fitsfile import read_fits_table, read_header, write_product
from calcamp.data.products import provenance
from calcamp.data.tables import table_rows

SERIALS = {1: "14888-88-81", 2: "14888-88-82"}


def results(folder, session, test, kelvin, tau, serials=SERIALS, block="NOSTROMO"):
    """The results folder of a pumping test with a catalogue per CCD."""
    place = folder / session / test
    (place / "products").mkdir(parents=True)
    products = []
    for ccd, serial in serials.items():
        name = f"EUC_TRAPS_CCD{ccd}_SN_{serial}_{block}.fits"
        made = catalogue(1, kelvin, tau)
        columns = {key: np.array(values) for key, values in made.traps.items()}
        if not len(tau):
            columns |= {"quadrant": np.empty(0, "U8"), "status": np.empty(0, "U8")}
        search = {
            "quadrant": np.array(list("EFGH")),
            **{key: np.full(4, value) for key, value in (("level", 12600.0), ("idl", 11.0), ("pairs", 1000))},
        }
        header = provenance(session=session, block=block, chamber="B", test=test, ccd=ccd, serial=serial)
        header |= {"REGISTER": "parallel", "CCDTEMP": kelvin, "CCDTERR": 0.05}
        write_product(place / "products" / name, header, [], [("TRAPS", columns), ("SEARCH", search)])
        digest = sha256(place / "products" / name)
        products.append(
            {"kind": "traps", "file": f"products/{name}", "ccd": ccd, "serial": serial, "sha256": digest}
        )
    verdict = {
        "block": block,
        "chamber": "B",
        "session": session,
        "test": test,
        "status": "complete",
        "products": products,
    }
    write_json(place / "verdict.json", verdict)
    return str(place)


def join(*arguments):
    return CliRunner().invoke(app, ["traps", *arguments], catch_exceptions=False)


def test_one_table_of_the_block(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    first = results(tmp_path, "D11", "TP01", 153.0, [1000.0, 200.0])
    second = results(tmp_path, "D12", "TP11", 148.0, at(148.0, [1000.0], 0.25))
    done = join(first, second, "--promote", "--json")
    assert done.exit_code == 0, done.output
    summary = json.loads(done.stdout)
    assert (summary["traps"], summary["found_by_several"]) == (4, 2)  # two CCDs
    path = tmp_path / "calproducts" / "traps" / "EUC_TRAPS_NOSTROMO.fits"
    traps = read_fits_table(path, "TRAPS")
    assert traps["ccd"] == [1, 1, 2, 2]
    assert traps["n_found"] == [2, 1, 2, 1]
    assert traps["energy"][0] == pytest.approx(0.25, abs=1e-3)
    assert traps["tau"][0] == pytest.approx(1000.0, rel=1e-3)
    assert len(read_fits_table(path, "TESTS")["test"]) == 16
    assert len(read_fits_table(path, "MEASUREMENTS")["trap"]) == 6
    header = read_header(path)
    assert (header["TEST1"], header["TEST2"]) == ("D11/TP01", "D12/TP11")
    assert load_block("NOSTROMO", tmp_path).product_paths()["traps"] == str(path)
    again = join(first, second)  # the former one is kept
    assert "kept the former one" in again.stdout
    assert "4 traps, 2 found by more than one test" in again.stdout


def test_as_ecsv_and_without_traps(tmp_path):
    folder = results(tmp_path, "D11", "TP01", 153.0, [])
    target = tmp_path / "traps.ecsv"
    assert join(folder, "-o", str(target)).exit_code == 0
    assert table_rows(target) == []
    full = results(tmp_path, "D12", "TP01", 153.0, [500.0])
    join(folder, full, "-o", str(target))
    rows = table_rows(target)
    assert [(r["n_found"], r["n_searched"], r["status_1"], r["status_2"]) for r in rows] == [
        (1, 2, "not found", "ok")
    ] * 2


def test_wrong_input_is_named(tmp_path):
    first = results(tmp_path, "D11", "TP01", 153.0, [500.0])
    other = results(tmp_path, "D12", "TP01", 153.0, [500.0], serials={1: "99999-99-99"})
    block = results(tmp_path, "D13", "TP01", 153.0, [500.0], block="BORN")
    for arguments, message in (
        ((first, other), "serial"),
        ((first, block), "block BORN"),
        ((first, first), "given twice"),
        ((str(tmp_path),), "verdict.json"),
    ):
        with pytest.raises(InputError, match=message):
            join(*arguments, "-o", str(tmp_path / "out.fits"))
    assert not (tmp_path / "out.fits").exists()
