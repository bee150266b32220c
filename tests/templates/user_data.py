"""Runs the user data of the instances in a sandbox: the good case, and each thing that can go wrong."""

import hashlib
import os
import re
import subprocess
import tarfile
import tempfile
from pathlib import Path

from sandbox import PATHS, Sandbox
from template import REGION, TEMPLATES, Stack, load

NAME = "examples/ec2/instances.yaml"
SECRET = "c2VjcmV0OnBhc3N3b3Jk"
CONFIG = f'ECS_CLUSTER=web\nECS_ENGINE_AUTH_TYPE=dockercfg\nECS_ENGINE_AUTH_DATA={{"r.example.com":{{"auth":"{SECRET}"}}}}\n'
# Stands in for the agent: like it, it refuses some files, and says so at the end of a report.
AGENT = """#!/bin/bash
[ "$1" = check-config ] || exit 2
if grep -q REFUSED "$2"; then echo "The agent would not start."; exit 2; fi
echo "The agent would start."
"""
PROGRAMS = ("aws", "yum", "cfn-signal", "shutdown", "systemctl", "systemd-run", "curl",
            "mv", "cp", "chmod", "chown", "install", "mktemp", "tee", "ln")


def script(tree, sha256="0" * 64):
    """The user data as it reaches an instance."""
    template = load(tree.text(NAME))
    resources = Stack(template, {**TEMPLATES[NAME], "AgentSha256": sha256}, name="web").resources
    return resources["LaunchTemplate"]["Properties"]["LaunchTemplateData"]["UserData"]


def archive(path, files):
    """Writes an archive with these files, by name; returns its SHA-256."""
    folder = path.parent / "archive"
    folder.mkdir(exist_ok=True)
    with tarfile.open(path, "w:gz") as file:
        for name, text in files.items():
            (folder / "file").write_text(text)
            (folder / "file").chmod(0o755)
            file.add(folder / "file", name)
    return hashlib.sha256(path.read_bytes()).hexdigest()


def units(tree):
    """The units of systemd, by name."""
    return {path.name: path.read_text() for end in ("service", "timer") for path in (tree.top / "systemd").glob(f"*.{end}")}


class Run:
    """One run of the user data, with its files."""

    def __init__(self, tree, folder, scenario="", config=CONFIG, files=None, sha256=None, before=None, programs=PROGRAMS, variables=None):
        self.sandbox = Sandbox(folder, programs)
        self.root = self.sandbox.root / "system"
        self.etc = self.root / "etc/ecs"
        own = archive(self.sandbox.root / "bucket/ecs-agent.tar.gz", files or {"ecs-agent": AGENT, **units(tree)})
        (self.sandbox.root / "bucket/ecs.config").write_text(config)
        if before:
            self.etc.mkdir(parents=True)
            before(self)
        text = script(tree, sha256 or own)
        for path in PATHS:
            text = text.replace(path, f"{self.root}{path}")
        file = self.sandbox.root / "user-data"
        file.write_text(text)
        self.outcome = self.sandbox.run(["bash", file], scenario, watched=self.etc, **(variables or {}))
        self.config = self.etc / "ecs.config"

    def left(self):
        """The names of files in /etc/ecs."""
        return sorted(path.name for path in self.etc.iterdir()) if self.etc.exists() else []

    def has_started_agent(self):
        """Whether the script started the agent."""
        return any("ecs" in call for call in self.outcome.of("systemctl"))


def run(checks):
    """All runs."""
    paths(checks)
    for group in (good, modes, failures, before, waiting, archives):
        group(checks)


def attempt(checks, **options):
    """One run in a folder of its own, which stays as long as the result."""
    folder = tempfile.TemporaryDirectory(prefix="templates-user-data-")
    made = Run(checks.tree, folder.name + "/instance", **options)
    made.folder = folder
    return made


def paths(checks):
    """The sandbox can only stand in for known paths."""
    known = (*PATHS, "/bin/bash", "/dev/null")
    found = set(re.findall(r"(?<![\w./:])/(?:[a-z]+/)[\w./-]*", script(checks.tree)))
    checks.equal("the user data uses only paths that are known here", [path for path in sorted(found) if not path.startswith(known)], [])


def good(checks):
    """Everything works."""
    made = attempt(checks)
    outcome = made.outcome
    checks.equal("the user data succeeds", outcome.code, 0)
    checks.equal("ecs.config is that of the bucket", made.config.read_text() if made.config.exists() else None, CONFIG)
    checks.equal("ecs.config has mode 0600", oct(made.config.stat().st_mode & 0o7777) if made.config.exists() else None, "0o600")
    checks.equal("nothing else is left in /etc/ecs", made.left(), ["ecs.config"])
    checks.equal("no temporary file is left", list((made.sandbox.root / "tmp").iterdir()), [])
    agent, system = made.root / "usr/libexec/ecs-agent", made.root / "etc/systemd/system"
    checks.equal("the agent is installed", [agent.read_text(), oct(agent.stat().st_mode & 0o7777)], [AGENT, "0o755"])
    checks.equal("all units are installed", {unit.name: unit.read_text() for unit in system.iterdir()}, units(checks.tree))
    checks.equal("the units have mode 0644", {oct(unit.stat().st_mode & 0o7777) for unit in system.iterdir()}, {"0o644"})
    secrets = [line for line in outcome.output.splitlines() if SECRET in line or "AUTH_DATA" in line]
    checks.equal("no password is printed", secrets, [])
    checks.expect("no password is an argument", not any(SECRET in argument for call in outcome.calls for argument in call))
    order(checks, outcome)
    checks.equal("no failure is signalled", outcome.of("cfn-signal"), [])
    checks.equal("the instance does not power off", outcome.of("shutdown"), [])
    checks.expect("the packages come from the system", ["install", "-y", "-q", "docker", "aws-cfn-bootstrap"] in outcome.of("yum"))


def order(checks, outcome):
    """What starts when."""
    calls = [" ".join(call) for call in outcome.calls]
    want = ["yum install", "aws s3api get-object --bucket config-of-web --key ecs-agent.tar.gz",
            "aws s3api get-object --bucket config-of-web --key ecs.config", "systemctl daemon-reload", "systemctl enable --now docker",
            "systemctl enable --now --no-block ecs", "systemd-run"]
    found = [next((at for at, call in enumerate(calls) if call.startswith(start)), None) for start in want]
    checks.expect("packages, agent, settings, Docker, agent: in this order", None not in found and found == sorted(found), calls)
    blocking = [call for call in outcome.of("systemctl") if "ecs" in call and "--no-block" not in call]
    checks.equal("no call waits for the agent, which waits for cloud-init", blocking, [])
    waiting_calls = [call for call in outcome.of("systemd-run") if "--no-block" not in call]
    checks.equal("the wait for the registration is in the background", waiting_calls, [])


def modes(checks):
    """Nobody else can read a byte of ecs.config at any instant, whatever umask cloud-init has."""
    made = attempt(checks)
    seen = [line.split(" ", 1)[0] for line in made.outcome.modes]
    checks.expect("the files were looked at while they were written", len(made.outcome.modes) >= 2, made.outcome.modes)
    checks.equal("every file in /etc/ecs had mode 0600 at all times", set(seen), {"600"})
    written = [line.split(" ", 1)[1] for line in made.outcome.modes]
    temporary = [path for path in written if re.search(r"/\.ecs\.config\.\w+$", path)]
    checks.expect("ecs.config was written beside, and renamed", temporary, written)
    target = [call[-1] for call in made.outcome.of("aws") if "ecs.config" in call]
    checks.expect("the download went into the temporary file", target and target[0] in temporary, target)


def failures(checks):
    """What goes wrong is said in three places, and nothing is half installed."""
    wrong = {
        "S3 refuses ecs.config": ({"scenario": "refused", "variables": {"REFUSED": "ecs.config"}},
                                  "fetching s3://config-of-web/ecs.config"),
        "S3 refuses the agent": ({"scenario": "refused", "variables": {"REFUSED": "ecs-agent.tar.gz"}},
                                 "fetching s3://config-of-web/ecs-agent.tar.gz"),
        "ecs.config is empty": ({"config": ""}, "fetching s3://config-of-web/ecs.config"),
        "half of ecs.config arrives, unnoticed": ({"scenario": "cut"}, "fetching s3://config-of-web/ecs.config"),
        "the download breaks off": ({"scenario": "broken"}, "fetching s3://config-of-web/ecs.config"),
        "another archive": ({"sha256": "1" * 64}, "comparing the SHA-256 of ecs-agent.tar.gz with AgentSha256"),
        "an archive without the unit": ({"files": {"ecs-agent": AGENT}}, "unpacking ecs-agent.tar.gz"),
        "an agent for another machine": ({"files": {"ecs-agent": "\x7fELF", **units(checks.tree)}}, "checking ecs.config"),
        "an ecs.config that the agent refuses": ({"config": "ECS_CLUSTER=REFUSED\n"}, "checking ecs.config"),
        "no packages": ({"scenario": "no-packages"}, "installing Docker and cfn-signal"),
    }
    for what, (options, step) in wrong.items():
        made = attempt(checks, **options)
        outcome = made.outcome
        checks.expect(f"{what}: the script fails", outcome.code != 0)
        checks.equal(f"{what}: no ecs.config, and no part of one", made.left(), [])
        checks.expect(f"{what}: the agent is not started", not made.has_started_agent())
        console = f"ecs-agent is not installed: {step} failed. This instance powers off in 10 minutes."
        checks.expect(f"{what}: the console says it", console in outcome.output, outcome.output)
        signal = ["--exit-code", "1", "--reason", f"{step} failed", "--stack", "web", "--resource", "Instances", "--region", REGION]
        checks.equal(f"{what}: the stack is told", outcome.of("cfn-signal"), [signal])
        checks.equal(f"{what}: the instance powers off, with time to look", outcome.of("shutdown"), [["-P", "+10"]])
        checks.expect(f"{what}: no password is printed", SECRET not in outcome.output)
        checks.equal(f"{what}: no temporary file is left", list((made.sandbox.root / "tmp").iterdir()), [])
        if step.startswith(("comparing", "unpacking")):
            checks.expect(f"{what}: it is not installed", not (made.root / "usr/libexec/ecs-agent").exists())
    made = attempt(checks, scenario="no-signal", sha256="1" * 64)
    checks.equal("a signal that fails does not keep the instance from powering off", made.outcome.of("shutdown"), [["-P", "+10"]])


def before(checks):
    """A file that is there already."""
    made = attempt(checks, before=foreign_file)
    found = made.config.stat()
    checks.equal("another's readable ecs.config is replaced by one of mode 0600", oct(found.st_mode & 0o7777), "0o600")
    checks.equal("the new ecs.config belongs to the user of the script", found.st_uid, os.geteuid())
    checks.equal("the new ecs.config is that of the bucket", made.config.read_text(), CONFIG)
    made = attempt(checks, before=foreign_file, scenario="broken")
    checks.equal("an ecs.config stays as it is if the new one does not arrive", made.config.read_text(), "ECS_CLUSTER=old\n")
    made = attempt(checks, before=link)
    checks.expect("a link is replaced, not followed", not made.config.is_symlink() and made.config.read_text() == CONFIG)
    checks.equal("the target of the link is not written", (made.sandbox.root / "target").read_text(), "another file\n")
    made = attempt(checks, before=config_folder)
    is_refused = made.outcome.code != 0 and "writing" in made.outcome.output
    checks.expect("a folder called ecs.config is an error", is_refused, made.outcome.output)


def config_folder(made):
    """A folder in the place of the file."""
    (made.etc / "ecs.config").mkdir()


def foreign_file(made):
    """An ecs.config that everybody can read, of another user if this one may give it away."""
    path = made.etc / "ecs.config"
    path.write_text("ECS_CLUSTER=old\n")
    path.chmod(0o644)
    if os.geteuid() == 0:
        os.chown(path, 12345, 12345)


def link(made):
    """A link in the place of the file."""
    (made.sandbox.root / "target").write_text("another file\n")
    (made.etc / "ecs.config").symlink_to(made.sandbox.root / "target")


def waiting(checks):
    """The program in the background tells the stack how the registration ended."""
    for scenario, code in (("", "0"), ("not-registered", "7")):
        made = attempt(checks)
        started = made.outcome.of("systemd-run")[0]
        inner = started[started.index("bash"):]
        (made.sandbox.records / "calls").unlink()
        outcome = made.sandbox.run(inner, scenario)
        signals = outcome.of("cfn-signal")
        what = "registered" if code == "0" else "not registered"
        checks.equal(f"{what}: one signal", len(signals), 1)
        checks.equal(f"{what}: exit code {code}", signals[0][:2] if signals else None, ["--exit-code", code])
        place = ["--stack", "web", "--resource", "Instances", "--region", REGION]
        checks.expect(f"{what}: of this stack", signals and signals[0][-6:] == place, signals)
        asked = outcome.of("curl")[0]
        checks.equal(f"{what}: the agent's port is asked", asked[-1], "http://localhost:51678/v1/metadata")
        retries = ["--fail", "--retry-connrefused", "--retry", "160", "--retry-delay", "5"]
        checks.expect(f"{what}: for 13 minutes, also while the port is closed", all(word in asked for word in retries), asked)


def archives(checks):
    """Only the known files of the archive are unpacked. And the real agent checks the real settings, if it is built."""
    made = attempt(checks, files={"ecs-agent": AGENT, **units(checks.tree), "surprise": "x"})
    checks.expect("other files of an archive are ignored", made.outcome.code == 0 and not list(made.root.rglob("surprise")))
    built = [path for name in ("debug", "release") for path in [checks.tree.top / "target" / name / "ecs-agent"] if path.exists()]
    if not built:
        checks.skip("the agent is not built, so that it cannot check an ecs.config")
        return
    for what, text, wanted in (("whole", CONFIG, "would start."), ("with warnings", CONFIG + "ECS_CLUSTRE=x\n", "would start,"),
                               ("cut", 'ECS_RESERVED_MEMORY=1\nECS_INSTANCE_ATTRIBUTES={"a":', "would not start")):
        with tempfile.TemporaryDirectory() as folder:
            (Path(folder) / "ecs.config").write_text(text)
            command = [built[0], "check-config", f"{folder}/ecs.config"]
            # The agent would also check the settings of this environment.
            environment = {"PATH": os.environ["PATH"]}
            done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=30)
        checks.expect(f"the agent's report on a file that is {what}", f"The agent {wanted}" in done.stdout, done.stdout)
        checks.expect(f"the agent's report on a file that is {what} has no password", SECRET not in done.stdout + done.stderr)
