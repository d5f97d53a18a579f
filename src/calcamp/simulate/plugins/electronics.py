"""From electrons to counts: gain, noise, offset with its drift and structure, converter."""

from __future__ import annotations

import numpy as np

from calcamp.simulate.chain import Plugin, State


class Gain(Plugin):
    """Electrons become ADU."""

    name, stage, order = "gain", "amplify", 0
    settings = {"gain": None}  # noqa: RUF012 - e-/ADU; None: drawn between 3.2 and 3.7

    def draw(self, rng, context):
        value = rng.uniform(3.2, 3.7)
        return {"gain": float(value if context.settings["gain"] is None else context.settings["gain"])}

    def apply(self, state: State):
        if state.signal is not None:
            state.signal *= np.float32(1.0 / state.truth.gain)


class ReadNoise(Plugin):
    """White noise of the amplifier; the disturbance ``noisy_frame`` multiplies it."""

    name, stage, order = "read_noise", "amplify", 10
    settings = {"sigma": None}  # noqa: RUF012 - ADU; None: drawn between 1.1 and 1.35

    def draw(self, rng, context):
        value = rng.uniform(1.10, 1.35)
        return {"sigma": float(value if context.settings["sigma"] is None else context.settings["sigma"])}

    def apply(self, state: State):
        signal = state.need_signal()
        if state.expectation:
            return
        sigma = state.truth.read_noise * (state.disturbed("noisy_frame") or 1.0)
        noise = state.random(self.name).standard_normal(signal.shape, dtype=np.float32)
        noise *= np.float32(sigma)
        signal += noise


class RowNoise(Plugin):
    """Noise common to all pixels of a row. Off unless asked for."""

    name, stage, order = "row_noise", "amplify", 20
    settings = {"sigma": 0.0}  # noqa: RUF012 - ADU

    def draw(self, rng, context):
        return {"sigma": float(context.settings["sigma"])}

    def apply(self, state: State):
        sigma = state.truth[self.name]["sigma"]
        if sigma and not state.expectation:
            signal = state.need_signal()
            signal += (sigma * state.random(self.name).standard_normal(signal.shape[0]))[:, None].astype(
                np.float32
            )


class Offset(Plugin):
    """Offset of the channel, its slow drift, and its wander along the rows of a frame."""

    name, stage, order = "offset", "bias", 0
    settings = {  # noqa: RUF012
        "spread": 5.0,  # ADU, rms about the block's expected offset
        "drift": 1.0,  # factor on slope, swing and jitter of the drift
        "wander": 0.05,  # ADU rms within a frame
    }

    def draw(self, rng, context):
        scale = float(context.settings["drift"])
        spread = float(context.settings["spread"])
        return {
            "offset": float(context.block_offset + np.clip(rng.normal(0, spread), -3 * spread, 3 * spread)),
            "reversed_step": float(rng.normal(0, 2.0)),  # ADU, added in reversed read modes
            "slope_adu_h": float(scale * rng.normal(0, 0.1)),
            "swing_adu": float(scale * rng.uniform(0.2, 0.4)),
            "swing_period_h": float(rng.uniform(1.5, 4.0)),
            "swing_phase": float(rng.uniform(0, 2 * np.pi)),
            "jitter_adu": 0.05 * scale,  # from frame to frame
            "wander_adu": float(context.settings["wander"]),
        }

    @staticmethod
    def drift(truth: dict, seconds) -> np.ndarray:
        """Slow drift, ADU, at `seconds` since the session began."""
        hours = np.asarray(seconds) / 3600
        swing = np.sin(2 * np.pi * hours / truth["swing_period_h"] + truth["swing_phase"])
        return truth["slope_adu_h"] * hours + truth["swing_adu"] * swing

    def apply(self, state: State):
        truth, rng = state.truth[self.name], state.random(self.name)
        begin = state.exposure.elapsed_s + state.exposure.exptime
        rows = truth["offset"] + self.drift(truth, begin + state.row_times_s())
        if not state.exposure.reads_charge:
            rows = rows + truth["reversed_step"]
        if not state.expectation:
            rows = rows + truth["jitter_adu"] * rng.standard_normal()
            rows = rows + self._wander(rng, truth["wander_adu"], rows.size)
        rows = rows + (state.disturbed("offset_step") or 0.0)
        state.record["offset"] = float(rows[: state.detector.image_rows].mean())
        signal = state.need_signal()
        signal += rows[:, None].astype(np.float32)

    @staticmethod
    def _wander(rng, rms: float, rows: int) -> np.ndarray:
        """Smooth random course along the rows: four waves of a fifth to twice the frame."""
        waves = rng.uniform(0.5, 5.0, 4)
        phases = rng.uniform(0, 2 * np.pi, 4)
        x = np.arange(rows)[:, None] / rows
        return rms * np.sqrt(2 / 4) * np.sin(2 * np.pi * waves * x + phases).sum(axis=1)


class Structure(Plugin):
    """Fixed pattern of the offset: steps between scans and image, bump, gradients, columns, settling.

    It belongs to the electronics, so it depends on where the read-out is, not on charge. Positions
    along rows and columns run from 0 to 1 over the quadrant.
    """

    name, stage, order = "structure", "bias", 10
    settings = {"scale": 1.0, "columns": 0.1}  # noqa: RUF012 - factor on all; ADU rms of the column pattern

    def draw(self, rng, context):
        k = float(context.settings["scale"])
        pattern = rng.normal(0, k * float(context.settings["columns"]), context.detector.columns)
        return {
            "image_step": k * rng.uniform(0.5, 2.0),  # ADU, image columns above the prescan
            "overscan_step": -k * rng.uniform(0.5, 1.5),
            "row_gradient": k * rng.uniform(-0.5, 0.5),  # ADU from the first to the last row
            "column_gradient": k * rng.uniform(-0.5, 0.5),
            "edge": k * rng.uniform(0.3, 0.9),  # ADU at the first column, falls with 5 % of the width
            "bump": k * rng.uniform(0.3, 0.6),  # ADU, two-dimensional
            "bump_row": rng.uniform(0.2, 0.8),
            "bump_column": rng.uniform(0.2, 0.8),
            "bump_width": rng.uniform(0.15, 0.35),
            "frame_settling": k * rng.uniform(1.0, 2.0),  # ADU at the first row
            "frame_settling_rows": rng.uniform(8.0, 15.0),
            "line_settling": k * rng.uniform(1.0, 4.0),  # ADU at the first column
            "line_settling_columns": rng.uniform(2.0, 4.0),
            "odd_even": k * 0.05,
            "column_pattern": (pattern - pattern.mean()).astype(np.float32),
        }

    def apply(self, state: State):
        rows, columns, bump_rows, bump_columns = self.parts(state.truth[self.name], state.detector)
        signal = state.need_signal()
        signal += rows[:, None].astype(np.float32)
        signal += columns[None, :].astype(np.float32)
        signal += bump_rows[:, None].astype(np.float32) * bump_columns[None, :].astype(np.float32)

    @staticmethod
    def parts(truth: dict, detector) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Rows, columns and the two factors of the bump: structure = r[:, None] + c + br[:, None] * bc, ADU."""
        row, column = np.arange(detector.rows), np.arange(detector.columns)
        y, x = row / detector.rows, column / detector.columns
        rows = truth["row_gradient"] * y + truth["frame_settling"] * np.exp(
            -row / truth["frame_settling_rows"]
        )
        in_image = (column >= detector.prescan) & (column < detector.prescan + detector.image_columns)
        in_overscan = column >= detector.prescan + detector.image_columns
        along = np.clip((column - detector.prescan) / detector.image_columns, 0, None)
        columns = (
            truth["column_gradient"]
            * (x - detector.prescan / detector.columns)
            * (column >= detector.prescan)
        )
        columns = columns + truth["image_step"] * in_image + truth["overscan_step"] * in_overscan
        columns = columns + truth["edge"] * np.exp(-along / 0.05) * in_image
        columns = columns + truth["line_settling"] * np.exp(-column / truth["line_settling_columns"])
        columns = columns + truth["odd_even"] * np.where(column % 2, 1.0, -1.0) + truth["column_pattern"]
        bump_rows = truth["bump"] * np.exp(-0.5 * ((y - truth["bump_row"]) / truth["bump_width"]) ** 2)
        bump_columns = np.exp(-0.5 * ((x - truth["bump_column"]) / truth["bump_width"]) ** 2) * in_image
        return rows, columns, bump_rows, bump_columns


class PickUp(Plugin):
    """A wave picked up by the electronics, with a free phase in each frame. Off unless asked for."""

    name, stage, order = "pickup", "bias", 20
    settings = {"amplitude": 0.0, "frequency_hz": 1234.5}  # noqa: RUF012 - ADU, Hz

    def draw(self, rng, context):
        return {key: float(context.settings[key]) for key in ("amplitude", "frequency_hz")}

    def apply(self, state: State):
        truth = state.truth[self.name]
        if not truth["amplitude"] or state.expectation:
            return
        omega = 2 * np.pi * truth["frequency_hz"]
        phase = state.random(self.name).uniform(0, 2 * np.pi)
        state.record["pickup_phase"] = float(phase)
        a = omega * state.row_times_s() + phase
        b = omega * state.detector.pixel_time_s * np.arange(state.detector.columns)
        signal = state.need_signal()
        # sin(a + b) as two products: a frame of sines would cost more than its noise.
        for row, column in ((np.sin(a), np.cos(b)), (np.cos(a), np.sin(b))):
            signal += (truth["amplitude"] * row)[:, None].astype(np.float32) * column[None, :].astype(
                np.float32
            )


class Converter(Plugin):
    """Rounds to whole ADU between 0 and 65535; rows outside the read window become 0."""

    name, stage, order = "converter", "adc", 0
    settings = {"stuck_high": 0, "stuck_low": 0}  # noqa: RUF012 - bit masks of bits that are always 1, always 0

    def draw(self, rng, context):
        return {key: int(context.settings[key]) for key in ("stuck_high", "stuck_low")}

    def apply(self, state: State):
        signal, truth = state.need_signal(), state.truth[self.name]
        np.rint(signal, out=signal)
        np.clip(signal, 0, state.detector.full_scale, out=signal)
        counts = signal.astype(np.uint16)
        if truth["stuck_high"]:
            counts |= np.uint16(truth["stuck_high"])
        if truth["stuck_low"]:
            counts &= np.uint16(0xFFFF ^ truth["stuck_low"])
        if state.disturbed("dead_quadrant") is not None:
            counts[...] = round(state.truth.offset)
        first, last = state.detector.read_rows(
            int(state.exposure.keys.get("vstart", 0)), int(state.exposure.keys.get("vend", 2086))
        )
        counts[:first] = 0
        counts[last:] = 0
        if state.disturbed("zero_frame") is not None:
            counts[...] = 0
        state.counts, state.signal = counts, None


PLUGINS = (Gain(), ReadNoise(), RowNoise(), Offset(), Structure(), PickUp(), Converter())
