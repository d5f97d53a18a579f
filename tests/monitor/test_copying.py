"""Back-up and broadcast: real rsync, and a gateway that is killed half-way."""

import os
import shutil
import signal
import subprocess
import threading
import time
from pathlib import Path

import pytest
from tests.monitor.monitor_support import free_port, wait_for

from calcamp.data.files import InputError, sha256
from calcamp.monitor.copying import Copier, Rsync, Target, Verification, explain
from calcamp.monitor.settings import Copying, Ssh

needs_rsync = pytest.mark.skipif(not shutil.which("rsync"), reason="rsync is not installed")
SSHD = next((p for p in ("/usr/sbin/sshd", shutil.which("sshd") or "") if p and Path(p).is_file()), None)


def make_day(folder, files=8, size=50_000):
    folder.mkdir()
    for n in range(files):
        (folder / f"EUC_{n}_120319D071040T_ROE1_CCD1.fits").write_bytes(os.urandom(size))
    (folder / "HK_12-03-19_ROE1_01.txt").write_text("TimeStamp\tA\r\n")
    (folder / "EXP_LOG_120319.txt").write_text("ObsID\r\n")
    return folder


def settle(folder):
    old = time.time() - 3600
    for path in folder.iterdir():
        os.utime(path, (old, old), follow_symlinks=False)


def same(day, copy):
    """Names of files that are missing or differ in the copy."""
    return [
        p.name
        for p in day.iterdir()
        if not p.is_symlink() and (not (copy / p.name).is_file() or sha256(p) != sha256(copy / p.name))
    ]


@pytest.mark.parametrize(
    "text", ["a@b::module", "rsync://h/x", "a@b:x y", "a@b:x;reboot", "-oProxyCommand=x@h:/x", "a@b:$(x)"]
)
def test_odd_targets_are_refused(text):
    if text.startswith("-"):
        with pytest.raises(InputError):
            Target.parse(text)
        return
    with pytest.raises(InputError):
        Target.parse(text)


def test_targets():
    target = Target.parse("me@gate.way:quarantine/D11/")
    assert (target.text, target.remote) == ("me@gate.way:quarantine/D11", True)
    assert not Target.parse("backup/").remote
    assert "cannot be reached" in explain(255, "ssh: connect: refused\n")


@needs_rsync
def test_backup_is_incremental_keeps_deleted_and_leaks_no_link(tmp_path):
    day, target = make_day(tmp_path / "12_Mar_19"), tmp_path / "backup"
    secret = tmp_path / "private"
    secret.write_text("canary")
    (day / "leak").symlink_to(secret)
    said = []
    copier = Copier("back-up", day, Target.parse(str(target)), Copying(), 50, None, lambda *a: said.append(a))
    assert not copier.one_pass()
    assert "not there" in copier.state.error, "an unmounted disk is no folder to fill"
    target.mkdir()
    assert copier.one_pass()
    copy = target / day.name
    assert same(day, copy) == []
    assert copier.state.files == 10
    assert not (copy / "leak").exists()
    assert copier.state.left_out == 1
    with open(day / "EXP_LOG_120319.txt", "a") as stream:
        stream.write("1\r\n")
    gone = day / "EUC_0_120319D071040T_ROE1_CCD1.fits"
    gone.unlink()
    assert copier.one_pass()
    assert copier.state.files == 1
    assert (copy / gone.name).is_file(), "nothing is deleted at the target"
    assert said


@needs_rsync
def test_every_flipped_bit_is_found_and_growing_files_are_no_false_alarm(tmp_path):
    day, target = make_day(tmp_path / "12_Mar_19", files=100, size=3000), tmp_path / "backup"
    target.mkdir()
    settle(day)
    copier = Copier("back-up", day, Target.parse(str(target)), Copying(), 50, tmp_path / "v.json")
    assert copier.one_pass()
    assert copier.state.verified == 102
    for n in range(100):
        path = target / day.name / f"EUC_{n}_120319D071040T_ROE1_CCD1.fits"
        status, data = path.stat(), bytearray(path.read_bytes())
        data[n * 29] ^= 1 << (n % 8)
        path.write_bytes(data)
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    with open(day / "EXP_LOG_120319.txt", "a") as stream:
        stream.write("growing\r\n")
    found = Verification(copier.rsync, tmp_path / "v.json").run(older_than_s=0)
    assert len(found.differing) == 100
    assert found.skipped == ["EXP_LOG_120319.txt"]
    assert not found.whole
    again = Verification(copier.rsync, tmp_path / "v.json").run(older_than_s=1e6)
    assert len(again.differing) == 100, "known from the state on disk"


@needs_rsync
def test_verification_goes_on_where_it_stopped(tmp_path):
    day, target = make_day(tmp_path / "12_Mar_19", files=6, size=1000), tmp_path / "backup"
    target.mkdir()
    settle(day)
    copier = Copier("back-up", day, Target.parse(str(target)), Copying(verify_hours=0), 50)
    assert copier.one_pass()
    first = Verification(copier.rsync, tmp_path / "v.json").run(seconds=0)
    assert (first.verified, first.unverified) == (0, 8)
    (target / day.name / "HK_12-03-19_ROE1_01.txt").unlink()
    second = Verification(copier.rsync, tmp_path / "v.json").run()
    assert second.missing == ["HK_12-03-19_ROE1_01.txt"]
    assert second.verified == 7


@needs_rsync
def test_a_stopped_rsync_holds_nothing_up(tmp_path, monkeypatch):
    """rsync that hangs is ended at the limit of a pass, and the thread ends at once when told to."""
    day, target = make_day(tmp_path / "12_Mar_19", files=1), tmp_path / "backup"
    target.mkdir()
    import calcamp.monitor.copying as module

    hang = tmp_path / "rsync"
    hang.write_text("#!/bin/sh\nsleep 600\n")
    hang.chmod(0o755)
    monkeypatch.setattr(module, "rsync_program", lambda: str(hang))
    copier = Copier("back-up", day, Target.parse(str(target)), Copying(pass_limit=1.0), 0.2)
    assert not copier.one_pass()
    assert "too long" in copier.state.error
    copier = Copier("back-up", day, Target.parse(str(target)), Copying(), 0.2)
    copier.start()
    wait_for(lambda: copier.state.running and copier.rsync._process)
    begin = time.monotonic()
    copier.stop()
    assert time.monotonic() - begin < 30, "not the 600 s that rsync would take"


class Gateway:
    """A throw-away sshd on loopback."""

    def __init__(self, folder):
        self.folder, self.port = folder, free_port()
        folder.mkdir()
        for name in ("host_key", "user_key"):
            subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / name], check=True)
        (folder / "sshd_config").write_text(
            f"Port {self.port}\nListenAddress 127.0.0.1\nHostKey {folder}/host_key\nPidFile {folder}/pid\n"
            f"AuthorizedKeysFile {folder}/user_key.pub\nStrictModes no\nUsePAM no\nPasswordAuthentication no\n"
            "PermitRootLogin prohibit-password\nSubsystem sftp internal-sftp\n"
        )

    def start(self):
        Path("/run/sshd").mkdir(parents=True, exist_ok=True)
        subprocess.run([SSHD, "-f", self.folder / "sshd_config", "-E", self.folder / "log"], check=True)
        wait_for(lambda: (self.folder / "pid").is_file())

    def stop(self):
        """End the daemon and its sessions."""
        pid = int((self.folder / "pid").read_text())
        children = subprocess.run(
            ["ps", "-o", "pid=,args=", "-e"], capture_output=True, text=True, check=True
        )
        with_session = [
            int(line.split()[0])
            for line in children.stdout.splitlines()
            if "sshd" in line and "@notty" in line
        ]
        parents = {
            p: int(Path(f"/proc/{p}/stat").read_text().rpartition(")")[2].split()[1])
            for p in with_session
            if Path(f"/proc/{p}").exists()
        }
        os.kill(pid, signal.SIGKILL)
        for child, parent in parents.items():
            if parent == pid:
                os.kill(child, signal.SIGKILL)
        (self.folder / "pid").unlink()

    @property
    def copying(self):
        ssh = Ssh(port=self.port, key=str(self.folder / "user_key"), known_hosts=str(self.folder / "known"))
        return Copying(ssh=ssh, pass_limit=60.0)


@pytest.mark.full
@needs_rsync
@pytest.mark.skipif(SSHD is None or os.getuid() != 0, reason="no sshd, or not root to start one")
def test_gateway_killed_half_way(tmp_path):
    day = make_day(tmp_path / "12_Mar_19", files=60, size=2_000_000)
    settle(day)
    gateway, target = Gateway(tmp_path / "gate"), tmp_path / "remote"
    target.mkdir()
    copier = Copier("broadcast", day, Target.parse(f"root@127.0.0.1:{target}"), gateway.copying, 1.0)
    assert not copier.one_pass()
    assert "Connection refused" in copier.state.error
    gateway.start()
    copy = target / day.name
    worker = threading.Thread(target=copier.one_pass)
    worker.start()
    wait_for(lambda: copy.is_dir() and len(list(copy.glob("EUC*"))) >= 5, 60)
    gateway.stop()
    worker.join(90)
    done = len(list(copy.glob("EUC*")))
    assert copier.state.error
    assert done < 60, "killed half-way"
    assert not (copy / "EXP_LOG_120319.txt").exists(), "the log comes last"
    gateway.start()
    try:
        assert copier.one_pass(), copier.state.error
        assert same(day, copy) == []
        assert copier.state.verified == 62
        assert not copier.state.differing
    finally:
        gateway.stop()
    assert isinstance(copier.rsync, Rsync)


@pytest.mark.parametrize(
    ("told", "warned"),
    [
        ("rsync  version 3.2.7  protocol version 31", "rsync 3.2.7 is older than 3.4.3"),
        ("rsync  version v3.4.3  protocol version 32", ""),
        ("rsync  version 3.10.0  protocol version 32", ""),
        ("openrsync: protocol version 29", "rsync of unknown version"),
    ],
)
def test_old_rsync_is_told(tmp_path, monkeypatch, told, warned):
    import calcamp.monitor.copying as module

    program = tmp_path / "rsync"
    program.write_text(f"#!/bin/sh\necho '{told}'\n")
    program.chmod(0o755)
    monkeypatch.setattr(module, "rsync_program", lambda: str(program))
    text = module.rsync_too_old()
    assert text.startswith(warned)
    assert bool(text) == bool(warned)
