import math
import zipfile

import numpy as np
import openpyxl
import pytest
from astropy.io import fits
from hypothesis import given, settings
from hypothesis import strategies as st

from calcamp.data import products
from calcamp.data.files import InputError, sha256, write_json
from calcamp.data.fitsfile import write_product
from calcamp.data.products import (
    KINDS,
    Gain,
    check_serial,
    kind_of,
    load_bias,
    load_dark,
    load_flat,
    load_gain,
    load_mask,
    nominal_gain,
    product_info,
    product_name,
    provenance,
    read_xlsx_table,
    refuse_pickle,
    serial_of,
    write_dq,
    write_gain,
    write_gain_xlsx,
    write_mask,
)
from calcamp.detector.dq import DQ

SERIAL = "14471-19-01"


@pytest.fixture
def header():
    return provenance(
        session="D11", block="BORN", chamber="B_BORN", test="BIAS01", obsids=[12, 11], ccd=2, serial=SERIAL,
        inputs={"EUC_11.fits": "ab" * 32}, OFFSET="row pre",
    )  # fmt: skip


@pytest.fixture
def mask(tiny):
    return np.random.default_rng(1).random(tiny.ccd_shape) < 0.1


# ---- names and identity ---------------------------------------------------------------------------
def test_names_of_the_campaign():
    how = {"block": "BORN", "ccd": 2, "serial": SERIAL, "nm": 730, "column": "col002"}
    assert product_name("mask", **how) == "EUC_MASK_BORN_CCD2_SN_14471-19-01.fits"
    assert product_name("dq", **how) == "EUC_DQ_BORN_CCD2_SN_14471-19-01.fits"
    assert product_name("bias", **how) == "EUC_MASTERBIAS_CCD2_SN_14471-19-01_BORN.fits"
    assert product_name("dark", **how) == "EUC_DARK_CCD2_SN_14471-19-01_BORN.fits"
    assert product_name("FF", **how) == "EUC_FF_730nm_col002_ROE1_CCD2.fits"
    for wrong in ({"block": "../x"}, {"block": "BORN", "ccd": 1}, {"block": "a b", "ccd": 1, "serial": "x"}):
        with pytest.raises(ValueError, match="the name of a mask product needs"):
            product_name("mask", **wrong)
    with pytest.raises(InputError, match="no kind of calibration product"):
        kind_of("masks")


def test_every_kind_of_the_campaign_is_known():
    wanted = "mask dq gain flat bias dark linearity bf_kernel crosstalk lock shutter traps"
    assert set(KINDS) == set(wanted.split())


def test_serial_is_found_in_header_or_name():
    for kind in ("mask", "dq", "bias", "dark", "traps"):
        assert serial_of({}, product_name(kind, block="BORN", ccd=1, serial=SERIAL)) == SERIAL
    assert serial_of({"SN": "A"}, f"EUC_MASK_X_CCD1_SN_{SERIAL}.fits") == "A"
    assert serial_of({"CCDSN": "Uknown"}, "EUC_FF_730nm_col001_ROE1_CCD1.fits") == ""


def test_what_a_product_says_about_itself(tmp_path, header, mask):
    path = write_mask(tmp_path / product_name("mask", block="BORN", ccd=2, serial=SERIAL), mask, header)
    info = product_info("mask", path)
    assert (info.kind, info.ccd, info.serial, info.block, info.chamber, info.test) == (
        "mask",
        2,
        SERIAL,
        "BORN",
        "B_BORN",
        "BIAS01",
    )
    assert (info.offset, info.extensions, info.sha256) == ("row pre", ("META", "MASK"), sha256(path))
    assert info.version.startswith("calcamp ")
    assert (info.header["OBSID1"], info.header["OBSID2"], info.header["NOBSID"]) == (11, 12, 2)
    assert (info.header["IN0001"], info.header["SHA0001"]) == ("EUC_11.fits", "ab" * 32)
    assert "header" not in info.as_dict()


def test_serial_check():
    check_serial(SERIAL, f" {SERIAL.lower()} ", "x")
    check_serial("", SERIAL, "x")
    check_serial(SERIAL, None, "x")
    with pytest.raises(InputError) as caught:
        check_serial(SERIAL, "OTHER", "mask.fits", "mask", 2)
    for part in ("mask.fits", SERIAL, "OTHER", "CCD2", "correct the serial in the block file"):
        assert part in str(caught.value)


# ---- masks ----------------------------------------------------------------------------------------
def test_mask_as_the_predecessor_needs_it(tmp_path, tiny, header, mask):
    path = write_mask(
        tmp_path / "EUC_MASK_BORN_CCD2_SN_x.fits", mask * 7, header | {"DKMASK": "a", "FLMASK": "b"}
    )
    with fits.open(path) as hdus:
        assert len(hdus) == 2
        assert hdus[-1].data.dtype == np.dtype(">i4")
        assert np.array_equal(hdus[-1].data, mask)
        assert (hdus[0].header["MASKTYPE"], hdus[0].header["SN"]) == ("COMBO", SERIAL)
    dq, serial = load_mask(path, tiny, SERIAL, 2)
    assert (dq.dtype, serial) == (np.uint32, SERIAL)
    assert np.array_equal(dq, mask * np.uint32(DQ.MASKED))


@settings(max_examples=20)
@given(seed=st.integers(0, 2**32 - 1))
def test_bits_round_trip(tmp_path, tiny, seed):
    bits = np.random.default_rng(seed).integers(0, 2**32, tiny.ccd_shape, dtype=np.uint32)
    path = write_dq(tmp_path / "EUC_DQ_BORN_CCD2_SN_x.fits", bits, {"SN": SERIAL})
    assert np.array_equal(load_mask(path, tiny)[0], bits)
    assert fits.getheader(path, "DQ")["BIT15"] == "CLUSTER"


def test_masks_that_are_refused(tmp_path, tiny, header, mask):
    path = write_mask(tmp_path / "m.fits", mask, header)
    with pytest.raises(InputError, match="serial OTHER"):
        load_mask(path, tiny, "OTHER")
    with pytest.raises(InputError, match="expected 78x38"):
        load_mask(write_mask(tmp_path / "s.fits", mask[:-1], header), tiny)
    parts = [("MASK", mask, ""), ("DEFECTS", mask.astype(np.float32), "")]
    with pytest.raises(InputError, match="merged mask of COSMETICS00"):
        load_mask(write_product(tmp_path / "d.fits", {}, parts), tiny)
    with pytest.raises(InputError, match="cannot be read"):
        load_mask(tmp_path / "none.fits", tiny)


# ---- master images --------------------------------------------------------------------------------
def test_own_master_bias(tmp_path, tiny, header):
    data = np.random.default_rng(2).normal(size=tiny.ccd_shape).astype(np.float32)
    planes = [
        ("STACK", data, "adu"),
        ("ERROR", data * 0.1, "adu"),
        ("COUNT", data > 0, ""),
        ("DQ", (data > 1).astype(np.uint32), ""),
    ]
    path = write_product(tmp_path / "EUC_MASTERBIAS_CCD2_SN_x_BORN.fits", header, planes)
    bias = load_bias(path, tiny, SERIAL, 2)
    assert np.array_equal(bias.data, data)
    assert bias.error is not None
    assert bias.dq.dtype == np.uint32
    assert bias.info.offset == "row pre"
    with pytest.raises(InputError, match="of CCD2; expected CCD1"):
        load_bias(path, tiny, ccd=1)


def test_products_of_the_predecessor(tmp_path, tiny, mask):
    data = np.ones(tiny.ccd_shape, np.float32)
    old = write_product(
        tmp_path / "b.fits",
        {"CCD_SN": SERIAL},
        [("STACK", data, ""), ("STD", data, ""), ("MASK", mask.astype(np.int32), "")],
    )
    bias = load_bias(old, tiny, SERIAL)
    assert bias.error is None
    assert np.array_equal(bias.dq != 0, mask)
    flat = write_product(
        tmp_path / "EUC_FF_730nm_col002_ROE1_CCD3.fits",
        {"WAVEL": "nm730", "CCDSN": "Uknown"},
        [("FLAT", data, ""), ("EFLAT", data, "")],
    )
    found = load_flat(flat, tiny, SERIAL, 3, 730)
    assert (found.info.wavelength, found.info.ccd, found.info.serial) == (730, 3, "")
    with pytest.raises(InputError, match="taken at 730 nm"):
        load_flat(flat, tiny, nm=880)
    dark = write_product(
        tmp_path / "EUC_DK_ROE1_CCD1.fits", {"CCDSN": SERIAL}, [("DARK", data, ""), ("EDARK", data, "")]
    )
    assert load_dark(dark, tiny).info.ccd == 1
    with pytest.raises(InputError, match="no image FLAT"):
        load_flat(dark, tiny)


# ---- gain -----------------------------------------------------------------------------------------
GAINS = st.fixed_dictionaries(
    {(c, q): st.tuples(st.floats(0.5, 20), st.floats(1e-6, 1)) for c in (1, 2, 3) for q in "EFGH"}
)


@settings(max_examples=15)
@given(gains=GAINS)
@pytest.mark.parametrize("ending", [".fits", ".ecsv", ".xlsx", ".json"])
def test_gains_round_trip(tmp_path, ending, gains):
    rows = [
        {"ccd": c, "quadrant": q, "gain": g, "gain_err": e, "alpha": -1e-6, "fqual": 0, "bloom": 6e4}
        for (c, q), (g, e) in gains.items()
    ]
    path = tmp_path / f"PTC02_730_GAIN_TB{ending}"
    if ending == ".xlsx":
        write_gain_xlsx(path, rows, {"BLOCKID": "BORN"}, {"TEST": "PTC02_730"})
    elif ending == ".json":
        write_json(path, {f"CCD{c}": {q: gains[c, q] for q in "EFGH"} for c in (1, 2, 3)})
    else:
        write_gain(path, rows, {"BLOCKID": "BORN"})
    back = load_gain(path)
    assert set(back) == set(gains)
    for key, (value, err) in gains.items():
        assert back[key] == pytest.approx((value, err), rel=1e-12)


def test_layout_of_the_old_workbook(tmp_path):
    path = tmp_path / "PTC02_730_GAIN_TB.xlsx"
    write_gain_xlsx(path, [{"ccd": 1, "quadrant": "G", "gain": 3.5}], {"BLOCKID": "=cmd()"}, {"a": 1})
    book = openpyxl.load_workbook(path)
    assert book.sheetnames == ["Header", "Meta", "GAIN_TB"]
    assert (book["Header"]["A1"].value, book["Header"]["A5"].value, book["Header"]["B5"].value) == (
        "Header",
        "BLOCKID",
        "'=cmd()'",
    )
    assert [cell.value for cell in book["GAIN_TB"][1]] == [
        None,
        "CCD",
        "Q",
        "gain",
        "egain",
        "alpha",
        "fqual",
        "bloom",
    ]
    assert [cell.value for cell in book["GAIN_TB"][2]] == [0, 1, 3, 3.5, None, None, None, None]


def test_texts_never_become_formulas(tmp_path):
    products.write_xlsx_table(
        tmp_path / "t.xlsx", {"T": [{"name": "=1+1", "n": -2.0}, {"name": "@x", "n": math.nan}]}, {}, {}
    )
    sheet = openpyxl.load_workbook(tmp_path / "t.xlsx")["T"]
    assert [(cell.value, cell.data_type) for cell in sheet["B"]] == [
        ("name", "s"),
        ("=1+1", "s"),
        ("@x", "s"),
    ]
    assert [cell.value for cell in sheet["C"]] == ["n", -2.0, None]


def test_gain_of_numbers():
    found = load_gain({1: {"E": 3.5, "F": [3.4, 0.01]}, "CCD2": {"H": 3.3, "G": None}, "_comment": "x"})
    assert found[1, "F"] == Gain(3.4, 0.01)
    assert found[2, "H"].value == 3.3
    assert math.isnan(found[1, "E"].err)
    assert (2, "G") not in found


def test_gain_that_was_not_fitted_is_left_out(tmp_path):
    rows = [
        {"ccd": 1, "quadrant": q, "gain": g, "gain_err": 0.1, "fqual": f}
        for q, g, f in (("E", 3.5, 0), ("F", 3.5, 1), ("G", None, 0), ("H", 3.5, 2))
    ]
    assert set(load_gain(write_gain(tmp_path / "g.ecsv", rows, {}))) == {(1, "E"), (1, "H")}


def test_nominal_gain(tiny):
    found = nominal_gain(tiny)
    assert len(found) == 12
    assert found[3, "H"].value == 3.5


@pytest.mark.parametrize(
    "bad",
    [
        {},
        {1: 3.5},
        {4: {"E": 3.5}},
        {1: {"X": 3.5}},
        {1: {"E": 350.0}},
        {1: {"E": "3.5"}},
        {1: {"E": []}},
        {1: {"E": 3.5, 1: 3.5}},
    ],
)
def test_gains_that_cannot_be(tmp_path, bad):
    with pytest.raises(InputError):
        load_gain(bad)
    write_json(tmp_path / "g.json", bad)
    with pytest.raises(InputError, match="g.json"):  # noqa: RUF043
        load_gain(tmp_path / "g.json")


def test_pickle_is_refused_with_the_way_out(tmp_path):
    path = tmp_path / "PTC02_730_GAIN_TB.pick"
    path.write_bytes(b"cos\nsystem\n(S'true'\ntR.")
    with pytest.raises(InputError, match=r"Use its twin PTC02_730_GAIN_TB\.xlsx"):
        load_gain(path)
    path.with_suffix(".xlsx").write_bytes(b"")
    with pytest.raises(InputError, match="which lies beside it"):
        load_gain(path)
    with pytest.raises(InputError, match="pickle"):
        product_info("gain", path)
    refuse_pickle("x.fits")


def test_damaged_and_hostile_workbooks(tmp_path):
    path = tmp_path / "g.xlsx"
    path.write_bytes(b"not a workbook")
    with pytest.raises(InputError, match="not a workbook"):
        load_gain(path)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("xl/workbook.xml", bytes(products.MAX_XLSX_BYTES + 1))
    with pytest.raises(InputError, match="too many bytes"):
        load_gain(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x", b"x")
    with pytest.raises(InputError, match="not a usable workbook"):
        load_gain(path)
    openpyxl.Workbook().save(path)
    with pytest.raises(InputError, match="no sheet GAIN_TB"):
        load_gain(path)
    book = openpyxl.Workbook()
    book.active.title = "GAIN_TB"
    book.save(path)
    with pytest.raises(InputError, match="no header row"):
        read_xlsx_table(path, "GAIN_TB")
    for other in ("g.csv", "none.fits"):
        with pytest.raises(InputError, match=other):
            load_gain(tmp_path / other)


def test_brighter_fatter_kernel_round_trip(tmp_path):
    from calcamp.data.fitsfile import write_product
    from calcamp.data.products import load_bf_kernel

    cube = np.arange(4 * 5 * 5, dtype=float).reshape(4, 5, 5) * 1e-9
    images = [(f"SHIFT_{ccd}{q}", cube + ccd, "1/electron", {"GAIN": 3.4}) for ccd in (1, 3) for q in "EH"]
    path = write_product(tmp_path / "EUC_BFKERNEL_800nm_X.fits", {"WAVEL": 800}, images)
    found = load_bf_kernel(path)
    assert set(found) == {(1, "E"), (1, "H"), (3, "E"), (3, "H")}
    serial, parallel, gain = found[3, "H"]
    assert np.allclose(serial, cube[0] + 3)
    assert np.allclose(parallel, cube[1] + 3)
    assert gain == 3.4
    empty = write_product(tmp_path / "other.fits", {}, [("COEFF", cube[0], "")])
    with pytest.raises(InputError, match="no brighter-fatter kernel"):
        load_bf_kernel(empty)
