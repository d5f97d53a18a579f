"""House-keeping judged on disk, state kept over restarts, messages queued and sent."""

import json
import os
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.monitor.monitor_support import KEYS, LIMITS, Day, wait_for, webhook

from calcamp.data.files import InputError
from calcamp.monitor.acquisition import _share
from calcamp.monitor.housekeeping import Bounds, History, HouseKeepingWatch, QuickParser
from calcamp.monitor.log import EventLog
from calcamp.monitor.messages import compose
from calcamp.monitor.send import Outbox
from calcamp.monitor.settings import Channel, MonitorFile, Periods, Thresholds, load_channels
from calcamp.monitor.watch import Monitor
from calcamp.quality.hk import judge_value
from calcamp.quality.limits import read_hk_limits

FAST = MonitorFile(periods=Periods(house_keeping=0.2, log=0.2, images=0.2, results=0.3))
BOUNDS = Bounds(list(KEYS), LIMITS)
PLAIN = read_hk_limits(LIMITS)


@given(
    st.sampled_from(sorted(KEYS)),
    st.one_of(
        st.floats(-300, 20000),
        st.just(float("nan")),
        st.sampled_from([0.0, -0.0, 1e-9, 12192.0, 12192.04, -133.0, 35.0, 31.6]),
    ),
)
@settings(max_examples=1000)
def test_array_judging_equals_judge_value(key, value):
    values = np.zeros((1, len(KEYS)))
    values[0, KEYS.index(key)] = value
    kind = ("ok", "below", "above", "differs", "not measured")[BOUNDS.judge(values)[0, KEYS.index(key)]]
    assert kind == judge_value(key, value, None, PLAIN).safe


def test_a_register_with_several_right_values():
    from types import SimpleNamespace

    band = SimpleNamespace(type="identity", values=[0, 3, 7, "2FA0"], low=None, high=None)
    limit = SimpleNamespace(safe=band, performance=None, severity_of=lambda _: 0)
    words = SimpleNamespace(safe=SimpleNamespace(type="identity", values=["2FA0"]), severity_of=lambda _: 0)
    bounds = Bounds(["R", "W"], {"R": limit, "W": words})
    values = np.array([[0.0, 1.0], [-0.0, 1.0], [3.0, 1.0], [7.0, 1.0], [5.0, 1.0], [2.0, np.nan]])
    assert bounds.judge(values)[:, 0].tolist() == [0, 0, 0, 0, 3, 3]
    assert not bounds.judge(values)[:, 1].any()
    assert bounds.texts == ["= 0 or 3 or 7", ""]


def test_severities_are_those_of_the_limits():
    for i, key in enumerate(KEYS):
        assert list(BOUNDS.severity[i, 1:3]) == [LIMITS[key].severity_of(-1), LIMITS[key].severity_of(1)]
    critical = [k for i, k in enumerate(KEYS) if BOUNDS.severity[i].any()]
    assert len(critical) == 10
    assert BOUNDS.severity[KEYS.index("CCD1_TEMP_T"), 1] == 2
    assert BOUNDS.severity[KEYS.index("VID_PCB_TEMP_T"), 1] == 1


LINES = st.lists(
    st.one_of(
        st.floats(allow_nan=True, allow_infinity=True).map(repr),
        st.text(max_size=6).filter(lambda t: not any(c in t for c in "\t\n\r")),
        st.sampled_from(["1_0", "0x10", "1e999", "-inf", "NaN", " 3 ", "", "٣"]),
    ),
    min_size=2,
    max_size=2,
)


@given(LINES)
@settings(max_examples=500)
def test_quick_parser_reads_what_the_parser_reads(cells):
    from calcamp.data.hk import HKParser

    lines = ["TimeStamp\tA\tB", "\t".join(["12-03-19_07:00:00", *cells])]
    found = [kind("HK_12-03-19_ROE1_01.txt").feed(lines) for kind in (HKParser, QuickParser)]
    assert repr(found[0]) == repr(found[1])


def test_growing_file_parts_bad_lines_and_a_half_line(tmp_path):
    day = Day(tmp_path / "12_Mar_19")
    day.hk(5)
    watch = HouseKeepingWatch(day.folder)
    assert len(watch.look().values) == 1, "without a state only the last row is judged"
    day.hk(3)
    path = day.hk_file.path
    with open(path, "a") as stream:
        stream.write("rubbish\t1\r\n12-03-19_07:")
    fresh = watch.look()
    assert (len(fresh.values), watch.history.n, watch.bad_lines) == (3, 8, 1)
    second = HouseKeepingWatch(day.folder, judged={path.name: 6})
    assert len(second.look().values) == 2, "rows that came while it was not running"
    (day.folder / "HK_13-03-19_ROE1_01.txt").write_text(path.read_text().replace("12-03-19_", "13-03-19_"))
    assert len(watch.look().values) == 8, "a part that appears is judged whole"


def test_a_reading_on_its_limit_is_inside_on_the_board(tmp_path):
    day = Day(tmp_path / "12_Mar_19")
    upper = {key: LIMITS[key].safe.high for key in KEYS if LIMITS[key].safe.type == "absolute"}
    day.hk(1, **upper)
    monitor = Monitor(day.folder, FAST, LIMITS)
    monitor.look()
    assert [k["key"] for k in monitor.state()["keys"] if k["state"] == "out"] == []
    assert monitor.alarms == {}


def test_old_readings_are_thinned_and_keep_their_extremes():
    history, rng = History(most=6000), np.random.default_rng(1)
    history.FULL = 4000
    values = rng.normal(size=(40_000, 3))
    values[1234, 1], values[30_001, 2] = 50.0, -70.0
    values[5000, 0] = np.nan
    for start in range(0, 40_000, 250):
        part = values[start : start + 250]
        assert np.array_equal(
            history.add(["a", "b", "c"], np.arange(start, start + 250.0), part), part, equal_nan=True
        )
    assert history.total == 40_000
    assert history.n < 6000 + 40_000 / 10
    assert (np.nanmax(history.values[:, 1]), np.nanmin(history.values[:, 2])) == (50.0, -70.0)
    assert (np.diff(history.times) >= 0).all()
    assert np.array_equal(history.values[-4000:], values[-4000:].astype("f4"))
    assert (history.times[0], history.times[-1]) == (0.0, 39_999.0)
    times, _ = history.decimated(["b"], None, None, 500)
    assert (times[0], times[-1]) == (0.0, 39_999.0)


def test_decimation_keeps_extremes(tmp_path):
    day = Day(tmp_path / "12_Mar_19")
    day.hk(900)
    day.hk(1, FPGA_VCCD_V=77.0)
    day.hk(900)
    watch = HouseKeepingWatch(day.folder)
    watch.look()
    times, values = watch.history.decimated(["FPGA_VCCD_V"], None, None, 100)
    assert len(times) <= 102
    assert values.max() == 77.0
    assert (np.diff(times) >= 0).all()


def make(tmp_path, channels=(), clock=time.time, **options):
    return Monitor(
        tmp_path / "12_Mar_19",
        FAST,
        LIMITS,
        list(channels),
        state_dir=tmp_path / "state",
        clock=clock,
        **options,
    )


class Dead:
    """A sender that never sends: what is queued stays on disk."""

    def __init__(self, channel, *_):
        self.channel = channel

    def wake(self):
        pass

    def start(self):
        pass

    def stop(self):
        pass

    def state(self):
        return {"name": self.channel.name, "failures": 0}


EMAIL = Channel(name="mail", kind="email", url="json://127.0.0.1:9/")
SMS = Channel(name="sms", kind="sms", url="json://127.0.0.1:9/")


def test_alarm_and_message_are_on_disk_and_survive_a_kill(tmp_path):
    day = Day(tmp_path / "12_Mar_19")
    day.hk(3)
    first = make(tmp_path, [EMAIL, SMS], make_sender=Dead)
    first.look()
    day.hk(1, CCD1_TEMP_T=-140.0, VID_PCB_TEMP_T=-11.0, FPGA_VCCD_V=31.0)
    day.hk(1)
    first.look()
    state = json.loads((tmp_path / "state" / "monitor.state.json").read_text())
    assert {k for k, a in state["alarms"].items() if a["raised"]} == {
        "CCD1_TEMP_T",
        "VID_PCB_TEMP_T",
        "FPGA_VCCD_V",
    }
    assert [m["waiting"] for m in state["outbox"]["messages"]] == [["mail", "sms"]], (
        "one message for the pass"
    )
    day.hk(2, CCD2_TEMP_B=36.0)  # while nobody looks
    second = make(tmp_path, [EMAIL, SMS], make_sender=Dead)
    second.look()
    second.look()
    assert second.alarms["CCD2_TEMP_B"].raised
    assert second.alarms["CCD1_TEMP_T"].worst == -140.0
    assert [m["keys"] for m in second.outbox.messages][1:] == [["CCD2_TEMP_B"]], "nothing twice"


def test_82_keys_out_make_one_message(tmp_path):
    day = Day(tmp_path / "12_Mar_19")
    day.hk(2)
    monitor = make(tmp_path, [EMAIL], make_sender=Dead)
    monitor.look()
    day.hk(1, **dict.fromkeys(KEYS, 1e6))
    monitor.look()
    assert sum(a.raised for a in monitor.alarms.values()) == len(KEYS)
    assert len(monitor.outbox.messages) == 1
    assert len(monitor.outbox.messages[0]["keys"]) == 10, "the critical ones"


def test_house_keeping_that_stops_is_an_alarm_that_clears_no_other(tmp_path):
    now = [time.time()]
    day = Day(tmp_path / "12_Mar_19")
    day.hk(3)
    monitor = make(tmp_path, [SMS], lambda: now[0], make_sender=Dead)
    monitor.look()
    day.hk(1, CCD1_TEMP_T=40.0)
    monitor.look()
    now[0] += 60
    monitor.look()
    assert "HK_STOPPED" not in monitor.alarms
    assert monitor.state()["hk"]["stale"]
    now[0] += 100
    monitor.look()
    assert monitor.alarms["HK_STOPPED"].raised
    assert monitor.alarms["CCD1_TEMP_T"].raised
    assert "house-keeping has stopped" in monitor.outbox.messages[-1]["long"]
    day.hk(1)
    monitor.look()
    assert not monitor.alarms["HK_STOPPED"].out
    assert monitor.alarms["HK_STOPPED"].raised, "latched until a person lowers it"


def test_acquisition_that_stops(tmp_path):
    now = [time.time()]
    day = Day(tmp_path / "12_Mar_19")
    day.expose(17283, images=False)
    monitor = make(tmp_path, [EMAIL], lambda: now[0], make_sender=Dead)
    monitor.look()
    now[0] += 1900
    monitor.look()
    assert monitor.alarms["ACQUISITION_STOPPED"].raised
    assert monitor.outbox.messages[-1]["severity"] == 1


def test_mute_holds_over_restart_and_ends(tmp_path):
    now = [time.time()]
    day = Day(tmp_path / "12_Mar_19")
    day.hk(2)
    monitor = make(tmp_path, [SMS], lambda: now[0], make_sender=Dead)
    monitor.look()
    assert monitor.command("mute", "CCD1_TEMP_T", "Ann", now[0] + 3600)
    assert not monitor.command("mute", "NO_SUCH_KEY", "Ann")
    day.hk(1, CCD1_TEMP_T=40.0)
    monitor.look()
    again = make(tmp_path, [SMS], lambda: now[0], make_sender=Dead)
    again.look()
    item = next(k for k in again.state()["keys"] if k["key"] == "CCD1_TEMP_T")
    assert (item["state"], item["kind"], item["raised"]) == ("muted", "high", False)
    assert again.outbox.messages == []
    now[0] += 3700
    again.look()
    assert again.alarms["CCD1_TEMP_T"].raised
    assert len([m for m in again.outbox.messages if "CCD1_TEMP_T" in m["keys"]]) == 1


def test_warning_reaches_a_server_and_waits_for_a_dead_one(tmp_path):
    day = Day(tmp_path / "12_Mar_19")
    day.hk(2)
    with webhook() as (port, got):
        channels = [
            Channel(name="chat", kind="chat", url=f"json://127.0.0.1:{port}/"),
            Channel(name="sms", kind="sms", url=f"json://127.0.0.1:{port}/"),
            Channel(name="dead", kind="email", url="json://127.0.0.1:9/"),
        ]
        log = EventLog(tmp_path / "m.log")
        monitor = make(tmp_path, channels, log=log)
        import threading

        thread = threading.Thread(target=monitor.run)
        thread.start()
        try:
            wait_for(lambda: monitor.hk.history.n == 2)
            day.hk(1, CCD1_TEMP_T=-140.0)
            wait_for(lambda: len(got) >= 2)
            dead = next(s for s in monitor.senders if s.channel.name == "dead")
            wait_for(lambda: dead.failures)
            assert "the server did not take" in dead.last_error
        finally:
            monitor.stop()
            thread.join(20)
    texts = sorted(g["message"] for g in got)
    assert any(t.startswith("HK OOL WARNING CCD1_TEMP_T") and "-133" in t for t in texts)
    assert any("Last readings of CCD1_TEMP_T" in t for t in texts)
    state = json.loads((tmp_path / "state" / "monitor.state.json").read_text())
    assert [m["waiting"] for m in state["outbox"]["messages"]] == [["dead"]]
    text = (tmp_path / "m.log").read_text()
    assert "NOT sent by dead" in text
    assert "sent by sms" in text
    events = [json.loads(line) for line in (tmp_path / "m.log.jsonl").read_text().splitlines()]
    assert any(e["event"] == "raised" and e["key"] == "CCD1_TEMP_T" and e["value"] == -140.0 for e in events)


def test_limit_of_messages_an_hour_holds_back_and_merges():
    box, now = Outbox(), 1000.0
    message = {"severity": 2, "title": "w", "long": "w", "short": "w", "spoken": "w", "keys": []}
    sent = []
    for k in range(8):
        box.add({**message, "title": f"w{k}"}, [EMAIL], now)
        while found := box.next_for("mail", now, 4):
            sent.append(found[1]["title"])
            box.done("mail", found[0], now, 4, bool(found[1].get("limit")))
        now += 1
    assert sent == ["w0", "w1", "w2", "calcamp monitor: limit of 4 messages an hour reached"]
    box = Outbox(json.loads(json.dumps(box.as_json())))
    ids, merged = box.next_for("mail", now + 3600, 4)
    assert len(ids) == 5
    assert all(f"w{k}" in merged["long"] for k in range(3, 8))
    box.done("mail", ids, now + 3600, 4)
    assert box.next_for("mail", now + 3600, 4) is None


def test_a_server_dead_for_days_loses_no_warning():
    box = Outbox()
    message = {"severity": 1, "long": "w", "short": "w", "spoken": "w", "keys": []}
    for k in range(700):
        box.add({**message, "title": f"w{k}", "severity": 2 if k == 5 else 1}, [EMAIL], float(k))
    box = Outbox(json.loads(json.dumps(box.as_json())))
    assert len(box.messages) == 500
    assert (box.messages[0]["severity"], box.messages[0]["count"]) == (2, 201)
    text = " ".join(m["long"] + " " + m["title"] for m in box.messages).split()
    assert {f"w{k}" for k in range(700)} <= set(text)


def test_a_warning_goes_out_without_a_table():
    from calcamp.monitor.alarms import Effect

    text = compose([Effect("raised", "CCD1_TEMP_T", 2, "low", -140.0, -140.0, "-133 … 35")], "D11", 0.0)
    assert "CCD1_TEMP_T" in text["title"]
    assert "C C D 1 temperature is low" in text["spoken"]


def test_channels_need_a_private_file_and_hide_their_secrets(tmp_path):
    path = tmp_path / "warn.yaml"
    path.write_text("channels:\n  - {name: m, kind: email, url: 'mailto://canary-secret:x@localhost'}\n")
    os.chmod(path, 0o644)
    with pytest.raises(InputError, match="chmod 600"):
        load_channels(path)
    os.chmod(path, 0o600)
    channel = load_channels(path)[0]
    assert channel.threshold == 1
    from calcamp.monitor.send import make_target

    bad = Channel(name="x", kind="sms", url="nothing://canary-secret")
    with pytest.raises(InputError) as error:
        make_target(bad)
    assert "canary" not in str(error.value)


def test_a_disk_that_fails_is_shown_and_stops_no_warning(tmp_path, monkeypatch):
    import calcamp.monitor.watch as module

    day = Day(tmp_path / "12_Mar_19")
    day.hk(2)
    monitor = make(tmp_path, [SMS], make_sender=Dead)
    monitor.look()

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module, "write_json", full)
    day.hk(1, CCD1_TEMP_T=40.0)
    monitor.look()
    assert len(monitor.outbox.messages) == 1
    assert "No space left" in monitor.state()["faults"][0]


def test_thresholds_are_checked():
    with pytest.raises(ValueError, match="near"):
        Thresholds(near=0.9)


SESSION = """session: D11
block: NOSTROMO
filled_in_by: A. Analyst
elvis: 7.5.X
mode: wait
data: {root: ROOT, day_folders: [12_Mar_19]}
results: results
tests:
  BIAS01: {do: [check]}
"""


def test_session_progress_wrong_rows_and_verdicts(tmp_path):
    day = Day(tmp_path / "12_Mar_19")
    for obsid in range(17283, 17286):
        day.expose(17283 + obsid - 17283, images=False)
    session = tmp_path / "D11.yaml"
    session.write_text(SESSION.replace("ROOT", str(tmp_path)))
    monitor = make(tmp_path, session=session)
    monitor.session.look()
    monitor.look()
    state = monitor.state()["session"]
    assert state["fault"] == ""
    test = state["tests"][0]
    assert (test["test"], test["frames"], test["declared"], test["current"]) == ("BIAS01", 3, 10, True)
    assert test["minutes_left"] > 1
    assert state["expected_end"].startswith("2019-03-12T07:")
    day.expose(17286, images=False, exptime=55.0)
    monitor.session.look()
    assert (
        any("exptime is 55" in text for text in monitor.session.wrong.values())
        or 17286 in monitor.session.wrong
    )
    folder = tmp_path / "results" / "D11" / "BIAS01"
    folder.mkdir(parents=True)
    (folder / "verdict.json").write_text(json.dumps({"verdict": "pass", "status": "complete", "flags": []}))
    (folder / "BIAS01_report.html").write_text("x")
    assert monitor.session.look()
    assert monitor.session.verdicts[0]["verdict"] == "pass"
    assert monitor.session.verdicts[0]["reports"] == ["html"]
    session.write_text("session: [")
    os.utime(session, (1, 1))
    monitor.session.look()
    assert "D11.yaml" in monitor.session.fault
    assert monitor.session.progress, "what was known stays"


def test_rows_of_the_log_share_equal_values_and_keep_them():
    before = {"a": 1.5, "b": 0.0, "c": "BIAS01" * 2, "d": 1, "e": None}
    row = {
        "a": float("1.5"),
        "b": -0.0,
        "c": "".join(["BIAS01", "BIAS01"]),
        "d": 1.0,
        "e": "",
        "f": float("nan"),
    }
    copy = dict(row)
    _share(row, before)
    assert row["a"] is before["a"]
    assert row["c"] is before["c"]
    assert repr(row) == repr(copy), "the sign of zero, types and NaN stay"


def test_an_open_page_sees_that_the_monitor_was_started_again(tmp_path):
    day = Day(tmp_path / "12_Mar_19")
    day.hk(1)
    numbers = []
    for _ in range(2):
        monitor = make(tmp_path)
        assert json.loads(monitor.snapshot[1]) == {"sequence": monitor.snapshot[0]}, "before the first look"
        monitor.look()
        state = json.loads(monitor.snapshot[1])
        assert (state["sequence"], state["hk"]["rows"]) == (monitor.snapshot[0], 1)
        numbers.append(state["sequence"])
    assert numbers[1] > numbers[0] > 0


def test_heartbeat(tmp_path):
    Day(tmp_path / "12_Mar_19").hk(1)
    monitor = make(tmp_path)
    (tmp_path / "state").mkdir(exist_ok=True)
    monitor._beat()
    assert (tmp_path / "state" / "monitor.alive").read_text().strip()
