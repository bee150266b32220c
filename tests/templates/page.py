"""The page: each command is one that the aws CLI, make and the templates have. The commands of AWS are checked against botocore's models.

The part for a laptop is also run as typed, by `session`.
"""

import json
import re
import shlex
import subprocess

import botocore.session
from botocore import xform_name

from template import ACCOUNT, TEMPLATES, load, stack

PAGE = "examples/ecr/README.md"
COLUMNS = 140
SECTIONS = ("create a repository", "log in", "publish with Docker", "publish with Docker Compose", "a workflow",
            "pull from instances of the same account", "pull from another account", "pull by an AWS service", "lifecycle policies",
            "private registries on instances")
QUESTIONS = 9
CUSTOM = {
    ("ecr", "get-login-password"): set(),
    ("s3", "cp"): set(),
    ("cloudformation", "deploy"): {"template-file", "stack-name", "parameter-overrides", "capabilities", "tags"},
}
"""Commands of the aws CLI that are no operations of a service, with their options."""
GLOBAL = {"query", "output", "profile", "region", "endpoint-url", "filter"}


def run(checks):
    """All checks of the page."""
    text = checks.tree.text(PAGE)
    long = [number for number, line in enumerate(text.splitlines(), 1) if len(line) > COLUMNS]
    checks.equal(f"the page has no line over {COLUMNS} columns", long, [])
    tables(checks, text)
    found = blocks(text)
    checks.expect("the page has commands", len(found) >= 10, len(found))
    for number, block in enumerate(found, 1):
        commands(checks, f"block {number}", block)
    coverage(checks, text)


def blocks(text):
    """The code blocks of the page, without the indentation of a list."""
    found = re.findall(r"^( *)```bash\n(.*?)^ *```", text, re.DOTALL | re.MULTILINE)
    return ["\n".join(line.removeprefix(indent) for line in block.splitlines()) + "\n" for indent, block in found]


def tables(checks, text):
    """Every section of the chapter has a command, every question an answer."""
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line.startswith("| ")]
    cells = dict(row for row in rows if len(row) == 2)
    for section in SECTIONS:
        cell = cells.get(section, "")
        checks.expect(f"the chapter's section '{section}' has a command here", "`" in cell or "(" in cell)
    questions = [row for row in rows if row[0].endswith("?")]
    checks.equal("the chapter's questions are answered", len(questions), QUESTIONS)
    checks.expect("no answer is empty", all(len(row) == 2 and row[1] for row in questions), questions)


def commands(checks, where, block):
    """The commands of one block."""
    done = subprocess.run(["bash", "-n"], input=block, capture_output=True, text=True, check=False, timeout=10)
    checks.expect(f"{where} is bash", done.returncode == 0, done.stderr)
    checks.expect(f"{where}: no password in an argument", not re.search(r"--password[ =]| -p ", block), block)
    for call in re.findall(r"get-login-password.*", block):
        checks.expect(f"{where}: the token goes to standard input", re.search(r"\| docker .*--password-stdin", call), call)
    flat = block.replace("\\\n", " ")
    for words in calls(flat):
        aws(checks, where, words)
    for line in re.findall(r"make -C examples/ecr ([\w -]+)", flat):
        make(checks, where, line.split())
    for path in re.findall(r"(?:file://|\s|\./)((?:examples|systemd)/[\w./-]+)", flat):
        checks.expect(f"{where}: {path} is there", checks.tree.path(path).exists())


def calls(flat):
    """The words of each call of the aws CLI, also those in a substitution."""
    for start in re.finditer(r"(?:^|[\s(|])(?:aws|other)((?: --profile other)? [a-z0-9]+ [a-z-]+)", flat):
        rest = flat[start.start(1):]
        quote, end = None, len(rest)
        for at, letter in enumerate(rest):
            if quote is None and letter in "\"'":
                quote = letter
            elif letter == quote:
                quote = None
            elif quote is None and letter in "|;)\n&":
                end = at
                break
        yield shlex.split(rest[:end] if quote is None else rest.splitlines()[0] + quote)


def aws(checks, where, words):
    """One call: the operation and its options exist."""
    service, operation = [word for word in words if not word.startswith("--") and word != "other"][:2]
    options = [word[2:].split("=")[0] for word in words if word.startswith("--")]
    what = f"{where}: aws {service} {operation}"
    if (service, operation) in CUSTOM:
        known = CUSTOM[service, operation]
    else:
        known = members(service, operation, words)
        if not checks.expect(f"{what} is an operation", known is not None):
            return
    unknown = [option for option in options if option not in known | GLOBAL]
    checks.equal(f"{what} has the options", unknown, [])
    if (service, operation) == ("cloudformation", "deploy"):
        deployment(checks, where, words)


def members(service, operation, words):
    """The options of an operation or of a waiter; None if it does not exist."""
    session = botocore.session.get_session()
    model = session.get_service_model(service)
    if operation == "wait":
        waiters = session.create_client(service, region_name="us-west-2").waiter_names
        name = words[words.index("wait") + 1].replace("-", "_")
        if name not in waiters:
            return None
        known = session.get_waiter_model(service)
        own = next(waiter for waiter in known.waiter_names if xform_name(waiter) == name)
        shape = model.operation_model(known.get_waiter(own).operation).input_shape
    else:
        names = {xform_name(name, "-"): name for name in model.operation_names}
        if operation not in names:
            return None
        shape = model.operation_model(names[operation]).input_shape
    found = {xform_name(name, "-") for name in shape.members} if shape else set()
    # Switches have a form without; some lists are singular in the CLI.
    return found | {f"no-{name}" for name in found} | {name.rstrip("s") for name in found}


def deployment(checks, where, words):
    """One deployment: template, parameters, capability."""
    name = words[words.index("--template-file") + 1]
    if not checks.expect(f"{where}: {name} is a template", name in TEMPLATES):
        return
    start = words.index("--parameter-overrides") + 1 if "--parameter-overrides" in words else len(words)
    given = []
    for word in words[start:]:
        if word.startswith("--"):
            break
        given.append(word.split("=")[0])
    declared = load(checks.tree.text(name)).get("Parameters", {})
    checks.equal(f"{where}: {name} has these parameters", [word for word in given if word not in declared], [])
    missing = [parameter for parameter, shape in declared.items() if "Default" not in shape and parameter not in given]
    checks.equal(f"{where}: {name} gets every parameter it needs", missing, [])
    needs = "AWS::IAM::" in checks.tree.text(name)
    checks.equal(f"{where}: {name} gets its capability", "CAPABILITY_IAM" in words, needs)


def make(checks, where, targets):
    """The targets of make exist."""
    known = re.search(r"^\.PHONY: (.*)$", checks.tree.text("examples/ecr/Makefile"), re.MULTILINE)[1].split()
    checks.equal(f"{where}: make has {' '.join(targets)}", [target for target in targets if target not in known], [])


def coverage(checks, text):
    """Every template and target is on the page, and the policies in it are those of the template."""
    for name in TEMPLATES:
        checks.expect(f"the page deploys {name}", f"--template-file {name}" in text)
    for target in ("login", "publish", "compose-publish", "logout"):
        checks.expect(f"the page has make {target}", re.search(rf"make -C examples/ecr [\w -]*\b{target}\b", text))
    policies = re.findall(r"--policy-text '(\{.*?\n\})'", text, re.DOTALL)
    chosen = ({"PullAccounts": "333333444444"}, {"CodeBuildProject": "hello"})
    checks.equal("the page has both policies of the repository", len(policies), len(chosen))
    for policy, parameters in zip(policies, chosen):
        resources = stack(checks.tree, "examples/ecr/repository.yaml", **parameters).resources
        wanted = resources["Repository"]["Properties"].get("RepositoryPolicyText", {})
        checks.equal(f"the policy is that of the template with {parameters}", with_root(json.loads(policy)), with_root(wanted))


def with_root(policy):
    """A policy whose accounts are their roots, of the account of ecs-local."""
    text = json.dumps(policy).replace(ACCOUNT, "123456789012")
    text = re.sub(r'"AWS": (?:\[)?"(\d{12})"\]?', r'"AWS": "arn:aws:iam::\1:root"', text)
    return json.loads(text)
