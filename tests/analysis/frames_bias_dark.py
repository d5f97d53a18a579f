"""Bias and dark frames made from the process: electrons, Poisson, gain, offset structure, rounding."""

from __future__ import annotations

import numpy as np

from calcamp.detector.geometry import Detector

FULL = Detector("ccd273")
MINI = Detector("ccd273-mini", image_columns=512, image_rows=516, min_column_length=50, lock_shift_px=75.0)


def bias_frames(
    detector,
    number,
    rng,
    noise=1.2,
    row=0.0,
    column=0.0,
    pixel=0.0,
    drift=0.0,
    tilt=0.0,
    settle=0.0,
    offset=2650.3,
):
    """Raw quadrants (uint16, canonical) of one electronics chain.

    noise, row: new in each frame; column, pixel, tilt (ADU over the quadrant), settle (start of a row):
    standing; drift: rms of the offset from frame to frame.
    """
    rows, columns = detector.quadrant_shape
    fixed = rng.normal(0, column, columns) if column else np.zeros(columns)
    fixed = fixed + settle * np.exp(-np.arange(columns) / 6.0)
    fixed = fixed + tilt * (np.arange(rows) / rows - 0.5)[:, None]
    if pixel:
        fixed = fixed + rng.normal(0, pixel, (rows, columns))
    level = (offset + fixed).astype(np.float32)
    frames = []
    for _ in range(number):
        frame = rng.standard_normal((rows, columns), dtype=np.float32)
        frame *= np.float32(noise)
        frame += level
        if row:
            frame += rng.normal(0, row, (rows, 1)).astype(np.float32)
        if drift:
            frame += np.float32(rng.normal(0, drift))
        frames.append(np.rint(frame).astype(np.uint16))
    return frames


def track(rng, rows, columns):
    """Pixels and electrons of one cosmic ray: a straight track of random length."""
    length, angle = rng.integers(1, 15), rng.uniform(0, np.pi)
    r = np.rint(rng.integers(0, rows) + np.arange(length) * np.sin(angle)).astype(int)
    c = np.rint(rng.integers(0, columns) + np.arange(length) * np.cos(angle)).astype(int)
    keep = (r >= 0) & (r < rows) & (c >= 0) & (c < columns)
    return r[keep], c[keep], rng.uniform(100, 3000, keep.sum())


def dark_frames(
    detector,
    number,
    rng,
    rate=0.00125,
    exptime=565.0,
    gain=3.5,
    noise=1.2,
    hot=(),
    columns=(),
    unstable=(),
    cosmics=0,
    image_step=0.0,
    overscan_step=0.0,
    drift=0.2,
    row=0.0,
    scatter=0.0,
    dead=(),
):
    """(raw frames, cosmic pixels per frame as flat indices of the quadrant).

    rate, hot (row, column, rate), columns (column, first, last, rate), unstable (row, column, low, high):
    e-/s in the image area; scatter: rms of the pixel rates, e-/s; dead: (column, first, last, depth in ADU).
    """
    image = detector.region("img", trimmed=False)
    rate_map = np.full(detector.image_shape, rate)
    if scatter:
        rate_map += rng.normal(0, scatter, rate_map.shape)
    for r, c, value in hot:
        rate_map[r, c] += value
    for c, first, last, value in columns:
        rate_map[first : last + 1, c] += value
    step = np.zeros(detector.quadrant_shape, np.float32)
    step[image] += image_step
    step[detector.region("ove", trimmed=False)] += overscan_step
    for c, first, last, depth in dead:
        step[first : last + 1, detector.prescan + c] -= depth
    frames, hits = [], []
    for _ in range(number):
        now = rate_map.copy()
        for r, c, low, high in unstable:
            now[r, c] += rng.choice([low, high])
        electrons = np.zeros(detector.quadrant_shape, np.float32)
        area = electrons[image]
        area += rng.poisson(np.maximum(now, 0) * exptime)
        touched = []
        for _ in range(cosmics):
            r, c, charge = track(rng, *detector.image_shape)
            np.add.at(area, (r, c), charge)
            touched.append(r * detector.columns + c + detector.prescan)
        signal = electrons / np.float32(gain)
        signal += rng.standard_normal(signal.shape, dtype=np.float32) * np.float32(noise)
        signal += step + np.float32(2650.3 + rng.normal(0, drift))
        if row:
            signal += rng.normal(0, row, (signal.shape[0], 1)).astype(np.float32)
        frames.append(np.rint(signal).astype(np.uint16))
        hits.append(np.unique(np.concatenate(touched)) if touched else np.empty(0, int))
    return frames, hits


def subtract_offset(frames, detector):
    """Prepared quadrants: row offset from the prescan, as image preparation does."""
    from calcamp.analysis.offset import measure_offsets

    out = []
    for frame in frames:
        offsets = measure_offsets(frame, detector, "row", "pre")
        out.append(frame.astype(np.float32) - offsets.offset[:, None].astype(np.float32))
    return out
