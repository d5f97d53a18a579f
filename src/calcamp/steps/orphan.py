"""Steps that end when the workflow that started them was killed.

A kill -9 of Snakemake leaves its shells and steps running. A step that went on would write into the same
folder as the next run's, so each step looks once a second whether the workflow is still there. It ends
its shell first, which would otherwise take the end of the step for a crash. Standard library only.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path

PERIOD_S = 1.0
EXIT = 7


def _status(pid: int) -> tuple[str, int] | None:
    """(name, parent) of a process."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    name = text[text.index("(") + 1 : text.rindex(")")]
    return name, int(text.rpartition(")")[2].split()[1])


def end_with_the_workflow(period_s: float = PERIOD_S) -> bool:
    """Watch, in a thread, the process that started the shell of this step; True when there is one to watch.

    A step that a person starts by hand, in a terminal, is watched in the same way: it ends with the terminal.
    """
    shell = os.getppid()
    found = _status(shell)
    if found is None:
        return False
    is_shell = found[0] in ("bash", "sh", "dash")
    watched, child = (found[1], shell) if is_shell else (shell, os.getpid())
    if watched <= 1:
        return False

    def watch() -> None:
        while True:
            state = _status(child)
            if state is None or state[1] != watched:
                break
            time.sleep(period_s)
        if is_shell and _status(shell) is not None and os.getppid() == shell:
            os.kill(shell, signal.SIGKILL)
        os._exit(EXIT)

    threading.Thread(target=watch, name="workflow-watch", daemon=True).start()
    return True
