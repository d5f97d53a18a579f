"""Names of headline quantities: one name, one definition, one unit.

``python -m calcamp.quality.quantities > docs/quantities.md`` writes the page; a test keeps them equal.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Quantity:
    """What a name means.

    ``keys`` tell what a value belongs to beside ccd and quadrant.
    """

    name: str
    unit: str
    group: str
    definition: str
    keys: tuple[str, ...] = ("ccd", "quadrant")
    lower: bool = False  # what its limits (is_limit) are: the value lies above them


_CQ = ("ccd", "quadrant")
_ALL = (
    # ---- every test, bias
    Quantity("offset", "ADU", "Offset and noise", "Mean level of a region (pre, img, ove: prescan, image area, serial overscan; trimmed) of raw frames, clipped mean per frame, then the mean over the frames used.", (*_CQ, "region")),
    Quantity("read_noise", "ADU", "Offset and noise", "Noise of a pixel that changes from frame to frame, noise common to a row included (noise_white leaves it out), from clipped variances of differences of frames (method pairs) or of one frame (method overscan), with the rounding of the ADC, 1/12 ADU², taken off.", (*_CQ, "region", "method")),
    Quantity("read_noise_e", "e-", "Offset and noise", "read_noise times the gain of the block; gain_nominal tells that the block has no measured gain yet.", (*_CQ, "region")),
    Quantity("noise_white", "ADU", "Offset and noise", "Part of the noise that is independent from pixel to pixel."),
    Quantity("noise_row", "ADU", "Offset and noise", "Part of the noise common to the pixels of a row: square root of the variance of row means beyond that of white noise."),
    Quantity("noise_column", "ADU", "Offset and noise", "Pattern common to the pixels of a column, standing still from frame to frame."),
    Quantity("noise_drift", "ADU", "Offset and noise", "Part of the noise from changes of the offset from frame to frame; those within a frame are in noise_row."),
    Quantity("noise_total", "ADU", "Offset and noise", "Noise of a pixel of one frame about the mean of the region; the parts add up to it in quadrature."),
    Quantity("fixed_pattern", "ADU", "Offset and noise", "Standard deviation of the master bias over the image area, what is left of the noise of its frames taken off."),
    # ---- dark
    Quantity("dark_signal", "ADU", "Dark", "Signal of the image area of a dark exposure over the serial overscan of the same rows, the same of bias frames taken off where a master bias is given; clipped mean, per exposure."),
    Quantity("dark_current", "e-/pixel/h", "Dark", "dark_signal times gain over exposure time. Compatible with zero: the 95 % upper limit, with is_limit true. err is statistical and holds what the exposures disagree by beyond chance; systematic is that of the offset."),
    Quantity("dsnu", "e-/pixel/h", "Dark", "Dark signal non-uniformity: standard deviation of the dark current from pixel to pixel over the image area, noise and hot pixels taken off."),
    Quantity("hot_pixels", "pixel", "Dark", "Number of pixels of the image area above both the significance and the rate that the options of the test give."),
    Quantity("hot_columns", "column", "Dark", "Number of columns of the image area with a stretch of hot pixels, by the column rule."),
    Quantity("bad_pixels", "pixel", "Cosmetics", "Number of pixels of the image area whose DQ bits are in BADMASK."),
    Quantity("bad_columns", "column", "Cosmetics", "Number of columns of the image area with the DQ bit BAD_COL or PARTIAL_COL."),
    Quantity("lost_area", "%", "Cosmetics", "Bad pixels over the pixels of the image area."),
    Quantity("clusters", "1", "Cosmetics", "Number of groups of at least two touching bad pixels, pixels of bad columns left out."),
    # ---- photon transfer, flats
    Quantity("gain", "e-/ADU", "Photon transfer", "Gain at 25 % of FDR (65536 ADU above offset) from the photon transfer curve, on linearised data where a linearity product exists."),
    Quantity("full_well", "e-", "Photon transfer", "Turn-off of the photon transfer curve: the signal above which the variance no longer follows. A lower limit (is_limit) when it was not reached.", lower=True),
    Quantity("bloom_level", "ADU", "Photon transfer", "The predecessor's bloom threshold, above offset: where the variance of the curve breaks down. A lower limit (is_limit) when it was not reached.", lower=True),
    Quantity("ptc_read_noise", "ADU", "Photon transfer", "Noise at zero signal of the fitted photon transfer curve, left free, the rounding of the ADC taken off: to be compared with read_noise. An upper limit (is_limit) where the curve does not show it.",),
    Quantity("bf_a00", "1/e-", "Brighter-fatter", "Coefficient a of the covariance model at lag (0, 0): relative change of a pixel's area per electron in it; negative."),
    Quantity("bf_a01", "1/e-", "Brighter-fatter", "The same for the parallel neighbour (serial lag 0, parallel lag 1)."),
    Quantity("bf_a10", "1/e-", "Brighter-fatter", "The same for the serial neighbour (serial lag 1, parallel lag 0)."),
    Quantity("bf_fwhm_slope", "pixel/(10 ke-)", "Brighter-fatter", "Growth of the FWHM of spots with their peak signal; after correction where kind is corrected.", (*_CQ, "kind")),
    Quantity("nonlinearity_max", "%", "Linearity", "Signed extreme of 100 (measured - linear)/linear over the valid range, with the fluence where it occurs."),
    Quantity("saturation_time", "s", "Linearity", "Exposure time at which flat light reaches FDR; source point: at which the peak of a spot, centred on a pixel and in focus, reaches 55 000 ADU. Without ccd: the mean over the channels.", (*_CQ, "wavelength", "source")),
    Quantity("shutter_offset", "s", "Linearity", "t0: true minus commanded exposure time.", ()),
    Quantity("prnu", "%", "Flats", "Photo-response non-uniformity: small-scale standard deviation of the response, % of the local mean, noise and mask taken off.", (*_CQ, "wavelength", "column")),
    Quantity("lamp_rms", "%", "Flats", "rms of the flat signal about its linear trend with time, the part common to all channels: the lamp and the shutter. Of NL tests, its scatter from exposure to exposure.", ("column",)),
    Quantity("lamp_drift", "%/h", "Flats", "Linear trend of the flat signal with time, mean over the channels.", ("column",)),
    Quantity("her", "1", "Flats", "Hard-edge response: signal of the first overscan pixel over the step, signed, per edge (serial, parallel).", (*_CQ, "edge")),
    Quantity("cti_parallel", "1", "Flats", "Charge transfer inefficiency per transfer along the columns, from the trail behind the last image row (EPER)."),
    Quantity("cti_serial", "1", "Flats", "Charge transfer inefficiency per transfer along the rows, from the trail in the serial overscan (EPER)."),
    # ---- points
    Quantity("best_focus", "mm", "Point sources", "Mirror position of best focus: the value at the CCD's centre of the plane through the spots' best positions. Without ccd: the mean over the CCDs.", ("ccd", "wavelength")),
    Quantity("fwhm_best", "pixel", "Point sources", "2.3548 sigma of the pixel-integrated Gaussian fitted to spots at best focus; the pixel is not included.", ("ccd", "wavelength")),
    Quantity("fwhm_best_vison", "pixel", "Point sources", "The predecessor's figure, from moments; the one that the cook-book's 2.34 belongs to.", ("ccd", "wavelength")),
    Quantity("fwhm", "pixel", "Point sources", "2.3548 sigma of the pixel-integrated Gaussian, sqrt((fwhm_x² + fwhm_y²)/2), mean over spots and frames of a column.", (*_CQ, "column")),
    Quantity("ellipticity_e1", "1", "Point sources", "Elongation of spots along FITS x (serial, positive) or y (negative), CCD frame.", (*_CQ, "column")),
    Quantity("ellipticity_e2", "1", "Point sources", "Elongation of spots along +x+y (positive) or +x-y (negative), CCD frame.", (*_CQ, "column")),
    Quantity("spot_fluence", "e-", "Point sources", "Charge of a spot within the aperture, background taken off; mean over spots.", (*_CQ, "column")),
    Quantity("psf_kernel", "pixel", "Point sources", "FWHM of what the detector adds to the optics, from total and optics of the chamber; an upper limit (is_limit) without figures of the optics.", ("ccd", "wavelength")),
    Quantity("lock_scale", "1", "Point sources", "Scale of the star lock, pattern to image.", ("ccd",)),
    Quantity("lock_rotation", "deg", "Point sources", "Rotation of the star lock about the CCD's centre, physical coordinates, counter-clockwise positive, pattern to image.", ("ccd",)),
    Quantity("lock_shift_x", "px", "Point sources", "Shift of the CCD's centre by the star lock along FITS x, pattern to image.", ("ccd",)),
    Quantity("lock_shift_y", "px", "Point sources", "Shift of the CCD's centre by the star lock along FITS y, pattern to image.", ("ccd",)),
    Quantity("crosstalk_max", "1", "Cross-talk", "The signed coefficient of largest magnitude with which another channel shows in this one (the victim): ADU per ADU of a source that stays as bright, so the sum over the same instant of the read-out and the pixels just before and after. Its source is in table crosstalk_victims."),
    # ---- injection, pumping, persistence
    Quantity("injection_level", "e-", "Charge injection", "Blocks of lines (CHINJ): mean of the middle half of the columns over their plateau, above the lines without injection of the same cycle, at the nominal setting. Whole frame (TP): median of the image rows above the offset."),
    Quantity("injection_threshold", "V", "Charge injection", "Voltage at which the injected level is half of what it would be without the transition, with its kind (IG1 or IDL).", (*_CQ, "kind")),
    Quantity("notch", "e-", "Charge injection", "Injected charge above the background beyond the knee of the curve against IG1."),
    Quantity("injection_nonuniformity", "%", "Charge injection", "Standard deviation of the injected level along a line, % of the level, noise taken off."),
    Quantity("trap_count", "trap", "Trap pumping", "Number of traps found above the stated detection cut.", (*_CQ, "register", "species")),
    Quantity("trap_density", "trap/pixel", "Trap pumping", "trap_count corrected for the efficiency of detection, over the pixels searched.", (*_CQ, "register", "species")),
    Quantity("trap_tau", "us", "Trap pumping", "Emission time constant of a species at the stated temperature (key temperature_K); also scaled to the reference temperature. A lower limit (is_limit) where the species is slower than the times of the scan.", (*_CQ, "register", "species", "temperature_K"), lower=True),
    Quantity("trap_pc", "1", "Trap pumping", "Probability of capture per cycle, asymptotic for long phase times.", (*_CQ, "register", "species")),
    Quantity("dipole_amplitude", "e-", "Trap pumping", "Electrons moved: half of bright minus dark; positive when the bright pixel is nearer the node.", (*_CQ, "register")),
    Quantity("persistence", "e-/pixel", "Persistence", "Charge released in the first latent frame by pixels that were saturated, over the reference frames. Detection at 3.5 sigma; else the 95 % upper limit, with is_limit true."),
    Quantity("persistence_tau", "s", "Persistence", "Time constant of the decay of the released charge over the latent frames."),
    Quantity("stray_light", "e-/s", "Stray light", "Rate of light per pixel of the image area in a state of the chamber (key configuration): long less short exposure.", (*_CQ, "configuration")),
    # ---- warm
    Quantity("ramp_slope", "ADU/row", "Warm test", "Slope of the ramp that warm dark current draws along the rows of a forward read-out."),
    Quantity("injection_significance", "1", "Warm test", "Injected lines above the others, in standard deviations of the difference."),
    Quantity("spots_found", "1", "Warm test", "Number of the five spots of a quadrant that were found.", (*_CQ, "wavelength")),
    Quantity("ccd_temperature", "degC", "House-keeping", "Mean over the test of the two temperature readings of a CCD.", ("ccd",)),
)  # fmt: skip

QUANTITIES: dict[str, Quantity] = {q.name: q for q in _ALL}

_HEAD = """# Quantities

One name, one definition, one unit. These are the names under `headline` in `verdict.json`, in the tables of
results, in the test record and in trends. The page is written by `python -m calcamp.quality.quantities`.

* An entry holds `quantity`, its keys, `value`, `err` (one standard error), `unit`, `n` (how many measurements went in).
  What was not measured has value null, never 0.
* A limit that is not a value carries `is_limit: true`; it is a 95 % limit and has no `err`. `full_well`,
  `bloom_level` and `trap_tau` are lower limits then, the others upper ones.
* `ccd` is 1 to 3, `quadrant` E to H, `column` and `frame` count from 1. Halves are `half_EF` and `half_GH`.
* FDR is 65536 ADU. Levels are above offset. Measurements are kept in ADU; electrons appear where a gain is known, and
  `gain_nominal: true` says that it was the nominal one.
* A name ending in `_vison` is the predecessor's estimator, kept to compare with old reports.
"""


def page() -> str:
    """The text of docs/quantities.md."""
    lines = [_HEAD]
    for group in dict.fromkeys(q.group for q in _ALL):
        lines += [f"## {group}", "", "| name | unit | keys | definition |", "|---|---|---|---|"]
        for q in _ALL:
            if q.group == group:
                lines.append(f"| `{q.name}` | {q.unit} | {', '.join(q.keys) or '–'} | {q.definition} |")
        lines.append("")
    return "\n".join(lines)


if __name__ == "__main__":
    print(page(), end="")
