"""ELVIS scripts cell for cell, the files beside them, round trips and damage."""

import io
import random
import re
import shutil
import string
import subprocess
import zipfile
from datetime import date, datetime

import openpyxl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from calcamp.campaign.catalogue import FULL, expand
from calcamp.campaign.scripts import prepare, write
from calcamp.config.lookup import load_chamber
from calcamp.data import scripts
from calcamp.data.elvis import SCRIPT_DEFAULTS
from calcamp.data.files import InputError

EQUIPMENT = {
    "operator": "unk",
    "sn_ccd1": "14888-88-81",
    "sn_ccd2": "14888-88-82",
    "sn_ccd3": "14888-88-83",
    "sn_roe": "FM15",
    "sn_rpsu": "FM15",
}
WHEN = datetime(2019, 4, 1, 12, 56, 31)
SIX = ("CHINJ02", "BIAS01", "TP01", "BIAS02", "CHINJ01", "FOCUS00")


def prepared(*handles):
    chamber = load_chamber("B_NOSTROMO")
    return prepare([item for handle in handles for item in expand(handle)], chamber, EQUIPMENT)


@pytest.fixture(scope="module")
def six(tmp_path_factory):
    return write(prepared(*SIX), tmp_path_factory.mktemp("six") / "Scripts_NOSTROMO_APR19_W18", WHEN)


def sheet_of(path):
    return openpyxl.load_workbook(path)["Sheet1"]


# ---- the worked examples -------------------------------------------------------------------------
def test_the_folder_of_the_cook_book(six):
    assert sorted(path.name for path in six.folder.iterdir()) == [
        "CHECK_SUMS_01Apr19.txt",
        "TESTS_INVENTORY_01Apr19.txt",
        "TESTS_SCHEDULER_01Apr19.xlsx",
        *(
            f"vis_CalCamp_{test}_01Apr19_v7.5.X.xlsx"
            for test in [
                "BIAS01",
                "BIAS02",
                "CHINJ01",
                "CHINJ02",
                "FOCUS00_590",
                "FOCUS00_730",
                "FOCUS00_800",
                "FOCUS00_880",
                "TP01",
            ]
        ),
    ]


def test_the_inventory_of_six_handles_to_the_digit(six):
    ones = ", ".join
    text = six.inventory.read_text()
    head, body = text.split("\n\n", 1)
    assert head.splitlines()[:2] == [
        "Scripts written on 01Apr19 12:56:31",
        "checksumf: CHECK_SUMS_01Apr19.txt",
    ]
    assert re.fullmatch(r"calcamp version: \S+", head.splitlines()[2])
    nine = ones(["1"] * 9)
    assert body == (
        f"CHINJ02: 26 [42.31 min] cols: [{ones(['1'] * 26)}]\n"
        "BIAS01: 1 [15.58 min] cols: [10]\n"
        f"TP01: 50 [120.31 min] cols: [{ones(['1'] * 50)}]\n"
        "BIAS02: 1 [15.58 min] cols: [10]\n"
        f"CHINJ01: 36 [58.58 min] cols: [{ones(['1'] * 36)}]\n"
        f"FOCUS00_590: 9 [15.11 min] cols: [{nine}]\n"
        f"FOCUS00_730: 9 [14.25 min] cols: [{nine}]\n"
        f"FOCUS00_800: 9 [14.22 min] cols: [{nine}]\n"
        f"FOCUS00_880: 9 [14.39 min] cols: [{nine}]\n"
        "\n 168 Frames Total\n\n 310.33 Minutes Total\n"
    )


def test_checksums_are_those_of_the_files(six):
    lines = six.check_sums.read_text().splitlines()
    assert len(lines) == 9
    for line, path in zip(lines, six.scripts, strict=True):
        assert line == f"{path.name:<60}\t{scripts.md5(path)}"
        assert line.index("\t") == 60
    assert scripts.read_check_sums(six.folder)[six.scripts[0].name] == {scripts.md5(six.scripts[0])}


def test_the_scheduler_sheet(six):
    book = openpyxl.load_workbook(six.scheduler)
    assert book.sheetnames == ["Meta", "Tests"]
    meta = book["Meta"]
    assert meta["A1"].value is None
    names = [meta.cell(row=row, column=1).value for row in range(5, 11)]
    assert names == ["date", "checksumfile", "version", "path", "Nframes", "Total_duration"]
    values = [meta.cell(row=row, column=2).value for row in range(5, 11)]
    assert all(isinstance(value, str) for value in values)
    assert values[1] == "CHECK_SUMS_01Apr19.txt"
    assert values[4:] == ["168", "310.33"]
    tests = list(book["Tests"].values)
    assert tests[0] == ("Test", "Ncols", "Nframes", "Duration_min")
    assert tests[1] == ("CHINJ02", 26, 26, "42.31")
    assert tests[2] == ("BIAS01", 1, 10, "15.58")
    assert len(tests) == 10


def test_cells_of_cosmetics00(tmp_path):
    (path,) = write(prepared("COSMETICS00"), tmp_path / "out", WHEN).scripts
    book = openpyxl.load_workbook(path)
    assert book.sheetnames == ["Sheet1"]
    sheet = book["Sheet1"]
    assert (sheet.max_row, sheet.max_column) == (70, 4)
    expected = {
        1: ("frames", 5, 10),
        3: ("test", "COSMETICS00", "COSMETICS00"),
        26: ("rdmode", "fwd_bas", "fwd_bas"),
        53: ("exptime", 0, 1.75),
        54: ("shuttr", 0, 1),
        58: ("wave", 4, 4),
        63: ("operator", "unk", "unk"),
        67: ("sn_roe", "FM15", "FM15"),
        69: ("comments", "BIAS", "FLAT"),
        70: ("roe-tab", "hrdstart", "hrdstart"),
    }
    for row, values in expected.items():
        assert tuple(sheet.cell(row=row, column=c).value for c in (1, 2, 3)) == values
    assert sheet["D1"].value == "End"
    assert all(sheet.cell(row=row, column=4).value is None for row in range(2, 71))
    assert [sheet.cell(row=row, column=1).value for row in range(1, 71)] == list(SCRIPT_DEFAULTS)


def test_row_1_is_cumulative_and_an_empty_comment_leaves_its_cell_empty(tmp_path):
    persist, chinj = write(prepared("PERSIST01", "CHINJ01"), tmp_path / "out", WHEN).scripts
    row = [sheet_of(persist).cell(row=1, column=c).value for c in range(2, 7)]
    assert row == [5, 8, 9, 12, "End"]
    assert sheet_of(chinj)["B69"].value is None


def test_keys_in_their_types(tmp_path):
    (path,) = write(prepared("BIAS01"), tmp_path / "out", WHEN).scripts
    for row in range(2, 71):
        key, value = (sheet_of(path).cell(row=row, column=c) for c in (1, 2))
        expected = "s" if key.value in scripts.TEXT_KEYS else "n"
        assert value.data_type == expected, key.value


def test_a_tagged_test_commands_the_untagged_name(tmp_path):
    done = write(prepared("BIAS01", "BIAS01.1"), tmp_path / "out", WHEN)
    assert [path.name for path in done.scripts] == [
        "vis_CalCamp_BIAS01_01Apr19_v7.5.X.xlsx",
        "vis_CalCamp_BIAS01.1_01Apr19_v7.5.X.xlsx",
    ]
    assert sheet_of(done.scripts[1])["B3"].value == "BIAS01"
    assert "BIAS01.1: 1 [15.58 min] cols: [10]" in done.inventory.read_text()


def test_29_handles_are_written_and_come_back(tmp_path):
    ready = prepared(*FULL)
    done = write(ready, tmp_path / "all", WHEN)
    assert len(done.scripts) == 56
    for test, path in zip(ready, done.scripts, strict=True):
        assert scripts.compare_scripts(test.columns, scripts.read_script(path)) == []


@pytest.mark.full
@pytest.mark.skipif(
    not (shutil.which("soffice") or shutil.which("libreoffice")), reason="LibreOffice is not installed"
)
def test_libreoffice_reads_the_same_values(tmp_path):
    done = write(prepared("COSMETICS00", "FOCUS00", "NL02", "TP02"), tmp_path / "out", WHEN)
    office = shutil.which("soffice") or shutil.which("libreoffice")
    again = tmp_path / "again"
    profile = f"-env:UserInstallation=file://{tmp_path}/profile"
    command = [
        office,
        profile,
        "--headless",
        "--convert-to",
        "xlsx",
        "--outdir",
        str(again),
        *map(str, done.scripts),
    ]
    subprocess.run(command, check=True, capture_output=True, timeout=300)
    for path in done.scripts:
        assert (
            scripts.compare_scripts(scripts.read_script(path), scripts.read_script(again / path.name)) == []
        )


# ---- names ---------------------------------------------------------------------------------------
def test_names_both_ways():
    name = scripts.script_name("FOCUS00_800", date(2019, 4, 1), "7.5.X")
    assert name == "vis_CalCamp_FOCUS00_800_01Apr19_v7.5.X.xlsx"
    assert scripts.parse_script_name(name) == scripts.ScriptName("FOCUS00_800", date(2019, 4, 1), "7.5.X")
    assert scripts.parse_script_name("vis_CalCamp_BIAS01.1_01Apr19_v7.5.X.xlsx").test == "BIAS01.1"


@pytest.mark.parametrize(
    "name",
    [
        "vis_CalCamp_BIAS01_32Apr19_v7.5.X.xlsx",
        "vis_CalCamp_BIAS01_01Abr19_v7.5.X.xlsx",
        "vis_CalCamp_BIAS01_01Apr19_v7.5.X.xls",
        "vis_CalCamp__01Apr19_v7.5.X.xlsx",
        "~$vis_CalCamp_BIAS01_01Apr19_v7.5.X.xlsx",
        "TESTS_SCHEDULER_01Apr19.xlsx",
    ],
)
def test_other_files_are_no_scripts(name):
    assert scripts.parse_script_name(name) is None


def test_a_name_finds_only_its_own_scripts(tmp_path):
    for test in ("BF01", "BF01_590", "NL02", "NL02_155R", "BIAS01", "BIAS01.1"):
        (tmp_path / scripts.script_name(test, date(2019, 4, 1), "7.5.X")).touch()
    found = scripts.find_scripts(tmp_path)
    assert {test: len(paths) for test, paths in found.items()} == dict.fromkeys(
        ("BF01", "BF01_590", "NL02", "NL02_155R", "BIAS01", "BIAS01.1"), 1
    )


# ---- round trips ---------------------------------------------------------------------------------
text = st.text(st.characters(codec="utf-8", exclude_categories=("Cc", "Cs", "Zl", "Zp")), max_size=20).map(
    str.strip
)
number = st.one_of(
    st.integers(-(10**9), 10**9),
    st.floats(-1e9, 1e9, allow_nan=False).filter(lambda x: x == 0 or abs(x) > 1e-9),
)
keys = st.fixed_dictionaries(
    {
        key: text if isinstance(value, str) else number
        for key, value in SCRIPT_DEFAULTS.items()
        if key != "frames"
    }
)
column = st.builds(scripts.ScriptColumn, st.integers(1, 500), keys)


@settings(max_examples=25)
@given(columns=st.lists(column, min_size=1, max_size=3))
def test_any_script_round_trips(tmp_path_factory, columns):
    path = scripts.write_script(tmp_path_factory.mktemp("s") / "x.xlsx", columns)
    assert scripts.compare_scripts(columns, scripts.read_script(path)) == []


@pytest.mark.parametrize("hostile", ["=1+1", "+1", "-1", "@SUM(A1)", '=HYPERLINK("http://x")', "{=1}"])
def test_text_that_looks_like_a_formula_is_typed_as_text(tmp_path, hostile):
    chamber = load_chamber("B_NOSTROMO")
    ready = prepare(expand("BIAS01"), chamber, {**EQUIPMENT, "operator": hostile})
    (path,) = write(ready, tmp_path / "out", WHEN).scripts
    cell = sheet_of(path)["B63"]
    assert (cell.value, cell.data_type) == (hostile, "s")
    assert b"<f>" not in zipfile.ZipFile(path).read("xl/worksheets/sheet1.xml")
    assert scripts.read_script(path)[0].keys["operator"] == hostile


# ---- damage --------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def good(six):
    return six.scripts[1].read_bytes()


def edited(data, change):
    book = openpyxl.load_workbook(io.BytesIO(data))
    change(book["Sheet1"])
    stream = io.BytesIO()
    book.save(stream)
    return stream.getvalue()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda s: s.__setitem__("A4", "XXX"), "cell A4.*IDL"),
        (lambda s: s.__setitem__("A71", "more"), "cell A71"),
        (lambda s: s.__setitem__("C1", None), "End"),
        (lambda s: s.__setitem__("B1", 0), "cell B1.*frames"),
        (lambda s: s.__setitem__("B1", 2.5), "cell B1"),
        (lambda s: s.__setitem__("B1", "ten"), "cell B1"),
        (lambda s: s.__setitem__("B4", "eleven"), "cell B4.*number"),
        (lambda s: s.__setitem__("B4", "=1+1"), "formula"),
        (lambda s: s.delete_rows(10), "cell A10"),
    ],
)
def test_a_wrong_cell_is_named(tmp_path, good, change, said):
    path = tmp_path / "x.xlsx"
    path.write_bytes(edited(good, change))
    with pytest.raises(InputError) as error:
        scripts.read_script(path)
    assert re.search(said, str(error.value))


@settings(max_examples=150)
@given(seed=st.integers(0, 2**32))
def test_damaged_scripts_are_refused_or_equal(tmp_path_factory, good, seed):
    """Any damage: a message, or a script whose values are untouched (damage to what ELVIS never reads)."""
    rng = random.Random(seed)
    data = bytearray(good)
    kind = rng.choice(("flip", "cut", "insert", "zero"))
    if kind == "cut":
        del data[rng.randrange(len(data)) :]
    elif kind == "insert":
        data[rng.randrange(len(data)) : 0] = bytes(rng.randrange(256) for _ in range(rng.randrange(1, 40)))
    else:
        for _ in range(rng.randrange(1, 6)):
            position = rng.randrange(len(data))
            data[position] = 0 if kind == "zero" else data[position] ^ (1 << rng.randrange(8))
    path = tmp_path_factory.mktemp("d") / "x.xlsx"
    path.write_bytes(bytes(data))
    reference = path.with_name("good.xlsx")
    reference.write_bytes(good)
    try:
        found = scripts.read_script(path)
    except InputError as error:
        message = str(error)
    else:
        message = str(path)
        assert scripts.compare_scripts(scripts.read_script(reference), found) == []
    assert str(path) in message


def test_a_zip_bomb_is_refused(tmp_path):
    path = tmp_path / "bomb.xlsx"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("xl/worksheets/sheet1.xml", b"0" * 200_000_000)
    with pytest.raises(InputError, match="unpacks to 200 MB"):
        scripts.read_script(path)


def test_not_a_workbook_and_no_file(tmp_path):
    path = tmp_path / "x.xlsx"
    with pytest.raises(InputError, match="cannot be read"):
        scripts.read_script(path)
    path.write_text(string.printable)
    with pytest.raises(InputError, match="cannot be read as a workbook"):
        scripts.read_script(path)


def test_a_damaged_line_of_checksums_is_named(tmp_path):
    (tmp_path / "CHECK_SUMS_01Apr19.txt").write_text("vis_CalCamp_BIAS01_01Apr19_v7.5.X.xlsx   \tabc\n")
    with pytest.raises(InputError, match=r"CHECK_SUMS_01Apr19.txt, line 1"):
        scripts.read_check_sums(tmp_path)


def test_an_unknown_key_is_never_written():
    with pytest.raises(InputError, match="mirror_pos"):
        scripts.script_columns([scripts.ScriptColumn(1, {"mirror_pos": 3})])
