"""Settings of the monitor: periods, thresholds, and the channels of warnings from a file of its owner's only."""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from calcamp.config.shape import File, Shape
from calcamp.data.files import InputError

Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Period = Annotated[float, Field(ge=0.2, le=3600, allow_inf_nan=False)]
CHANNEL_KINDS = ("email", "sms", "call", "chat")
_SAFE_PATH = re.compile(r"[A-Za-z0-9_./~@+=,-]{1,400}")


class Periods(Shape):
    """How often each duty is done, in seconds."""

    house_keeping: Period = Field(1.0, description="new rows of house-keeping read and judged")
    log: Period = Field(5.0, description="EXP-LOG")
    images: Period = Field(10.0, description="search for the last image")
    results: Period = Field(20.0, description="verdicts of the session's tests")
    back_up: Period = Field(50.0, description="a pass of back-up and of broadcast")


class Thresholds(Shape):
    """When the monitor speaks up, in seconds; 0: never."""

    hk_stopped: Seconds = Field(120.0, description="no new row of house-keeping: severity 2")
    acquisition_stopped: Seconds = Field(1800.0, description="no new row of the EXP-LOG: severity 1")
    copy_late: Seconds = Field(1800.0, description="no successful back-up or broadcast: severity 1")
    reminder: Seconds = Field(1800.0, description="a warning is repeated while the value is still out")
    near: Annotated[float, Field(ge=0, le=0.5)] = Field(
        0.03, description="a value is near a limit within this fraction of the band's width"
    )
    messages_per_hour: Annotated[int, Field(ge=1, le=1000)] = Field(
        20, description="most messages an hour and channel; the others are held back and sent as one"
    )


class Ssh(Shape):
    """How the gateway is reached."""

    port: Annotated[int, Field(ge=1, le=65535)] | None = Field(None, description="port of sshd")
    key: str | None = Field(None, description="file of the private key")
    known_hosts: str | None = Field(None, description="file of known hosts")

    @field_validator("key", "known_hosts")
    @classmethod
    def _plain(cls, value):
        if value is not None and not _SAFE_PATH.fullmatch(value):
            raise ValueError("found a path with blanks or quotes, expected a plain path; rename the file")
        return value


class Copying(Shape):
    """Back-up and broadcast."""

    pass_limit: Seconds = Field(
        600.0, description="a pass is stopped after this time and goes on in the next"
    )
    verify_hours: Annotated[float, Field(ge=0)] = Field(
        24.0, description="every finished file is read again on both sides within this time; 0: never"
    )
    verify_bytes: Annotated[int, Field(ge=1)] = Field(
        2_000_000_000, description="bytes verified after one pass"
    )
    ssh: Ssh = Field(Ssh(), description="how the gateway is reached")


class MonitorFile(File):
    """Settings of the monitor, all optional."""

    monitor: str = Field("monitor", description="name of this file of settings")
    limits: str = Field("default", description="limits file, by name or path")
    periods: Periods = Field(Periods(), description="how often each duty is done")
    thresholds: Thresholds = Field(Thresholds(), description="when the monitor speaks up")
    copying: Copying = Field(Copying(), description="back-up and broadcast")
    warnings: str | None = Field(
        None, description="file of the channels, readable by its owner only, relative to this file"
    )
    ds9: str | None = Field(None, description="title or XPA method of the DS9 that images are sent to")


class Channel(Shape):
    """One way to reach people."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]{1,40}$")] = Field(
        description="shown in log and page"
    )
    kind: Literal[CHANNEL_KINDS] = Field(
        description="decides the text: long (email, chat), short (sms), spoken"
    )
    url: Annotated[str, Field(min_length=5, max_length=2000)] = Field(
        description="address as apprise writes it, with its secrets"
    )
    from_severity: Literal[1, 2] | None = Field(
        None, description="least severity; 1 for email and chat, 2 for sms and call by default"
    )

    @property
    def threshold(self) -> int:
        return self.from_severity or (2 if self.kind in ("sms", "call") else 1)


class ChannelsFile(File):
    """File of channels: secrets, so it must be readable by its owner only."""

    channels: list[Channel] = Field(min_length=1, description="ways to reach people")

    @model_validator(mode="after")
    def _names(self):
        names = [channel.name for channel in self.channels]
        if len(set(names)) != len(names):
            raise ValueError("two channels have the same name; rename one")
        return self


def load_settings(path: Path | str | None) -> MonitorFile:
    """Settings from a file, the defaults without one."""
    return MonitorFile() if path is None else MonitorFile.load(path)


def load_channels(path: Path | str) -> list[Channel]:
    """Channels from a file that only its owner can read; `InputError` otherwise."""
    path = Path(path)
    try:
        status = os.stat(path)
    except OSError as error:
        raise InputError(
            f"the file of warning channels cannot be read ({error.strerror})", file=path
        ) from error
    if not stat.S_ISREG(status.st_mode):
        raise InputError("is not a regular file", file=path)
    if status.st_mode & 0o077:
        raise InputError(
            "holds secrets and others can read or change it",
            file=path,
            expected="mode 0600",
            remedy=f"chmod 600 {path.name}",
        )
    return ChannelsFile.load(path).channels


def channels_from_environment(environment=os.environ) -> list[Channel]:
    """Channels from CALCAMP_WARN_EMAIL, _SMS, _CALL and _CHAT: apprise addresses separated by blanks."""
    found = []
    for kind in CHANNEL_KINDS:
        urls = environment.get(f"CALCAMP_WARN_{kind.upper()}", "").split()
        found += [Channel(name=f"{kind}-{n}", kind=kind, url=url) for n, url in enumerate(urls, 1)]
    return found
