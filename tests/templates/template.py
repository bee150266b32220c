"""Reads CloudFormation templates, and resolves them for given parameters as CloudFormation would.

As a program it prints the policies of a template's roles as JSON: `template.py FILE ACCOUNT REGION NAME=VALUE...`.
"""

import json
import re
import sys
from pathlib import Path

import yaml

ACCOUNT = "385605022855"
REGION = "us-west-2"

TEMPLATES = {
    "examples/ecr/repository.yaml": {"RepositoryName": "docker-in-aws/hello"},
    "examples/ecr/publisher.yaml": {"RepositoryArn": f"arn:aws:ecr:{REGION}:{ACCOUNT}:repository/docker-in-aws/hello"},
    "examples/ec2/config-bucket.yaml": {},
    "examples/ec2/instance-role.yaml": {
        "ClusterName": "web",
        "RepositoryArn": f"arn:aws:ecr:{REGION}:{ACCOUNT}:repository/docker-in-aws/hello",
        "BucketName": "config-of-web",
    },
    "examples/ec2/execution-role.yaml": {
        "RepositoryArn": f"arn:aws:ecr:{REGION}:{ACCOUNT}:repository/docker-in-aws/hello",
    },
    "examples/ec2/instances.yaml": {
        "VpcId": "vpc-0123456789abcdef0",
        "SubnetIds": "subnet-0123456789abcdef0",
        "InstanceProfileArn": f"arn:aws:iam::{ACCOUNT}:instance-profile/web",
        "BucketName": "config-of-web",
        "AgentSha256": "0" * 64,
    },
}
"""Each template with values for the parameters that have no default."""


class Loader(yaml.SafeLoader):
    """YAML with the short forms of functions (`!Ref`)."""


def _function(loader, suffix, node):
    name = suffix if suffix in ("Ref", "Condition") else f"Fn::{suffix}"
    if isinstance(node, yaml.ScalarNode):
        value = loader.construct_scalar(node)
        return {name: value.split(".", 1) if name == "Fn::GetAtt" else value}
    build = loader.construct_sequence if isinstance(node, yaml.SequenceNode) else loader.construct_mapping
    return {name: build(node, deep=True)}


Loader.add_multi_constructor("!", _function)


def load(text):
    """The template in this text."""
    return yaml.load(text, Loader)  # noqa: S506: the loader is a safe one


class Refused(Exception):
    """CloudFormation would refuse this parameter."""


NOTHING = object()
"""AWS::NoValue: the member or element is left out."""


class Stack:
    """A template with parameters. `resources` are those whose condition holds, with their properties resolved."""

    def __init__(self, template, parameters, name="stack", attributes=None, place=(ACCOUNT, REGION)):
        self.template = template
        self.attributes = attributes or {}
        self.values = {
            "AWS::AccountId": place[0],
            "AWS::Region": place[1],
            "AWS::Partition": "aws",
            "AWS::URLSuffix": "amazonaws.com",
            "AWS::StackName": name,
        }
        unknown = set(parameters) - set(template.get("Parameters", {}))
        if unknown:
            raise Refused(f"unknown: {unknown}")
        for parameter, shape in template.get("Parameters", {}).items():
            self.values[parameter] = accepted(parameter, shape, parameters)
        self.resources = {
            name: self.resolve(resource)
            for name, resource in template["Resources"].items()
            if "Condition" not in resource or self.holds({"Condition": resource["Condition"]})
        }

    def holds(self, condition):
        """Whether a condition holds."""
        (function, value), = condition.items()
        if function == "Condition":
            return self.holds(self.template["Conditions"][value])
        if function == "Fn::Equals":
            return self.resolve(value[0]) == self.resolve(value[1])
        if function == "Fn::Not":
            return not self.holds(value[0])
        if function == "Fn::Or":
            return any(self.holds(part) for part in value)
        raise ValueError(f"unknown condition {condition}")

    def resolve(self, node):
        """A part of the template with its functions replaced by their values."""
        if isinstance(node, list):
            return [value for value in map(self.resolve, node) if value is not NOTHING]
        if not isinstance(node, dict):
            return node
        if len(node) == 1:
            (name, value), = node.items()
            if name == "Ref":
                return self.reference(value)
            if name.startswith("Fn::"):
                return self.function(name, value)
        resolved = {key: self.resolve(value) for key, value in node.items() if key != "Condition" or isinstance(value, dict)}
        return {key: value for key, value in resolved.items() if value is not NOTHING}

    def reference(self, name):
        """The value of `!Ref`."""
        if name == "AWS::NoValue":
            return NOTHING
        if name in self.values:
            return self.values[name]
        if name in self.template["Resources"]:
            return self.attributes.get(name, f"<{name}>")
        raise Refused(f"nothing is called {name}")

    def function(self, name, value):
        """The value of a function."""
        if name == "Fn::If":
            return self.resolve(value[1] if self.holds({"Condition": value[0]}) else value[2])
        if name == "Fn::Join":
            return value[0].join(self.resolve(value[1]))
        if name == "Fn::Sub":
            return re.sub(r"\$\{([A-Za-z0-9:.]+)\}", lambda found: str(self.named(found[1])), value)
        if name == "Fn::GetAtt":
            return self.attributes.get(".".join(value), f"<{'.'.join(value)}>")
        if name == "Fn::Base64":
            return self.resolve(value)
        raise ValueError(f"unknown function {name}")

    def named(self, name):
        """The value of `${name}` in a text."""
        return self.function("Fn::GetAtt", name.split(".", 1)) if "." in name else self.reference(name)

    def policies(self):
        """The policies of the roles."""
        kinds = ("AWS::IAM::Policy", "AWS::IAM::ManagedPolicy")
        return [resource["Properties"]["PolicyDocument"] for resource in self.resources.values() if resource["Type"] in kinds]

    def outputs(self):
        """The outputs of the stack."""
        return {name: self.resolve(output["Value"]) for name, output in self.template.get("Outputs", {}).items()}


def accepted(name, shape, parameters):
    """The value of a parameter, if CloudFormation would accept it."""
    if name not in parameters and "Default" not in shape:
        raise Refused(f"{name} has no value")
    text = str(parameters.get(name, shape.get("Default")))
    is_list = shape["Type"].startswith(("List<", "CommaDelimitedList"))
    for value in text.split(",") if is_list else [text]:
        if "AllowedPattern" in shape and not re.fullmatch(shape["AllowedPattern"], value):
            raise Refused(f"{name}: {value} does not match {shape['AllowedPattern']}")
        if "AllowedValues" in shape and value not in shape["AllowedValues"]:
            raise Refused(f"{name}: {value} is none of {shape['AllowedValues']}")
        if not shape.get("MinLength", 0) <= len(value) <= shape.get("MaxLength", 4096):
            raise Refused(f"{name}: {value} has a wrong length")
        if shape["Type"] == "Number" and not shape.get("MinValue", 0) <= float(value) <= shape.get("MaxValue", 1e9):
            raise Refused(f"{name}: {value} is out of range")
    return text.split(",") if is_list else text


def stack(tree, name, **parameters):
    """The stack of a template of this repository; parameters without default get the values of `TEMPLATES`."""
    return Stack(load(tree.text(name)), {**TEMPLATES[name], **parameters})


def refuses(tree, name, **parameters):
    """Whether the template refuses these parameters."""
    try:
        stack(tree, name, **parameters)
    except Refused:
        return True
    return False


if __name__ == "__main__":
    file, account, region = sys.argv[1:4]
    given = dict(word.split("=", 1) for word in sys.argv[4:])
    print(json.dumps(Stack(load(Path(file).read_text()), given, place=(account, region)).policies(), indent=2))
