import math
import statistics
from datetime import date, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from calcamp.data import elvis, hk
from calcamp.data.files import InputError
from calcamp.data.hk import HKWriter, find_hk, find_hk_masters, format_hk_rows, index_hk, read_hk
from calcamp.data.names import hk_exposure_name, hk_master_name

START = datetime(2019, 3, 12, 7, 10, 40)
KEYS = elvis.hk_columns()[1:]


def readings(n=5, **values):
    return [
        (START + timedelta(seconds=i), dict.fromkeys(KEYS, 1.0) | {k: v[i] for k, v in values.items()})
        for i in range(n)
    ]


def write(folder, obsid=17200, n=5, version="7.5.X", **values):
    path = folder / hk_exposure_name(obsid, START)
    HKWriter(path, version=version).write(*readings(n, **values))
    return path


@settings(max_examples=50)
@given(
    st.lists(st.floats(-300, 1e5), min_size=1, max_size=30),
    st.sampled_from(["7.5.X", "7.2.X", "6.5.X", "6.3.0"]),
)
def test_readings_round_trip(tmp_path_factory, values, version):
    path = write(tmp_path_factory.mktemp("hk"), n=len(values), version=version, CCD1_TEMP_T=values)
    house = read_hk(path)
    assert house.times == [time for time, _ in readings(len(values))]
    assert list(house.values) == list(elvis.hk_columns(version)[1:])
    assert house.values["CCD1_TEMP_T"] == pytest.approx(values, abs=5.1e-4)
    assert house.problems == []


def test_summary(tmp_path):
    values = [1.0, math.nan, 4.0, 2.5, 8.0]
    summary = read_hk(write(tmp_path, CCD1_TEMP_T=values)).summary()["CCD1_TEMP_T"]
    numbers = [1.0, 4.0, 2.5, 8.0]
    assert summary == pytest.approx((statistics.mean(numbers), statistics.pstdev(numbers), 1.0, 8.0, 4))


def test_wanted_keys_are_read_as_in_the_whole_file(tmp_path):
    path = write(tmp_path, CCD1_TEMP_T=[1.0, math.nan, 4.0, 2.5, 8.0])
    whole, part = read_hk(path), read_hk(path, only=("CCD1_TEMP_T", "CCD2_OD_B", "no_such_key"))
    assert set(part.values) == {"CCD1_TEMP_T", "CCD2_OD_B"}
    assert part.times == whole.times
    assert part.summary() == whole.summary(part.values)
    old = tmp_path / "HK_20-03-19_ROE1_01.txt"
    old.write_text("HK_timestamp\tHK_OD_Top_CCD1\tHK_IDH\n07:10:40\t1\t5\n07:10:41\tbroken\t6\n")
    house = read_hk(old, only=["CCD1_OD_T"])
    assert house.values["CCD1_OD_T"][0] == 1.0
    assert math.isnan(house.values["CCD1_OD_T"][1])


def test_all_nan_missing_key_and_no_reading_are_not_measured(tmp_path):
    house = read_hk(write(tmp_path, CCD1_TEMP_T=[math.nan] * 5))
    for key in ("CCD1_TEMP_T", "no_such_key"):
        mean, std, low, high, n = house.summary([key])[key]
        assert n == 0
        assert all(math.isnan(value) for value in (mean, std, low, high))
    empty = read_hk(write(tmp_path, obsid=2, n=0))
    assert empty.summary()["CCD1_OD_T"].n == 0
    assert set(empty.values) == set(KEYS)


def test_files_are_found_by_obsid(tmp_path):
    path = write(tmp_path, 17200)
    write(tmp_path, 1720)
    (tmp_path / "HK_17200_x_ROE1.txt").write_text("")
    assert find_hk(tmp_path, 17200) == path
    assert find_hk(tmp_path, 172) is None
    assert find_hk(tmp_path / "absent", 1) is None
    assert sorted(index_hk(tmp_path)) == [1720, 17200]
    assert find_hk(tmp_path, 17200, index_hk(tmp_path)) == path


def test_two_files_for_an_obsid_are_refused(tmp_path):
    write(tmp_path)
    (tmp_path / hk_exposure_name(17200, START + timedelta(hours=1))).write_text("")
    with pytest.raises(InputError, match="2 house-keeping files for OBSID 17200"):
        find_hk(tmp_path, 17200)


def test_masters_come_by_date_then_part(tmp_path):
    names = [
        hk_master_name(date(2019, 12, 31), 1),
        hk_master_name(date(2019, 12, 31), 2),
        hk_master_name(date(2020, 1, 1), 1),
    ]
    for name in reversed(names):
        (tmp_path / name).write_text("")
    write(tmp_path)
    assert [path.name for path in find_hk_masters(tmp_path)] == names


def test_master_is_appended(tmp_path):
    path = tmp_path / hk_master_name(START.date())
    for reading in readings(3):
        HKWriter(path).write(reading)
    assert len(read_hk(path).times) == 3
    assert path.read_text().count("TimeStamp") == 1


def test_lines_as_elvis_writes_them():
    (line,) = format_hk_rows([(START, {"CCD3_OD_T": 26.0, "SPW_STATUS_REG": 12192})])
    cells = line.split("\t")
    assert (len(cells), cells[0], cells[1], cells[2], cells[-2]) == (
        83,
        "12-03-19_07:10:40",
        "26.000",
        "NaN",
        "12192",
    )


def test_last_line_being_written_and_bad_lines(tmp_path):
    path = write(tmp_path)
    lines = path.read_bytes().split(b"\r\n")
    lines[2] = lines[2][:40]
    lines[3] = b"99" + lines[3][2:]
    lines[4] = lines[4].replace(b"1.000", b"wrong", 1)
    path.write_bytes(b"\r\n".join(lines)[:-10])
    house = read_hk(path)
    assert [p.kind for p in house.problems] == ["bad_line", "bad_line", "bad_value", "unfinished"]
    assert len(house.times) == 2
    assert math.isnan(house.values["CCD3_OD_T"][1])


def test_trailing_blanks_tab_and_comments(tmp_path):
    path = tmp_path / "HK_1_120319D071040T_ROE1.txt"
    path.write_text("TimeStamp\tA   \tB \t\r\n\r\n# note\r\n12-03-19_07:10:40\t1\t2\t\r\n")
    assert read_hk(path).values == {"A": [1.0], "B": [2.0]}


def test_hexadecimal_status_of_6_3(tmp_path):
    path = tmp_path / "HK_1_120319D071040T_ROE1.txt"
    path.write_text("TimeStamp\tSPW_STATUS_REG\tCCD1_OD_T\n12-03-19_07:10:40\t2FA0\tABCD\n")
    house = read_hk(path)
    assert house.values["SPW_STATUS_REG"] == [12192.0]
    assert math.isnan(house.values["CCD1_OD_T"][0])


def test_times_without_a_date_pass_midnight(tmp_path):
    path = tmp_path / "HK_1_311219D235959T_ROE1.txt"
    path.write_text("HK_timestamp\tHK_OD_Top_CCD1\n23:59:59\t1\n00:00:00\t2\n")
    house = read_hk(path)
    assert house.times == [datetime(2019, 12, 31, 23, 59, 59), datetime(2020, 1, 1)]
    assert house.values["CCD1_OD_T"] == house.values["HK_OD_Top_CCD1"] == [1.0, 2.0]


def test_one_line_per_key(tmp_path):
    path = tmp_path / "HK_1_120319D071040T_ROE1.txt"
    path.write_text("HK_timestamp\t07:10:40\t07:10:41\nHK_IDH\t1\t2\nHK_IDL\t1\n")
    house = read_hk(path)
    assert house.times[1] == datetime(2019, 3, 12, 7, 10, 41)
    assert house.values["HK_IDH"] == house.values["FPGA_BIAS_ID1"] == [1.0, 2.0]
    assert [p.kind for p in house.problems] == ["bad_line"]


def test_between(tmp_path):
    house = read_hk(write(tmp_path)).between(START + timedelta(seconds=1), START + timedelta(seconds=3))
    assert len(house.times) == len(house.values["CCD1_OD_T"]) == 3


@pytest.mark.parametrize("content", [b"", b"hello\n", b"\0\0\0", b"A\tB\n1\t2\n"])
def test_no_header_is_an_input_error(tmp_path, content):
    path = tmp_path / "HK_1_120319D071040T_ROE1.txt"
    path.write_bytes(content)
    with pytest.raises(InputError, match="no header with a time column"):
        read_hk(path)
    with pytest.raises(InputError, match="cannot be read"):
        read_hk(tmp_path / "none.txt")


@settings(max_examples=500)
@given(data=st.data())
def test_mutated_files_end_in_readings_or_an_input_error(tmp_path_factory, data):
    path = tmp_path_factory.getbasetemp() / "HK_1_120319D071040T_ROE1.txt"
    text = "TimeStamp\tA\tB\r\n" + "".join(f"12-03-19_07:10:4{i}\t{i}.5\t-1e3\r\n" for i in range(5))
    content = bytearray(text.encode())
    for _ in range(data.draw(st.integers(1, 12))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(content)
    try:
        house = read_hk(path)
    except InputError:
        return
    assert all(len(column) == len(house.times) for column in house.values.values())
    house.summary()


def test_summaries_are_exact():
    assert hk.summarise([1e16, 1.0, -1e16]).mean == pytest.approx(1 / 3)
