"""The Makefile and the Compose file, with recording programs in the place of docker, aws and git."""

import json
import shutil
import subprocess
import tempfile

import yaml

from sandbox import Sandbox

REGISTRY = "385605022855.dkr.ecr.us-west-2.amazonaws.com"
IMAGE = f"{REGISTRY}/docker-in-aws/hello"
LOCAL = "127.0.0.1:14566"
PASSWORD = "eyJwYXlsb2FkIjoic2VjcmV0In0="
PROGRAMS = ("aws", "docker", "docker-compose", "git")
FOLDER = "examples/ecr"


def run(checks):
    """All checks of publishing."""
    if not shutil.which("make"):
        checks.skip("no make")
        return
    groups = {
        f"{FOLDER}/Makefile": (login, docker, registries, compose, logout, errors),
        f"{FOLDER}/compose.yaml": (compose_file, real_compose),
    }
    for group in [group for name in filter(checks.concerns, groups) for group in groups[name]]:
        group(checks)


def make(checks, *words, scenario="", **variables):
    """Runs make with recording programs."""
    with tempfile.TemporaryDirectory(prefix="templates-make-") as folder:
        box = Sandbox(folder + "/box", PROGRAMS)
        return box.run(["make", "--no-print-directory", "-C", checks.tree.path(FOLDER), *words], scenario, PASSWORD=PASSWORD, **variables)


def login(checks):
    """The token goes through a pipe."""
    outcome = make(checks, "login")
    checks.equal("login succeeds", outcome.code, 0)
    checks.equal("login: one token", outcome.of("aws").count(["ecr", "get-login-password"]), 1)
    logins = [call for call in outcome.of("docker") if call[0] == "login"]
    checks.equal("login: the user AWS, at this registry", logins, [["login", "--username", "AWS", "--password-stdin", REGISTRY]])
    checks.equal("login: the token is on standard input", outcome.input.strip(), PASSWORD)
    checks.expect("login: the token is no argument", not any(PASSWORD in word for call in outcome.calls for word in call), outcome.calls)
    checks.expect("login: the token is not printed", PASSWORD not in outcome.output, outcome.output)


def docker(checks):
    """Build, tag, push."""
    outcome = make(checks, "publish")
    checks.equal("publish succeeds", outcome.code, 0)
    builds = [call for call in outcome.of("docker") if call[0] == "build"]
    checks.equal("publish: one build, with both tags", builds,
                 [["build", "--tag", f"{IMAGE}:latest", "--tag", f"{IMAGE}:abc1234", "image"]])
    pushes = [call for call in outcome.of("docker") if call[0] == "push"]
    # The commit first: whoever sees the new latest then finds the commit, too.
    checks.equal("publish: pushes the commit, then latest", pushes, [["push", f"{IMAGE}:abc1234"], ["push", f"{IMAGE}:latest"]])
    checks.expect("the version is the commit", ["describe", "--always", "--dirty", "--exclude", "*"] in outcome.of("git"), outcome.of("git"))
    outcome = make(checks)
    checks.equal("without a target, make only builds", sorted({call[0] for call in outcome.of("docker")}), ["build"])
    outcome = make(checks, "test")
    runs = [call for call in outcome.of("docker") if call[0] == "run"]
    checks.equal("test: the page of this commit's image, without a network", runs,
                 [["run", "--rm", "--network", "none", f"{IMAGE}:abc1234", "cat", "/www/index.html"]])
    outcome = make(checks, "clean")
    images = [call for call in outcome.of("docker") if call[0] == "image"]
    checks.equal("clean: both tags go", images, [["image", "rm", "--force", f"{IMAGE}:latest", f"{IMAGE}:abc1234"]])


def registries(checks):
    """The registry is the one that ECR names, or the given one."""
    outcome = make(checks, "login")
    asked = [call for call in outcome.of("aws") if call[1] == "describe-repositories"]
    checks.equal("ECR is asked once for the address", len(asked), 1)
    checks.expect("of this repository", asked and "docker-in-aws/hello" in asked[0], asked)
    for how, words, variables in (("in the environment", [], {"REGISTRY": LOCAL}), ("as an argument", [f"REGISTRY={LOCAL}"], {})):
        outcome = make(checks, "login", "publish", *words, **variables)
        checks.expect(f"a registry {how} is used", ["push", f"{LOCAL}/docker-in-aws/hello:latest"] in outcome.of("docker"), outcome.calls)
        checks.equal(f"with a registry {how} ECR is not asked for the address", outcome.of("aws"), [["ecr", "get-login-password"]])
    outcome = make(checks, "publish", "REPOSITORY=web/shop", f"REGISTRY={LOCAL}")
    checks.expect("another repository can be named", ["push", f"{LOCAL}/web/shop:latest"] in outcome.of("docker"), outcome.calls)


def compose(checks):
    """The same with Compose, as a plugin or as a program of its own."""
    for scenario, program, start in (("", "docker", ["compose"]), ("no-compose", "docker-compose", [])):
        outcome = make(checks, "compose-publish", scenario=scenario)
        done = [call for call in outcome.of(program) if "version" not in call and "describe" not in call]
        checks.equal(f"compose-publish with {program}: build, then push", done, [[*start, "build"], [*start, "push"]])
        given = {tuple(line[:2]) for line in outcome.environment if line[2] == program and line[0]}
        checks.equal(f"compose-publish with {program}: image and version are set", given, {(IMAGE, "abc1234")})
    outcome = make(checks, "compose-publish", "COMPOSE=docker-compose")
    checks.equal("COMPOSE names the program", outcome.of("docker-compose"), [["build"], ["push"]])


def logout(checks):
    """Of this registry, not of Docker Hub."""
    outcome = make(checks, "logout")
    logouts = [call for call in outcome.of("docker") if call[0] == "logout"]
    checks.equal("logout names the registry", logouts, [["logout", REGISTRY]])
    outcome = make(checks, "login", "publish", "logout", f"REGISTRY={LOCAL}")
    verbs = [call[0] for call in outcome.of("docker")]
    checks.equal("login, publish and logout run in this order", verbs, ["login", "build", "push", "push", "logout"])


def errors(checks):
    """A step that fails is the end."""
    outcome = make(checks, "login", "publish", scenario="no-token", REGISTRY=LOCAL)
    checks.expect("without a token login fails", outcome.code != 0, outcome.output)
    checks.equal("without a token nothing is pushed", [call for call in outcome.of("docker") if call[0] == "push"], [])
    checks.expect("without a token the reason is shown", "Unable to locate credentials" in outcome.output, outcome.output)
    for tag in ("push", "commit"):
        outcome = make(checks, "publish", scenario=f"{tag}-refused", REGISTRY=LOCAL)
        checks.expect(f"a refused push fails ({tag})", outcome.code != 0, outcome.output)
    outcome = make(checks, "login", "publish", scenario="login-refused", REGISTRY=LOCAL)
    checks.expect("a refused login fails", outcome.code != 0 and not [call for call in outcome.of("docker") if call[0] == "push"])
    outcome = make(checks, "publish", scenario="no-repository")
    checks.expect("without the repository make fails", outcome.code != 0, outcome.output)
    checks.equal("without the repository nothing is built", outcome.of("docker"), [])
    hint = "ECR names no address of docker-in-aws/hello: create the repository, or set REGISTRY"
    checks.expect("without the repository the remedy is shown", hint in outcome.output, outcome.output)


def compose_file(checks):
    """Two services, one build, two tags."""
    services = yaml.safe_load(checks.tree.text("examples/ecr/compose.yaml"))["services"]
    checks.equal("the Compose file has two services", sorted(services), ["hello", "hello-commit"])
    checks.expect("the first has an image and a build", {"image", "build"} <= set(services["hello"]), services["hello"])
    checks.expect("the first is latest", services["hello"].get("image", "").endswith("}:latest"), services["hello"])
    second = services["hello-commit"]
    checks.equal("the second extends the first", second.get("extends"), {"service": "hello"})
    checks.expect("the second is the commit", "${VERSION" in second.get("image", ""), second)
    folder = checks.tree.path(FOLDER)
    checks.expect("the build has a Dockerfile", (folder / str(services["hello"].get("build")) / "Dockerfile").is_file())


def compose_program():
    """The words that start Compose; None without it."""
    if shutil.which("docker") and not subprocess.run(["docker", "compose", "version"], capture_output=True, check=False).returncode:
        return ["docker", "compose"]
    return ["docker-compose"] if shutil.which("docker-compose") else None


def real_compose(checks):
    """What the real Compose reads."""
    program = compose_program()
    if not program:
        checks.skip("no Docker Compose")
        return
    folder = str(checks.tree.path(FOLDER))
    variables = {"PATH": "/usr/local/bin:/usr/bin:/bin", "HOME": "/nonexistent", "IMAGE": IMAGE, "VERSION": "abc1234"}
    command = [*program, "-f", f"{folder}/compose.yaml", "config"]
    done = subprocess.run(command, env=variables, capture_output=True, text=True, check=False, timeout=60)
    if not checks.expect("Compose reads the file", done.returncode == 0, done.stderr):
        return
    services = yaml.safe_load(done.stdout)["services"]
    found = {name: service["image"] for name, service in services.items()}
    checks.equal("Compose: the two names", found, {"hello": f"{IMAGE}:latest", "hello-commit": f"{IMAGE}:abc1234"})
    builds = {json.dumps(service["build"]["context"]) for service in services.values()}
    checks.equal("Compose: both are the same build", builds, {json.dumps(f"{folder}/image")})
    for missing in ("IMAGE", "VERSION"):
        less = {name: value for name, value in variables.items() if name != missing}
        done = subprocess.run(command, env=less, capture_output=True, text=True, check=False, timeout=60)
        checks.expect(f"Compose refuses to work without {missing}", done.returncode != 0 and missing in done.stderr, done.stderr)
