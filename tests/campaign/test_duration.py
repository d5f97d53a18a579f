"""The duration model against the check values of the test catalogue, sections 6 and 11."""

import pytest

from calcamp.campaign.duration import frame_seconds, frame_terms, minutes_left, test_minutes


def test_default_bias_frame():
    terms = frame_terms({"exptime": 0})
    assert terms["serial-inverting flush"] == pytest.approx(0.5)
    assert terms["flush"] == pytest.approx(1.181752)
    assert terms["read-out"] == pytest.approx(71.8218144, abs=1e-7)
    assert frame_seconds({}) == pytest.approx(93.5035664, abs=1e-7)
    assert f"{test_minutes([{'frames': 10, 'keys': {}}]):.2f}" == "15.58"


def test_injection_adds_its_time():
    assert frame_seconds({"chinj": 1, "toi_ch": 500}) - frame_seconds({}) == pytest.approx(4.132)


def test_serial_pumping_of_a_short_window():
    base = {"vend": 100, "toi_ch": 250, "s_tp_cnt": 5000, "chinj": 1}
    pumped = frame_seconds({**base, "s_tpump": 1, "dwell_s": 4.75}) - frame_seconds(base)
    assert pumped == pytest.approx(100 * (2 * 14.3e-6 + 4.75e-6) * 5000)


def test_vertical_pumping():
    base = {"toi_tp": 8000, "v_tp_cnt": 5000, "chinj": 1}
    assert frame_seconds({**base, "v_tpump": 1}) - frame_seconds(base) == pytest.approx(4 * 8000e-6 * 5000)


def test_no_flush_when_switched_off():
    assert "serial-inverting flush" not in frame_terms({"siflsh": 0})


def test_minutes_left():
    columns = [{"frames": 2, "keys": {}}, {"frames": 1, "keys": {"exptime": 100}}]
    assert minutes_left(columns, 0) == pytest.approx(test_minutes(columns))
    assert minutes_left(columns, 2) == pytest.approx(frame_seconds({"exptime": 100}) / 60)
    assert minutes_left(columns, 7) == 0
