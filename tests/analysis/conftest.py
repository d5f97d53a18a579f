import numpy as np
import pytest

from calcamp.detector.geometry import Detector


@pytest.fixture(scope="session")
def mini() -> Detector:
    """Small CCD with full scans."""
    return Detector("ccd273-mini", image_columns=512, image_rows=516, min_column_length=50)


@pytest.fixture
def rng(request) -> np.random.Generator:
    """Generator with a seed of its own per test, the same in every run."""
    return np.random.default_rng(sum(map(ord, request.node.name)))
