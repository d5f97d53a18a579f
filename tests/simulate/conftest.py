import pytest

from calcamp.detector.geometry import Detector


@pytest.fixture(scope="session")
def mini():
    return Detector(
        name="ccd273-mini",
        image_columns=512,
        image_rows=516,
        min_column_length=50,
        lock_shift_px=75,
    )
