"""``calcamp stop``: a clean early end of a waiting session."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(add_completion=False)


@app.command()
def stop(session: Annotated[Path, typer.Argument(help="session YAML")]) -> None:
    """Tell the gates of a running session to end now; tests that wait become incomplete and get a report.

    Example:  calcamp stop config/sessions/D11.yaml
    """
    from calcamp.campaign import plan

    root = plan.load([session], {}).results.root
    if not root.is_dir():
        raise typer.BadParameter(f"{session}: the session has no results yet ({root}); nothing runs")
    (root / "STOP").touch()
    print(f"stop asked: {root / 'STOP'}; waiting tests end at their next poll")
