"""The monitor itself: looks at the day-folder in its periods, keeps the alarms, and makes what the page shows.

One thread looks (`Monitor.run`); copies and sends have threads of their own and never hold it up. The page
reads snapshots. Whatever changes the alarms goes through `Monitor._commit`: state to disk, then to people.
"""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from calcamp.data.files import InputError, plain, read_json, write_json
from calcamp.monitor import alarms as machine
from calcamp.monitor.acquisition import LogWatch, SessionWatch
from calcamp.monitor.alarms import INSIDE, LOST, Reading
from calcamp.monitor.copying import Copier, Target
from calcamp.monitor.housekeeping import Bounds, HouseKeepingWatch
from calcamp.monitor.images import ImageIndex, QuickLook, known_detectors
from calcamp.monitor.log import EventLog
from calcamp.monitor.messages import SOURCES, compose, line_of
from calcamp.monitor.send import Outbox, Sender, trial_message
from calcamp.monitor.settings import Channel, MonitorFile

STATE_SCHEMA = 1
SAVE_POSITIONS_S = 30.0
HEARTBEAT_S = 20.0  # monitor.alive is written so often: its age tells from outside whether the monitor lives
TREND_S = 300.0  # the trend arrow compares with readings this long ago
TRIM_S = 60.0  # what the C library holds back after large answers is given back so often
SOURCE_SEVERITY = {"HK_STOPPED": 2}  # the others: 1


class Monitor:
    """Everything about one day-folder.

    Parameters
    ----------
    folder : the day-folder; it may not exist yet.
    settings : periods and thresholds.
    limits : `calcamp.config.limits.HkLimit` by key.
    channels : ways to reach people; empty for none.
    state_dir : where alarms, queue and verification are kept.
    clock : seconds since 1970.
    """

    def __init__(
        self,
        folder: Path,
        settings: MonitorFile | None = None,
        limits: dict | None = None,
        channels: list[Channel] | None = None,
        *,
        tag: str = "",
        state_dir: Path | None = None,
        log: EventLog | None = None,
        backup: str | None = None,
        broadcast: str | None = None,
        session: Path | None = None,
        results: Path | None = None,
        ds9: str | None = None,
        clock: Callable[[], float] = time.time,
        make_sender: Callable = Sender,
    ):
        self.folder = Path(folder)
        self.settings = settings or MonitorFile()
        self.limits = limits or {}
        self.tag = tag
        self.clock = clock
        self.log = log or EventLog(None)
        self.ds9 = ds9 or self.settings.ds9
        self.channels = channels or []
        self.state_file = (
            None if state_dir is None else Path(state_dir) / f"monitor{f'_{tag}' if tag else ''}.state.json"
        )
        self.state_fault = ""
        self._lock = threading.RLock()
        self._stopping = threading.Event()
        self._load_state()
        self.hk = HouseKeepingWatch(self.folder, self._judged)
        self.bounds = Bounds([], {})
        self.explog = LogWatch(self.folder)
        self.session = SessionWatch(session, results)
        self.images = ImageIndex(self.folder)
        self.quicklook = QuickLook(self.images, known_detectors(session and Path(session).parent))
        self.copiers = self._copiers(backup, broadcast, state_dir)
        self.senders = [make_sender(c, self._take, self._sent, self._failed) for c in self.channels]
        self.last_row: float | None = None
        self.started = clock()
        self._due: dict[str, float] = {}
        self._saved = 0.0
        # numbers go on from those of the monitor before: an open page must see that its state is old
        first = int(time.time() * 1000)
        #: (number, JSON) of the latest state; one object, because other threads read it. Before the first look a number only.
        self.snapshot: tuple[int, bytes] = (first, b'{"sequence":%d}' % first)
        self._last_body = b""
        self.log.write("start", f"calcamp monitor {self.folder.name}{f' tag {tag}' if tag else ''}")

    # ---- state on disk -------------------------------------------------------------------------------
    def _load_state(self) -> None:
        data: dict = {}
        self._judged: dict[str, int] | None = None
        if self.state_file is not None and self.state_file.is_file():
            try:
                found = read_json(self.state_file)
                data = found if isinstance(found, dict) else {}
                self._judged = {
                    str(k): int(v) for k, v in dict(data.get("judged") or {}).items() if isinstance(v, int)
                }
            except InputError as error:
                self.state_fault = f"the state kept on disk could not be read: {error.problem}"
        alarms = data.get("alarms")
        self.alarms: machine.Alarms = machine.from_json(alarms if isinstance(alarms, dict) else {})
        try:
            self.outbox = Outbox(data.get("outbox") if isinstance(data.get("outbox"), dict) else None)
        except (TypeError, ValueError):
            self.outbox = Outbox()

    def _save(self) -> None:
        """State to disk; a disk that fails is shown and logged, and stops no warning."""
        self._saved = self.clock()
        if self.state_file is None:
            return
        try:
            write_json(
                self.state_file,
                {
                    "schema": STATE_SCHEMA,
                    "written": self.clock(),
                    "day_folder": str(self.folder),
                    "judged": self.hk.positions,
                    "alarms": machine.to_json(self.alarms),
                    "outbox": self.outbox.as_json(),
                },
            )
            self.state_fault = ""
        except OSError as error:
            if not self.state_fault:
                self.log.write("fault", f"the state cannot be written ({error.strerror})", "ERROR")
            self.state_fault = f"the state cannot be written ({error.strerror})"

    def _commit(self, outcome: machine.Outcome) -> None:
        """Take over a new state: queue its messages, write all to disk, log, then wake the senders."""
        changed = outcome.alarms != self.alarms or bool(outcome.effects)
        self.alarms = outcome.alarms
        if not outcome.effects:
            if changed and self.clock() - self._saved > SAVE_POSITIONS_S:
                self._save()
            return
        messages = outcome.messages
        now = self.clock()
        if messages and self.channels:
            readings = self._last_readings(max(messages, key=lambda e: e.severity).key)
            self.outbox.add(compose(messages, self.tag, now, readings), self.channels, now)
        self._save()
        for effect in outcome.effects:
            by = f" by {effect.by}" if effect.by else ""
            until = ""
            if effect.until is not None:
                end = effect.until
                until = " for ever" if end == machine.FOR_EVER else f" until {_clock_text(end)}"
            text = line_of(effect) if effect.kind in machine.TOLD else f"{effect.key}{until}{by}"
            self.log.write(
                effect.kind,
                f"{effect.kind.upper()} {text}",
                "WARNING" if effect.kind in machine.TOLD else "INFO",
                key=effect.key,
                value=effect.value,
                limits=effect.limits,
                kind=effect.reading,
                severity=effect.severity,
                user=effect.by,
            )
        for sender in self.senders:
            sender.wake()

    def _last_readings(self, key: str, most: int = 100) -> list[tuple[str, str]]:
        """Table for an e-mail; empty when it cannot be made, for a warning goes out all the same."""
        history = self.hk.history
        if key not in history.keys:
            return []
        column = history.keys.index(key)
        times, values = history.times[-most:], history.values[-most:, column]
        return [(_stamp_text(t), f"{v:.6g}") for t, v in zip(times, values, strict=True)]

    # ---- sending -------------------------------------------------------------------------------------
    def _take(self, channel: str):
        with self._lock:
            return self.outbox.next_for(channel, self.clock(), self.settings.thresholds.messages_per_hour)

    def _sent(self, channel: str, ids: list[int], message: dict) -> None:
        with self._lock:
            per_hour = self.settings.thresholds.messages_per_hour
            self.outbox.done(channel, ids, self.clock(), per_hour, bool(message.get("limit")))
            self._save()
        self.log.write("sent", f"sent by {channel}: {message['title']}", channel=channel)

    def _failed(self, channel: str, message: dict, reason: str) -> None:
        self.log.write(
            "not sent", f"NOT sent by {channel}: {message['title']}: {reason}", "ERROR", channel=channel
        )

    def send_trial(self) -> dict:
        """Queue a test message for every channel."""
        with self._lock:
            message = self.outbox.add(trial_message(self.clock(), self.tag), self.channels, self.clock())
            self._save()
        for sender in self.senders:
            sender.wake()
        return message

    # ---- what people do ------------------------------------------------------------------------------
    def command(
        self, action: str, key: str | None, by: str, until: float | None = None, unmute: bool = False
    ) -> bool:
        """Lower, acknowledge, mute or unmute a key, or lower all (`key` None). False: no such key."""
        with self._lock:
            if key is not None and key not in self.known_keys:
                return False
            now = self.clock()
            if action == "lower" and key is None:
                outcome = machine.all_lowered(self.alarms, by, now, unmute)
            elif action == "lower":
                outcome = machine.lowered(self.alarms, key, by)
            elif action == "acknowledge":
                outcome = machine.acknowledged(self.alarms, key, by)
            elif action == "mute":
                outcome = machine.muted(self.alarms, key, by, until)
            elif action == "unmute":
                outcome = machine.unmuted(self.alarms, key, by, now)
            else:
                return False
            self._commit(outcome)
            self._publish()
        return True

    @property
    def known_keys(self) -> set[str]:
        return {*self.hk.history.keys, *SOURCES, *self.alarms}

    # ---- looking -------------------------------------------------------------------------------------
    def run(self) -> None:
        """Look until `stop`; each duty in its period. Faults of one duty are logged and stop no other."""
        for sender in self.senders:
            sender.start()
        for copier in self.copiers:
            copier.start()
        helper = threading.Thread(target=self._run_helper, name="images, session", daemon=True)
        helper.start()
        while not self._stopping.is_set():
            begin = time.monotonic()
            self.look()
            if self._is_due("heartbeat", HEARTBEAT_S):
                self._guarded("heartbeat", self._beat)
            if self._is_due("memory", TRIM_S):
                self._guarded("memory", give_back_memory)
            pause = 0.0 if self.hk.loading else self.settings.periods.house_keeping
            self._stopping.wait(max(0.0, pause - (time.monotonic() - begin)))
        with self._lock:
            self._save()
        for copier in self.copiers:
            copier.stop()
        for sender in self.senders:
            sender.stop()
        self.log.write("end", "calcamp monitor ended")

    def _beat(self) -> None:
        if self.state_file is not None:
            alive = self.state_file.with_name(self.state_file.name.replace(".state.json", ".alive"))
            alive.write_text(f"{_clock_text(self.clock())}\n", encoding="ascii")

    def stop(self) -> None:
        self._stopping.set()

    def look(self) -> None:
        """One look at house-keeping, log, sources; then a new snapshot."""
        with self._lock:
            self._guarded("house-keeping", self._look_at_hk)
            if self._is_due("log", self.settings.periods.log):
                self._guarded("log", self._look_at_log)
            self._guarded("sources", self._look_at_sources)
            self._guarded("time", self._tick)
            self._guarded("page", self._publish)

    def _run_helper(self) -> None:
        """Images, session and verdicts: slower, and nobody's alarm waits for them."""
        while not self._stopping.is_set():
            if self._is_due("images", self.settings.periods.images):
                self._guarded("images", self.images.look)
            if self._is_due("results", self.settings.periods.results):
                self._guarded("session", self.session.look)
            for copier in self.copiers:
                self._guarded("copies", lambda copier=copier: copier.update_lag(self.clock()))
            self._stopping.wait(0.5)

    def _is_due(self, duty: str, period: float) -> bool:
        now = time.monotonic()
        if now < self._due.get(duty, 0.0):
            return False
        self._due[duty] = now + period - 0.05
        return True

    def _guarded(self, what: str, work: Callable) -> None:
        try:
            work()
        except Exception as error:
            self.log.write("fault", f"{what}: {type(error).__name__}: {error}", "ERROR")

    def _look_at_hk(self) -> None:
        fresh = self.hk.look()
        if fresh.rows:
            first = self.last_row is None
            self.last_row = self._hk_file_time() if first else self.clock()
        if self.bounds.keys != self.hk.history.keys:
            self.bounds = Bounds(self.hk.history.keys, self.limits)
        if not len(fresh.values):
            return
        always = {key for key, alarm in self.alarms.items() if alarm.out}
        readings = self.bounds.readings(fresh.values, always)
        if readings:
            self._commit(machine.judged(self.alarms, readings, self.clock()))
        elif self.clock() - self._saved > SAVE_POSITIONS_S:
            self._save()

    def _hk_file_time(self) -> float:
        newest = 0.0
        for file in self.hk.files.values():
            with contextlib.suppress(OSError):
                newest = max(newest, file.follower.path.stat().st_mtime)
        return min(newest or self.clock(), self.clock())

    def _look_at_log(self) -> None:
        self.explog.look()

    def _look_at_sources(self) -> None:
        """Sources that went silent: alarms of their own that hide and clear no other."""
        now, limit = self.clock(), self.settings.thresholds
        states = {}
        states["HK_STOPPED"] = self._silent(self.last_row, limit.hk_stopped, now)
        quiet = self._silent(self.explog.last_arrival, limit.acquisition_stopped, now)
        states["ACQUISITION_STOPPED"] = quiet if self.session.unfinished else ""
        for copier in self.copiers:
            word = "BACKUP" if copier.state.name == "back-up" else "BROADCAST"
            late = copier.late(now, limit.copy_late)
            states[f"{word}_LATE"] = (
                f"no success for {limit.copy_late / 60:.0f} min{f', {copier.state.error}' if copier.state.error else ''}"
                if late
                else ""
            )
            states[f"{word}_DIFFERS"] = ", ".join(copier.state.differing[:3])
        readings = []
        for key, cause in states.items():
            known = self.alarms.get(key)
            if not cause and (known is None or not known.out):
                continue
            severity = SOURCE_SEVERITY.get(key, 1) if cause else 0
            kind = LOST if cause else INSIDE
            text = cause or (known.limits if known else "")
            readings.append(
                Reading(key, kind, severity, None, kind, severity, None, float(bool(cause)), text)
            )
        if readings:
            self._commit(machine.judged(self.alarms, readings, now))

    @staticmethod
    def _silent(last: float | None, limit_s: float, now: float) -> str:
        if last is None or limit_s <= 0 or now - last <= limit_s:
            return ""
        return f"nothing new since {_clock_text(last)}"

    def _tick(self) -> None:
        outcome = machine.ticked(self.alarms, self.clock(), self.settings.thresholds.reminder)
        if outcome.effects:
            self._commit(outcome)

    # ---- what the page shows ---------------------------------------------------------------------------
    def _publish(self) -> None:
        body = json.dumps(plain(self.state()), ensure_ascii=False, allow_nan=False, separators=(",", ":"))
        encoded = body.encode()
        if encoded != self._last_body:
            self._last_body = encoded
            number = self.snapshot[0] + 1
            self.snapshot = (number, b'{"sequence":%d,' % number + encoded[1:])

    def state(self) -> dict:
        """The whole state of the page as plain data."""
        now = self.clock()
        history = self.hk.history
        periods = self.settings.periods
        # coarse, so that the state does not change by the clock alone
        age = None if self.last_row is None else now - self.last_row
        stale = age is not None and age > max(3 * periods.house_keeping, 5.0)
        return {
            "folder": self.folder.name,
            "there": self.folder.is_dir(),
            "tag": self.tag,
            "faults": [
                f for f in (self.state_fault, self.log.fault, *self.hk.faults, self.explog.fault) if f
            ],
            "hk": {
                "rows": history.total,
                "loading": self.hk.loading,
                "last": _stamp_text(history.times[-1]) if history.n else None,
                "last_t": float(history.times[-1]) if history.n else None,
                "arrived": self.last_row,
                "stale": stale,
                "bad_lines": self.hk.bad_lines,
            },
            "keys": self._board(now, stale),
            "sources": self._sources(now),
            "log": {
                "rows": len(self.explog.log.rows),
                "generation": self.explog.generation,
                "exposures": len({row["ObsID"] for row in self.explog.log.rows}),
                "problems": self.explog.problems,
                "arrived": self.explog.last_arrival,
            },
            "session": {
                "given": self.session.session is not None,
                "fault": self.session.fault,
                "tests": self.session.progress,
                "wrong": {str(k): v for k, v in list(self.session.wrong.items())[:500]},
                "expected_end": self.session.expected_end,
                "verdicts": self.session.verdicts,
            },
            "image": {
                "last": self.images.last,
                "ccds": sorted(self.images.names.get(self.images.last or -1, {})),
            },
            "copies": [copier.state.as_dict() for copier in self.copiers],
            "channels": [
                {**sender.state(), "waiting": len(self.outbox.waiting(sender.channel.name))}
                for sender in self.senders
            ],
            "events": list(self.log.recent)[-60:],
            "ds9": self.ds9,
        }

    def _board(self, now: float, stale: bool) -> list[dict]:
        history, bounds = self.hk.history, self.bounds
        if not history.n or bounds.keys != history.keys:
            return []
        last = history.last
        kinds, near = (
            bounds.judge(last[None, :])[0],
            bounds.near(last[None, :], self.settings.thresholds.near)[0],
        )
        trend = self._trend(last)
        board = []
        for i, key in enumerate(history.keys):
            alarm = self.alarms.get(key)
            limit = self.limits.get(key)
            muted = alarm is not None and alarm.is_muted(now)
            out = bool(kinds[i])
            state = (
                "muted"
                if muted
                else "out"
                if out
                else "stale"
                if stale
                else "none"
                if not bounds.watched[i]
                else "near"
                if near[i]
                else "inside"
            )
            item = {
                "key": key,
                "state": state,
                "kind": ("inside", "low", "high", "differs", "no value")[int(kinds[i])],
                "value": float(f"{last[i]:.7g}") if np.isfinite(last[i]) else None,
                "limits": bounds.texts[i],
                "unit": getattr(limit, "unit", "") if limit else "",
                "trend": int(trend[i]),
                "critical": bool(bounds.severity[i].any()),
            }
            if alarm is not None and (alarm.raised or muted):
                item |= {
                    "raised": alarm.raised,
                    "latched": alarm.latched,
                    "since": alarm.since,
                    "worst": alarm.worst,
                    "by": alarm.acknowledged_by,
                    "until": "for ever" if alarm.muted_until == machine.FOR_EVER else alarm.muted_until,
                }
            board.append(item)
        return board

    def _trend(self, last: np.ndarray) -> np.ndarray:
        """-1, 0, 1: the last reading against the mean of some minutes before, beyond three times its scatter."""
        history = self.hk.history
        times = history.times
        start = int(np.searchsorted(times, times[-1] - TREND_S))
        window = history.values[max(start, history.n - 600) : history.n - 1]
        if len(window) < 10:
            return np.zeros(len(last), int)
        half = window[: len(window) // 2].astype(float)
        bad = np.isnan(half)
        count = np.maximum((~bad).sum(axis=0), 1)
        mean = np.where(bad, 0.0, half).sum(axis=0) / count
        spread = np.sqrt(np.where(bad, 0.0, (half - mean) ** 2).sum(axis=0) / count)
        recent = window[-max(3, len(window) // 10) :].astype(float)
        with np.errstate(invalid="ignore"):
            step = np.nan_to_num(np.median(recent, axis=0) - mean)
        least = np.maximum(2 * spread, 1e-3 * np.abs(mean))
        return np.where(np.abs(step) > np.maximum(least, 1e-9), np.sign(step), 0).astype(int)

    def _sources(self, now: float) -> list[dict]:
        out = []
        for key, text in SOURCES.items():
            alarm = self.alarms.get(key)
            if alarm is None:
                continue
            muted = alarm.is_muted(now)
            if alarm.out or alarm.raised or muted:
                out.append(
                    {
                        "key": key,
                        "text": text,
                        "out": alarm.out,
                        "raised": alarm.raised,
                        "muted": muted,
                        "latched": alarm.latched,
                        "since": alarm.since,
                        "cause": alarm.limits,
                    }
                )
        return out

    def history(self, keys: list[str], span_s: float | None, after: float | None, points: int) -> dict:
        """Plot data: ``{t, v: {key: [...]}, limits: {key: …}}``."""
        history = self.hk.history
        with self._lock:
            keys = [key for key in keys if key in history.keys]
            start = after
            if start is None and span_s and history.n:
                start = float(history.times.max()) - span_s
            times, values = history.decimated(keys, start, None, points)
        if after is not None:
            keep = times > after
            times, values = times[keep], values[keep]
        return {
            "t": times.tolist(),
            "v": {key: _finite(values[:, i]) for i, key in enumerate(keys)},
            "limits": {key: self._limits_of(key) for key in keys},
            "rows": history.total,
        }

    def _limits_of(self, key: str) -> dict:
        limit = self.limits.get(key)
        if limit is None:
            return {}
        out = {"unit": limit.unit}
        for name in ("safe", "performance"):
            band = getattr(limit, name)
            if band is None or band.type == "relative":
                continue
            if band.type == "identity":
                out[name] = [v for v in band.values if isinstance(v, int | float)][:1]
            else:
                out[name] = [band.low, band.high]
        return out

    def _copiers(self, backup: str | None, broadcast: str | None, state_dir: Path | None) -> list[Copier]:
        found = []
        for name, text in (("back-up", backup), ("broadcast", broadcast)):
            if not text:
                continue
            state = None
            if state_dir is not None:
                state = Path(state_dir) / f"verify_{name}_{self.folder.name}.json"
            found.append(
                Copier(
                    name,
                    self.folder,
                    Target.parse(text),
                    self.settings.copying,
                    self.settings.periods.back_up,
                    state,
                    lambda event, message, level: self.log.write(event, message, level),
                )
            )
        return found


def give_back_memory() -> None:
    """Let glibc return free pages to the system; nothing where there is no glibc."""
    import ctypes

    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def _finite(values: np.ndarray) -> list:
    return [v if np.isfinite(v) else None for v in values.tolist()]


def _clock_text(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds))


def _stamp_text(seconds: float) -> str:
    """Time of a reading by the acquisition's clock."""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(float(seconds)))
