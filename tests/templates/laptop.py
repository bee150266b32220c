"""ecs-local, an agent and Docker on this machine, for a test that looks at the recorded calls."""

import json
import os
import subprocess
import time
import urllib.error
import urllib.request

ACCOUNT, REGION = "123456789012", "us-west-2"
LIMIT = 90
"""Seconds to wait for anything."""


def wait_for(what, found):
    """The first true value of a function."""
    end = time.monotonic() + LIMIT
    while time.monotonic() < end:
        value = found()
        if value:
            return value
        time.sleep(0.5)
    raise TimeoutError(f"waited {LIMIT} s for {what}")


class Laptop:
    """The services and the agent, with their files below one folder."""

    def __init__(self, folder, binaries, port):
        self.folder, self.binaries, self.port = folder, binaries, port
        self.url = f"http://127.0.0.1:{port}"
        self.processes = []
        (folder / "docker").mkdir(parents=True)
        self.environment = {**os.environ, "NO_PROXY": "127.0.0.1", "DOCKER_CONFIG": str(folder / "docker"), "AWS_REGION": REGION,
                            "AWS_DEFAULT_REGION": REGION, "AWS_CONFIG_FILE": "/dev/null", "AWS_SHARED_CREDENTIALS_FILE": "/dev/null"}
        self.token = ""

    def start(self, name, command, **variables):
        """Starts a program, with its output in a file."""
        with (self.folder / f"{name}.log").open("w") as log:
            self.processes.append(subprocess.Popen(command, stdout=log, stderr=log, env={**self.environment, **variables}))

    def serve(self, *options):
        """Starts ecs-local."""
        file = self.folder / "token"
        command = [f"{self.binaries}/ecs-local", "serve", "--listen", f"127.0.0.1:{self.port}", "--cluster", "default"]
        self.start("ecs-local", [*command, "--token-file", str(file), *options])
        wait_for("ecs-local", lambda: file.exists() and self.answers())
        self.token = file.read_text().strip()

    def answers(self):
        """Whether ecs-local answers."""
        try:
            return urllib.request.build_opener(urllib.request.ProxyHandler({})).open(self.url, timeout=2).status
        except urllib.error.HTTPError:
            return True
        except OSError:
            return False

    def call(self, path, body=None):
        """A request below `/_local/`. An error is a ValueError with its text."""
        data = None if body is None else json.dumps(body).encode()
        headers = {"Authorization": f"Bearer {self.token}", "Content-Type": "application/json"}
        request = urllib.request.Request(f"{self.url}/_local/{path}", data, headers)
        try:
            with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=10) as answer:
                return json.loads(answer.read() or b"null")
        except urllib.error.HTTPError as error:
            raise ValueError(error.read().decode(errors="replace")) from error

    def run(self, *command, keys=None, check=True):
        """Runs a program with the keys of an identity (default: the administrator), and returns its output."""
        keys = keys or {"accessKeyId": "local", "secretAccessKey": self.token}
        names = {"AWS_ACCESS_KEY_ID": "accessKeyId", "AWS_SECRET_ACCESS_KEY": "secretAccessKey", "AWS_SESSION_TOKEN": "sessionToken"}
        own = {name: keys[key] for name, key in names.items() if keys.get(key)}
        environment = {**self.environment, "AWS_ENDPOINT_URL": self.url, "AWS_PAGER": "", **own}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=300)
        if check and done.returncode:
            raise RuntimeError(f"{' '.join(command)}: {done.stdout}{done.stderr}")
        return done.stdout

    def aws(self, *words, keys=None):
        """A call of the aws CLI; its answer."""
        text = self.run("aws", *words, "--output", "json", keys=keys)
        return json.loads(text) if text.strip() else None

    def end(self):
        """Ends what was started, the last first."""
        for process in reversed(self.processes):
            process.terminate()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
