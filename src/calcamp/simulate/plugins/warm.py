"""A warm CCD: dark current of the surface, which draws a ramp along the rows of a read-out."""

from __future__ import annotations

import numpy as np

from calcamp.simulate.chain import Plugin, State
from calcamp.simulate.sampling import add_poisson_rows

ROOM_TEMPERATURE_K = 293.15
_BOLTZMANN_EV_K = 8.617333e-5
_ACTIVATION_EV = 0.6
_WARM_K = 230.0  # below, it is nothing


class WarmDark(Plugin):
    """Dark current of a CCD at room temperature, non-uniform, and its ramp.

    A packet read at row r waits for the exposure in its own row and then passes rows r to 0, one row time in
    each: at exposure time 0 the level rises in proportion to the row.
    """

    name, stage, order = "warm_dark", "transfer", 20
    settings = {"rate_e_s": None, "nonuniformity": 0.05}  # noqa: RUF012 - at 293 K; None: drawn between 900 and 1500

    def draw(self, rng, context):
        rate = rng.uniform(900.0, 1500.0)
        given = context.settings["rate_e_s"]
        columns = rng.normal(1.0, float(context.settings["nonuniformity"]), context.detector.image_columns)
        return {
            "rate_e_s": float(rate if given is None else given),
            "columns": columns.astype(np.float32),
        }

    def active(self, exposure):
        warm = any(kelvin > _WARM_K for kelvin in exposure.temperature_K.values())
        return warm and exposure.reads_charge

    def apply(self, state: State):
        detector, truth = state.detector, state.truth[self.name]
        kelvin = state.exposure.temperature(state.truth.ccd)
        factor = np.exp(_ACTIVATION_EV / _BOLTZMANN_EV_K * (1 / ROOM_TEMPERATURE_K - 1 / kelvin))
        rate = truth["rate_e_s"] * float(factor)
        passed = np.minimum(np.arange(detector.rows) + 1, detector.image_rows)
        seconds = passed * state.row_time_s
        seconds[: detector.image_rows] = seconds[: detector.image_rows] + state.exposure.exptime
        area = state.need_signal()[:, detector.prescan : detector.prescan + detector.image_columns]
        mean = rate * seconds
        if state.expectation:
            area += (mean[:, None] * truth["columns"]).astype(np.float32)
            return
        made = np.zeros(area.shape, np.float32)
        if mean.max() < 8:
            add_poisson_rows(state.random(self.name), mean, made)
        else:
            expected = mean[:, None].astype(np.float32) * truth["columns"]
            made = state.random(self.name).standard_normal(area.shape, dtype=np.float32)
            made *= np.sqrt(expected)
            made += expected
            np.rint(made, out=made)
            np.maximum(made, 0, out=made)
        area += made


PLUGINS = (WarmDark(),)
