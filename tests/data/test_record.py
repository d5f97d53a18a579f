"""The test record: upsert, what people typed, locks, queue, side file, hostile text."""

import io
import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from datetime import date, datetime
from pathlib import Path

import openpyxl
import pytest

from calcamp.data import record
from calcamp.data.files import InputError

TODAY = date(2019, 4, 2)


def verdict(test="BIAS01", session="D11", **changes):
    return {
        "schema": 1,
        "calcamp_version": "0.1.0",
        "block": "NOSTROMO",
        "session": session,
        "test": test,
        "chamber": "B_NOSTROMO",
        "script": f"vis_CalCamp_{test}_01Apr19_v7.5.X.xlsx",
        "obsids": [17283, 17292],
        "day_folders": ["12_Mar_19"],
        "frames": {"declared": 10, "found": 10, "used": 10},
        "started": "2019-04-02T08:00:00",
        "ended": "2019-04-02T08:03:00",
        "status": "complete",
        "verdict": "pass",
        "subtasks": {"hk": {"status": "done"}, "check": {"status": "done"}, "basic": {"status": "done"}},
        "flags": [{"name": "HK_OOL", "cause": "x", "scope": {}}],
        "headline": [
            {
                "quantity": "read_noise",
                "ccd": c,
                "quadrant": q,
                "value": 1.2 + c / 100,
                "err": 0.01,
                "unit": "ADU",
                "n": 9,
            }
            for c in (1, 2, 3)
            for q in "EFGH"
        ],
        **changes,
    }


def row(test="BIAS01", session="D11", **changes):
    return record.row_from_verdict(verdict(test, session, **changes), Path("/nowhere"))


def table(path):
    """Rows of the record by column name."""
    sheet = openpyxl.load_workbook(path)[record.SHEET]
    rows = list(sheet.values)
    header = next(i for i, values in enumerate(rows) if values and "test" in [str(v).lower() for v in values])
    names = rows[header]
    return [
        dict(zip(names, values, strict=True))
        for values in rows[header + 1 :]
        if any(v is not None for v in values)
    ]


@pytest.fixture
def book(tmp_path):
    return tmp_path / "TEST_RECORD_NOSTROMO.xlsx"


# ---- rows ----------------------------------------------------------------------------------------
def test_a_row_holds_what_an_analyst_would_enter():
    found = row()
    assert (found["obsid_first"], found["obsid_last"]) == (17283, 17292)
    assert found["script"] == "vis_CalCamp_BIAS01_01Apr19_v7.5.X.xlsx"
    assert (found["session"], found["day_folder"]) == ("D11", "12_Mar_19")
    assert (found["status"], found["verdict"], found["flags"]) == ("analysed", "pass", "HK_OOL")
    assert found["headline"] == "read_noise 1.21 to 1.23 ADU"
    assert found["started"] == datetime(2019, 4, 2, 8)


@pytest.mark.parametrize(
    ("changes", "status"),
    [
        ({"subtasks": {"check": {"status": "done"}}}, "checked"),
        ({"subtasks": {"lock": {}, "check": {}, "prep": {}}}, "checked"),
        ({"status": "incomplete"}, "incomplete"),
        ({"status": "failed"}, "failed"),
        ({"subtasks": {}}, "acquired"),
    ],
)
def test_status(changes, status):
    assert row(**changes)["status"] == status


def test_headline_keeps_keys_limits_and_leaves_out_what_was_not_measured():
    text = record.headline_text(
        [
            {"quantity": "best_focus", "value": 47.213, "err": 0.0021, "unit": "mm"},
            {
                "quantity": "dark_current",
                "ccd": 1,
                "quadrant": "E",
                "value": 0.5,
                "unit": "e-/pixel/h",
                "is_limit": True,
            },
            {"quantity": "gain", "wavelength": 800, "value": None},
            {"quantity": "prnu", "level": 25, "value": 0.61, "unit": "%"},
        ]
    )
    assert text == "best_focus 47.213 ± 0.0021 mm; dark_current <= 0.5 e-/pixel/h; prnu (level 25) 0.61 %"


def test_rows_of_a_session_come_from_its_results(tmp_path):
    for name, first in (("BIAS02", 20), ("BIAS01", 10)):
        (tmp_path / "D11" / name).mkdir(parents=True)
        found = verdict(name, obsids=[first, first + 9])
        (tmp_path / "D11" / name / "verdict.json").write_text(json.dumps(found))
    (tmp_path / "D11" / "BIAS01" / "BIAS01_report.pdf").touch()
    (tmp_path / "D11" / "DARK01").mkdir()
    exposures = [{"obsid": n, "day_folder": "data/13_Mar_19"} for n in (30, 31)]
    manifest = {"test": "DARK01", "status": "complete", "obsids": [30, 31], "exposures": exposures}
    (tmp_path / "D11" / "DARK01" / "manifest.json").write_text(json.dumps(manifest))
    rows = record.rows_of_session(tmp_path / "D11", "NOSTROMO")
    assert [r["test"] for r in rows] == ["BIAS01", "BIAS02", "DARK01"]
    assert rows[0]["report"].name == "BIAS01_report.pdf"
    assert rows[1]["report"] is None
    assert (rows[2]["status"], rows[2]["day_folder"], rows[2]["n_frames"]) == ("acquired", "13_Mar_19", 2)


def test_no_results_is_an_error(tmp_path):
    with pytest.raises(InputError, match="holds no results"):
        record.rows_of_session(tmp_path)


# ---- upsert --------------------------------------------------------------------------------------
def test_a_new_workbook_then_nothing_new(book):
    first = record.update(book, [row(), row("BIAS02")])
    assert (first.state, first.new_rows, first.copy) == ("written", 2, None)
    stamp = book.stat().st_mtime_ns
    again = record.update(book, [row(), row("BIAS02")])
    assert (again.state, again.new_rows, again.changed_rows) == ("unchanged", 0, 0)
    assert book.stat().st_mtime_ns == stamp
    assert [r["test"] for r in table(book)] == ["BIAS01", "BIAS02"]


def test_upsert_by_block_test_and_session(book):
    record.update(book, [row()])
    done = record.update(book, [row(flags=[]), row(session="D12"), row(block="BORN")])
    assert (done.new_rows, done.changed_rows) == (2, 1)
    assert [(r["block"], r["session"], r["flags"]) for r in table(book)] == [
        ("NOSTROMO", "D11", None),
        ("NOSTROMO", "D12", "HK_OOL"),
        ("BORN", "D11", "HK_OOL"),
    ]


def test_what_people_typed_is_kept(book):
    record.update(book, [row()])
    wb = openpyxl.load_workbook(book)
    sheet = wb[record.SHEET]
    names = {cell.value: cell.column for cell in sheet[1]}
    sheet.cell(2, names["obsid_first"]).value = 17000  # a correction
    sheet.cell(2, names["verdict"]).value = None  # emptied on purpose
    sheet.cell(2, names["operator_comment"]).value = "lamp replaced"
    sheet.cell(1, 30).value = "my column"
    sheet.cell(2, 30).value = "=1+1"
    sheet.cell(40, 1).value = "a note far below"
    wb.create_sheet("Plans")["B2"] = "keep me"
    wb.save(book)
    done = record.update(book, [row(obsids=[17283, 17300], flags=[], verdict="fail"), row("BIAS02")])
    assert [cell.split(":")[0] for cell in done.kept] == ["BIAS01 obsid_first", "BIAS01 verdict"]
    wb = openpyxl.load_workbook(book)
    sheet = wb[record.SHEET]
    assert sheet.cell(2, names["obsid_first"]).value == 17000
    assert sheet.cell(2, names["obsid_last"]).value == 17300
    assert sheet.cell(2, names["verdict"]).value is None
    assert sheet.cell(2, names["operator_comment"]).value == "lamp replaced"
    assert sheet.cell(2, 30).value == "=1+1"
    assert sheet.cell(40, 1).value == "a note far below"
    assert sheet.cell(41, names["test"]).value == "BIAS02"
    assert wb["Plans"]["B2"].value == "keep me"
    forced = record.update(book, [row(verdict="fail")], force=True)
    assert forced.kept == []
    assert (table(book)[0]["obsid_first"], table(book)[0]["verdict"]) == (17283, "FAIL")


def test_a_sheet_of_people_with_its_own_header(book):
    wb = openpyxl.Workbook()
    sheet = wb.active
    sheet.title = record.SHEET
    sheet["A1"] = "Test record of block NOSTROMO"
    for column, name in enumerate(
        ("Responsible", "Session", "Test name", "Day-Folder", "First OBSID", "Comments"), 2
    ):
        sheet.cell(4, column).value = name
    sheet["B5"], sheet["D5"] = "R. A.", "BIAS01"  # the test's row, prepared by hand, no session yet
    sheet["B6"], sheet["D6"] = "R. A.", "BIAS02"
    wb.save(book)
    done = record.update(book, [row(), row("DARK01")])
    assert (done.new_rows, done.changed_rows) == (1, 1)
    sheet = openpyxl.load_workbook(book)[record.SHEET]
    assert [sheet.cell(5, c).value for c in range(2, 8)] == [
        "R. A.",
        "D11",
        "BIAS01",
        "12_Mar_19",
        17283,
        None,
    ]
    assert [sheet.cell(6, c).value for c in range(2, 8)] == ["R. A.", None, "BIAS02", None, None, None]
    assert [sheet.cell(7, c).value for c in range(2, 7)] == [None, "D11", "DARK01", "12_Mar_19", 17283]
    header = [cell.value for cell in sheet[4]][1:]
    assert header[:6] == ["Responsible", "Session", "Test name", "Day-Folder", "First OBSID", "Comments"]
    assert set(header[6:]) == set(record.COLUMNS) - {
        "session",
        "test",
        "day_folder",
        "obsid_first",
        "operator_comment",
    }


def test_a_dated_copy_before_the_first_writing_of_a_day(book):
    record.update(book, [row()], today=TODAY)
    before = book.read_bytes()
    first = record.update(book, [row(flags=[])], today=TODAY)
    assert first.copy.name == "TEST_RECORD_NOSTROMO_20190402.xlsx"
    assert first.copy.read_bytes() == before
    assert record.update(book, [row("BIAS02")], today=TODAY).copy is None
    assert first.copy.read_bytes() == before
    assert record.update(book, [row("DARK01")], today=date(2019, 4, 3)).copy.name.endswith("_20190403.xlsx")


def test_the_report_is_a_link_relative_to_the_workbook(tmp_path, book):
    folder = tmp_path / "results & more" / "D11" / "BIAS01"
    folder.mkdir(parents=True)
    (folder / "BIAS01_report.pdf").touch()
    record.update(book, [record.row_from_verdict(verdict(), folder)])
    sheet = openpyxl.load_workbook(book)[record.SHEET]
    cell = next(c for c in sheet[2] if c.hyperlink)
    assert cell.value == "BIAS01_report.pdf"
    assert cell.hyperlink.target == "results%20%26%20more/D11/BIAS01/BIAS01_report.pdf"


# ---- hostile text --------------------------------------------------------------------------------
HOSTILE = [
    "=1+1",
    "=cmd|' /C calc'!A0",
    "+1+1",
    "-2+3",
    "@SUM(1)",
    '=HYPERLINK("http://x","y")',
    "\t=1",
    "a\x00b\x1b",
]


@pytest.mark.parametrize("text", HOSTILE)
def test_text_from_data_is_never_a_formula(book, text):
    flags = [{"name": text}]
    record.update(book, [row(flags=flags, script=text, day_folders=[text], block=text)])
    record.update(book, [row("BIAS02")])  # through openpyxl once more
    sheet = openpyxl.load_workbook(book)[record.SHEET]
    assert all(cell.data_type != "f" for line in sheet for cell in line)
    with zipfile.ZipFile(book) as archive:
        for name in archive.namelist():
            if name.startswith("xl/worksheets/"):
                assert b"<f>" not in archive.read(name)
    assert table(book)[0]["script"] == record._plain(text)
    assert (
        record.update(book, [row(flags=flags, script=text, day_folders=[text], block=text)]).state
        == "unchanged"
    )


# ---- open elsewhere ------------------------------------------------------------------------------
@pytest.mark.parametrize("lock", ["~$TEST_RECORD_NOSTROMO.xlsx", ".~lock.TEST_RECORD_NOSTROMO.xlsx#"])
def test_rows_wait_while_the_workbook_is_open(book, lock):
    record.update(book, [row()])
    before = book.read_bytes()
    holder = book.with_name(lock)
    holder.write_text(",anna,mssla,02.04.2019 08:00,file:///x;")
    first = record.update(book, [row("BIAS02")])
    second = record.update(book, [row("DARK01"), row("TP01")])
    assert (first.state, first.queued, second.queued) == ("queued", 1, 3)
    assert book.read_bytes() == before
    holder.unlink()
    done = record.update(book, [row("CHINJ01")])
    assert done.new_rows == 4
    assert [r["test"] for r in table(book)] == ["BIAS01", "BIAS02", "DARK01", "TP01", "CHINJ01"]
    assert table(book)[1]["started"] == datetime(2019, 4, 2, 8)
    assert not record.pending_path(book).exists()


def test_a_queued_row_does_not_overwrite_a_newer_one(book):
    lock = book.with_name("~$" + book.name)
    record.update(book, [row()])
    lock.touch()
    record.update(book, [row(verdict="fail")])
    queue = record.pending_path(book).read_text()
    lock.unlink()
    record.update(book, [row(verdict="pass")])
    record.pending_path(book).write_text(queue + "garbage\n{}\n")  # as after a crash between the two steps
    record.update(book, [row("BIAS02")])
    assert table(book)[0]["verdict"] == "pass"


def test_waiting_for_it_to_be_closed(book):
    record.update(book, [row()])
    lock = book.with_name("~$" + book.name)
    lock.touch()
    process = multiprocessing.get_context("fork").Process(target=lambda: (time.sleep(0.7), lock.unlink()))
    process.start()
    done = record.update(book, [row("BIAS02")], retry_s=60)
    process.join()
    assert done.state == "written"


# ---- parts that would be lost --------------------------------------------------------------------
def with_parts(path, extra, sheet_tail=b""):
    """A workbook with parts that openpyxl does not know."""
    data = path.read_bytes()
    stream = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as new:
        for name in old.namelist():
            content = old.read(name)
            if name == "xl/worksheets/sheet1.xml" and sheet_tail:
                content = content.replace(b"</worksheet>", sheet_tail + b"</worksheet>")
            new.writestr(name, content)
        for name, content in extra.items():
            new.writestr(name, content)
    path.write_bytes(stream.getvalue())


@pytest.mark.parametrize(
    ("extra", "tail", "said"),
    [
        ({"xl/pivotCache/pivotCacheDefinition1.xml": b"<x/>"}, b"", "pivot"),
        ({"xl/threadedComments/threadedComment1.xml": b"<x/>"}, b"", "threaded comments"),
        ({"xl/drawings/drawing9.xml": b"<xdr:wsDr><xdr:sp macro=''></xdr:sp></xdr:wsDr>"}, b"", "shapes"),
        ({"customXml/item1.xml": b"<x/>"}, b"", "custom data"),
        (
            {},
            b"<extLst><ext uri='{78C0D931-6437-407d-A8EE-F0AAD7539E65}'/></extLst>",
            "extensions of a sheet",
        ),
    ],
)
def test_a_workbook_that_would_lose_a_part_is_left_alone(book, extra, tail, said):
    record.update(book, [row()])
    with_parts(book, extra, tail)
    before = book.read_bytes()
    done = record.update(book, [row("BIAS02")])
    assert done.state == "beside"
    assert said in done.reason
    assert book.read_bytes() == before
    assert [r["test"] for r in table(done.path)] == ["BIAS02"]
    again = record.update(book, [row("DARK01")])
    assert [r["test"] for r in table(again.path)] == ["BIAS02", "DARK01"]


def test_charts_comments_formulas_and_formats_are_kept(book):
    from openpyxl.chart import BarChart, Reference
    from openpyxl.comments import Comment
    from openpyxl.formatting.rule import CellIsRule
    from openpyxl.styles import Font, PatternFill

    wb = openpyxl.Workbook()
    sheet = wb.active
    for number in range(1, 6):
        sheet.cell(number, 1).value = number
    sheet["B1"] = "=SUM(A1:A5)"
    sheet["B1"].comment = Comment("why", "anna")
    sheet["B1"].font = Font(bold=True)
    sheet.conditional_formatting.add(
        "A1:A5", CellIsRule("greaterThan", ["3"], fill=PatternFill(bgColor="FFFF0000"))
    )
    chart = BarChart()
    chart.add_data(Reference(sheet, min_col=1, min_row=1, max_row=5))
    sheet.add_chart(chart, "D2")
    wb.save(book)
    assert record.update(book, [row()]).state == "written"
    sheet = openpyxl.load_workbook(book)["Sheet"]
    assert sheet["B1"].value == "=SUM(A1:A5)"
    assert sheet["B1"].comment.text == "why"
    assert sheet["B1"].font.bold
    assert len(sheet._charts) == 1
    assert len(sheet.conditional_formatting) == 1
    assert len(table(book)) == 1


# ---- bad files -----------------------------------------------------------------------------------
def test_bad_workbooks_are_refused(tmp_path):
    with pytest.raises(InputError, match=r"not an \.xlsx"):
        record.update(tmp_path / "x.xlsm", [row()])
    with pytest.raises(InputError, match="folder does not exist"):
        record.update(tmp_path / "absent" / "x.xlsx", [row()])
    path = tmp_path / "x.xlsx"
    path.write_bytes(b"PK no")
    with pytest.raises(InputError, match="cannot be read as a workbook"):
        record.update(path, [row()])
    assert path.read_bytes() == b"PK no"
    with pytest.raises(InputError, match="no session"):
        record.update(tmp_path / "y.xlsx", [{"test": "BIAS01"}])


def test_a_lock_file_that_is_a_link_is_refused(tmp_path, book):
    victim = tmp_path / "victim"
    victim.write_text("precious")
    book.with_name(book.name + ".lock").symlink_to(victim)
    with pytest.raises(InputError, match="link"):
        record.update(book, [row()])
    assert victim.read_text() == "precious"


def test_the_lock_file_is_its_owners(book):
    record.update(book, [row()])
    assert book.with_name(book.name + ".lock").stat().st_mode & 0o077 == 0


# ---- many at once --------------------------------------------------------------------------------
WRITER = """
import sys
from pathlib import Path
from calcamp.data import record
path, number, count = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
for i in range(count):
    done = record.update(path, [{"block": "N", "test": f"T{i:02d}", "session": f"S{number}", "n_frames": i}])
    assert done.state == "written", done
"""


def writers(path, processes, count):
    return [
        subprocess.Popen([sys.executable, "-c", WRITER, str(path), str(n), str(count)])
        for n in range(processes)
    ]


def test_four_processes_lose_no_row_and_readers_see_whole_files(book):
    record.update(book, [row()])
    running = writers(book, 4, 8)
    reads = 0
    while any(process.poll() is None for process in running):
        rows = table(book)  # raises on a broken file
        assert rows[0]["test"] == "BIAS01"
        reads += 1
    assert [process.returncode for process in running] == [0] * 4
    assert reads > 10
    assert len(table(book)) == 1 + 4 * 8
    assert {(r["session"], r["test"]) for r in table(book)[1:]} == {
        (f"S{n}", f"T{i:02d}") for n in range(4) for i in range(8)
    }


@pytest.mark.full
def test_twenty_kills_break_no_file(book):
    record.update(book, [row()])
    for number in range(20):
        (process,) = writers(book, 1, 1000)
        time.sleep(0.3 + 0.04 * number)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        assert table(book)[0]["flags"] == "HK_OOL"
    done = record.update(book, [row("BIAS02")])
    assert done.state == "written"


# ---- LibreOffice ---------------------------------------------------------------------------------
def through_libreoffice(path, folder):
    office = shutil.which("soffice") or shutil.which("libreoffice")
    profile = f"-env:UserInstallation=file://{folder}/profile"
    command = [office, profile, "--headless", "--convert-to", "xlsx", "--outdir", str(folder), str(path)]
    subprocess.run(command, check=True, capture_output=True, timeout=300)
    return folder / path.name


@pytest.mark.full
@pytest.mark.skipif(
    not (shutil.which("soffice") or shutil.which("libreoffice")), reason="LibreOffice is not installed"
)
def test_libreoffice_sees_no_formula_and_its_files_can_be_written(book, tmp_path):
    for number, text in enumerate(HOSTILE):
        record.update(book, [row(f"T{number}", script=text, flags=[{"name": text}])])
    (tmp_path / "lo").mkdir()
    again = through_libreoffice(book, tmp_path / "lo")
    sheet = openpyxl.load_workbook(again)[record.SHEET]
    assert all(cell.data_type != "f" for line in sheet for cell in line)
    found = {r["test"]: r["script"] for r in table(again)}
    assert found == {f"T{number}": record._plain(text) for number, text in enumerate(HOSTILE)}
    done = record.update(again, [row("BIAS01"), row("T0", script=HOSTILE[0], flags=[])])
    assert (done.state, done.new_rows, done.changed_rows, done.kept) == ("written", 1, 1, [])
