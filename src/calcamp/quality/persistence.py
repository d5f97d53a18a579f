"""Judging PERSIST01: offsets of the reset frames, saturation, background, released charge."""

from __future__ import annotations

from calcamp.quality.family import Case, FamilyRules, channels, entry
from calcamp.quality.limits import number


def headline(case: Case) -> list[dict]:
    """Charge released in the first latent frame, or its 95 % limit; time constant."""
    rows = {(r.get("ccd"), r.get("quadrant")): r for r in case.rows("persistence")}
    out = []
    for ccd, quadrant in channels():
        row = rows.get((ccd, quadrant), {})
        limit = bool(row.get("is_limit"))
        value = row.get("limit95") if limit else row.get("persistence")
        err = None if limit else row.get("persistence_err")
        item = entry("persistence", value, err, row.get("n"), ccd=ccd, quadrant=quadrant)
        out.append({**item, "is_limit": limit, "gain_nominal": case.gain(ccd, quadrant)[2]})
    for ccd, quadrant in channels():
        row = rows.get((ccd, quadrant), {})
        if number(row.get("tau")) is not None or not rows:
            out.append(
                entry("persistence_tau", row.get("tau"), row.get("tau_err"), 1, ccd=ccd, quadrant=quadrant)
            )
    return out


FAMILY = FamilyRules("persistence", headline=headline, products=(("basic", "satmask"),))
