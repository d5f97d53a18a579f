from datetime import date, datetime
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from calcamp.data import elvis, explog
from calcamp.data.explog import (
    ExpLogWriter,
    find_explogs,
    format_explog_header,
    format_explog_row,
    read_explog,
)
from calcamp.data.files import InputError
from calcamp.data.names import explog_name, raw_stem

NOT_A_CELL = ("", "nan", "inf")
TEXTS = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=30).filter(
    lambda text: text.lower().lstrip("+-") not in NOT_A_CELL
)
NAMES = st.text(st.sampled_from("ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_."), min_size=1, max_size=20).filter(
    lambda t: t.strip(".")
)
VALUES = {
    int: st.integers(0, 10**9),
    float: st.floats(-1e6, 1e6, allow_nan=False).map(lambda v: round(v, 6)),
    str: TEXTS,
}
#: Columns that a version cannot carry, because it has none for them.
ONE_FOR_MANY = {"5.7.05"}


@st.composite
def logged(draw, obsid=None):
    row = {name: draw(VALUES[kind]) for name, kind in elvis.EXPLOG_TYPES.items()}
    row["File_name"], row["test"] = draw(NAMES), draw(NAMES)
    row["ObsID"] = draw(st.integers(0, 10**6)) if obsid is None else obsid
    row["CCD"] = draw(st.sampled_from(["CCD1", "CCD2", "CCD3"]))
    return row


def plain_row(row):
    return {name: value for name, value in row.items() if not name.startswith("_")}


def kinds(log):
    return [problem.kind for problem in log.problems]


def write(folder, rows, day=date(2019, 3, 12), **how):
    path = Path(folder) / explog_name(day)
    ExpLogWriter(path, **how).write(*rows)
    return path


def exposure(row, obsid, ccds=(1, 2, 3), **changes):
    time = datetime(2019, 3, 12, 7, 10, 40)
    return [
        row | changes | {"ObsID": obsid, "CCD": f"CCD{c}", "File_name": raw_stem(obsid, time, c)}
        for c in ccds
    ]


# ---- round trips ---------------------------------------------------------------------------------
@settings(max_examples=40)
@given(
    row=logged(),
    how=st.fixed_dictionaries({"eol": st.sampled_from(["\n", "\r\n"]), "trailing_tab": st.booleans()}),
)
@pytest.mark.parametrize("version", ["7.5.X", "7.2.X", "6.5.X", "6.3.0"])
def test_rows_round_trip(tmp_path_factory, version, row, how):
    path = tmp_path_factory.mktemp("log") / "EXP_LOG_120319.txt"
    ExpLogWriter(path, version=version, **how).write(row)
    log = read_explog(path)
    (back,) = log.rows
    assert {name: back[name] for name in row} == row
    assert kinds(log) == ["incomplete"]
    assert elvis.explog_columns(log.versions[0]) == elvis.explog_columns(version)


@settings(max_examples=30)
@given(row=logged())
@pytest.mark.parametrize("version", ["6.1.0", "6.0.0", "5.7.05"])
def test_old_versions_come_back_by_the_new_names(tmp_path_factory, version, row):
    path = tmp_path_factory.mktemp("log") / "EXP_LOG_120319.txt"
    for key in [k for k in row if k.startswith(("IG1_", "OD_", "RD_", "IG2_"))]:
        row[key] = 6.0  # the prototype has one value for several lines
    ExpLogWriter(path, version=version).write(row)
    (back,) = read_explog(path).rows
    carried = {new for name in elvis.explog_columns(version) for new in elvis.current_names(name)}
    for name in carried:
        assert back[name] == (pytest.approx(row[name], rel=1e-12) if name == "exptime" else row[name]), name
    assert back["Exptime"] == pytest.approx(1000 * row["exptime"])


def test_milliseconds_before_6_3(tmp_path, row):
    path = write(tmp_path, [row | {"exptime": 1.5}], version="6.0.0")
    (back,) = read_explog(path).rows
    assert (back["exptime"], back["Exptime"], back["Chrg_inj"], back["chinj"]) == (1.5, 1500, 0, 0)


def test_names_of_6_3_are_kept_beside_the_new_ones(tmp_path, row):
    (back,) = read_explog(write(tmp_path, [row | {"v_tp_mod": 341, "motr": 1}], version="6.3.0")).rows
    assert (back["v_tp_mod"], back["v_tpmod"], back["motr"], back["motr_on"]) == (341, 341, 1, 1)


def test_texts_longer_than_the_declared_width_are_kept(tmp_path, row):
    (back,) = read_explog(write(tmp_path, [row | {"test": "FLATFLUX00_800", "operator": "somebody"}])).rows
    assert (back["test"], back["operator"]) == ("FLATFLUX00_800", "somebody")


def test_writer_appends_and_writes_the_header_once(tmp_path, row):
    path = write(tmp_path, exposure(row, 1))
    write(tmp_path, exposure(row, 2))
    data = path.read_bytes()
    assert data.count(b"ObsID") == 1
    assert data.count(b"\r\n") == 7
    assert [e.obsid for e in read_explog(path).exposures()] == [1, 2]


def test_row_as_elvis_writes_it(row):
    text = format_explog_row(row | {"exptime": 565.0, "operator": "a\tb\n"})
    cells = text.split("\t")
    assert len(cells) == 81
    assert (cells[0], cells[14], cells[16], cells[54]) == ("17200", "a b", "565.0", "4")
    assert format_explog_header("6.3.0").split("\t")[29] == "spw_clk"


# ---- grouping and merging ------------------------------------------------------------------------
def test_exposures(tmp_path, row):
    rows = exposure(row, 10, test="BIAS01") + exposure(row, 11, (1, 3), test="DARK01", exptime=565.0)
    log = read_explog(write(tmp_path, rows))
    first, second = log.exposures()
    assert (first.obsid, first.test, sorted(first.ccds), first.complete) == (10, "BIAS01", [1, 2, 3], True)
    assert (second.test, second.complete, second.values["exptime"]) == ("DARK01", False, 565.0)
    assert first.time == datetime(2019, 3, 12, 7, 10, 40)
    assert first.folder == tmp_path
    assert first.file_names[2] == "EUC_10_120319D071040T_ROE1_CCD2"
    assert log.tests() == {"BIAS01": [10], "DARK01": [11]}
    assert "OBSID 11 has only CCD1, CCD3" in str(log.problems[-1])
    assert [e.obsid for e in log.from_obsid(11).exposures()] == [11]
    assert log.from_obsid(99).rows == []


def test_several_day_folders_are_merged_by_date(tmp_path, row):
    folders = [tmp_path / "12_Mar_19", tmp_path / "11_Mar_20", tmp_path / "13_Mar_19"]
    days = [date(2019, 3, 12), date(2020, 3, 11), date(2019, 3, 13)]
    for obsid, folder, day in zip((5, 9, 7), folders, days, strict=True):
        write(folder, exposure(row, obsid), day=day)
    write(folders[0], exposure(row, 6), day=date(2019, 3, 13))  # past midnight, same folder
    paths = [path for folder in folders for path in find_explogs(folder)]
    log = read_explog(paths)
    assert [e.obsid for e in log.exposures()] == [5, 6, 7, 9]
    assert [row["_lognumber"] for row in log.rows[::3]] == [0, 1, 2, 3]
    assert {row["_folder"] for row in log.rows if row["ObsID"] == 6} == {str(folders[0])}
    assert log.logs == [paths[0], paths[1], paths[3], paths[2]]


def test_logs_of_different_versions_are_merged(tmp_path, row):
    old = write(tmp_path, exposure(row, 1), day=date(2018, 1, 1), version="6.0.0")
    new = write(tmp_path, exposure(row, 2))
    log = read_explog([new, old])
    assert log.versions == ["6.1.0", "7.5.X"]
    assert [r["vend"] for r in log.rows] == [row["vend"]] * 6


def test_find_explogs_takes_logs_only(tmp_path):
    for name in (
        "EXP_LOG_120319.txt",
        "EXP_LOG_110319.txt",
        "EXP_LOG_merged.txt",
        "EXP_LOG_120319.txt~",
        "HK_1.txt",
    ):
        (tmp_path / name).write_text("")
    assert [path.name for path in find_explogs(tmp_path)] == ["EXP_LOG_110319.txt", "EXP_LOG_120319.txt"]
    assert find_explogs(tmp_path / "absent") == []


# ---- a log being written, damaged or strange ------------------------------------------------------
def test_last_line_without_end_is_left_out(tmp_path, row):
    path = write(tmp_path, exposure(row, 1))
    path.write_bytes(path.read_bytes()[:-2])
    log = read_explog(path)
    assert [r["CCD"] for r in log.rows] == ["CCD1", "CCD2"]
    assert kinds(log) == ["unfinished", "incomplete"]
    assert len(read_explog(path, finished=True).rows) == 3


@settings(max_examples=60)
@given(cut=st.integers(0, 4000))
def test_a_log_cut_anywhere_gives_its_complete_rows(tmp_path_factory, cut):
    folder = tmp_path_factory.mktemp("cut")
    row = {name: {int: 1, float: 1.5, str: "x"}[kind] for name, kind in elvis.EXPLOG_TYPES.items()}
    path = write(folder, exposure(row, 1) + exposure(row, 2))
    whole = path.read_bytes()
    part = whole[: min(cut, len(whole))]
    path.write_bytes(part)
    lines = part.count(b"\n")
    try:
        log = read_explog(path)
    except InputError:
        assert lines == 0
    else:
        assert len(log.rows) == max(0, lines - 1)


@pytest.mark.parametrize(
    "garbage", ["garbage", "\t" * 80, "\0" * 200, "x\t" * 500, "17201\tA\tCCD9" + "\t1" * 78, "a" * 100_000]
)
def test_garbage_is_reported_and_the_rest_read(tmp_path, row, garbage):
    path = write(tmp_path, exposure(row, 1))
    with open(path, "a", newline="") as stream:
        stream.write(garbage + "\r\n")
    write(tmp_path, exposure(row, 2))
    log = read_explog(path)
    assert [e.obsid for e in log.exposures()] == [1, 2]
    if garbage.strip():
        assert kinds(log) == ["bad_line"]
        assert log.problems[0].line == 5


def test_torn_row_in_the_middle_is_reported(tmp_path, row):
    lines = [format_explog_header(), *map(format_explog_row, exposure(row, 1))]
    lines[2] = lines[2][:100]
    path = tmp_path / "EXP_LOG_120319.txt"
    path.write_text("\n".join(lines) + "\n")
    assert kinds(read_explog(path)) == ["bad_line", "incomplete"]


def test_duplicates_and_conflicts(tmp_path, row):
    path = write(tmp_path, exposure(row, 1) + exposure(row, 1) + exposure(row, 1, (2,), exptime=9.0))
    log = read_explog(path)
    assert len(log.rows) == 3
    assert kinds(log) == ["duplicate"] * 3 + ["conflict"]
    assert "other values of exptime" in log.problems[-1].text
    assert all(r["exptime"] == 0.0 for r in log.rows)


def test_bad_values_are_not_logged_and_said(tmp_path, row):
    text = [format_explog_header(), format_explog_row(row)]
    cells = text[1].split("\t")
    columns = elvis.explog_columns()
    wrong = {
        "exptime": "1_000",
        "vend": "20.5",
        "IDL": "13,0",
        "IDH": "1e999",
        "wave": "٤",
        "RD_T": "",
        "RD_B": "nan",
        "mirr_pos": "0x10",
    }
    for name, value in wrong.items():
        cells[columns.index(name)] = value
    path = tmp_path / "EXP_LOG_120319.txt"
    path.write_text("\n".join([text[0], "\t".join(cells), ""]), encoding="utf-8")
    log = read_explog(path)
    assert {name: log.rows[0][name] for name in wrong} == dict.fromkeys(wrong)
    assert kinds(log) == ["bad_value", "incomplete"]
    assert all(name in log.problems[0].text for name in ("exptime", "vend", "IDL", "IDH", "wave", "mirr_pos"))
    assert "RD_T" not in log.problems[0].text


def test_whole_numbers_with_a_point_are_integers(tmp_path, row):
    (back,) = read_explog(write(tmp_path, [row | {"vend": "2086.000", "id_wid": 60}])).rows
    assert (back["vend"], back["id_wid"]) == (2086, 60.0)
    assert isinstance(back["vend"], int)
    assert isinstance(back["id_wid"], float)


def test_path_in_file_name_is_refused(tmp_path, row):
    log = read_explog(write(tmp_path, [row | {"File_name": "../../etc/passwd"}]))
    assert (log.rows, kinds(log)) == ([], ["bad_line"])


@pytest.mark.parametrize("name", ["EUC_1" + "\0" * 40, "E" * 4000], ids=["zeros", "long"])
def test_names_that_no_file_can_have_are_refused(tmp_path, row, name):
    """Blocks of zeros after a power cut, or one endless word."""
    log = read_explog(write(tmp_path, [row | {"File_name": name}]))
    assert (log.rows, set(kinds(log))) == ([], {"bad_line"})


@pytest.mark.parametrize("column", explog.NEEDED)
def test_missing_needed_column_names_file_column_and_remedy(tmp_path, row, column):
    path = tmp_path / "EXP_LOG_120319.txt"
    names = [name for name in elvis.explog_columns() if name != column]
    path.write_text("\t".join(names) + "\n")
    with pytest.raises(InputError) as caught:
        read_explog(path)
    for part in (str(path), "line 1", f"column {column} is missing", "Put the header line"):
        assert part in str(caught.value)


def test_needed_may_be_more(tmp_path, row):
    path = write(tmp_path, exposure(row, 1), version="6.0.0")
    with pytest.raises(InputError, match="rdmode"):
        read_explog(path, needed=["rdmode"])


def test_missing_and_unknown_columns_are_reported(tmp_path):
    path = tmp_path / "EXP_LOG_120319.txt"
    names = ["ObsID", "new_one", "File_name", "CCD", "date", "test", "ObsID", ""]
    path.write_text("\t".join(names) + "\n1\thello\tA\tCCD1\t120319D071040T\tBIAS01\t2\t\n")
    log = read_explog(path)
    assert (log.rows[0]["ObsID"], log.rows[0]["new_one"]) == (1, "hello")
    assert kinds(log) == ["unknown_column", "missing_column", "unknown_column", "incomplete"]
    assert log.versions == [None]


def test_order_of_columns_does_not_matter(tmp_path, row):
    names = list(reversed(elvis.explog_columns()))
    path = tmp_path / "EXP_LOG_120319.txt"
    path.write_text("\t".join(names) + "\t\r\n" + "\t".join(str(row[name]) for name in names) + "\t\r\n")
    assert plain_row(read_explog(path).rows[0]) == row


@pytest.mark.parametrize(
    "content", [b"", b"\n\n", b"17200\tEUC\tCCD1\n", b"\xff\xfe\x00", b"\0" * 5000, b"hello world\n" * 10]
)
def test_a_log_without_header_is_refused(tmp_path, content):
    path = tmp_path / "EXP_LOG_120319.txt"
    path.write_bytes(content)
    with pytest.raises(InputError, match="EXP_LOG_120319"):
        read_explog(path)


def test_a_missing_log_is_an_input_error(tmp_path):
    with pytest.raises(InputError, match="cannot be read"):
        read_explog(tmp_path / "EXP_LOG_120319.txt")
    with pytest.raises(InputError, match="cannot be read"):
        read_explog(tmp_path)


def test_byte_order_mark_and_blank_lines(tmp_path, row):
    path = write(tmp_path, exposure(row, 1))
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\r\n", b"\r\n\r\n"))
    assert len(read_explog(path).rows) == 3


@settings(max_examples=1000)
@given(data=st.data())
def test_mutated_logs_end_in_rows_or_an_input_error(tmp_path_factory, data):
    path = tmp_path_factory.getbasetemp() / "EXP_LOG_120319.txt"
    base = {name: {int: 1, float: 1.5, str: "x"}[kind] for name, kind in elvis.EXPLOG_TYPES.items()}
    path.unlink(missing_ok=True)
    content = bytearray(write(path.parent, exposure(base, 1)).read_bytes())
    for _ in range(data.draw(st.integers(1, 20))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(content)
    try:
        log = read_explog(path)
    except InputError:
        return
    for row in log.rows:
        assert isinstance(row["ObsID"], int)
        assert all(
            isinstance(row[name], int | float | str | None) for name in elvis.EXPLOG_TYPES if name in row
        )
    log.exposures()


def test_problems_do_not_fill_the_memory(tmp_path, row):
    path = write(tmp_path, exposure(row, 1))
    with open(path, "a") as stream:
        stream.write("garbage\n" * 20_000)
    assert len(read_explog(path).problems) == explog.MAX_PROBLEMS


def test_a_whole_campaign_in_one_log(tmp_path, row):
    path = write(tmp_path, [r for obsid in range(2000) for r in exposure(row, obsid)])
    exposures = read_explog(path).exposures()
    assert [e.obsid for e in exposures] == list(range(2000))
    assert all(e.complete for e in exposures)
