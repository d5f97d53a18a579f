"""Light. Here only light that should not be there; lamps and spots are plug-ins of their families."""

from __future__ import annotations

import numpy as np

from calcamp.simulate.chain import Plugin, State

_REACH = 0.5  # of the quadrant, e-folding length of the leak


class Response(Plugin):
    """Pixels and columns that answer less to light: truth for every light source, no signal of its own."""

    name, stage, order = "response", "collect", -100
    settings = {  # noqa: RUF012 - numbers per quadrant
        "dead": None,  # None: 5e-6 of the pixels
        "dead_columns": 0,  # from a row to the end of the quadrant
        "partial_columns": 0,  # dead over `partial_length` rows
        "partial_length": 300,
        "clusters": 0,  # groups of 4 to 12 touching pixels
        "low": 0,  # response 0.55 to 0.75
        "over": 0,  # 1.6 to 2.0
        "high": 0,  # 1.25 to 1.45
    }

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
            **self._partial_columns(rng, context),
            **self._clusters(rng, context),
            **self._deviant(rng, context),
        }

    @staticmethod
    def _partial_columns(rng, context) -> dict:
        rows, columns = context.detector.image_shape
        number, length = (int(context.settings[k]) for k in ("partial_columns", "partial_length"))
        length = min(length, rows - 2)
        return {
            "partial_column": rng.choice(columns, number, replace=False).astype(np.int32),
            "partial_first_row": rng.integers(1, rows - length, number).astype(np.int32),
            "partial_length": length,
        }

    @staticmethod
    def _clusters(rng, context) -> dict:
        """Groups grown pixel by pixel from a seed, inside the image area."""
        rows, columns = context.detector.image_shape
        found: list[tuple[int, int, int]] = []
        for label in range(int(context.settings["clusters"])):
            members = {(int(rng.integers(6, rows - 6)), int(rng.integers(6, columns - 6)))}
            size = int(rng.integers(4, 13))
            while len(members) < size:
                row, column = sorted(members)[int(rng.integers(len(members)))]
                step = ((0, 1), (1, 0), (0, -1), (-1, 0))[int(rng.integers(4))]
                place = (row + step[0], column + step[1])
                if 0 <= place[0] < rows and 0 <= place[1] < columns:
                    members.add(place)
            found += [(row, column, label) for row, column in sorted(members)]
        row, column, label = np.array(found, dtype=np.int32).reshape(-1, 3).T
        response = rng.uniform(0.0, 0.45, len(found)).round(3)
        return {
            "cluster_row": row,
            "cluster_column": column,
            "cluster_id": label,
            "cluster_response": response,
        }

    @staticmethod
    def _deviant(rng, context) -> dict:
        rows, columns = context.detector.image_shape
        ranges = {"low": (0.55, 0.75), "over": (1.6, 2.0), "high": (1.25, 1.45)}
        numbers = {kind: int(context.settings[kind]) for kind in ranges}
        total = sum(numbers.values())
        response = [rng.uniform(*ranges[kind], number) for kind, number in numbers.items()]
        return {
            "deviant_row": rng.integers(0, rows, total).astype(np.int32),
            "deviant_column": rng.integers(0, columns, total).astype(np.int32),
            "deviant_response": np.concatenate(response).round(3),
        }

    def active(self, exposure):
        return False  # applied by the sources of light

    @staticmethod
    def apply_to(light: np.ndarray, truth: dict) -> None:
        """Multiply an image of light, image area, by the response."""
        light[truth["dead_row"], truth["dead_column"]] *= truth["dead_response"]
        for column, first in zip(truth["dead_columns"], truth["dead_columns_first_row"], strict=True):
            light[first:, column] *= 0.02
        length = truth.get("partial_length", 0)
        for column, first in zip(
            truth.get("partial_column", ()), truth.get("partial_first_row", ()), strict=True
        ):
            light[first : first + length, column] *= 0.02
        for kind in ("cluster", "deviant"):
            if f"{kind}_row" in truth:
                light[truth[f"{kind}_row"], truth[f"{kind}_column"]] *= truth[f"{kind}_response"]


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
