"""One full-size frame: the limits of the estimators scale, and the cost stays what it is."""

import numpy as np
import pytest
from tests.analysis.frames import OFFSETS, raw_frame

from calcamp.analysis.check import frame_statistics
from calcamp.analysis.prepare import prepare
from calcamp.detector.geometry import QUADRANTS, Detector
from support import assert_pulls

pytestmark = pytest.mark.full


def test_full_size_frame_reaches_the_statistical_limit(rng):
    """0.0083 ADU per frame from 2.1e4 overscan pixels; relative noise 4.9e-4 from the image of one frame."""
    detector = Detector("ccd273")
    raw = raw_frame(rng, detector)
    found = frame_statistics(raw, detector)
    made = prepare(raw, detector, {"offset": "smooth"})
    pulls = []
    for quadrant in QUADRANTS:
        regions = found[quadrant].regions
        image, scan = regions["img"].clipped, regions["ove"].clipped
        pulls += [(r.clipped.mean - OFFSETS[quadrant]) / r.clipped.mean_err for r in regions.values()]
        pulls += [(r.clipped.std - 1.2) / r.clipped.std_err for r in regions.values()]
        assert scan.mean_err == pytest.approx(0.0086, rel=0.02)
        assert image.std_err / image.std == pytest.approx(3.65e-4, rel=0.03)
        assert made.offsets[quadrant].method == "smooth"
        assert (made.offsets[quadrant].offset - OFFSETS[quadrant]).std() < 0.05
        assert abs(float(made.image(quadrant).mean(dtype=np.float64))) < 0.03
    assert_pulls(pulls)
