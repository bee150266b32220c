"""`make login publish logout` and `make login compose-publish logout` with the real Docker, against Debian's registry with a password."""

import base64
import json
import os
import shutil
import socket
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

from publish import FOLDER, compose_program

PASSWORD = "the-token-of-this-test"
BASE = "busybox:latest"


def run(checks):
    """Both ways to publish."""
    missing = [name for name in ("docker", "docker-registry", "htpasswd", "make", "git", "busybox") if not shutil.which(name)]
    if missing or subprocess.run(["docker", "info"], capture_output=True, check=False).returncode:
        checks.skip(f"no {', '.join(missing) or 'Docker that answers'}")
        return
    with tempfile.TemporaryDirectory(prefix="templates-real-") as folder:
        registry = Registry(Path(folder))
        made = base_image(Path(folder))
        try:
            way(checks, registry, Path(folder), "publish")
            if compose_program():
                way(checks, registry, Path(folder), "compose-publish")
            else:
                checks.skip("no Docker Compose")
        finally:
            registry.end()
            if made:
                docker("image", "rm", "--force", BASE)


def docker(*words):
    """A call of Docker that must succeed; returns what it prints."""
    return subprocess.run(["docker", *words], check=True, capture_output=True, text=True, timeout=120).stdout


def base_image(folder):
    """The base of the image, made from this machine's busybox, unless it is there. Returns whether it was made."""
    if not subprocess.run(["docker", "image", "inspect", BASE], capture_output=True, check=False).returncode:
        return False
    root = folder / "busybox"
    (root / "bin").mkdir(parents=True)
    shutil.copy(shutil.which("busybox"), root / "bin/busybox")
    for applet in ("sh", "cat", "httpd", "sleep", "echo"):
        (root / "bin" / applet).symlink_to("busybox")
    tar = subprocess.run(["tar", "-C", root, "-c", "."], check=True, capture_output=True)
    subprocess.run(["docker", "import", "-c", "ENV PATH=/bin", "-", BASE], input=tar.stdout, check=True, capture_output=True, timeout=60)
    return True


class Registry:
    """Debian's registry, with one user called AWS."""

    def __init__(self, folder):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.address = f"127.0.0.1:{free.getsockname()[1]}"
        htpasswd = subprocess.run(["htpasswd", "-Bin", "AWS"], input=PASSWORD, text=True,
                                  check=True, capture_output=True).stdout
        (folder / "htpasswd").write_text(htpasswd)
        (folder / "registry.yml").write_text(json.dumps({
            "version": 0.1,
            "storage": {"filesystem": {"rootdirectory": f"{folder}/storage"}, "delete": {"enabled": True}},
            "http": {"addr": self.address},
            "auth": {"htpasswd": {"realm": "test", "path": f"{folder}/htpasswd"}},
        }))
        self.process = subprocess.Popen(["docker-registry", "serve", f"{folder}/registry.yml"], stdout=subprocess.DEVNULL,
                                        stderr=subprocess.DEVNULL)
        for _ in range(100):
            if self.get("/v2/")[0] == 200:
                return
            time.sleep(0.1)
        raise RuntimeError("the registry does not answer")

    def get(self, path):
        """Status and body of a request with the password; 0 without an answer."""
        word = base64.b64encode(f"AWS:{PASSWORD}".encode()).decode()
        accept = "application/vnd.docker.distribution.manifest.v2+json"
        request = urllib.request.Request(f"http://{self.address}{path}", headers={"Authorization": f"Basic {word}", "Accept": accept})
        try:
            with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=5) as answer:
                return answer.status, answer.read()
        except urllib.error.HTTPError as error:
            return error.code, b""
        except OSError:
            return 0, b""

    def end(self):
        """Ends the registry."""
        self.process.terminate()
        self.process.wait(10)


def way(checks, registry, folder, target):
    """One way to publish, with a Docker configuration of its own."""
    repository = f"docker-in-aws/{target}"
    programs, config = folder / target / "bin", folder / target / "docker"
    programs.mkdir(parents=True)
    config.mkdir()
    (programs / "aws").write_text(f"#!/bin/sh\n[ \"$*\" = 'ecr get-login-password' ] && echo '{PASSWORD}'\n")
    (programs / "aws").chmod(0o755)
    variables = {**os.environ, "PATH": f"{programs}:{os.environ['PATH']}", "DOCKER_CONFIG": str(config), "REGISTRY": registry.address,
                 "REPOSITORY": repository, "NO_PROXY": "127.0.0.1", "VERSION": "abc1234"}
    image = f"{registry.address}/{repository}"
    try:
        outcome = call(checks, variables, target)
        checks.expect(f"without a login {target} is refused", outcome.returncode != 0, outcome.stdout)
        outcome = call(checks, variables, "login", target)
        checks.equal(f"login and {target} succeed", outcome.returncode, 0)
        checks.expect(f"{target}: Docker has the login", registry.address in (config / "config.json").read_text())
        tags = sorted(json.loads(registry.get(f"/v2/{repository}/tags/list")[1] or b"{}").get("tags") or [])
        checks.equal(f"{target}: the registry has both tags", tags, ["abc1234", "latest"])
        manifests = {registry.get(f"/v2/{repository}/manifests/{tag}")[1] for tag in tags}
        checks.equal(f"{target}: both are one image", len(manifests), 1)
        outcome = call(checks, variables, "test")
        checks.expect(f"{target}: the image has the page", "hello from ECR" in outcome.stdout, outcome.stdout)
        call(checks, variables, "logout")
        checks.expect(f"{target}: after logout Docker has no login", registry.address not in (config / "config.json").read_text())
        outcome = call(checks, variables, target)
        checks.expect(f"after logout {target} is refused", outcome.returncode != 0, outcome.stdout)
    finally:
        subprocess.run(["docker", "image", "rm", "--force", f"{image}:latest", f"{image}:abc1234"], capture_output=True, check=False)


def call(checks, variables, *targets):
    """Runs make with these targets."""
    command = ["make", "-C", checks.tree.path(FOLDER), *targets]
    return subprocess.run(command, env=variables, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False, timeout=300)
