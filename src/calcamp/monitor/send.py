"""Warnings on their way: a queue on disk, a thread per channel, retries, and a limit of messages an hour."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from calcamp.data.files import InputError
from calcamp.monitor.settings import Channel

RETRY_S = (5.0, 10.0, 20.0, 40.0, 80.0, 160.0, 300.0)
HOUR = 3600.0
KEPT = 500  # messages kept one by one in the queue; the oldest become one


class Outbox:
    """Messages that wait for channels. Plain data, kept in the state file by its owner.

    A message is ``{id, time, severity, title, long, short, spoken, keys, waiting: [channel names]}``.
    """

    def __init__(self, data: dict | None = None):
        data = data or {}
        self.messages: list[dict] = [m for m in data.get("messages", []) if isinstance(m, dict) and "id" in m]
        self.next_id: int = int(data.get("next_id", 1))
        self.sent: dict[str, list[float]] = {k: list(v) for k, v in dict(data.get("sent", {})).items()}
        self.told_limit: dict[str, bool] = dict(data.get("told_limit", {}))

    def as_json(self) -> dict:
        return {
            "messages": self.messages,
            "next_id": self.next_id,
            "sent": self.sent,
            "told_limit": self.told_limit,
        }

    def add(self, message: dict, channels: list[Channel], now: float) -> dict:
        """Queue a message for the channels whose severity it reaches."""
        waiting = [c.name for c in channels if message["severity"] >= c.threshold]
        message = {"id": self.next_id, "time": now, **message, "waiting": waiting}
        self.next_id += 1
        if waiting:
            self.messages.append(message)
            while len(self.messages) > KEPT:
                self._fold()
        return message

    def _fold(self) -> None:
        """Make one of the two oldest messages, so that a server dead for days costs no disk and no warning."""
        first, second = self.messages[:2]
        folded = [*first.get("folded", [first["title"]]), second["title"]]
        count = first.get("count", 1) + 1
        title = f"calcamp monitor: {count} warnings could not be sent, the last: {second['title']}"
        self.messages[:2] = [
            {
                **second,
                "severity": max(first["severity"], second["severity"]),
                "title": title[:300],
                "short": title[:300],
                "long": f"{count} warnings could not be sent. The last of them:\n"
                + "\n".join(folded[-1000:]),
                "folded": folded[-1000:],
                "count": count,
                "waiting": [*first["waiting"], *(c for c in second["waiting"] if c not in first["waiting"])],
            }
        ]

    def waiting(self, channel: str) -> list[dict]:
        return [m for m in self.messages if channel in m["waiting"]]

    def done(self, channel: str, ids: list[int], now: float, per_hour: int, limit: bool = False) -> None:
        """Messages `ids` were taken by `channel`; one that nobody waits for any more goes away."""
        for message in self.messages:
            if message["id"] in ids and channel in message["waiting"]:
                message["waiting"].remove(channel)
        self.messages = [m for m in self.messages if m["waiting"]]
        self.sent[channel] = [*self.recent(channel, now), now]
        if limit:
            self.told_limit[channel] = True
        elif len(self.sent[channel]) <= per_hour // 2:
            self.told_limit.pop(channel, None)

    def recent(self, channel: str, now: float) -> list[float]:
        """Times of the messages of the last hour."""
        return [t for t in self.sent.get(channel, []) if now - HOUR < t <= now]

    def next_for(self, channel: str, now: float, per_hour: int) -> tuple[list[int], dict] | None:
        """(ids, message) to send now, None when there is nothing, or the limit is reached.

        The last message of an hour says that the limit is reached; what waits meanwhile goes out as one.
        """
        waiting = self.waiting(channel)
        if not waiting:
            return None
        used = len(self.recent(channel, now))
        if used >= per_hour:
            return None
        if used == per_hour - 1 and len(waiting) >= 1 and not self.told_limit.get(channel):
            return [], {
                **waiting[0],
                "title": f"calcamp monitor: limit of {per_hour} messages an hour reached",
                "long": f"{len(waiting)} warning(s) are held back until the hour is over. Look at the monitor's page.",
                "short": "calcamp monitor: limit of messages reached, look at the page",
                "spoken": "Calibration campaign: limit of messages reached. Look at the page.",
                "limit": True,
            }
        if self.told_limit.get(channel) and len(waiting) > 1:
            lines = [f"{time.strftime('%H:%M:%S', time.localtime(m['time']))} {m['title']}" for m in waiting]
            merged = {
                **waiting[-1],
                "severity": max(m["severity"] for m in waiting),
                "title": f"calcamp monitor: {len(waiting)} warnings held back",
                "long": "\n".join(lines),
                "short": f"calcamp monitor: {len(waiting)} warnings held back, last: {waiting[-1]['short']}"[
                    :300
                ],
            }
            return [m["id"] for m in waiting], merged
        return [waiting[0]["id"]], waiting[0]


class Sender:
    """One channel's thread.

    Parameters
    ----------
    channel : where to.
    take, done, failed : called with the channel's name: the next message (see `Outbox.next_for`), after
        success with its ids, after failure with a reason. They take the owner's lock themselves.
    """

    def __init__(self, channel: Channel, take: Callable, done: Callable, failed: Callable, retry_s=RETRY_S):
        self.channel = channel
        self._take, self._done, self._failed = take, done, failed
        self._retry_s = retry_s
        self.failures = 0
        self.last_error = ""
        self.last_success: float | None = None
        self.busy_since: float | None = None
        self._wake = threading.Event()
        self._stop = False
        self._target = make_target(channel)
        self._thread = threading.Thread(target=self._run, name=f"send {channel.name}", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def wake(self) -> None:
        self._wake.set()

    def stop(self, wait_s: float = 5.0) -> None:
        self._stop = True
        self._wake.set()
        if self._thread.is_alive():
            self._thread.join(wait_s)

    def state(self) -> dict:
        """For the page: no address, so no secret."""
        return {
            "name": self.channel.name,
            "kind": self.channel.kind,
            "from_severity": self.channel.threshold,
            "failures": self.failures,
            "error": self.last_error,
            "last_success": self.last_success,
            "busy_since": self.busy_since,
        }

    def _run(self) -> None:
        while not self._stop:
            pause = 1.0
            try:
                pause = self.step()
            except Exception as error:  # a fault here must not end the warnings
                self.last_error = type(error).__name__
                self.failures += 1
                pause = 5.0
            self._wake.wait(pause)
            self._wake.clear()
            if self.failures and not self._stop:
                # new messages must not turn a dead server into a storm of tries
                time.sleep(min(1.0, self._retry_s[0]))

    def step(self) -> float:
        """Send one message if there is one; returns seconds to wait."""
        found = self._take(self.channel.name)
        if found is None:
            return 30.0
        ids, message = found
        self.busy_since = time.time()
        try:
            ok, reason = deliver(self._target, self.channel, message)
        finally:
            self.busy_since = None
        if ok:
            self.failures, self.last_error, self.last_success = 0, "", time.time()
            self._done(self.channel.name, ids, message)
            return 0.0
        self.last_error = reason
        self.failures += 1
        self._failed(self.channel.name, message, reason)
        return self._retry_s[min(self.failures, len(self._retry_s)) - 1]


def make_target(channel: Channel):
    """An apprise object of one channel; `InputError` (without the address) when apprise does not take it."""
    import logging

    import apprise

    logging.getLogger("apprise").setLevel(logging.CRITICAL)  # its messages may hold addresses
    target = apprise.Apprise()
    if not target.add(channel.url):
        raise InputError(
            f"the address of warning channel {channel.name!r} is not understood",
            expected="an address as apprise writes it, such as mailtos://user:password@host/?to=a@b.org",
            remedy="Correct the file of channels",
        )
    for plugin in target:  # apprise rests 5.5 s between mails; the limit of messages an hour is ours
        plugin.request_rate_per_sec = min(plugin.request_rate_per_sec, 0.5)
    return target


def deliver(target, channel: Channel, message: dict) -> tuple[bool, str]:
    """Hand a message over; (success, reason). Never raises for what a server does."""
    import apprise

    text = {"sms": message["short"], "call": message["spoken"]}.get(channel.kind, message["long"])
    title = message["title"] if channel.kind in ("email", "chat") else ""
    try:
        ok = target.notify(
            body=text,
            title=title,
            body_format=apprise.NotifyFormat.TEXT,
            notify_type=apprise.NotifyType.WARNING if message["severity"] else apprise.NotifyType.INFO,
        )
    except Exception as error:
        return False, f"sending failed ({type(error).__name__})"
    return (True, "") if ok else (False, "the server did not take the message")


def trial_message(now: float, tag: str = "") -> dict:
    """The message of ``--test-warning``."""
    when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(now))
    text = f"calcamp monitor{f' {tag}' if tag else ''}: test of the warnings, {when}"
    return {
        "severity": 2,
        "title": text,
        "long": f"{text}\nNothing is wrong.",
        "short": text,
        "spoken": "This is a test of the warnings of the calibration campaign.",
        "keys": [],
    }
