"""Small simulated raw frames with known truth, for the tests of this room."""

import numpy as np

from calcamp.detector.arrays import quadrant_view
from calcamp.detector.geometry import QUADRANTS

OFFSETS = {"E": 2700.3, "F": 2650.8, "G": 2811.5, "H": 2745.05}


def raw_quadrant(rng, detector, offset=2700.3, noise=1.2, signal=0.0, drift=0.0, row_noise=0.0):
    """(raw uint16 canonical quadrant, true offset per row); `signal` in the image area, `drift` over all rows."""
    rows = np.arange(detector.rows)
    truth = offset + drift * rows / detector.rows + row_noise * rng.normal(size=detector.rows)
    values = truth[:, None] + rng.normal(0, noise, detector.quadrant_shape)
    values[detector.region("img", trimmed=False)] += signal
    return np.clip(np.rint(values), 0, 65535).astype(np.uint16), truth


def raw_frame(rng, detector, offsets=None, **options):
    """Raw frame in stored orientation."""
    frame = np.zeros(detector.ccd_shape, np.uint16)
    for quadrant in QUADRANTS:
        values, _ = raw_quadrant(rng, detector, (offsets or OFFSETS)[quadrant], **options)
        quadrant_view(frame, quadrant, detector)[...] = values
    return frame
