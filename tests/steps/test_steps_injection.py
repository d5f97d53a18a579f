"""Curves of the block: all CCDs that were measured, each with its own gain; the half that is injected."""

from __future__ import annotations

import numpy as np
import pytest

from calcamp.config.lookup import load_detector
from calcamp.data.tables import table_rows
from calcamp.detector.geometry import QUADRANTS, half_of
from calcamp.simulate.plugins import injection as physics
from calcamp.steps import injection as steps
from calcamp.steps.runner import Context

GATE = np.arange(2.5, 6.76, 0.25)
GAINS = {1: 3.4, 2: 3.6}
TRUTH = {
    "threshold_shift": 0.02,
    "knee_shift": 0.1,
    "slope_e_v": 21000.0,
    "notch_e": 2100.0,
    "strips": 0.1,
    "softness": 0.03,
    "rate_e_us": 900.0,
}


def rows_of(ccd, other_half=0.02):
    """Table ``injection`` of a CCD: every quadrant with its own delay and with that of the other half."""
    rng = np.random.default_rng(ccd)
    out = []
    for quadrant in QUADRANTS:
        for matched, share in ((True, 1.0), (False, other_half)):
            level = share * physics.packet(TRUTH, GATE, 6.0, 11.0) / GAINS[ccd]
            for volts, value in zip(GATE, level, strict=True):
                err = 1e-4 * value + 0.1
                half = half_of(quadrant)
                out.append(
                    {
                        "quadrant": quadrant,
                        "half": half,
                        "matched": matched,
                        "delay_ratio": 2.5 if (half == "half_EF") == matched else 1.5,
                        "ig1": float(volts),
                        "idl": 11.0,
                        "signal": float(value + err * rng.normal()),
                        "signal_err": float(err),
                    }
                )
    return out


@pytest.fixture
def context(tmp_path, monkeypatch):
    tables = {1: rows_of(1), 2: rows_of(2, other_half=0.8)}  # CCD3 was not measured
    monkeypatch.setattr(Context, "rows", lambda self, subtask, subject, ccd=None: tables.get(ccd, []))
    numbers = {str(ccd): dict.fromkeys(QUADRANTS, gain) for ccd, gain in GAINS.items()}
    return Context(
        test="CHINJ01",
        subtask="meta",
        family="injection",
        ccd=None,
        detector=load_detector("ccd273-mini"),
        options={},
        prep_options={},
        products={"gain": {"numbers": numbers}},
        exposures=[],
        folder=tmp_path,
        into=tmp_path,
        job={},
        manifest={},
    )


def test_curves_of_the_block(context):
    steps.meta(context)
    fits = table_rows(context.into / "injection_fit.ecsv")
    assert {(r["ccd"], r["quadrant"]) for r in fits} == {(ccd, q) for ccd in GAINS for q in QUADRANTS}
    known = physics.characteristics(TRUTH)
    for r in fits:
        assert not r["flag"]
        assert not r["gain_nominal"]
        assert abs(r["threshold"] - known["threshold_ig1"]) < 0.005
        assert r["notch_e"] == pytest.approx(known["notch_e"], rel=0.005)  # each with the gain of its CCD
        assert r["v0"] == pytest.approx(11.0 - r["threshold"])
    assert len(table_rows(context.into / "delays.ecsv")) == 16


def test_the_other_half_is_told(context):
    steps.meta(context)
    told = [f["scope"] for f in context.flags if f["name"] == "FLUENCE_OOL"]
    assert told == [{"ccd": 2, "quadrant": quadrant} for quadrant in QUADRANTS]
