"""How long a test takes: a plain sum over its columns that depends on commanded keys only.

Test catalogue, section 6. Shutter, filter wheel, mirror, file writing and so on are all in the constant
overhead of a frame. Standard library only: the waiting gate and the script writer use it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

PIXEL_TIME_S = 14.3e-6
#: Pixels of one line of one quadrant as the read-out electronics clocks it (overscan of flight, 29).
LINE_PIXELS = 51 + 2048 + 29
LINE_TIME_S = PIXEL_TIME_S * LINE_PIXELS
IMAGE_LINES = 2066
PHASES = 4
OVERHEAD_S = 20.0

#: ELVIS defaults of the keys that the model reads (test catalogue, section 3); they fill gaps.
DEFAULTS = {
    "exptime": 0.0,
    "siflsh": 1,
    "siflsh_p": 500.0,
    "vstart": 0,
    "vend": 2086,
    "toi_fl": 143,
    "toi_tp": 1000,
    "toi_ro": 1000,
    "toi_ch": 1000,
    "chinj": 0,
    "chin_dly": 0,
    "s_tpump": 0,
    "v_tpump": 0,
    "s_tp_cnt": 1000,
    "v_tp_cnt": 1000,
    "dwell_v": 0,
    "dwell_s": 0,
}


def frame_terms(keys: Mapping[str, object]) -> dict[str, float]:
    """The terms that make up the time of one frame, in s; a term that does not apply is absent.

    Parameters
    ----------
    keys
        Commanded ELVIS keys; those left out have their default.
    """
    value = {name: float(keys.get(name, default)) for name, default in DEFAULTS.items()}
    lines = value["vend"] - value["vstart"]
    terms = {"exposure": value["exptime"]}
    if value["siflsh"] == 1:
        terms["serial-inverting flush"] = value["siflsh_p"] * 1e-3
    terms["flush"] = IMAGE_LINES * PHASES * value["toi_fl"] * 1e-6
    terms["read-out"] = lines * (PHASES * value["toi_ro"] * 1e-6 + LINE_TIME_S)
    if 1 in (value["chinj"], value["s_tpump"], value["v_tpump"]):
        terms["charge injection"] = IMAGE_LINES * (
            PHASES * value["toi_ch"] * 1e-6 + value["chin_dly"] * LINE_TIME_S
        )
    if value["s_tpump"] == 1:
        terms["serial trap pumping"] = (
            lines * (2 * PIXEL_TIME_S + value["dwell_s"] * 1e-6) * value["s_tp_cnt"]
        )
    if value["v_tpump"] == 1:
        terms["vertical trap pumping"] = (PHASES * value["toi_tp"] * 1e-6 + value["dwell_v"] * 1e-6) * value[
            "v_tp_cnt"
        ]
    terms["overhead"] = OVERHEAD_S
    return terms


def frame_seconds(keys: Mapping[str, object]) -> float:
    """Time of one frame, s."""
    return sum(frame_terms(keys).values())


def test_minutes(columns: Iterable) -> float:
    """Duration of a test in minutes, unrounded. `columns` have ``frames`` and ``keys``."""
    return sum(_frames(column) * frame_seconds(_keys(column)) for column in columns) / 60.0


def minutes_left(columns: Sequence, seen: int) -> float:
    """Minutes until the last frame of a test of which the first `seen` frames are there."""
    left = 0.0
    for column in columns:
        frames = _frames(column)
        done = min(frames, seen)
        seen -= done
        left += (frames - done) * frame_seconds(_keys(column))
    return left / 60.0


def _frames(column) -> int:
    return column["frames"] if isinstance(column, Mapping) else column.frames


def _keys(column) -> Mapping[str, object]:
    return column["keys"] if isinstance(column, Mapping) else column.keys


test_minutes.__test__ = False  # a name that pytest would collect
