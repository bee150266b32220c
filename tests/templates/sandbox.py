"""A folder in place of an instance: recording programs first in PATH, and paths of the system below the folder."""

import os
import subprocess
import threading
import time
from pathlib import Path

FAKES = Path(__file__).parent / "fakes" / "recorder"
PATHS = ("/etc/ecs", "/etc/systemd/system", "/usr/libexec", "/opt/aws/bin")
"""The paths of the system that the user data uses. Every other absolute path is refused."""


class Outcome:
    """What a script did."""

    def __init__(self, code, output, records):
        self.code = code
        self.output = output
        self.calls = [call.split("\x1f") for call in read(records / "calls").split("\x1e") if call]
        self.input = read(records / "input")
        self.modes = sorted(set(read(records / "modes").splitlines()))
        self.environment = [line.split("\t") for line in read(records / "environment").splitlines()]

    def of(self, program):
        """The arguments of each call of a program."""
        return [call[1:] for call in self.calls if call[0] == program]


def read(path):
    """The text of a file; empty if there is none."""
    return path.read_text(errors="replace") if path.exists() else ""


class Sandbox:
    """Runs scripts with recording programs. `programs` are their names."""

    def __init__(self, folder, programs):
        self.root = Path(folder)
        self.records = self.root / "records"
        self.bin = self.root / "bin"
        for made in (self.records, self.bin, self.root / "tmp", self.root / "bucket"):
            made.mkdir(parents=True)
        for program in programs:
            (self.bin / program).symlink_to(FAKES)

    def run(self, command, scenario="", watched=None, cwd=None, **variables):
        """Runs a command, and looks at the modes of watched files all the time."""
        environment = {
            "PATH": f"{self.bin}:{os.environ['PATH']}",
            "HOME": str(self.root),
            "TMPDIR": str(self.root / "tmp"),
            "RECORDS": str(self.records),
            "BUCKET": str(self.root / "bucket"),
            "SCENARIO": scenario,
            "REFUSED": "",
            "PASSWORD": "no-password",
            **({"WATCHED": str(watched)} if watched else {}),
            **variables,
        }
        ended = threading.Event()
        watcher = threading.Thread(target=self.watch, args=(watched, ended), daemon=True)
        watcher.start()
        done = subprocess.run(command, env=environment, cwd=cwd or self.root, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, text=True, check=False, timeout=120)
        ended.set()
        watcher.join()
        return Outcome(done.returncode, done.stdout, self.records)

    def watch(self, folder, ended):
        """Adds the modes of files to the records until the end."""
        while folder and not ended.is_set():
            for path in list(Path(folder).rglob("*")) if Path(folder).exists() else []:
                try:
                    mode = path.lstat().st_mode
                except FileNotFoundError:
                    continue
                if path.is_file() and not path.is_symlink():
                    with (self.records / "modes").open("a") as file:
                        file.write(f"{mode & 0o7777:o} {path}\n")
            time.sleep(0.002)
