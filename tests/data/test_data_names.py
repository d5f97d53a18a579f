import math
from datetime import date, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from calcamp.data import names

TIMES = st.datetimes(datetime(1969, 1, 1), datetime(2068, 12, 31)).map(lambda t: t.replace(microsecond=0))


@given(TIMES)
def test_stamps_round_trip(time):
    assert names.parse_stamp(names.format_stamp(time)) == time
    assert names.parse_hk_time(names.format_hk_time(time)) == time


@given(TIMES)
def test_dates_in_names_round_trip(time):
    day = time.date()
    assert names.parse_day_folder(names.day_folder_name(day)) == day
    assert names.parse_explog_name(names.explog_name(day)) == day
    assert names.parse_hk_master_name(names.hk_master_name(day, 7)) == (day, 7)


@given(st.integers(0, 10**9 - 1), TIMES, st.sampled_from([1, 2, 3]), st.sampled_from(["", ".gz", ".fz"]))
def test_raw_names_round_trip(obsid, time, ccd, suffix):
    found = names.parse_raw_name(names.raw_stem(obsid, time, ccd) + ".fits" + suffix)
    assert found == names.RawName(obsid, time, ccd, 1, suffix)


def test_known_forms():
    time = datetime(2019, 3, 12, 7, 10, 40)
    assert names.format_stamp(time) == "120319D071040T"
    assert names.parse_stamp("120319D_071040T") == names.parse_stamp("120319d071040T") == time
    assert names.raw_stem(17200, time, 2) == "EUC_17200_120319D071040T_ROE1_CCD2"
    assert names.day_folder_name(date(2019, 3, 12)) == "12_Mar_19"
    assert names.parse_day_folder("/data/12_mar_19") == date(2019, 3, 12)
    assert names.explog_name(date(2000, 8, 5)) == "EXP_LOG_050800.txt"
    assert names.hk_exposure_name(17200, time) == "HK_17200_120319D071040T_ROE1.txt"
    assert names.hk_master_name(date(2019, 3, 12), 1) == "HK_12-03-19_ROE1_01.txt"


def test_years_as_posix_reads_them():
    assert [names.full_year(y) for y in (0, 20, 68, 69, 99)] == [2000, 2020, 2068, 1969, 1999]


@pytest.mark.parametrize(
    "text", ["", "120319D071040", "320319D071040T", "120319D251040T", "120319T071040D", "٠20319D071040T"]
)
def test_other_texts_are_no_stamps(text):
    with pytest.raises(ValueError, match=r"time stamp|must be in|out of range"):
        names.parse_stamp(text)


@given(st.text(max_size=60))
def test_no_text_breaks_the_readers_of_names(text):
    names.parse_raw_name(text)
    names.parse_explog_name(text)
    names.parse_hk_master_name(text)
    for read in (names.parse_stamp, names.parse_hk_time, names.parse_day_folder):
        try:
            read(text)
        except ValueError:
            continue


@pytest.mark.parametrize("name", ["EXP_LOG_320119.txt", "EXP_LOG_120319.txt.bak", "EXP_LOG_merged.txt"])
def test_names_that_are_not_logs(name):
    assert names.parse_explog_name(name) is None


@pytest.mark.parametrize("zone", ["UTC", "Europe/London", "America/New_York"])
def test_seconds_do_not_depend_on_the_time_zone(zone, monkeypatch):
    """On 31 March 2019 summer time began in London at 1 o'clock."""
    import time

    from calcamp.data.names import clock_seconds

    monkeypatch.setenv("TZ", zone)
    time.tzset()
    try:
        assert clock_seconds("310319D023000T") - clock_seconds("310319D003000T") == 7200
    finally:
        monkeypatch.undo()
        time.tzset()
    assert all(math.isnan(clock_seconds(text)) for text in ("", "n/a", None))
