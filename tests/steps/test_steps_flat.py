"""Steps of flat light: what the clock and the comments of a script mean to them."""

from __future__ import annotations

from datetime import datetime, timedelta
from itertools import pairwise
from pathlib import Path

from calcamp.data.names import format_stamp
from calcamp.steps.lit import seconds
from calcamp.steps.nonlinearity import kind_of
from calcamp.steps.runner import Exposure


def exposure(**values):
    return Exposure(1, 1, 1, Path(), values, None, {})


def test_time_goes_on_at_midnight():
    """A test that crosses midnight: seconds rise by what passed, they do not wrap."""
    start = datetime(2019, 3, 12, 23, 58)
    stamps = [format_stamp(start + timedelta(seconds=90 * k)) for k in range(5)]
    times = [seconds(exposure(date=stamp)) for stamp in stamps]
    assert [b - a for a, b in pairwise(times)] == [90.0] * 4


def test_stability_frames_are_told_by_their_comment():
    """The 50 % level of NL02 has the exposure time of the stability frames."""
    assert kind_of(exposure(comments="STAB", exptime=3.6)) == "stability"
    assert kind_of(exposure(comments="Fluence14", exptime=3.6)) == "level"
    assert kind_of(exposure(comments="BGD", exptime=0)) == "background"
