"""The alarm machine against a model of fifty lines, over random histories with restarts."""

import json

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from calcamp.monitor import alarms as a
from calcamp.monitor.alarms import HIGH, INSIDE, LOW, NO_VALUE, Alarm, Reading

KEYS = st.sampled_from(["CCD1_TEMP_T", "VID_PCB_TEMP_T", "FPGA_VCCD_V"])
SEVERITY = {
    ("CCD1_TEMP_T", LOW): 2,
    ("CCD1_TEMP_T", HIGH): 2,
    ("VID_PCB_TEMP_T", LOW): 1,
    ("VID_PCB_TEMP_T", HIGH): 2,
}


def reading(key, kinds):
    """What a look reports that found readings of these kinds, in order."""
    marks = [SEVERITY.get((key, kind), 0) for kind in kinds]
    out = [(mark, kind) for mark, kind in zip(marks, kinds, strict=True) if kind != INSIDE]
    peak = max(out, default=(0, INSIDE), key=lambda item: item[0])
    return Reading(key, kinds[-1], marks[-1], 1.0, peak[1], peak[0], 2.0, 1.0 if out else 0.0, "[0, 1]")


class Model:
    """What a person expects of one key."""

    def __init__(self):
        self.red = self.out = False
        self.worst = self.now = 0
        self.mute = None

    def see(self, key, kinds, time):
        """Number of raise messages that must go out."""
        if self.mute is not None and time >= self.mute:
            self.mute = None
        marks = [SEVERITY.get((key, kind), 0) for kind in kinds if kind != INSIDE]
        self.out = kinds[-1] != INSIDE
        self.now = SEVERITY.get((key, kinds[-1]), 0)
        if self.mute is not None or not marks:
            return []
        told = [] if self.red and max(marks) <= self.worst else [max(marks)]
        self.worst = max([*marks, self.worst if self.red else 0])
        self.red = True
        return [mark for mark in told if mark]

    def watch_again(self):
        self.mute = None
        if self.out and not self.red:
            self.red, self.worst = True, self.now
            return [self.now] if self.now else []
        return []


class Histories(RuleBasedStateMachine):
    """raise, lower, mute, acknowledge, time, kill and restart in any order."""

    def __init__(self):
        super().__init__()
        self.alarms, self.time = {}, 1000.0
        self.model = {key: Model() for key in ("CCD1_TEMP_T", "VID_PCB_TEMP_T", "FPGA_VCCD_V")}

    def took(self, outcome, expected):
        self.alarms = outcome.alarms
        sent = sorted(e.severity for e in outcome.messages if e.kind in (a.RAISED, a.WORSE))
        assert sent == sorted(expected), (outcome.effects, expected)

    @rule(key=KEYS, kinds=st.lists(st.sampled_from([INSIDE, LOW, HIGH, NO_VALUE]), min_size=1, max_size=4))
    def judge(self, key, kinds):
        expected = self.model[key].see(key, kinds, self.time)
        self.took(a.judged(self.alarms, [reading(key, kinds)], self.time), expected)

    @rule(key=KEYS)
    def lower(self, key):
        self.model[key].red = False
        self.took(a.lowered(self.alarms, key, "me"), [])

    @rule(unmute=st.booleans())
    def lower_all(self, unmute):
        expected = []
        for model in self.model.values():
            model.red = False
            if unmute and model.mute is not None:
                expected += model.watch_again()
        self.took(a.all_lowered(self.alarms, "me", self.time, unmute), expected)

    @rule(key=KEYS, span=st.sampled_from([None, 50.0, 500.0]))
    def mute(self, key, span):
        model = self.model[key]
        model.red, model.mute = False, float("inf") if span is None else self.time + span
        self.took(a.muted(self.alarms, key, "me", None if span is None else self.time + span), [])

    @rule(key=KEYS)
    def unmute(self, key):
        model = self.model[key]
        expected = model.watch_again() if model.mute is not None else []
        self.took(a.unmuted(self.alarms, key, "me", self.time), expected)

    @rule(key=KEYS)
    def acknowledge(self, key):
        self.took(a.acknowledged(self.alarms, key, "me"), [])

    @rule(seconds=st.sampled_from([1.0, 60.0, 2000.0]))
    def wait(self, seconds):
        self.time += seconds
        expected = []
        for model in self.model.values():
            if model.mute is not None and self.time >= model.mute:
                expected += model.watch_again()
        self.took(a.ticked(self.alarms, self.time, reminder_s=1800.0), expected)

    @rule()
    def restart(self):
        self.alarms = a.from_json(json.loads(json.dumps(a.to_json(self.alarms))))

    @invariant()
    def agrees(self):
        for key, model in self.model.items():
            alarm = self.alarms.get(key, Alarm())
            assert alarm.raised == model.red, key
            assert alarm.out == model.out, key
            assert alarm.is_muted(self.time) == (model.mute is not None), key
            if model.red:
                assert alarm.latched == model.worst, key


TestHistories = Histories.TestCase
TestHistories.settings = settings(max_examples=500, stateful_step_count=30)


def state(outcome, key="K"):
    return outcome.alarms[key]


def test_excursion_between_two_looks_is_raised_and_back():
    outcome = a.judged({}, [reading("CCD1_TEMP_T", [INSIDE, LOW, INSIDE])], 0.0)
    assert [(e.kind, e.severity) for e in outcome.messages] == [("raised", 2), ("back", 1)]
    assert outcome.messages[0].reading == LOW
    assert state(outcome, "CCD1_TEMP_T").raised
    again = a.judged(outcome.alarms, [reading("CCD1_TEMP_T", [INSIDE, LOW, INSIDE])], 1.0)
    assert again.messages == [], "no repeat while red"


def test_reminders_until_acknowledged():
    outcome = a.judged({}, [reading("CCD1_TEMP_T", [HIGH])], 0.0)
    assert a.ticked(outcome.alarms, 1799.0, 1800.0).messages == []
    first = a.ticked(outcome.alarms, 1800.0, 1800.0)
    assert [e.kind for e in first.messages] == ["still out"]
    assert a.ticked(first.alarms, 3599.0, 1800.0).messages == []
    assert len(a.ticked(first.alarms, 3600.0, 1800.0).messages) == 1
    seen = a.acknowledged(first.alarms, "CCD1_TEMP_T", "Ann")
    assert state(seen, "CCD1_TEMP_T").acknowledged_by == "Ann"
    assert a.ticked(seen.alarms, 9000.0, 1800.0).messages == []
    assert a.ticked(outcome.alarms, 1e9, 0.0).messages == [], "0: never"


def test_lowering_while_out_raises_again():
    outcome = a.judged({}, [reading("CCD1_TEMP_T", [HIGH])], 0.0)
    outcome = a.lowered(outcome.alarms, "CCD1_TEMP_T", "Ann")
    assert not state(outcome, "CCD1_TEMP_T").raised
    outcome = a.judged(outcome.alarms, [reading("CCD1_TEMP_T", [HIGH])], 1.0)
    assert [e.kind for e in outcome.messages] == ["raised"]


def test_not_critical_is_red_and_silent():
    outcome = a.judged({}, [reading("FPGA_VCCD_V", [LOW])], 0.0)
    assert state(outcome, "FPGA_VCCD_V").raised
    assert outcome.messages == []
    assert [e.kind for e in outcome.effects] == ["raised"]


def test_a_damaged_state_is_read_as_far_as_it_goes():
    found = a.from_json({"A": 3, "B": {"raised": True, "kind": "what", "since": "x", "new": 1}})
    assert set(found) == {"B"}
    assert found["B"].raised
    assert found["B"].kind == INSIDE
