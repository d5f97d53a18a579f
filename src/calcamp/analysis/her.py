"""Hard-edge response: what follows the edge of the image in the overscans, against the signal.

The electronics answer in proportion to the step; charge that comes late saturates with it (traps). Both are fitted
together over all frames (Snyder et al. 2021, JATIS; analysis of flats, 3.3).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np

from calcamp.analysis.statistics import NAN, about, clipped, fit_linear
from calcamp.detector.geometry import Detector

REFERENCE = 10  # image pixels before the edge whose mean is the step
FIT_PIXELS = 6  # overscan pixels that are fitted
HALF_FDR = 32768.0  # ADU: the step at which `her` is quoted
_SCALES = np.geomspace(2e3, 6e4, 25)  # ADU, of the saturating part


@dataclass(frozen=True)
class Edge:
    """Mean profile beyond one edge of one frame."""

    signal: float = field(metadata=about("ADU", "step: mean of the ten image pixels before the edge"))
    response: np.ndarray = field(metadata=about("ADU", "per pixel from the edge, bias taken off"))
    err: np.ndarray = field(metadata=about("ADU", "standard errors"))
    n: int = field(metadata=about("1", "rows (columns) averaged"))


def edge_profile(
    data: np.ndarray, detector: Detector, edge: str, mask: np.ndarray | None = None
) -> Edge | None:
    """Profile behind the serial or the parallel edge of the image of a prepared quadrant.

    Parameters
    ----------
    data : ndarray, canonical quadrant, ADU above offset
    edge : ``serial`` or ``parallel``
    mask : ndarray of bool, optional
        Canonical quadrant, image pixels to be left out.

    Returns
    -------
    Edge, or None when no line is usable.
    """
    rows, columns = detector.region("img", trimmed=False)
    if edge == "serial":
        step = data[rows, columns.stop - REFERENCE : columns.stop]
        beyond = data[rows, columns.stop : columns.stop + detector.overscan]
        bad = None if mask is None else mask[rows, columns.stop - REFERENCE : columns.stop].any(axis=1)
    else:
        step = data[rows.stop - REFERENCE : rows.stop, columns].T
        beyond = data[rows.stop : rows.stop + detector.parallel_overscan, columns].T
        bad = None if mask is None else mask[rows.stop - REFERENCE : rows.stop, columns].any(axis=0)
    if bad is not None and bad.any():
        step, beyond = step[~bad], beyond[~bad]
    pixels = beyond.shape[1]
    if beyond.shape[0] < 20 or pixels < REFERENCE + 4:
        return None
    flat = np.arange(pixels) >= REFERENCE
    # The level far from the edge is that of the line itself; its noise is part of the scatter.
    lines = beyond - beyond[:, flat].mean(axis=1, keepdims=True)
    found = clipped(lines, 5.0, axis=0)
    signal = clipped(step.mean(axis=1), 5.0)
    return Edge(float(signal.mean), np.asarray(found.mean), np.asarray(found.mean_err), beyond.shape[0])


@dataclass(frozen=True)
class Response:
    """Hard-edge response of a quadrant from all frames."""

    her: float = field(metadata=about("1", "first pixel over the step, at a step of half FDR"))
    her_err: float = field(metadata=about("1", "standard error"))
    linear: np.ndarray = field(metadata=about("1", "per pixel: part in proportion to the step"))
    linear_err: np.ndarray = field(metadata=about("1", "standard errors"))
    deferred: np.ndarray = field(metadata=about("ADU", "per pixel: part that saturates"))
    deferred_err: np.ndarray = field(metadata=about("ADU", "standard errors"))
    scale: float = field(metadata=about("ADU", "step at which the saturating part has 63 % of its height"))
    significance: float = field(metadata=about("1", "of the saturating part, sigma; below 5 it is left out"))
    chi2_dof: float = field(metadata=about("1", "per degree of freedom"))
    n: int = field(metadata=about("1", "frames"))
    flag: str = field(default="", metadata=about("", "why there is no response"))


def fit_response(
    signal: np.ndarray, response: np.ndarray, err: np.ndarray, pixels: int = FIT_PIXELS
) -> Response:
    """Linear and saturating response of each pixel behind the edge.

    Parameters
    ----------
    signal : ndarray, shape (frames,), ADU
    response, err : ndarray, shape (frames, pixels), ADU
    """
    signal = np.asarray(signal, float)
    response, err = np.asarray(response, float)[:, :pixels], np.asarray(err, float)[:, :pixels]
    good = np.isfinite(signal) & np.isfinite(response).all(axis=1) & (err > 0).all(axis=1)
    signal, response, err = signal[good], response[good], err[good]
    nothing = np.full(pixels, NAN)
    if len(signal) < 1:
        return Response(NAN, NAN, nothing, nothing, nothing, nothing, NAN, NAN, NAN, 0, "no frame")
    linear = [
        fit_linear(signal[:, None], response[:, k], err[:, k], sigma=None) for k in range(response.shape[1])
    ]
    if not all(f.ok for f in linear):
        return Response(
            NAN, NAN, nothing, nothing, nothing, nothing, NAN, NAN, NAN, len(signal), "not measured"
        )
    chi2 = sum(f.chi2 for f in linear)
    best = (chi2, None, NAN)
    levels = len(np.unique(np.round(20 * np.log(np.maximum(signal, 1.0)))))
    if levels >= 3:
        for scale in _SCALES:
            design = np.stack([signal, 1.0 - np.exp(-signal / scale)], axis=1)
            fits = [
                fit_linear(design, response[:, k], err[:, k], sigma=None) for k in range(response.shape[1])
            ]
            if all(f.ok for f in fits) and sum(f.chi2 for f in fits) < best[0]:
                best = (sum(f.chi2 for f in fits), fits, scale)
    gain = chi2 - best[0]
    significance = math.sqrt(max(gain - response.shape[1] - 1, 0.0)) if best[1] else 0.0
    deferred, deferred_err = np.zeros(pixels), np.zeros(pixels)
    fits, scale = linear, NAN
    if best[1] and significance > 5.0:
        fits, scale = best[1], float(best[2])
        deferred = np.array([f.parameters[1] for f in fits])
        deferred_err = np.array([f.errors[1] for f in fits])
    design = np.array([1.0, (1.0 - math.exp(-HALF_FDR / scale)) / HALF_FDR] if fits is not linear else [1.0])
    dof = response.size - response.shape[1] * len(design) - (fits is not linear)
    chi2_dof = (best[0] if fits is not linear else chi2) / dof if dof > 0 else NAN
    widen = math.sqrt(max(1.0, chi2_dof)) if math.isfinite(chi2_dof) else 1.0
    first = fits[0]
    return Response(
        float(design @ first.parameters),
        widen * math.sqrt(float(design @ first.covariance @ design)),
        np.array([f.parameters[0] for f in fits]),
        widen * np.array([f.errors[0] for f in fits]),
        deferred,
        widen * deferred_err,
        scale,
        significance,
        chi2_dof,
        len(signal),
    )
