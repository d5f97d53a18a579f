"""Light. Here only light that should not be there; lamps and spots are plug-ins of their families."""

from __future__ import annotations

import numpy as np

from calcamp.simulate.chain import Plugin, State

_REACH = 0.5  # of the quadrant, e-folding length of the leak


class Response(Plugin):
    """Pixels and columns that answer less to light: truth for every light source, no signal of its own."""

    name, stage, order = "response", "collect", -100
    settings = {"dead": None, "dead_columns": 0}  # noqa: RUF012 - per quadrant; None: 5e-6 of the pixels

    def draw(self, rng, context):
        rows, columns = context.detector.image_shape
        dead = context.settings["dead"]
        number = max(2, round(5e-6 * rows * columns)) if dead is None else int(dead)
        n_columns = int(context.settings["dead_columns"])
        return {
            "dead_row": rng.integers(0, rows, number).astype(np.int32),
            "dead_column": rng.integers(0, columns, number).astype(np.int32),
            "dead_response": rng.uniform(0.0, 0.4, number).round(3),
            "dead_columns": rng.choice(columns, n_columns, replace=False).astype(np.int32),
            "dead_columns_first_row": rng.integers(0, rows // 2, n_columns).astype(np.int32),
        }

    def active(self, exposure):
        return False  # applied by the sources of light

    @staticmethod
    def apply_to(light: np.ndarray, truth: dict) -> None:
        """Multiply an image of light, image area, by the response."""
        light[truth["dead_row"], truth["dead_column"]] *= truth["dead_response"]
        for column, first in zip(truth["dead_columns"], truth["dead_columns_first_row"], strict=True):
            light[first:, column] *= 0.02


class LightLeak(Plugin):
    """Disturbance ``light_leak``: light that falls off along the rows, also during the read-out."""

    name, stage, order = "light_leak", "collect", 10

    def active(self, exposure):
        return exposure.reads_charge and any(d.kind == "light_leak" for d in exposure.disturbances)

    def apply(self, state: State):
        rate = state.disturbed("light_leak")  # e-/s at the brightest row
        if rate is None:
            return
        charge = state.need_charge()
        n = state.detector.image_rows
        profile = np.exp(-np.arange(n) / (_REACH * n))
        # A packet sees its own row while it waits, then each row on its way for one row time.
        seconds = state.exposure.exptime * profile + state.row_time_s * np.cumsum(profile)
        light = np.broadcast_to((rate * seconds)[:, None], charge.shape).copy()
        Response.apply_to(light, state.truth["response"])
        charge += light if state.expectation else state.random(self.name).poisson(light)


PLUGINS = (Response(), LightLeak())
