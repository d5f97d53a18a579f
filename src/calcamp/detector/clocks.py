"""Clock tables of trap pumping: which electrodes hold the charge, step by step, and what follows for a trap.

Positions are counted in electrodes along the direction of transfer, away from the node: electrode ``e`` of
pixel ``k`` has its centre at ``e + k * phases``. A packet is the charge of one pixel, held under the electrodes
that a step names. A trap under a held electrode takes charge from that packet; what it lets go while no
packet is above it joins the nearest packet. Dipoles follow from the table alone: no formula of a pumping
scheme is written anywhere else. Standard library only: the Snakefile is parsed by every job.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field

from calcamp.detector.geometry import half_of


@dataclass(frozen=True)
class Term:
    """Charge let go between `begin` and `end` (in steps since storage ended) joins another packet."""

    donor: int  # pixels from the trap's own, away from the node
    receiver: int
    begin: float
    end: float
    hold: float  # steps for which the trap was under the donor

    @property
    def pair(self) -> int:
        """The pixel of the pair nearer the node, from the trap's own."""
        return min(self.donor, self.receiver)

    @property
    def sign(self) -> int:
        """+1 when the bright pixel is nearer the node."""
        return 1 if self.receiver < self.donor else -1


@dataclass(frozen=True)
class Clocking:
    """Pumping of one register.

    ``modes`` maps the commanded mode to its steps; a step lists the electrodes that hold the packet of
    pixel 0 (they may lie in the neighbouring pixels: 0 or less, above ``phases``). All steps of a mode last
    ``fixed_us`` plus the commanded time. ``order`` gives, per half, the commanded phase at each electrode
    counted from the node.
    """

    phases: int
    modes: dict[int, tuple[tuple[int, ...], ...]]
    fixed_us: float = 0.0
    order: dict[str, tuple[int, ...]] = field(default_factory=dict)

    def step_us(self, commanded_us: float) -> float:
        """Duration of a step, us."""
        return self.fixed_us + commanded_us

    def positions(self) -> list[float]:
        """Where a trap can be told apart: the two halves of each electrode."""
        return [e + side for e in range(1, self.phases + 1) for side in (-0.25, 0.25)]

    def steps(self, mode: int, half: str) -> list[tuple[int, ...]]:
        """Held electrodes of each step, counted from the node, for the phase order of a half."""
        order = self.order.get(half) or tuple(range(1, self.phases + 1))
        place = {phase: n for n, phase in enumerate(order, 1)}
        out: list[tuple[int, ...]] = []
        for held in self.modes[mode]:
            moved: list[int] = []
            for electrode in held:
                at = place[(electrode - 1) % self.phases + 1]
                # Charge moves between neighbours: of the electrodes of this phase, the one next to where it was.
                before = moved[-1] if moved else out[-1][0] if out else None
                if before is None:
                    at += (electrode - 1) // self.phases * self.phases
                else:
                    at += self.phases * round((before - at) / self.phases)
                moved.append(at)
            out.append(tuple(moved))
        return out

    def sequence(self, mode: int, half: str, position: float) -> list[tuple[bool, int]]:
        """Per step: (whether a packet is above the trap, which packet: that one, or the nearest)."""
        out = []
        for held in self.steps(mode, half):
            nearest = min(
                (abs(electrode + k * self.phases - position), k) for electrode in held for k in range(-3, 4)
            )
            out.append((nearest[0] < 0.5, nearest[1]))
        return out

    def terms(self, mode: int, half: str, position: float) -> list[Term]:
        """What a trap at `position` moves from one packet to another in each cycle; empty for none."""
        seen = self.sequence(mode, half, position)
        n = len(seen)
        if not any(above for above, _ in seen) or all(above for above, _ in seen):
            return []
        out = []
        for last in range(n):
            if not seen[last][0] or seen[(last + 1) % n][0]:
                continue
            hold = 1
            while seen[last - hold][0] and seen[last - hold][1] == seen[last][1] and hold < n:
                hold += 1
            donor, k = seen[last][1], 1
            while not seen[(last + k) % n][0]:
                receiver = seen[(last + k) % n][1]
                if receiver != donor:
                    if (
                        out
                        and out[-1].end == k - 1
                        and (out[-1].donor, out[-1].receiver) == (donor, receiver)
                    ):
                        out[-1] = Term(donor, receiver, out[-1].begin, float(k), float(hold))
                    else:
                        out.append(Term(donor, receiver, float(k - 1), float(k), float(hold)))
                k += 1
        return out

    def signatures(self, half: str) -> dict[float, dict[int, Term]]:
        """Position -> mode -> term, for all positions that some mode shows (modes with one term each)."""
        out = {}
        for position in self.positions():
            seen = {m: self.terms(m, half, position) for m in self.modes}
            seen = {m: terms[0] for m, terms in seen.items() if len(terms) == 1}
            if seen:
                out[position] = seen
        return out

    def for_quadrant(self, quadrant: str) -> dict[float, dict[int, Term]]:
        return self.signatures(half_of(quadrant))

    def as_dict(self) -> dict:
        """Plain data for a job's JSON; `from_dict` reads it back."""
        data = asdict(self)
        data["modes"] = {str(mode): [list(step) for step in steps] for mode, steps in self.modes.items()}
        data["order"] = {half: list(order) for half, order in self.order.items()}
        return data

    @classmethod
    def from_dict(cls, data: dict) -> Clocking:
        return cls(
            int(data["phases"]),
            {
                int(m): tuple(tuple(int(e) for e in step) for step in steps)
                for m, steps in data["modes"].items()
            },
            float(data.get("fixed_us", 0.0)),
            {half: tuple(order) for half, order in (data.get("order") or {}).items()},
        )
