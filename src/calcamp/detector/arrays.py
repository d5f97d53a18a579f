"""Views of frames in canonical orientation (numpy)."""

from __future__ import annotations

import numpy as np

from calcamp.detector.geometry import QUADRANTS, Detector, flips


def canonical(quadrant_array: np.ndarray, quadrant: str) -> np.ndarray:
    """View of a stored quadrant in canonical orientation; applied twice it gives the input back."""
    rows, columns = flips(quadrant)
    return quadrant_array[:: -1 if rows else 1, :: -1 if columns else 1]


def quadrant_view(frame: np.ndarray, quadrant: str, detector: Detector) -> np.ndarray:
    """View of one quadrant of a stored frame, canonical, shape ``detector.quadrant_shape``.

    It is a view: writing to it writes to `frame`.
    """
    return canonical(frame[detector.quadrant_slices(quadrant)], quadrant)


def image_view(quadrant_array: np.ndarray, detector: Detector) -> np.ndarray:
    """View of the image area of a canonical quadrant, shape ``detector.image_shape``."""
    rows, columns = detector.region("img", trimmed=False)
    return quadrant_array[rows, columns]


def assemble(quadrants: dict[str, np.ndarray], detector: Detector, fill=0) -> np.ndarray:
    """Stored frame, shape ``detector.ccd_shape``, from canonical quadrants."""
    dtype = next(iter(quadrants.values())).dtype
    frame = np.empty(detector.ccd_shape, dtype=dtype)
    for quadrant in QUADRANTS:
        quadrant_view(frame, quadrant, detector)[...] = quadrants.get(quadrant, fill)
    return frame
