"""The samples written by the acquisition software and by a generator that shares no code with calcamp."""

import json
from datetime import datetime

import numpy as np
import pytest

from calcamp.data import elvis
from calcamp.data.explog import find_explogs, format_explog_header, format_explog_row, read_explog
from calcamp.data.hk import find_hk, read_hk
from calcamp.data.raw import check_raw, find_raw, raw_cards, read_raw, write_raw
from calcamp.detector.arrays import quadrant_view
from calcamp.detector.geometry import QUADRANTS, Detector

pytestmark = pytest.mark.samples


@pytest.fixture(scope="module")
def day(samples):
    return samples / "full-size" / "12_Mar_19"


@pytest.fixture(scope="module")
def log(day):
    return read_explog(find_explogs(day))


def test_exposure_log_of_the_real_software(samples):
    log = read_explog(samples / "EXP_LOG_050800.txt")
    assert log.versions == ["5.7.05"]
    assert [(e.obsid, e.test, e.complete) for e in log.exposures()] == [
        (191, "Test", True),
        (192, "Test", True),
    ]
    first = log.exposures()[0]
    assert first.time == datetime(2016, 11, 25, 15, 6, 14)
    values = first.values
    wanted = {
        "IDL": 11.0,
        "IDH": 13.0,
        "IG1_2_B": 3.0,
        "OD_3_T": 26.0,
        "RD_T": 16.0,
        "toi_fl": 143,
        "toi_ro": 1000,
        "egse_ver": "5.7.05",
    }
    wanted |= {
        "IPHI": "I2I3",
        "siflsh_p": 100.0,
        "R1C2_TT": -180.17,
        "id_wid": 114.286,
        "con_file": "vis_roe_CCD_bias_EM_273.txt",
    }
    assert {key: values[key] for key in wanted} == wanted
    assert (values["TOI _pump"], values["Off_cycl"], values["CLK_ROE1"]) == (1000, 1000, "Normal")
    assert {problem.kind for problem in log.problems} == {"missing_column", "unknown_column"}


def test_house_keeping_of_the_real_software(samples):
    house = read_hk(samples / "HK_191_050800D000000T_ROE1.txt")
    assert len(house.times) == 3
    assert house.times[1].time().isoformat() == "15:06:15"
    assert len(set(house.values) - set(elvis.hk_columns())) == 55
    assert house.summary(["CCD2_TEMP_T"])["CCD2_TEMP_T"].mean == pytest.approx(-180.17)
    assert house.problems == []


def test_log_of_a_whole_test(log, day):
    assert log.problems == []
    assert log.versions == ["7.5.X"]
    assert log.tests() == {"DARK01": [17200, 17201, 17202, 17203]}
    assert all(e.complete and e.values["exptime"] == 565.0 and e.folder == day for e in log.exposures())


def test_the_log_is_written_back_as_it_was(log, day):
    lines = find_explogs(day)[0].read_text().splitlines()
    assert lines[0] == format_explog_header()
    for line, row in zip(lines[1:], log.rows, strict=True):
        cells, mine = line.split("\t"), format_explog_row(row).split("\t")
        kinds = elvis.EXPLOG_TYPES.values()
        assert [kind(a) == kind(b) for kind, a, b in zip(kinds, cells, mine, strict=True)] == [True] * 81


def test_house_keeping_of_each_exposure(log, day):
    for exposure in log.exposures():
        house = read_hk(find_hk(day, exposure.obsid))
        assert list(house.values) == list(elvis.hk_columns()[1:])
        assert house.times[0] == exposure.time
        for key, commanded in elvis.HK_COMMANDED.items():
            assert house.summary([key])[key].mean == pytest.approx(exposure.values[commanded], abs=0.05)


def test_frames_are_those_of_astropy_and_of_the_truth(log, day, samples, tmp_path):
    from astropy.io import fits

    detector = Detector("ccd273")
    truth = json.loads((samples / "full-size" / "truth.json").read_text())["quadrants"]
    exposure = log.exposures()[0]
    for ccd, name in exposure.file_names.items():
        path = find_raw(day, name)
        assert check_raw(path, detector)["OBSID"] == exposure.obsid
        frame = read_raw(path, detector)
        assert np.array_equal(frame.data, fits.getdata(path, -1))
        for quadrant in QUADRANTS:
            prescan = quadrant_view(frame.data, quadrant, detector)[detector.region("pre")]
            assert prescan.mean() == pytest.approx(truth[f"CCD{ccd}"][quadrant]["offset_adu"], abs=0.4)
        plain = write_raw(tmp_path / f"{name}.fits", frame.data, raw_cards(exposure.ccds[ccd]))
        back = read_raw(plain, detector)
        assert np.array_equal(back.data, frame.data)
        differing = {k for k, v in frame.header.items() if k in back.header and back.header[k] != v}
        assert differing == set()


def test_wrong_detector_is_told_before_decoding(day, monkeypatch):
    from calcamp.data import raw
    from calcamp.data.raw import RawError

    monkeypatch.setattr(raw, "_read_memory", lambda *_: pytest.fail("it was decoded"))

    path = next(day.glob("*.fits.fz"))
    with pytest.raises(RawError, match="4238 x 4172 pixels"):
        read_raw(path, Detector("mini", image_columns=512, image_rows=516))
