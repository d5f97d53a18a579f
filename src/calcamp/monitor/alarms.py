"""The alarms of the monitor as a pure state machine: events in, new state and effects out.

Nothing here reads a clock, a file or the network. The caller gives every event its time, writes the
returned state to disk together with the messages that the effects ask for, and only then sends them.

An alarm belongs to a house-keeping key or to a source (``HK_STOPPED``, ``ACQUISITION_STOPPED``, …). The
words: *out* is what the last reading says, *raised* is the latch that only a person lowers, *severity* is
0 (board and log only), 1 (e-mail) or 2 (e-mail and SMS), *muted* is not watched until a time.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace

#: What a reading can be, with respect to the safe limits.
INSIDE, LOW, HIGH, DIFFERS, NO_VALUE, LOST = "inside", "low", "high", "differs", "no value", "lost"
KINDS = (INSIDE, LOW, HIGH, DIFFERS, NO_VALUE, LOST)
FOR_EVER = math.inf
#: The kinds of effects. Those in `TOLD` go to people when the severity is 1 or more.
RAISED, WORSE, BACK, STILL_OUT = "raised", "worse", "back", "still out"
LOWERED, MUTED, UNMUTED, ACKNOWLEDGED = "lowered", "muted", "unmuted", "acknowledged"
TOLD = (RAISED, WORSE, BACK, STILL_OUT)


@dataclass(frozen=True)
class Alarm:
    """State of one alarm. Times are seconds since 1970 of the monitor's clock, None where there is none."""

    kind: str = INSIDE  # of the last reading
    severity: int = 0  # of the last reading
    raised: bool = False
    latched: int = 0  # highest severity since it was raised
    since: float | None = None  # when it was raised
    told: float | None = None  # when people were last told that it is out
    back_told: bool = False  # the message "back within limits" was made since it was raised
    acknowledged_by: str | None = None
    muted_until: float | None = None  # `FOR_EVER` for a mute without end
    value: float | None = None  # last reading
    worst: float | None = None  # farthest out since it was raised
    worst_excess: float = 0.0
    limits: str = ""

    @property
    def out(self) -> bool:
        return self.kind != INSIDE

    def is_muted(self, now: float) -> bool:
        return self.muted_until is not None and now < self.muted_until


@dataclass(frozen=True)
class Effect:
    """Something to log, and to tell people when `kind` is in `TOLD` and `severity` is not 0."""

    kind: str
    key: str
    severity: int = 0
    reading: str = INSIDE
    value: float | None = None
    worst: float | None = None
    limits: str = ""
    by: str = ""
    until: float | None = None


@dataclass(frozen=True)
class Reading:
    """Judgement of the readings of one key since the last look.

    ``kind`` and ``severity`` are those of the last reading. ``peak_kind`` and ``peak_severity`` are the worst
    among all of them, so that an excursion between two looks is not lost.
    """

    key: str
    kind: str
    severity: int
    value: float | None = None
    peak_kind: str = INSIDE
    peak_severity: int = 0
    worst: float | None = None
    excess: float = 0.0
    limits: str = ""


Alarms = dict[str, Alarm]


@dataclass
class Outcome:
    """New state and what follows from it."""

    alarms: Alarms
    effects: list[Effect] = field(default_factory=list)

    @property
    def messages(self) -> list[Effect]:
        return [effect for effect in self.effects if effect.kind in TOLD and effect.severity > 0]


# ---- events --------------------------------------------------------------------------------------
def judged(alarms: Mapping[str, Alarm], readings: Iterable[Reading], now: float) -> Outcome:
    """New readings: raise, make worse, or note that a value came back."""
    outcome = Outcome(dict(alarms))
    for reading in readings:
        alarm = outcome.alarms.get(reading.key, Alarm())
        alarm, expired = _expire(alarm, reading.key, now)
        outcome.effects += expired
        alarm, effects = _take(alarm, reading, now)
        outcome.alarms[reading.key] = alarm
        outcome.effects += effects
    return outcome


def ticked(alarms: Mapping[str, Alarm], now: float, reminder_s: float = 0.0) -> Outcome:
    """Time went by: mutes end (an alarm still out is raised then), reminders fall due. 0: no reminders."""
    outcome = Outcome(dict(alarms))
    for key, alarm in alarms.items():
        changed, effects = _expire(alarm, key, now)
        if effects:
            outcome.effects += effects
            changed, more = _raise_if_out(changed, key, now)
            outcome.effects += more
        elif (
            reminder_s > 0
            and changed.raised
            and changed.out
            and changed.severity > 0
            and changed.acknowledged_by is None
            and not changed.is_muted(now)
            and changed.told is not None
            and now - changed.told >= reminder_s
        ):
            changed = replace(changed, told=now)
            outcome.effects.append(_effect(STILL_OUT, key, changed, changed.severity))
        outcome.alarms[key] = changed
    return outcome


def lowered(alarms: Mapping[str, Alarm], key: str, by: str) -> Outcome:
    """A person lowers a flag. Still out, it is raised again by the next reading."""
    outcome = Outcome(dict(alarms))
    alarm = outcome.alarms.get(key)
    if alarm is not None and alarm.raised:
        outcome.alarms[key] = _unlatched(alarm)
        outcome.effects.append(_effect(LOWERED, key, alarm, 0, by=by))
    return outcome


def all_lowered(alarms: Mapping[str, Alarm], by: str, now: float, unmute: bool = False) -> Outcome:
    """Lower every flag; mutes hold unless `unmute`."""
    outcome = Outcome(dict(alarms))
    for key in alarms:
        step = lowered(outcome.alarms, key, by)
        if unmute:
            second = unmuted(step.alarms, key, by, now)
            step = Outcome(second.alarms, step.effects + second.effects)
        outcome = Outcome(step.alarms, outcome.effects + step.effects)
    return outcome


def acknowledged(alarms: Mapping[str, Alarm], key: str, by: str) -> Outcome:
    """A person has seen it: it stays raised, reminders stop."""
    outcome = Outcome(dict(alarms))
    alarm = outcome.alarms.get(key)
    if alarm is not None and alarm.raised and alarm.acknowledged_by is None:
        outcome.alarms[key] = replace(alarm, acknowledged_by=by)
        outcome.effects.append(_effect(ACKNOWLEDGED, key, alarm, 0, by=by))
    return outcome


def muted(alarms: Mapping[str, Alarm], key: str, by: str, until: float | None = None) -> Outcome:
    """Do not watch a key until a time (None: until unmuted). A raised flag is lowered by it."""
    outcome = Outcome(dict(alarms))
    alarm = outcome.alarms.get(key, Alarm())
    end = FOR_EVER if until is None else until
    outcome.alarms[key] = replace(_unlatched(alarm), muted_until=end)
    outcome.effects.append(_effect(MUTED, key, alarm, 0, by=by, until=end))
    return outcome


def unmuted(alarms: Mapping[str, Alarm], key: str, by: str, now: float) -> Outcome:
    """Watch a key again; it is raised at once when its last reading is out."""
    outcome = Outcome(dict(alarms))
    alarm = outcome.alarms.get(key)
    if alarm is not None and alarm.muted_until is not None:
        alarm = replace(alarm, muted_until=None)
        outcome.effects.append(_effect(UNMUTED, key, alarm, 0, by=by))
        alarm, effects = _raise_if_out(alarm, key, now)
        outcome.alarms[key] = alarm
        outcome.effects += effects
    return outcome


# ---- parts ---------------------------------------------------------------------------------------
def _take(alarm: Alarm, reading: Reading, now: float) -> tuple[Alarm, list[Effect]]:
    was_out = alarm.out
    alarm = replace(
        alarm, kind=reading.kind, severity=reading.severity, value=reading.value, limits=reading.limits
    )
    if alarm.is_muted(now):
        return alarm, []
    peak_out = reading.peak_kind != INSIDE
    effects: list[Effect] = []
    if peak_out and not alarm.raised:
        alarm = replace(
            alarm,
            raised=True,
            latched=reading.peak_severity,
            since=now,
            told=now,
            back_told=False,
            acknowledged_by=None,
            worst=reading.worst,
            worst_excess=reading.excess,
        )
        effects.append(
            _effect(RAISED, reading.key, alarm, reading.peak_severity, kind_of_reading=reading.peak_kind)
        )
    elif peak_out:
        if reading.excess > alarm.worst_excess:
            alarm = replace(alarm, worst=reading.worst, worst_excess=reading.excess)
        if reading.peak_severity > alarm.latched:
            alarm = replace(alarm, latched=reading.peak_severity, told=now, acknowledged_by=None)
            effects.append(
                _effect(WORSE, reading.key, alarm, reading.peak_severity, kind_of_reading=reading.peak_kind)
            )
    if alarm.raised and not alarm.out and not alarm.back_told and (was_out or peak_out):
        alarm = replace(alarm, back_told=True)
        effects.append(_effect(BACK, reading.key, alarm, min(alarm.latched, 1)))
    return alarm, effects


def _raise_if_out(alarm: Alarm, key: str, now: float) -> tuple[Alarm, list[Effect]]:
    if not alarm.out or alarm.raised:
        return alarm, []
    reading = Reading(
        key,
        alarm.kind,
        alarm.severity,
        alarm.value,
        alarm.kind,
        alarm.severity,
        alarm.value,
        0.0,
        alarm.limits,
    )
    return _take(alarm, reading, now)


def _expire(alarm: Alarm, key: str, now: float) -> tuple[Alarm, list[Effect]]:
    if alarm.muted_until is None or now < alarm.muted_until:
        return alarm, []
    alarm = replace(alarm, muted_until=None)
    return alarm, [_effect(UNMUTED, key, alarm, 0, by="time")]


def _unlatched(alarm: Alarm) -> Alarm:
    return replace(
        alarm,
        raised=False,
        latched=0,
        since=None,
        told=None,
        back_told=False,
        acknowledged_by=None,
        worst=None,
        worst_excess=0.0,
    )


def _effect(
    kind: str,
    key: str,
    alarm: Alarm,
    severity: int,
    by: str = "",
    until: float | None = None,
    kind_of_reading: str = "",
) -> Effect:
    return Effect(
        kind,
        key,
        severity,
        kind_of_reading or alarm.kind,
        alarm.value,
        alarm.worst,
        alarm.limits,
        by,
        until,
    )


# ---- as JSON -------------------------------------------------------------------------------------
def to_json(alarms: Mapping[str, Alarm]) -> dict[str, dict]:
    """Plain data: an infinite mute is the text ``for ever``."""
    out = {}
    for key, alarm in alarms.items():
        data = asdict(alarm)
        if data["muted_until"] == FOR_EVER:
            data["muted_until"] = "for ever"
        out[key] = data
    return out


def from_json(data: Mapping) -> Alarms:
    """`to_json` backwards; fields of other versions are left out, wrong types take the default."""
    alarms = {}
    fresh = asdict(Alarm())
    for key, item in data.items():
        if not isinstance(item, Mapping):
            continue
        known = {name: item[name] for name in fresh if name in item}
        if known.get("muted_until") == "for ever":
            known["muted_until"] = FOR_EVER
        if known.get("kind") not in KINDS:
            known["kind"] = INSIDE
        for name in ("since", "told", "muted_until", "value", "worst"):
            if not isinstance(known.get(name), int | float | None):
                known[name] = None
        for name in ("severity", "latched", "worst_excess"):
            if not isinstance(known.get(name, 0), int | float):
                known[name] = 0
        alarms[str(key)] = Alarm(**{**fresh, **known})
    return alarms
