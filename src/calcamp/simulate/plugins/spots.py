"""Point sources: 20 spots per CCD on the chamber's pattern, out of focus as the mirror says."""

from __future__ import annotations

import math

import numpy as np

from calcamp.detector.arrays import canonical
from calcamp.simulate.chain import Plugin, State
from calcamp.simulate.optics import SIGMA_PER_FWHM, SIZE, bleed, central_share, collect, spot_image

LONG_S = 100.0
SPOTS = ("A", "B", "C", "D", "E")
#: Peak of a spot that is exposed for the chamber's saturation time, ADU at nominal gain.
EFFECTIVE_SATURATION = 55_000.0
_CENTRE = SIZE // 2


class Spots(Plugin):
    """Light of the point sources: optics, diffusion, pixels, brighter-fatter effect, bleeding.

    Sizes are those of Gaussians, px, pixel not included. The optics have ``fwhm`` at best focus less the
    diffusion in the detector; out of focus a Gaussian of sigma k |z - z0| is added, with z0 the plane of
    each CCD, its curvature, and a little for each spot.
    """

    name, stage, order = "spots", "collect", 20
    provides = frozenset({"light"})
    settings = {  # noqa: RUF012
        # from the chamber profile
        "pattern": None,  # {ccd: {spot: [x, y]}} in silicon coordinates of this detector
        "saturation_time": {},  # s, by nm
        "filter_wheel": {},  # nm, by slot
        "focus": {},  # mm, by slot: nominal mirror position
        "fwhm": {},  # px at best focus, by nm, diffusion included
        # truth of its own
        "mode": "gaussian",  # or "airy"
        "airy_fwhm": 0.9,  # px at 800 nm, in proportion to the wavelength
        "diffusion": {590: 0.38, 730: 0.36, 800: 0.35, 880: 0.34},  # px, sigma, by nm
        "k": 2.0,  # px of sigma per mm
        "focus_offset": 0.01,  # mm, true minus nominal
        "chromatic": {590: -0.015, 730: -0.005, 880: 0.006},  # mm
        "ccd_offset": {1: -0.012, 2: 0.0, 3: 0.009},  # mm
        "tilt": {1: (0.010, -0.006), 2: (0.004, 0.008), 3: (-0.007, 0.005)},  # mm per 1000 full-size px
        "curvature": 0.0,  # mm per (1000 full-size px)^2
        "focus_scatter": 0.002,  # mm rms from spot to spot
        "astigmatism": 0.004,  # mm, z0 of x minus z0 of y
        "ellipticity": 0.01,  # rms of e1, e2 of the optics
        "e1": None,  # e1 and e2 of all spots instead of drawn ones
        "e2": None,
        "brightness": 0.15,  # spots differ by up to this, relative
        "flux": 1.0,  # factor on all of them
        "shift": {1: (8.0, -5.0), 2: (-6.0, 3.0), 3: (4.0, 9.0)},  # px, pattern to image
        "rotation": {1: 0.05, 2: -0.03, 3: 0.08},  # deg about the CCD's centre, counter-clockwise
        "scale": 1.001,
        "scatter": 0.3,  # px rms, position of a spot in the pattern
        "missing": (),  # e.g. ("1EA", "3GC")
        "jitter": None,  # px rms, from exposure to exposure; None: 0.5 with the dither stage, 0.02 without
        "background": 5.0,  # e-/px in an exposure of the saturation time
        "bf_a00": -0.87e-6,  # 1/e-, as the flat source
        "full_well": 240_000.0,  # e-
        "slices": 8,  # steps of collection
    }

    def chamber_settings(self, chamber, detector) -> dict:
        """Settings that a chamber profile gives; none without a spot pattern."""
        if chamber.pattern is None:
            return {}
        return {
            "pattern": chamber.spots().on(detector),
            "saturation_time": dict(chamber.saturation_time.point),
            "filter_wheel": dict(chamber.filter_wheel),
            "focus": dict(chamber.mirror),
            "fwhm": dict(chamber.fwhm),
        }

    def draw(self, rng, context):
        s = context.settings
        drawn = {
            "brightness": np.exp(np.log1p(s["brightness"]) * rng.uniform(-1, 1, 5)),
            "e1": s["ellipticity"] * rng.standard_normal(5),
            "e2": s["ellipticity"] * rng.standard_normal(5),
            "z_scatter": s["focus_scatter"] * rng.standard_normal(5),
            "xy_scatter": s["scatter"] * rng.standard_normal((5, 2)),
        }
        for key in ("e1", "e2"):
            if s[key] is not None:
                drawn[key] = np.full(5, float(s[key]))
        if s["pattern"] is None:
            return {**drawn, "there": np.zeros(5, bool), "settings": s}
        pattern = _of(s["pattern"], context.ccd)
        names = [context.quadrant + spot for spot in SPOTS]
        place = np.array([pattern[name] for name in names], float)
        x, y = moved(
            place, _of(s["shift"], context.ccd), _of(s["rotation"], context.ccd), s["scale"], context.detector
        ).T
        x, y = x + drawn["xy_scatter"][:, 0], y + drawn["xy_scatter"][:, 1]
        z = focus_surface(x, y, s, context.ccd, context.detector) + drawn["z_scatter"]
        there = np.array([f"{context.ccd}{name}" not in s["missing"] for name in names])
        return {**drawn, "x": x, "y": y, "z_offset": z, "there": there, "settings": s}

    def active(self, exposure):
        keys = exposure.keys
        lit = int(keys.get("shuttr", 0)) and exposure.exptime > 0 and keys.get("source") == "point"
        # Long exposures saturate far out of focus: plug-in saturating_spots.
        return bool(lit) and exposure.reads_charge and exposure.exptime < LONG_S

    def apply(self, state: State):
        truth = state.truth[self.name]
        if not truth["there"].any():
            return
        keys, s = state.exposure.keys, truth["settings"]
        slot = int(keys["wave"])
        nm = int(_of(s["filter_wheel"], slot))
        level = state.exposure.exptime / float(_of(s["saturation_time"], nm))
        fwhm = float(_of(s["fwhm"], nm))
        full = EFFECTIVE_SATURATION * state.detector.nominal_gain / central_share(fwhm)
        charge = canonical(state.need_charge(), state.truth.quadrant)  # as stored
        rng = None if state.expectation else state.random(self.name)
        background = s["background"] * level
        charge += background if rng is None else rng.poisson(background, charge.shape)
        x, y = self.positions(state.truth, state.detector)
        jitter = s["jitter"]
        if jitter is None:
            jitter = 0.5 if int(keys.get("motr_on", 0)) else 0.02
        if state.common is not None and not state.expectation:
            dx, dy = jitter * state.common(self.name).standard_normal(2)
            x, y = x + dx, y + dy
        covariances = self.covariances(state.truth, slot, nm, float(keys.get("mirr_pos") or 0.0), fwhm)
        airy = float(s["airy_fwhm"]) * (nm or 800) / 800 if s["mode"] == "airy" else None
        windows, images = [], []
        for k in np.nonzero(truth["there"])[0]:
            ix, iy = round(x[k]), round(y[k])
            flux = full * level * float(s["flux"]) * truth["brightness"][k]
            cov = covariances[k]
            if airy:  # the Gaussian is what the width has beyond diffraction
                core = (airy * SIGMA_PER_FWHM) ** 2
                cov = (max(cov[0] - core, 0.05), max(cov[1] - core, 0.05), cov[2])
            images.append(flux * spot_image(x[k] - ix + _CENTRE, y[k] - iy + _CENTRE, cov, airy))
            windows.append((iy - _CENTRE, ix - _CENTRE))
            name = f"spot_{SPOTS[k]}"
            state.record |= {
                f"{name}_x": float(x[k]),  # image area, as stored
                f"{name}_y": float(y[k]),
                f"{name}_flux_e": float(flux),
                f"{name}_xx": float(cov[0]),
                f"{name}_yy": float(cov[1]),
                f"{name}_xy": float(cov[2]),
            }
        images = np.array(images)
        self._dead(images, windows, state)
        collected = collect(
            rng, images, np.full(images.shape, background), float(s["bf_a00"]), int(s["slices"])
        )
        for image, (row, column) in zip(collected, windows, strict=True):
            add_stamp(charge, image, row, column)
        bleed(charge, float(s["full_well"]))

    @staticmethod
    def positions(truth, detector) -> tuple[np.ndarray, np.ndarray]:
        """(x, y) in the image area of the quadrant as stored, px, without jitter."""
        spots = truth["spots"]
        x = spots["x"] - (detector.image_columns if truth.quadrant in "FG" else 0)
        y = spots["y"] - (detector.image_rows + detector.injection_rows if truth.quadrant in "EF" else 0)
        return x, y

    @staticmethod
    def best_focus(truth, slot: int, nm: int) -> np.ndarray:
        """Mirror position of best focus of each spot, mm (mean of x and y)."""
        spots = truth["spots"]
        s = spots["settings"]
        nominal = float(_of(s["focus"], slot)) + s["focus_offset"]
        return nominal + float(_of(s["chromatic"], nm, 0.0)) + spots["z_offset"]

    @classmethod
    def covariances(cls, truth, slot: int, nm: int, mirror: float, fwhm: float) -> list[tuple]:
        """(xx, yy, xy) of each spot at a mirror position, px², CCD orientation, without the pixel."""
        spots = truth["spots"]
        s = spots["settings"]
        z0 = cls.best_focus(truth, slot, nm)
        total = (fwhm * SIGMA_PER_FWHM) ** 2
        out = []
        for k in range(5):
            half = 0.5 * s["astigmatism"]
            blur = [(s["k"] * (mirror - z0[k] + sign * half)) ** 2 for sign in (-1, 1)]
            e1, e2 = spots["e1"][k], spots["e2"][k]
            out.append((total * (1 + e1) + blur[0], total * (1 - e1) + blur[1], total * e2))
        return out

    @staticmethod
    def _dead(images, windows, state: State) -> None:
        """Pixels that answer less."""
        response = state.truth["response"]
        shape = state.detector.image_shape
        rows, columns = response["dead_row"], response["dead_column"]
        q = state.truth.quadrant
        # to stored orientation
        rows = shape[0] - 1 - rows if q in "EF" else rows
        columns = shape[1] - 1 - columns if q in "FG" else columns
        for image, (row, column) in zip(images, windows, strict=True):
            near = (rows >= row) & (rows < row + SIZE) & (columns >= column) & (columns < column + SIZE)
            for r, c, value in zip(rows[near], columns[near], response["dead_response"][near], strict=True):
                image[r - row, c - column] *= value


def _of(values, key, default=None):
    """Value of a key, also where JSON made it a text, or the one value for all keys."""
    if not isinstance(values, dict):
        return values
    for candidate in (key, str(key)):
        if candidate in values:
            return values[candidate]
    if default is None:
        raise KeyError(f"nothing is given for {key}")
    return default


def moved(places: np.ndarray, shift, rotation: float, scale: float, detector) -> np.ndarray:
    """Pattern positions (n, 2) scaled and turned about the CCD's centre, then shifted."""
    rows, columns = detector.phys_shape
    centre = np.array([(columns - 1) / 2, (rows - 1) / 2])
    angle = math.radians(rotation)
    turn = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    return centre + scale * (places - centre) @ turn.T + np.asarray(shift, float)


def focus_surface(x, y, s: dict, ccd: int, detector):
    """Best focus less that of the block, mm, at silicon positions."""
    rows, columns = detector.phys_shape
    unit = 4096 / columns / 1000  # px of this detector in 1000 px of the full-size one
    u, v = (x - (columns - 1) / 2) * unit, (y - (rows - 1) / 2) * unit
    tilt = _of(s["tilt"], ccd)
    return _of(s["ccd_offset"], ccd) + tilt[0] * u + tilt[1] * v + s["curvature"] * (u**2 + v**2)


def add_stamp(charge: np.ndarray, image: np.ndarray, row: int, column: int) -> None:
    """Add a stamp whose first pixel is at (row, column); what lies outside is lost."""
    top, left = max(0, -row), max(0, -column)
    height = min(image.shape[0], charge.shape[0] - row)
    width = min(image.shape[1], charge.shape[1] - column)
    if height > top and width > left:
        charge[row + top : row + height, column + left : column + width] += image[top:height, left:width]


PLUGINS = (Spots(),)
