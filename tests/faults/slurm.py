"""A Slurm of one node that tests start and stop by themselves; needs root and the Debian packages."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import time
from pathlib import Path

PROGRAMS = ("slurmctld", "slurmd", "munged", "mungekey", "sinfo", "sbatch")
CONF = Path("/etc/slurm/slurm.conf")  # job steps that Snakemake starts look nowhere else

MARK = "# made by a test of calcamp"
TEXT = """\
ClusterName=calcamp
SlurmctldHost=localhost
SlurmctldPort=16817
SlurmdPort=16818
AuthType=auth/munge
AuthInfo=socket={d}/munge.sock
SlurmUser=root
SlurmdUser=root
StateSaveLocation={d}/ctld
SlurmdSpoolDir={d}/d
SlurmctldPidFile={d}/slurmctld.pid
SlurmdPidFile={d}/slurmd.pid
SlurmctldLogFile={d}/slurmctld.log
SlurmdLogFile={d}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
ReturnToService=2
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
MinJobAge=3600
SchedulerParameters=sched_interval=1,batch_sched_delay=0,bf_interval=1
NodeName=localhost CPUs={cpus} RealMemory={memory} State=UNKNOWN
PartitionName=main Nodes=localhost Default=YES MaxTime=INFINITE State=UP
"""


def why_not() -> str:
    """Why no Slurm can be started here; empty when it can."""
    missing = [name for name in PROGRAMS if not shutil.which(name)]
    if missing:
        return f"not installed: {', '.join(missing)} (Debian: slurm-wlm munge)"
    if os.getuid():
        return "needs root"
    if CONF.exists() and not _left_over():
        return f"{CONF} is there: the machine has a Slurm of its own"
    return ""


def _left_over() -> bool:
    """Whether the file is of a test that was killed, and its daemons are gone."""
    text = CONF.read_text(errors="replace")
    if MARK not in text:
        return False
    pid = re.search(r"SlurmctldPidFile=(\S+)", text)
    try:
        return not Path(f"/proc/{int(Path(pid[1]).read_text())}").exists()
    except (OSError, ValueError, TypeError):
        return True


class Slurm:
    """One node with all daemons; a context manager."""

    def __init__(self, folder: Path):
        self.folder = folder
        self._made_folder = not CONF.parent.exists()

    def __enter__(self) -> Slurm:
        d = self.folder
        for name in ("ctld", "d"):
            (d / name).mkdir(parents=True)
        shown = subprocess.run(["slurmd", "-C"], capture_output=True, text=True, check=False).stdout
        cpus, memory = re.search(r"CPUs=(\d+)", shown), re.search(r"RealMemory=(\d+)", shown)
        CONF.parent.mkdir(parents=True, exist_ok=True)
        text = TEXT.format(d=d, cpus=cpus[1] if cpus else 1, memory=memory[1] if memory else 1000)
        CONF.write_text(f"{MARK}\n{text}")
        try:
            self._start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def _start(self) -> None:
        d = self.folder
        run = {"check": True, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "timeout": 60}
        subprocess.run(["mungekey", "--create", f"--keyfile={d}/munge.key"], **run)
        (d / "munge.key").chmod(0o400)
        files = [f"--{option}={d}/{name}" for option, name in (
            ("key-file", "munge.key"),
            ("socket", "munge.sock"),
            ("pid-file", "munged.pid"),
            ("log-file", "munged.log"),
            ("seed-file", "seed"),
        )]  # fmt: skip
        subprocess.run(["munged", "--force", *files], **run)
        subprocess.run(["slurmctld", "-c"], **run)
        subprocess.run(["slurmd", "-N", "localhost", "-c"], **run)
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            said = subprocess.run(
                ["sinfo", "-h", "-o", "%T"], capture_output=True, text=True, check=False, timeout=30
            )
            if said.stdout.strip() == "idle":
                return
            time.sleep(0.2)
        raise RuntimeError(f"Slurm does not come up: {said.stdout}{said.stderr}")

    def __exit__(self, *_) -> None:
        for name in ("slurmd", "slurmctld", "munged"):
            try:
                pid = int((self.folder / f"{name}.pid").read_text())
                os.kill(pid, signal.SIGTERM)
            except (OSError, ValueError):
                continue
            deadline = time.monotonic() + 20
            while Path(f"/proc/{pid}").exists() and time.monotonic() < deadline:
                time.sleep(0.1)
        CONF.unlink(missing_ok=True)
        if self._made_folder:
            shutil.rmtree(CONF.parent, ignore_errors=True)
