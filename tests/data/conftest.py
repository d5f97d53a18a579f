from pathlib import Path

import numpy as np
import pytest

from calcamp.detector.geometry import Detector

SAMPLES = next(
    (
        p / "shared" / "samples"
        for p in Path(__file__).resolve().parents
        if (p / "shared" / "samples").is_dir()
    ),
    None,
)


@pytest.fixture(scope="session")
def samples():
    if SAMPLES is None:
        pytest.skip("no folder shared/samples beside the repository")
    return SAMPLES


@pytest.fixture(scope="session")
def tiny():
    """A detector small enough for thousands of frames: 78 x 38 pixels."""
    return Detector("tiny", image_columns=16, image_rows=16, prescan=14, overscan=9, parallel_overscan=3)


@pytest.fixture
def frame(tiny):
    return np.random.default_rng(3).integers(0, 65536, tiny.ccd_shape, dtype=np.uint16)


@pytest.fixture
def row():
    """A row of the exposure log of 7.5.X as the simulator fills it."""
    from calcamp.data import elvis

    row = {}
    for name, kind in elvis.EXPLOG_TYPES.items():
        default = elvis.SCRIPT_DEFAULTS.get(name, {int: 0, float: 0.0, str: "x"}[kind])
        row[name] = kind(default)
    return row | {
        "ObsID": 17200,
        "File_name": "EUC_17200_120319D071040T_ROE1_CCD1",
        "CCD": "CCD1",
        "date": "120319D071040T",
        "test": "BIAS01",
        "IPHI": "I1I2I3",
        "BUNIT": "ADU",
    }
