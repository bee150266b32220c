"""cfn-lint for each template, shellcheck for the user data, and the rules of this repository for texts."""

import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from template import TEMPLATES, load, stack
from user_data import NAME as INSTANCES
from user_data import script

COLUMNS = 140


def run(checks):
    """All checks of form."""
    for name in filter(checks.concerns, TEMPLATES):
        cfn_lint(checks, name)
        form(checks, name)
    for folder in ("ecr", "ec2"):
        known = sorted(name.rsplit("/", 1)[1] for name in TEMPLATES if name.startswith(f"examples/{folder}/"))
        found = [path.name for path in sorted((checks.tree.examples / folder).glob("*.yaml")) if path.name != "compose.yaml"]
        checks.equal(f"every template of examples/{folder} is checked", found, known)
    if checks.concerns(INSTANCES):
        shell(checks)


def cfn_lint(checks, name):
    """cfn-lint, with information messages as errors."""
    command = [Path(sys.executable).parent / "cfn-lint", "--include-checks", "I", "--format", "parseable", "--", checks.tree.path(name)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    checks.expect(f"cfn-lint accepts {name}", done.returncode == 0, done.stdout + done.stderr)


def form(checks, name):
    """What a reader needs in a template."""
    text = checks.tree.text(name)
    template = load(text)
    long = [number for number, line in enumerate(text.splitlines(), 1) if len(line) > COLUMNS]
    checks.equal(f"{name} has no line over {COLUMNS} columns", long, [])
    checks.expect(f"{name} begins with its purpose and its command", text.startswith("# ") and "aws cloudformation deploy" in text)
    needs = any(resource["Type"].startswith("AWS::IAM::") for resource in template["Resources"].values())
    checks.equal(f"{name} has the capability in its command if it needs it", "CAPABILITY_IAM" in text, needs)
    for parameter, shape in template.get("Parameters", {}).items():
        checks.expect(f"{name}: {parameter} is described", shape.get("Description"))
        is_free = shape["Type"] == "String" and not {"AllowedPattern", "AllowedValues"} & set(shape)
        checks.expect(f"{name}: {parameter} has a pattern or values", not is_free or parameter in ("Owner", "InstanceType"))
    for output, shape in template["Outputs"].items():
        checks.expect(f"{name}: the output {output} is described", shape.get("Description"))
    checks.expect(f"{name} resolves", json.dumps(stack(checks.tree, name).resources))


def shell(checks):
    """The user data as it reaches an instance."""
    if not shutil.which("shellcheck"):
        checks.skip("no shellcheck")
        return
    text = script(checks.tree)
    with tempfile.NamedTemporaryFile("w", suffix=".sh") as file:
        file.write(text)
        file.flush()
        done = subprocess.run(["shellcheck", file.name], capture_output=True, text=True, check=False, timeout=60)
    checks.expect("shellcheck accepts the user data", done.returncode == 0, done.stdout)
    checks.expect("the user data begins with the line that cloud-init wants", text.startswith("#!/bin/bash\n"))
    checks.expect("the user data is below 16 KiB", len(text) < 16 * 1024, len(text))
