"""TP01, TP11 (image area) and TP02, TP21 (register): background (extract), dipoles (basic), traps (meta), per CCD."""

from __future__ import annotations

import itertools
import math
import sys

from calcamp.detector.clocks import Clocking
from calcamp.detector.geometry import HALVES, QUADRANTS, half_of
from calcamp.steps import runner
from calcamp.steps.injection import keys as injection_keys
from calcamp.steps.injection import window


def register_of(ctx: runner.Context) -> str:
    return "parallel" if ctx.test.startswith(("TP01", "TP11")) else "serial"


def clocking_of(ctx: runner.Context) -> Clocking:
    return Clocking.from_dict(ctx.job["clocks"])


def pumping(exposure: runner.Exposure, register: str) -> dict:
    """How a frame was pumped: mode, commanded time (us), cycles; mode 0 for a reference."""
    values, letter = exposure.values, "v" if register == "parallel" else "s"
    if not int(values.get(f"{letter}_tpump") or 0):
        return {"mode": 0, "time": 0.0, "cycles": 0}
    time = values.get("toi_tp") if register == "parallel" else values.get("dwell_s")
    return {
        "mode": int(values.get(f"{letter}_tp_mod") or 0),
        "time": float(time or 0.0),
        "cycles": int(values.get(f"{letter}_tp_cnt") or 0),
    }


def _table(rows: list[dict], names: str) -> dict[str, list]:
    return {name: [row[name] for row in rows] for name in names.split()}


# ---- extract --------------------------------------------------------------------------------------------------
_INJECTION = (
    "obsid column frame ccd quadrant half matched delay_ratio ig1 ig2 idl mode time cycles level level_err std noise "
    "saturated use n flag"
)


def extract(ctx: runner.Context) -> None:
    """Level and noise of the injected background of every frame; which frames the dipoles are taken from."""
    from calcamp.data.raw import RawError

    register, rows = register_of(ctx), []
    for number, exposure in enumerate(ctx.readable(), 1):
        try:
            prepared = ctx.prepared(exposure, in_place=True)
        except RawError as error:
            ctx.exclude(exposure.obsid, f"{error.kind}: {error}")
            continue
        first, last = window(ctx, exposure)
        for quadrant in QUADRANTS:
            if (exposure.obsid, quadrant) in ctx.selection():
                continue
            row = {**injection_keys(ctx, exposure, quadrant), **pumping(exposure, register)}
            row |= _background(ctx, prepared, quadrant, first, min(last, ctx.detector.image_rows))
            most = ctx.options.get("max_saturated", 1000)
            row["use"] = row["matched"] and row["saturated"] <= most and not row["flag"]
            if row["matched"] and row["saturated"] > most:
                cause = f"{row['saturated']} saturated pixels: frame left out"
                ctx.flag("SATURATION", cause, quadrant=quadrant, obsid=exposure.obsid)
                ctx.exclude(exposure.obsid, cause, quadrant)
                row["flag"] = "saturated"
            rows.append(row)
        ctx.progress(number, len(ctx.exposures))
    ctx.current = None
    ctx.write_table(
        "injection",
        _table(rows, _INJECTION),
        units={
            **dict.fromkeys(("level", "level_err", "std", "noise"), "ADU"),
            **dict.fromkeys(("ig1", "ig2", "idl"), "V"),
            "time": "us",
            "saturated": "px",
            "n": "px",
        },
        descriptions={
            "level": "median of the image rows above the offset",
            "std": "standard deviation of the pixels",
            "noise": "noise of a pixel against its neighbours in the column",
            "mode": "pumping mode, 0 for the reference",
            "time": "commanded: toi_tp or dwell_s",
            "use": "dipoles are taken from it",
        },
    )
    _report_missing(ctx, rows)


def _background(ctx, prepared, quadrant: str, first: int, last: int) -> dict:
    import numpy as np

    image = prepared.image(quadrant)[first:last]
    mask = prepared.image_mask(quadrant)[first:last]
    if image.shape[0] < 2:
        empty = dict.fromkeys(("level", "level_err", "std", "noise"), math.nan)
        return {**empty, "saturated": 0, "n": 0, "flag": "no rows read"}
    step = max(1, image.shape[0] // 256)
    rows = np.arange(0, image.shape[0] - 1, step)
    sample, bad = image[rows], mask[rows]
    values = sample[~bad]
    if values.size < 100:
        empty = dict.fromkeys(("level", "level_err", "std", "noise"), math.nan)
        return {
            **empty,
            "saturated": prepared.saturated[quadrant],
            "n": int(values.size),
            "flag": "all pixels masked",
        }
    difference = (image[rows] - image[rows + 1])[~(bad | mask[rows + 1])]
    # Odd steps: every column has its turn, whatever is masked.
    part = difference[:: max(1, difference.size // 50_000) | 1]
    noise = (
        1.4826 * float(np.median(np.abs(part - np.median(part)))) / math.sqrt(2) if part.size else math.nan
    )
    take = values[:: max(1, values.size // 50_000) | 1]
    # Columns differ for good: the error of the level is that of the pixels' noise.
    return {
        "level": float(np.median(take)),
        "level_err": 1.2533 * noise / math.sqrt(values.size),
        "std": float(take.std(dtype=np.float64)),
        "noise": noise,
        "saturated": int(prepared.saturated[quadrant]),
        "n": int(values.size),
        "flag": "",
    }


def _report_missing(ctx, rows) -> None:
    """MISSDATA for a half without reference, or a mode that lacks a time that others have."""
    for half, quadrants in HALVES.items():
        for quadrant in quadrants:
            used = [r for r in rows if r["quadrant"] == quadrant and r["use"]]
            modes = {m: {r["time"] for r in used if r["mode"] == m} for m in {r["mode"] for r in used} - {0}}
            times = set().union(*modes.values()) if modes else set()
            if not modes:
                ctx.flag("MISSDATA", f"no usable pumped frame with the delay of {half}", quadrant=quadrant)
            for mode, own in sorted(modes.items()):
                if times - own:
                    ctx.flag(
                        "MISSDATA",
                        f"mode {mode} lacks {', '.join(f'{t:g} us' for t in sorted(times - own))}",
                        quadrant=quadrant,
                    )
            if not any(r["mode"] == 0 for r in used):
                ctx.flag("MISSDATA", f"no reference frame with the delay of {half}", quadrant=quadrant)


# ---- basic ----------------------------------------------------------------------------------------------------
def basic(ctx: runner.Context) -> None:
    """Dipoles of every mode with their amplitudes at every time; efficiency from fakes; one pass over the frames."""
    results = _Results(ctx)
    for half, quadrants in HALVES.items():
        wanted = {
            (r["obsid"], r["quadrant"]): r
            for r in ctx.rows("extract", "injection")
            if r["half"] == half and r["use"]
        }
        stacks = _read_half(ctx, quadrants, wanted)
        for quadrant in quadrants:
            if stacks[quadrant]["frames"]:
                results.quadrant(quadrant, stacks.pop(quadrant))
            else:
                results.nothing(quadrant)
    results.write()


def _read_half(ctx, quadrants, wanted) -> dict:
    """Half-differences of the frames of one half: quadrant -> frames {(mode, time): int16}, reference, levels."""
    from calcamp.analysis.pumping import half_differences, line_profile
    from calcamp.data.raw import RawError

    register = register_of(ctx)
    found = {q: {"frames": {}, "reference": None, "levels": [], "mask": None, "cycles": 0} for q in quadrants}
    chosen = [e for e in ctx.exposures if any((e.obsid, q) in wanted for q in quadrants)]
    profiles = {q: {} for q in quadrants}
    for number, exposure in enumerate(chosen, 1):
        try:
            prepared = ctx.prepared(exposure, quadrants=quadrants, in_place=True)
        except RawError as error:
            ctx.exclude(exposure.obsid, f"{error.kind}: {error}")
            continue
        first, last = window(ctx, exposure)
        last = min(last, ctx.detector.image_rows)
        for quadrant in quadrants:
            row = wanted.get((exposure.obsid, quadrant))
            if row is None:
                continue
            stack = found[quadrant]
            image = prepared.image(quadrant)[first:last]
            mask = prepared.image_mask(quadrant)[first:last]
            stack["first"] = first
            stack["levels"].append(row["level"])
            if register == "serial":
                profiles[quadrant][row["mode"], row["time"]] = line_profile(image, mask)
                stack["lines"] = last - first
                stack["cycles"] = max(stack["cycles"], row["cycles"])
                continue
            stack["mask"] = mask if stack["mask"] is None else stack["mask"] | mask
            half = half_differences(image, mask if mask.any() else None)
            if row["mode"] == 0:
                stack["reference"] = half
            else:
                stack["frames"][row["mode"], row["time"]] = half
                stack["cycles"] = row["cycles"]
        ctx.progress(number, len(chosen))
    ctx.current = None
    if register == "serial":
        for quadrant in quadrants:
            _serial_stack(ctx, found[quadrant], profiles[quadrant], quadrant)
    return found


#: The mean of many lines is stored in finer steps than pixels are.
_FINER = 4


def _serial_stack(ctx, stack, profiles, quadrant) -> None:
    """Pumped profiles less the reference's, scaled to them, as half-differences of shape (pairs, 1), and their noise."""
    import numpy as np

    from calcamp.analysis.pumping import half_differences

    reference, reference_err = profiles.pop((0, 0.0), (None, None))
    if not profiles:
        return
    if reference is None:
        # Without a reference: the median of all pumped profiles, dipoles are few.
        reference = np.nanmedian(np.stack([p for p, _ in profiles.values()]), axis=0)
        reference_err = (
            1.2533 * np.median([e for _, e in profiles.values()], axis=0) / math.sqrt(len(profiles))
        )
        stack["own_reference"] = True
    level = float(np.nanmedian(reference))
    stack["reference_level"] = level
    noise = {}
    for key, (profile, err) in profiles.items():
        shift = _shift(profile, reference)
        if shift:
            ctx.notes.setdefault("register_shift", {})[f"{quadrant} {key[0]} {key[1]:g}"] = shift
        known = np.roll(reference, shift)
        # The pattern scales with the level, which may change from frame to frame; dipoles are few.
        good = (known > 0.2 * level) & np.isfinite(profile)
        share = float(np.median(profile[good] / known[good])) if good.any() else 1.0
        bad = ~good
        if shift > 0:
            bad[:shift] = True
        elif shift < 0:
            bad[shift:] = True
        rest = np.where(bad, 0.0, profile - share * known)
        half = half_differences((rest * _FINER)[:, None].astype(np.float32), bad[:, None])
        stack["frames"][key] = half
        noise[key] = _serial_noise(half, np.hypot(err, share * reference_err), bad[:-1] | bad[1:])
    stack["scale"] = 1 / _FINER
    middle = {key: float(np.nanmedian(values)) for key, values in noise.items()}
    stack["noise"] = {key: _FINER * value for key, value in middle.items()}
    stack["common"] = _FINER * float(np.nanmedian(reference_err))
    stack["spread"] = np.nanmedian([noise[key] / middle[key] for key in noise], axis=0)[:, None]


def _serial_noise(half, err, bad):
    """Errors of the half-differences, ADU: of the lines, or more where the places scatter by more than that."""
    import numpy as np

    from calcamp.analysis.pumping import STEP

    pull = half[:, 0] * (STEP / _FINER) / err
    known, width = ~bad & np.isfinite(pull), 1.0
    for _ in range(4):
        # Dipoles, and the pairs beside them, are no noise.
        high = np.abs(np.where(known, pull, 0.0)) > 4 * width
        high[1:] |= high[:-1].copy()
        high[:-1] |= high[1:].copy()
        quiet = pull[known & ~high]
        if quiet.size < 50:
            return err
        width = max(1.0, 1.4826 * float(np.median(np.abs(quiet))))
    # A median of moduli is known to 1.17/sqrt(2 n): what is beyond that by chance of 1e-4 is a pattern that moves.
    return err * width if width > 1 + 3.7 * 1.17 / math.sqrt(2 * quiet.size) else err


def _shift(profile, reference, most: int = 1) -> int:
    """Places by which the pumped profile stands off the reference."""
    import numpy as np

    a = np.diff(np.nan_to_num(profile, nan=float(np.nanmedian(profile))))
    b = np.diff(np.nan_to_num(reference, nan=float(np.nanmedian(reference))))
    sums = {s: float((a[2:-2] * np.roll(b, s)[2:-2]).sum()) for s in range(-most, most + 1)}
    best = max(sums, key=sums.get)
    return best if sums[best] > 1.2 * sums[0] else 0


class _Results:
    """Tables and products of `basic`, filled quadrant by quadrant."""

    def __init__(self, ctx: runner.Context):
        self.ctx, self.register, self.clocking = ctx, register_of(ctx), clocking_of(ctx)
        self.dipoles, self.noise, self.fakes, self.summary, self.maps = [], [], [], [], {}
        self.times: list[float] = sorted(
            {r["time"] for r in ctx.rows("extract", "injection") if r["mode"] and r["time"] is not None}
        )
        serial = "serial_" if self.register == "serial" else ""
        self.tau_range = tuple(ctx.options.get(f"{serial}tau_{end}_us") for end in ("min", "max"))
        self.tau_c = ctx.options.get(f"{serial}tau_c_us", 0.0)
        self.false = ctx.options.get(f"{serial}false_per_quadrant", 0.5)

    def nothing(self, quadrant: str) -> None:
        self.summary.append(
            self._summary_row(quadrant, 0, math.nan, math.nan, 0, math.nan, "no usable frame")
        )

    def _summary_row(self, quadrant, pairs, cut, level, found, false, flag) -> dict:
        return {
            "ccd": self.ctx.ccd,
            "quadrant": quadrant,
            "pairs": pairs,
            "cut": cut,
            "level": level,
            "n_dipoles": found,
            "expected_false": false,
            "flag": flag,
        }

    def responses(self, quadrant: str, mode: int):
        """Kinds of place that a mode shows: (position, Response)."""
        from calcamp.analysis.pumping import Response

        out = []
        for position, terms in self.clocking.signatures(half_of(quadrant)).items():
            if mode in terms:
                term = terms[mode]
                out.append(Response(term.begin, term.end, term.hold, term.sign, term.pair, position))
        return out

    def quadrant(self, quadrant: str, stack: dict) -> None:
        import numpy as np

        from calcamp.analysis import pumping as analysis

        ctx, scale_adu = self.ctx, stack.get("scale", 1.0)
        modes = sorted({mode for mode, _ in stack["frames"] if mode in self.clocking.modes})
        first = next(iter(stack["frames"].values()))
        noise = stack.get("noise") or {key: analysis.noise_of(half) for key, half in stack["frames"].items()}
        frames = list(stack["frames"])
        if self.register == "parallel":
            layers = [stack["frames"][k] for k in frames], [noise[k] for k in frames]
            scale, lines = analysis.column_noise(*layers), analysis.row_noise(*layers)
        else:
            scale, lines = stack["spread"], np.ones(first.shape[0])
        valid = np.ones(first.shape, bool)
        valid[lines > 1.08] = False
        if stack["mask"] is not None:
            valid &= ~(stack["mask"][:-1] | stack["mask"][1:])
        noisy = scale > ctx.options.get("max_column_noise", 2.0)
        valid &= ~noisy & np.isfinite(scale)
        if noisy.any():
            ctx.flag(
                "UNDERPERFORM", f"{int(noisy.sum())} columns of noisy injection left out", quadrant=quadrant
            )
        pairs = int(valid.sum())
        # The serial reference is common to all frames of the quadrant.
        common = stack.get("common", 0.0)
        level = float(np.median(stack["levels"]))
        count, cut = 0, math.nan
        for mode in modes:
            times = [t for m, t in frames if m == mode]
            times.sort()
            number, cut = self._mode(
                quadrant, mode, times, stack, noise, scale, valid, len(modes), common, scale_adu
            )
            count += number
        false = self.false if not ctx.options.get("detection_sigma") else math.nan
        self.summary.append(self._summary_row(quadrant, pairs, cut, level, count, false, ""))

    def _mode(self, quadrant, mode, times, stack, noise, scale, valid, modes, common, scale_adu):
        import numpy as np

        from calcamp.analysis import pumping as analysis

        ctx = self.ctx
        layers = [stack["frames"][mode, t] for t in times]
        sigma = np.array([noise[mode, t] for t in times])
        own = np.sqrt(np.maximum(sigma**2 - common**2, 0.25 * sigma**2))
        white = analysis.whitening(own, common)
        steps = np.array([self.clocking.step_us(t) for t in times])
        kinds = self.responses(quadrant, mode)
        if not kinds:
            return 0, math.nan
        cycles = stack["cycles"]
        taus = analysis.tau_grid(*self.tau_range, 24)
        # Places of one family have the same shape in time: look for each shape once, either sign.
        shapes = {(k.begin, k.end, k.hold): k for k in kinds}
        matrix = np.concatenate(
            [analysis.templates(k, steps, cycles, white, taus, self.tau_c) for k in shapes.values()]
        )
        cut = ctx.options.get("detection_sigma") or analysis.detection_cut(
            int(valid.sum()) * modes, matrix, self.false
        )
        sharp = analysis.significance(layers, white, matrix, scale)
        # Profiles of the register are means of lines: rays are clipped there.
        rays = self.register == "parallel"
        found = analysis.find_dipoles(layers, white, matrix, sigma, scale, sharp, cut, valid, rays)
        if ctx.options.get("maps", True) and self.register == "parallel":
            limited = np.clip(np.rint(sharp * 20), -32000, 32000).astype(np.int16)
            self.maps.setdefault(mode, {})[quadrant] = (limited, stack["first"])
        static = self._static(stack["reference"], found, scale)
        for k in range(found.row.size):
            row, column = int(found.row[k]), int(found.column[k])
            sign = 1 if found.significance[k] > 0 else -1
            item = {
                "ccd": ctx.ccd,
                "quadrant": quadrant,
                "mode": mode,
                "row": row + stack["first"] if self.register == "parallel" else -1,
                "image_column": column if self.register == "parallel" else row,
                "sign": sign,
                "significance": abs(float(found.significance[k])),
                "blended": bool(found.blended[k]),
                "kind": str(found.kind[k]),
                "rays": int(found.hit[k].sum()),
                "reference": float(static[k]) * scale_adu,
                "cycles": cycles,
                "common": common * scale_adu * float(np.nanmedian(found.err[k] / sigma)),
                "lines": stack.get("lines", 1),
            }
            for time in self.times:
                item[f"a_{time:g}"], item[f"e_{time:g}"] = math.nan, math.nan
            for j, time in enumerate(times):
                item[f"a_{time:g}"] = float(found.amplitude[k, j]) * scale_adu
                item[f"e_{time:g}"] = float(found.err[k, j]) * scale_adu
            self.dipoles.append(item)
        for t, s in zip(times, sigma, strict=True):
            self.noise.append(
                {
                    "ccd": ctx.ccd,
                    "quadrant": quadrant,
                    "mode": mode,
                    "time": t,
                    "noise": float(s) * scale_adu,
                    "n": int(valid.sum()),
                }
            )
        self._efficiency(
            quadrant, mode, steps, layers, white, matrix, scale, valid, cut, kinds, cycles, scale_adu
        )
        return int((found.kind == "dipole").sum()), cut

    def _static(self, reference, found, scale):
        """Half-differences of the pairs in the frame without pumping; NaN where there is none, or a ray hit it."""
        import numpy as np

        from calcamp.analysis import pumping as analysis

        if reference is None or not found.row.size:
            return np.full(found.row.size, math.nan)
        values = reference[found.row, found.column].astype(float) * analysis.STEP
        if self.register == "serial":
            return values
        noise = analysis.noise_of(reference) * scale[found.column]
        charge = analysis.net_charge(reference, found.row, found.row, found.row + 1, found.column, noise)
        return np.where(np.abs(charge) > 4, np.nan, values)

    def _efficiency(
        self, quadrant, mode, steps, layers, white, matrix, scale, valid, cut, kinds, cycles, scale_adu
    ):
        """Fakes on the data: found where the joint significance passes the cut."""
        import numpy as np

        from calcamp.analysis import pumping as analysis

        number = self.ctx.options.get("fakes", 0)
        if not number:
            return
        gain = self.ctx.gains()[quadrant][0] * scale_adu
        rng = np.random.default_rng([self.ctx.ccd, QUADRANTS.index(quadrant), mode])
        weights, middle = matrix @ white, float(np.nanmedian(scale))
        for kind in kinds:
            # As strong as traps are, for the efficiency; and about the cut, for the course of the completeness.
            full = kind.electrons(
                steps[None, :], analysis.tau_grid(*self.tau_range, 24)[:, None], cycles, self.tau_c
            )
            best = float(np.sqrt(np.square(full / gain @ white.T).sum(axis=1)).max()) / middle
            near = tuple(min(s / best, 1.0) for s in (2.0, 2.5 * cut))
            for pc_range, many in (((0.05, 1.0), number), (near, number // 2)):
                row, column, values, tau, pc, mean = analysis.add_fakes(
                    rng,
                    layers,
                    kind,
                    steps,
                    cycles,
                    gain,
                    many // len(kinds),
                    self.tau_range,
                    pc_range,
                    self.tau_c,
                )
                own = np.broadcast_to(scale, valid.shape)[row, column]
                seen = (values @ weights.T) / own[:, None]
                found = (np.abs(seen).max(axis=1) > cut) & valid[row, column]
                truth = np.sqrt(np.square(mean @ white.T).sum(axis=1)) / own
                if pc_range is near:
                    pc = np.zeros(pc.size)  # no part of the traps that the efficiency stands for
                self.fakes.append((quadrant, mode, truth, tau, pc, found, valid[row, column]))

    def write(self) -> None:
        ctx = self.ctx
        names = "ccd quadrant mode row image_column sign significance blended kind rays reference cycles lines common"
        amplitudes = [f"{kind}_{t:g}" for t in self.times for kind in ("a", "e")]
        ctx.write_table(
            "dipoles",
            _table(self.dipoles, f"{names} {' '.join(amplitudes)}"),
            units={
                **dict.fromkeys([*amplitudes, "reference", "common"], "ADU"),
                "row": "px",
                "image_column": "px",
            },
            descriptions={
                "row": "pixel of the pair nearer the node, image area; -1 in the register",
                "image_column": "column of the image area; in the register the place nearer the node",
                "sign": "+1: bright pixel nearer the node",
                "significance": "joint over all times of the mode, sigma",
                "blended": "solved together with a neighbouring dipole",
                "kind": "dipole; ray: charge from outside (cosmic ray); pixel: one pixel alone; frame: in one frame only; edge: at "
                "the end of a column, the other packet lies outside",
                "rays": "times at which a cosmic ray hit the pair: not measured there",
                "reference": "half-difference of the pair in the frame without pumping",
                "common": "error common to all times, of the reference",
            },
            meta={"times_us": self.times, "register": self.register},
        )
        ctx.write_table(
            "dipole_noise",
            _table(self.noise, "ccd quadrant mode time noise n"),
            units={"noise": "ADU", "time": "us", "n": "px"},
            descriptions={"noise": "error of an amplitude at one time"},
        )
        ctx.write_table(
            "search",
            _table(self.summary, "ccd quadrant pairs cut level n_dipoles expected_false flag"),
            units={"level": "ADU", "pairs": "px"},
            descriptions={
                "cut": "joint significance required",
                "expected_false": "false dipoles expected from noise, all modes",
                "level": "injected background",
            },
        )
        self._write_efficiency()
        if self.maps:
            self._write_maps()

    def _write_efficiency(self) -> None:
        import numpy as np

        rows, taus = [], []
        edges = np.array([2, 3, 4, 5, 5.5, 6, 6.5, 7, 7.7, 9, 12, 20, 1000.0])
        tau_edges = np.exp(np.linspace(math.log(self.tau_range[0]), math.log(self.tau_range[1]), 13))
        for quadrant in QUADRANTS:
            own = [f for f in self.fakes if f[0] == quadrant]
            if not own:
                continue
            snr, tau, pc, found, valid = (np.concatenate([f[k] for f in own]) for k in (2, 3, 4, 5, 6))
            for low, high in itertools.pairwise(edges):
                here = (snr >= low) & (snr < high) & valid
                rows.append(
                    self._share(quadrant, {"snr_low": float(low), "snr_high": float(high)}, found[here])
                )
            for low, high in itertools.pairwise(tau_edges):
                here = (tau >= low) & (tau < high) & (pc >= 0.2) & valid
                taus.append(
                    self._share(quadrant, {"tau_low": float(low), "tau_high": float(high)}, found[here])
                )
        self.ctx.write_table(
            "completeness",
            _table(rows, "ccd quadrant snr_low snr_high efficiency efficiency_err n"),
            descriptions={
                "snr_low": "amplitude put in, sigma summed over the times",
                "efficiency": "share of the fakes found, unmasked pixels",
            },
        )
        self.ctx.write_table(
            "efficiency",
            _table(taus, "ccd quadrant tau_low tau_high efficiency efficiency_err n"),
            units={"tau_low": "us", "tau_high": "us"},
            descriptions={"efficiency": "share of the fakes found, Pc evenly from 0.2 to 1"},
        )

    def _share(self, quadrant, keys, found) -> dict:
        n = int(found.size)
        share = float(found.mean()) if n else math.nan
        # Not 0 at the ends: as if half a fake more were found and half lost.
        smooth = (found.sum() + 0.5) / (n + 1) if n else math.nan
        err = math.sqrt(smooth * (1 - smooth) / (n + 1)) if n else math.nan
        return {
            "ccd": self.ctx.ccd,
            "quadrant": quadrant,
            **keys,
            "efficiency": share,
            "efficiency_err": err,
            "n": n,
        }

    def _write_maps(self) -> None:
        """Product: joint significance of every pair, all modes, stored orientation, 0.05 sigma a unit."""
        import numpy as np

        from calcamp.detector.arrays import assemble

        images = []
        detector = self.ctx.detector
        for mode, quadrants in sorted(self.maps.items()):
            whole = {}
            for quadrant, (sharp, first) in quadrants.items():
                full = np.zeros(detector.quadrant_shape, np.int16)
                left = detector.prescan
                full[first : first + sharp.shape[0], left : left + sharp.shape[1]] = sharp
                whole[quadrant] = full
            images.append(
                (f"MODE_{mode}", assemble(whole, detector), "", {"SIGUNIT": (0.05, "sigma per unit")})
            )
        self.ctx.write_product(
            "dipole_map", f"EUC_TPMAP_CCD{self.ctx.ccd}_SN_{self.ctx.serial}_{self.ctx.block}.fits", images
        )


# ---- meta -----------------------------------------------------------------------------------------------------
_TRAPS = (
    "trap ccd quadrant mode row image_column position sign tau tau_err tau_low tau_high pc pc_err multiplicity chi2 dof "
    "significance status species"
)


def meta(ctx: runner.Context) -> None:
    """Emission time and probability of capture of every dipole; species; densities; the catalogue."""
    import numpy as np

    from calcamp.analysis.pumping import model_error

    clocking, register = clocking_of(ctx), register_of(ctx)
    temperature = ctx.temperature(ctx.exposures)
    search = {r["quadrant"]: r for r in ctx.rows("basic", "search")}
    table = ctx.rows("basic", "dipoles")
    efficiency = ctx.rows("basic", "efficiency")
    rows = {q: [r for r in table if r["quadrant"] == q and r["kind"] == "dipole"] for q in QUADRANTS}
    groups = [g for q in QUADRANTS for g in _groups(ctx, clocking, register, q, rows[q])]
    found = [_fit(g) for g in groups]
    # How well traps follow the model is the same question for all of them.
    fitted = [(g["amplitude"], g["variance"], g["common"], f) for g, f in zip(groups, found, strict=True)]
    longest = max((float(g["steps"].max()) for g in groups), default=math.nan)
    usual = ctx.options.get("amplitude_error", 0.01)
    relative = model_error(fitted, usual)
    ctx.notes["model_error"] = relative
    if relative > 3 * usual:
        ctx.flag("BADFIT", f"traps leave the pumping equation by {100 * relative:.1f} % of an amplitude")
    if any((np.square(relative * a) > 0.02 * v).any() for a, v, _, _ in fitted):
        found = [_fit(g, relative) for g in groups]
    traps, species = [], []
    for quadrant in QUADRANTS:
        made = [_unfitted(ctx, r, "few times") for r in rows[quadrant] if not r.get("fitted")]
        for group, fit in zip(groups, found, strict=True):
            made += _trap_rows(ctx, group, fit, register) if group["quadrant"] == quadrant else []
        known = search.get(quadrant, {})
        species += _species_rows(ctx, quadrant, made, known, efficiency, register, temperature, longest)
        traps += made
    _write_traps(ctx, traps, register, temperature, relative)
    _write_species(ctx, species)
    _write_catalogue(ctx, traps, register, temperature, search)


def _groups(ctx, clocking, register, quadrant, rows) -> list[dict]:
    """What the fits of a quadrant need; dipoles of one mode and sign are fitted together. Marks rows as fitted."""
    import numpy as np

    from calcamp.analysis.pumping import Response, pumping_variance

    gain, gain_err, nominal = ctx.gains()[quadrant]
    known = gain_err is not None and math.isfinite(gain_err)
    serial = register == "serial"
    places = clocking.signatures(half_of(quadrant))
    out = []
    for mode, sign in sorted({(r["mode"], r["sign"]) for r in rows}):
        group = [r for r in rows if (r["mode"], r["sign"]) == (mode, sign)]
        times = sorted(
            float(n[2:]) for n in group[0] if n.startswith("a_") and any(r[n] is not None for r in group)
        )
        kinds = [
            Response(t[mode].begin, t[mode].end, t[mode].hold, t[mode].sign, t[mode].pair, position)
            for position, t in places.items()
            if mode in t and t[mode].sign == sign
        ]
        if not kinds or len(times) < 3:
            ctx.flag("BADFIT", f"mode {mode}: {len(times)} times, at least 3 are needed", quadrant=quadrant)
            continue
        amplitude = np.array([[r[f"a_{t:g}"] for t in times] for r in group], float) * gain
        err = np.array([[r[f"e_{t:g}"] for t in times] for r in group], float) * gain
        common = np.array([r["common"] or 0.0 for r in group], float) * gain
        err = np.sqrt(np.maximum(err**2 - common[:, None] ** 2, 0.25 * err**2))
        cycles, lines = float(group[0]["cycles"]), float(group[0]["lines"])
        for r in group:
            r["fitted"] = True
        out.append(
            {
                "quadrant": quadrant,
                "rows": group,
                # Hypotheses of the same window cannot be told apart: the first stands for them.
                "kinds": list({(k.begin, k.end, k.hold, k.pair): k for k in kinds}.values()),
                "steps": np.array([clocking.step_us(t) for t in times]),
                "amplitude": amplitude,
                "err": err,
                "variance": pumping_variance(amplitude, err, cycles, lines),
                "common": common,
                "cycles": cycles,
                "lines": lines,
                "tau_c": ctx.options.get("serial_tau_c_us" if serial else "tau_c_us", 0.0),
                "tau_range": (0.3, 500.0) if serial else (5.0, 2e5),
                "poor": ctx.options.get("poor_chi2", 4.0),
                "gain": gain,
                "gain_err": gain_err / gain if known else (0.03 if nominal else 0.0),
                # A probability of capture above 1 by the error of the gain is no second trap.
                "margin": 3 * gain_err / gain if known else (0.1 if nominal else 0.01),
            }
        )
    return out


def _fit(group: dict, relative: float = 0.0):
    from calcamp.analysis.pumping import fit_traps

    return fit_traps(
        group["amplitude"],
        group["err"],
        group["steps"],
        [[kind] * group["steps"].size for kind in group["kinds"]],
        group["cycles"],
        group["tau_c"],
        group["tau_range"],
        group["common"],
        group["poor"],
        group["lines"],
        relative,
        1.0 + group["margin"],
    )


def _trap_rows(ctx, group, fit, register) -> list[dict]:
    import numpy as np

    out = []
    for k, r in enumerate(group["rows"]):
        kind = group["kinds"][int(fit.hypothesis[k])]
        status = str(fit.status[k])
        # The pair differs without pumping too: no trap.
        still = abs(r["reference"] or 0.0) * group["gain"]
        if still > 5 * float(np.nanmedian(group["err"][k])):
            status = "static"
        out.append(
            {
                **_trap(ctx, r, kind.position, kind.pair, register == "serial"),
                **{
                    name: float(getattr(fit, name)[k])
                    for name in ("tau", "tau_err", "tau_low", "tau_high", "pc", "pc_err", "chi2")
                },
                "pc_err": math.hypot(float(fit.pc_err[k]), float(fit.pc[k]) * group["gain_err"]),
                "multiplicity": int(fit.multiplicity[k]),
                "dof": int(fit.dof[k]),
                "status": status,
                "species": 0,
            }
        )
    return out


def _trap(ctx, r, position, pair, serial) -> dict:
    """Keys of a trap: its own pixel and place in it follow from mode and sign."""
    row, column = r["row"], r["image_column"]
    if serial:
        column -= pair
    else:
        row -= pair
    return {
        "trap": 0,
        "ccd": ctx.ccd,
        "quadrant": r["quadrant"],
        "mode": r["mode"],
        "row": row,
        "image_column": column,
        "position": position,
        "sign": r["sign"],
        "significance": r["significance"],
    }


def _unfitted(ctx, r, why) -> dict:
    numbers = dict.fromkeys(["tau", "tau_err", "tau_low", "tau_high", "pc", "pc_err", "chi2"], math.nan)
    return {
        **_trap(ctx, r, math.nan, 0, r["row"] < 0),
        **numbers,
        "multiplicity": 0,
        "dof": 0,
        "status": why,
        "species": 0,
    }


def _species_rows(ctx, quadrant, traps, search, efficiency, register, temperature, longest) -> list[dict]:
    """Species of a quadrant, and a row 0 for all its traps; densities corrected with the fakes."""
    import numpy as np

    from calcamp.analysis.pumping import find_species

    pairs = search.get("pairs") or 0
    base = {"ccd": ctx.ccd, "quadrant": quadrant, "register": register, "temperature_K": temperature[0]}
    real = [t for t in traps if t["status"] != "static"]
    good = [t for t in real if t["status"] == "ok"]
    tau = np.array([t["tau"] for t in good])
    err = np.array([t["tau_err"] for t in good])
    seen = _efficiency_at(efficiency, quadrant, np.array([t["tau"] for t in real]))
    total = float(np.sum(1 / np.maximum(seen, 0.05))) if real else 0.0
    total_err = math.sqrt(float(np.sum(1 / np.square(np.maximum(seen, 0.05))))) if real else 0.0
    density = total / pairs if pairs else math.nan
    blank = dict.fromkeys(
        ["tau", "tau_err", "tau_ref", "tau_ref_err", "width", "pc", "pc_err", "share", "share_err"], math.nan
    )
    out = [
        {
            **base,
            "species": 0,
            **blank,
            "is_limit": False,
            "density": density,
            "density_err": total_err / pairs if pairs else math.nan,
            "n": len(real),
            "flag": search.get("flag") or ("" if search else "not searched"),
        }
    ]
    found = find_species(tau, err, ctx.options.get("max_species", 5))
    if found:
        logs = np.log10(np.array([s.tau for s in found]))
        widths = np.array([max(s.width, 0.05) for s in found])
        for t in good:
            t["species"] = 1 + int(np.argmin(np.abs(math.log10(t["tau"]) - logs) / widths))
    beyond = _beyond(found, real, longest)
    for number in range(1, max(len(found), beyond) + 1):
        mine = [t for t in real if t["species"] == number]
        eff = _efficiency_at(efficiency, quadrant, np.array([t["tau"] for t in mine])) if mine else np.ones(0)
        weight = 1 / np.maximum(eff, 0.05)
        out.append(
            {
                **base,
                "species": number,
                **(
                    _limit(ctx, mine, temperature)
                    if number == beyond
                    else _measured(ctx, found[number - 1], mine, temperature)
                ),
                "density": float(weight.sum()) / pairs if pairs else math.nan,
                "density_err": math.sqrt(float(np.square(weight).sum())) / pairs if pairs else math.nan,
                "n": len(mine),
                "flag": "",
            }
        )
    return out


def _beyond(found, traps, longest: float) -> int:
    """Number of the species whose emission time lies beyond the times of the scan, 0 for none.

    Where traps with a lower limit are many beside those of the slowest cluster, that cluster is only the near side
    of a species: the traps that came out low. All of them are put into it, and its emission time is a limit.
    """
    late = [t for t in traps if t["status"] == "lower"]
    last = len(found)
    near = (
        [t for t in traps if last and t["species"] == last] if last and found[-1].tau > 0.5 * longest else []
    )
    if len(late) < 5 or len(late) < 0.3 * len(near):
        return 0
    number = last if near else last + 1
    for t in late:
        t["species"] = number
    return number


def _measured(ctx, species, traps, temperature) -> dict:
    import numpy as np

    pc = np.array([t["pc"] for t in traps])
    weight = 1 / np.square(np.array([max(t["pc_err"], 1e-3) for t in traps])) if traps else np.ones(0)
    return {
        **_scaled(ctx, species.tau, species.tau_err, temperature),
        "tau": species.tau,
        "tau_err": species.tau_err,
        "is_limit": False,
        "width": species.width,
        "pc": float((weight * pc).sum() / weight.sum()) if traps else math.nan,
        "pc_err": float(pc.std(ddof=1) / math.sqrt(pc.size)) if len(traps) > 1 else math.nan,
        "share": species.share,
        "share_err": species.share_err,
    }


def _limit(ctx, traps, temperature) -> dict:
    """A species beyond the times: half of its traps are slower than this, at 95 % each; Pc is not known."""
    import numpy as np

    tau = float(np.median([t["tau_low"] for t in traps]))
    blank = dict.fromkeys(["tau_err", "width", "pc", "pc_err", "share", "share_err"], math.nan)
    return {**blank, **_scaled(ctx, tau, math.nan, temperature), "tau": tau, "is_limit": True}


def _scaled(ctx, tau, tau_err, temperature) -> dict:
    """Emission time at the reference temperature, with the error of the temperature."""
    from calcamp.analysis.trap_catalogue import tau_factor, tau_slope

    kelvin, kelvin_err = temperature
    if not math.isfinite(kelvin):
        return {"tau_ref": math.nan, "tau_ref_err": math.nan}
    energy = ctx.options.get("activation_eV", 0.23)
    reference = ctx.options.get("reference_temperature_K", 153.0)
    factor = tau_factor(kelvin, reference, energy)
    err = math.hypot(tau_err, tau * tau_slope(kelvin, energy) * kelvin_err)
    return {"tau_ref": tau * factor, "tau_ref_err": err * factor}


def _efficiency_at(rows, quadrant, tau):
    """Efficiency at emission times, interpolated between the bins of the fakes; 1 where none were made."""
    import numpy as np

    own = [r for r in rows if r["quadrant"] == quadrant and r["efficiency"] is not None]
    if not own or tau.size == 0:
        return np.ones(tau.size)
    centres = np.log([math.sqrt(r["tau_low"] * r["tau_high"]) for r in own])
    values = [r["efficiency"] for r in own]
    known = np.nan_to_num(np.log(np.maximum(tau, 1e-3)), nan=centres[0])
    return np.interp(known, centres, values)


def _write_traps(ctx, traps, register, temperature, relative) -> None:
    for number, trap in enumerate(traps, 1):
        trap["trap"] = number
    us = ("tau", "tau_err", "tau_low", "tau_high")
    ctx.write_table(
        "traps",
        _table(traps, _TRAPS),
        units={**dict.fromkeys(us, "us"), "row": "px", "image_column": "px"},
        descriptions=_TRAP_TEXT,
        meta={
            "register": register,
            "temperature_K": temperature[0],
            "temperature_err_K": temperature[1],
            "model_error": relative,
        },
    )


_TRAP_TEXT = {
    "trap": "number within the CCD",
    "row": "pixel of the trap, image area, canonical; -1 in the register",
    "image_column": "column of the image area, or place in the register",
    "position": "electrode of the trap, from the node; quarters tell its half",
    "tau": "emission time",
    "tau_err": "half the interval in which chi2 rises by 1",
    "tau_low": "5 % end",
    "tau_high": "95 % end",
    "pc": "probability of capture per cycle",
    "multiplicity": "traps needed to move so much charge",
    "status": "ok; lower, upper: tau is a limit; multiple; poor: chi2; static: the pair differs without pumping",
    "species": "cluster in log tau, 0 for none",
}


def _write_species(ctx, rows) -> None:
    ctx.write_table(
        "species",
        _table(
            rows,
            "ccd quadrant register species temperature_K tau tau_err is_limit tau_ref tau_ref_err width pc pc_err share share_err density density_err n flag",
        ),
        units={
            "temperature_K": "K",
            **dict.fromkeys(("tau", "tau_err", "tau_ref", "tau_ref_err"), "us"),
            "density": "1/px",
            "density_err": "1/px",
        },
        descriptions={
            "species": "0: all traps of the quadrant",
            "is_limit": "the species lies beyond the times of the scan: tau is a lower limit (median of those of its traps)",
            "tau_ref": "at the reference temperature of the options; its error holds that of the temperature",
            "width": "rms of log10 tau beyond the errors",
            "density": "corrected with the efficiency of the fakes",
            "n": "traps found",
        },
    )


def _write_catalogue(ctx, traps, register, temperature, search) -> None:
    """The catalogue as a product; without a trap too: that the test looked and found none is a result."""
    import numpy as np

    columns = {name: np.array([t[name] for t in traps]) for name in _TRAPS.split()}
    if not traps:
        columns |= {name: np.empty(0, "U8") for name in ("quadrant", "status")}
    header = {"REGISTER": register, "NTRAPS": len(traps)}
    if math.isfinite(temperature[0]):
        header |= {"CCDTEMP": round(temperature[0], 3), "CCDTERR": round(temperature[1], 3)}
    units = {
        **dict.fromkeys(("tau", "tau_err", "tau_low", "tau_high"), "us"),
        "row": "pixel",
        "image_column": "pixel",
    }
    tables = [
        ("TRAPS", columns, units),
        ("SEARCH", _search_columns(ctx, search), {"level": "ADU", "idl": "V", "pairs": "pixel"}),
    ]
    ctx.write_product("traps", f"EUC_TRAPS_CCD{ctx.ccd}_SN_{ctx.serial}_{ctx.block}.fits", [], header, tables)


def _search_columns(ctx, search) -> dict:
    """Per quadrant: what was searched, down to which significance, on how much charge."""
    import numpy as np

    def number(quadrant, name):
        value = search.get(quadrant, {}).get(name)
        return math.nan if value is None else float(value)

    drain = {
        r["quadrant"]: r["idl"] for r in ctx.rows("extract", "injection") if r["use"] and r["idl"] is not None
    }
    return {
        "quadrant": np.array(QUADRANTS),
        "level": np.array([number(q, "level") for q in QUADRANTS]),
        "idl": np.array([drain.get(q, math.nan) for q in QUADRANTS], float),
        "pairs": np.array([int(search.get(q, {}).get("pairs") or 0) for q in QUADRANTS], np.int64),
        "cut": np.array([number(q, "cut") for q in QUADRANTS]),
    }


if __name__ == "__main__":
    sys.exit(runner.run("pumping", {"extract": extract, "basic": basic, "meta": meta}))
