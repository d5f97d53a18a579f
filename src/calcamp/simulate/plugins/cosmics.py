"""Cosmic rays: straight tracks of muons.

Lengths and charges follow the cumulative tables of the data formats, section 10; the rate is the
ground rate (about one muon per cm2 and minute: 1e-5 tracks per pixel in 565 s), far below that of
orbit, which the table's own formula gives (6.5e-4, setting ``cosmics.density``).
"""

from __future__ import annotations

import numpy as np

from calcamp.simulate.chain import Plugin, State
from calcamp.simulate.sampling import add_at, inverse_table

_LENGTH = ((0.0, 0.25, 0.5, 0.75, 0.95, 0.99, 1.0), (0.5, 4.0, 7.0, 10.0, 23.0, 52.0, 464.0))
_CHARGE = (
    (0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99, 1.0),
    (1197.0, 3.3e3, 6.0e3, 1.2e4, 3.7e4, 3.1e5, 1.4e6, 3.57e6),
)
_STEPS_PER_PIXEL = 8
_REFERENCE_S = 565.0


def draw_tracks(rng, number: int, shape: tuple[int, int]):
    """Deposits (rows, columns, e-) of `number` tracks whose middles are uniform over `shape`.

    Lengths in pixels, charge spread evenly along the track; parts outside `shape` are dropped.
    """
    length = inverse_table(rng, number, *_LENGTH)
    charge = inverse_table(rng, number, *_CHARGE, logarithmic=True)
    row0, column0 = rng.random(number) * shape[0], rng.random(number) * shape[1]
    angle = rng.random(number) * np.pi
    steps = np.maximum(1, np.ceil(length * _STEPS_PER_PIXEL).astype(int))
    track = np.repeat(np.arange(number), steps)
    along = np.arange(track.size) - np.repeat(np.cumsum(steps) - steps, steps)
    along = ((along + 0.5) / steps[track] - 0.5) * length[track]
    rows = np.floor(row0[track] + along * np.sin(angle[track])).astype(np.int64)
    columns = np.floor(column0[track] + along * np.cos(angle[track])).astype(np.int64)
    inside = (rows >= 0) & (rows < shape[0]) & (columns >= 0) & (columns < shape[1])
    deposits = (charge / steps)[track]
    return rows[inside], columns[inside], deposits[inside]


class Cosmics(Plugin):
    """Tracks that arrive during the integration."""

    name, stage, order = "cosmics", "collect", 50
    settings = {"density": 1e-5}  # noqa: RUF012 - tracks per pixel in 565 s

    def draw(self, rng, context):
        return {"density": float(context.settings["density"])}

    def active(self, exposure):
        return exposure.reads_charge and exposure.exptime > 0

    def apply(self, state: State):
        if state.expectation:
            return
        rng = state.random(self.name)
        rows, columns = state.detector.image_shape
        rate = state.truth[self.name]["density"] * rows * columns / _REFERENCE_S
        number = int(rng.poisson(rate * state.exposure.exptime))
        state.record["cosmics"] = state.record.get("cosmics", 0) + number
        if number:
            add_at(state.need_charge(), *draw_tracks(rng, number, state.detector.image_shape))


class ReadoutCosmics(Plugin):
    """Tracks that arrive during the read-out: they appear as many rows later as were already read."""

    name, stage, order = "readout_cosmics", "transfer", 20

    def active(self, exposure):
        return exposure.reads_charge

    def apply(self, state: State):
        if state.expectation:
            return
        detector, rng = state.detector, state.random(self.name)
        rate = state.truth["cosmics"]["density"] * detector.image_rows * detector.image_columns / _REFERENCE_S
        number = int(rng.poisson(rate * state.row_time_s * detector.rows))
        signal = state.need_signal()
        area = signal[:, detector.prescan : detector.prescan + detector.image_columns]
        seen = 0
        for _ in range(number):
            rows, columns, charge = draw_tracks(rng, 1, detector.image_shape)
            rows = rows + int(rng.integers(detector.rows))  # rows read before the ray came
            inside = rows < detector.rows
            seen += bool(inside.any())
            add_at(area, rows[inside], columns[inside], charge[inside])
        state.record["cosmics"] = state.record.get("cosmics", 0) + seen


PLUGINS = (Cosmics(), ReadoutCosmics())
