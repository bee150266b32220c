"""The policies of the roles: what they allow, what they do not, and that the agent's source contains each call.

The checks ask what a call may do, not how the policy is written. parliament, which nobody here wrote, reads every policy, too.
"""

import json
import re

import parliament

import iam
from template import ACCOUNT, REGION, TEMPLATES, refuses, stack

REPOSITORY = f"arn:aws:ecr:{REGION}:{ACCOUNT}:repository/docker-in-aws/hello"
OTHER_REPOSITORY = f"{REPOSITORY}-other"
CLUSTER = f"arn:aws:ecs:{REGION}:{ACCOUNT}:cluster/web"
OTHER_CLUSTER = f"arn:aws:ecs:{REGION}:{ACCOUNT}:cluster/db"
INSTANCE = f"arn:aws:ecs:{REGION}:{ACCOUNT}:container-instance/web/0123456789abcdef"
OTHER_INSTANCE = f"arn:aws:ecs:{REGION}:{ACCOUNT}:container-instance/db/0123456789abcdef"
LOGS = f"arn:aws:logs:{REGION}:{ACCOUNT}:log-group"
PARAMETER = f"arn:aws:ssm:{REGION}:{ACCOUNT}:parameter"
SECRET = f"arn:aws:secretsmanager:{REGION}:{ACCOUNT}:secret"
KEY = f"arn:aws:kms:{REGION}:{ACCOUNT}:key/0123"
OWN = {"aws:ResourceAccount": ACCOUNT}
FOREIGN = {"aws:ResourceAccount": "555555666666"}

PULL = ("ecr:BatchGetImage", "ecr:BatchCheckLayerAvailability", "ecr:GetDownloadUrlForLayer")
PUSH = ("ecr:BatchCheckLayerAvailability", "ecr:InitiateLayerUpload", "ecr:UploadLayerPart", "ecr:CompleteLayerUpload", "ecr:PutImage")
INSTANCE_BASE = {"ecs:RegisterContainerInstance", "ecs:SubmitTaskStateChange", "ecs:SubmitAttachmentStateChanges", "ecs:DiscoverPollEndpoint",
                 "ecs:Poll", "ecs:StartTelemetrySession", "s3:GetObject", "ecr:GetAuthorizationToken", *PULL}
EXECUTION_BASE = {"ecr:GetAuthorizationToken", *PULL}

ROLE, TASK, PUBLISHER = "examples/ec2/instance-role.yaml", "examples/ec2/execution-role.yaml", "examples/ecr/publisher.yaml"
FEATURES = [
    (ROLE, {}, INSTANCE_BASE),
    (ROLE, {"LogGroup": "web"}, INSTANCE_BASE | {"logs:CreateLogStream", "logs:PutLogEvents"}),
    (ROLE, {"SpotDraining": "yes"}, INSTANCE_BASE | {"ecs:UpdateContainerInstancesState"}),
    (ROLE, {"InstanceTags": "yes"}, INSTANCE_BASE | {"ec2:DescribeTags", "ecs:TagResource", "ecs:ListTagsForResource"}),
    (TASK, {}, EXECUTION_BASE),
    (TASK, {"Parameters": "hello"}, EXECUTION_BASE | {"ssm:GetParameters"}),
    (TASK, {"Secrets": "hello"}, EXECUTION_BASE | {"secretsmanager:GetSecretValue"}),
    (TASK, {"KeyArn": KEY}, EXECUTION_BASE | {"kms:Decrypt"}),
    (TASK, {"EnvironmentFiles": "files/hello"}, EXECUTION_BASE | {"s3:GetObject"}),
    (PUBLISHER, {}, {"ecr:GetAuthorizationToken", "ecr:DescribeRepositories", "ecr:BatchGetImage", *PUSH}),
]
"""Template, the parameters that turn features on, and every action that is then allowed."""

EVERYTHING = {
    ROLE: {"LogGroup": "web", "SpotDraining": "yes", "InstanceTags": "yes"},
    TASK: {"Parameters": "hello", "Secrets": "hello", "KeyArn": KEY, "EnvironmentFiles": "files/hello"},
    PUBLISHER: {},
}
"""All features of each template."""

CALLS = [
    (ROLE, "ecs:RegisterContainerInstance", CLUSTER, OTHER_CLUSTER, {}, {}),
    (ROLE, "ecs:SubmitTaskStateChange", CLUSTER, OTHER_CLUSTER, {}, {}),
    (ROLE, "ecs:SubmitAttachmentStateChanges", CLUSTER, OTHER_CLUSTER, {}, {}),
    *[(ROLE, action, INSTANCE, OTHER_INSTANCE, {"ecs:cluster": CLUSTER}, {"ecs:cluster": CLUSTER})
      for action in ("ecs:Poll", "ecs:StartTelemetrySession")],
    *[(ROLE, action, INSTANCE, INSTANCE, {"ecs:cluster": CLUSTER}, {"ecs:cluster": OTHER_CLUSTER})
      for action in ("ecs:Poll", "ecs:StartTelemetrySession")],
    (ROLE, "ecs:UpdateContainerInstancesState", INSTANCE, OTHER_INSTANCE, {"ecs:cluster": CLUSTER}, {"ecs:cluster": CLUSTER}),
    (ROLE, "ecs:UpdateContainerInstancesState", INSTANCE, INSTANCE, {"ecs:cluster": CLUSTER}, {"ecs:cluster": OTHER_CLUSTER}),
    (ROLE, "ecs:TagResource", INSTANCE, OTHER_INSTANCE, *[{"ecs:CreateAction": "RegisterContainerInstance"}] * 2),
    (ROLE, "ecs:TagResource", INSTANCE, INSTANCE, {"ecs:CreateAction": "RegisterContainerInstance"}, {}),
    (ROLE, "ecs:ListTagsForResource", INSTANCE, OTHER_INSTANCE, {}, {}),
    (ROLE, "ecs:ListTagsForResource", *[INSTANCE.replace("container-instance/web", f"task/{name}") for name in ("web", "db")], {}, {}),
    (ROLE, "s3:GetObject", "arn:aws:s3:::config-of-web/ecs.config", "arn:aws:s3:::config-of-web/other", OWN, OWN),
    (ROLE, "s3:GetObject", "arn:aws:s3:::config-of-web/ecs-agent.tar.gz", "arn:aws:s3:::other/ecs-agent.tar.gz", OWN, OWN),
    (ROLE, "s3:GetObject", *["arn:aws:s3:::config-of-web/ecs.config"] * 2, OWN, FOREIGN),
    (ROLE, "s3:GetObject", *["arn:aws:s3:::config-of-web/ecs-agent.tar.gz"] * 2, OWN, FOREIGN),
    *[(ROLE, action, REPOSITORY, OTHER_REPOSITORY, {}, {}) for action in PULL],
    (ROLE, "logs:CreateLogStream", f"{LOGS}:web:log-stream:one", f"{LOGS}:web-other:log-stream:one", {}, {}),
    (ROLE, "logs:PutLogEvents", f"{LOGS}:web:log-stream:one", f"{LOGS}:db:log-stream:one", {}, {}),
    *[(TASK, action, REPOSITORY, OTHER_REPOSITORY, {}, {}) for action in PULL],
    (TASK, "ssm:GetParameters", f"{PARAMETER}/hello/key", f"{PARAMETER}/hello-other/key", {}, {}),
    (TASK, "secretsmanager:GetSecretValue", f"{SECRET}:hello/db-AbCdEf", f"{SECRET}:hello-other/db-AbCdEf", {}, {}),
    (TASK, "kms:Decrypt", KEY, f"{KEY}4", *[{"kms:ViaService": f"ssm.{REGION}.amazonaws.com"}] * 2),
    (TASK, "kms:Decrypt", KEY, KEY, {"kms:ViaService": f"secretsmanager.{REGION}.amazonaws.com"},
     {"kms:ViaService": f"s3.{REGION}.amazonaws.com"}),
    (TASK, "kms:Decrypt", KEY, KEY, {"kms:ViaService": f"ssm.{REGION}.amazonaws.com"}, {}),
    (TASK, "s3:GetObject", "arn:aws:s3:::files/hello/a.env", "arn:aws:s3:::files/other/a.env", OWN, OWN),
    (TASK, "s3:GetObject", "arn:aws:s3:::files/hello/a.env", "arn:aws:s3:::files/hello-other/a.env", OWN, OWN),
    (TASK, "s3:GetObject", *["arn:aws:s3:::files/hello/a.env"] * 2, OWN, FOREIGN),
    *[(PUBLISHER, action, REPOSITORY, OTHER_REPOSITORY, {}, {}) for action in (*PUSH, "ecr:BatchGetImage", "ecr:DescribeRepositories")],
]
"""Template, action, a resource that is allowed and one that is not, and the context of each."""

BAD_PARAMETERS = [
    (ROLE, "RepositoryArn", ["*", REPOSITORY + "*", REPOSITORY.replace("docker-in-aws/hello", "*"), REPOSITORY.replace(ACCOUNT, "*")]),
    (ROLE, "ClusterName", ["*", "web*", "", CLUSTER]),
    (ROLE, "BucketName", ["*", "config*", "A_B"]),
    (ROLE, "LogGroup", ["*", "web*"]),
    (TASK, "RepositoryArn", ["*", REPOSITORY + "*"]),
    (TASK, "Parameters", ["*", "hello*", "/hello", "hello/"]),
    (TASK, "Secrets", ["*", "hello*", "/hello", "hello/"]),
    (TASK, "KeyArn", ["*", f"arn:aws:kms:{REGION}:{ACCOUNT}:key/*", f"arn:aws:kms:{REGION}:{ACCOUNT}:alias/a"]),
    (TASK, "EnvironmentFiles", ["*", "files", "files/*", "files/"]),
    (PUBLISHER, "RepositoryArn", ["*", REPOSITORY + "*", "docker-in-aws/hello"]),
]
"""Values that would widen a policy, or make one that matches nothing."""

NOT_GRANTED = {
    "create_cluster": "only for an agent without ECS_CLUSTER; the cluster is there before its instances",
    "HeadBucket": "is sent unsigned",
}
"""Calls in the source that need no right, and why."""


def everything(checks):
    """The templates that are to be checked, each with all its features."""
    return [(name, chosen) for name, chosen in EVERYTHING.items() if checks.concerns(name)]


def documents(tree, name, **parameters):
    """The policies of the roles of a template, after their conditions."""
    return stack(tree, name, **parameters).policies()


def run(checks):
    """All checks of policies."""
    features(checks)
    calls(checks)
    trust(checks)
    parameters(checks)
    read_by_parliament(checks)
    citations(checks)
    if checks.fault_in is None:
        sources(checks)


def features(checks):
    """A feature that is off has no rights."""
    for name, chosen, wanted in (feature for feature in FEATURES if checks.concerns(feature[0])):
        found = iam.actions(documents(checks.tree, name, **chosen))
        checks.equal(f"{name} with {chosen or 'no feature'} allows exactly what is needed", sorted(found), sorted(wanted))
    for name, chosen in everything(checks):
        wide = [action for action in iam.actions(documents(checks.tree, name, **chosen)) if "*" in action]
        checks.equal(f"{name} names each action", wide, [])


def calls(checks):
    """Each action works on its own resource and on no other."""
    for name, action, own, other, context, other_context in (call for call in CALLS if checks.concerns(call[0])):
        policies = documents(checks.tree, name, **EVERYTHING[name])
        place = own.rsplit(":", 1)[-1]
        checks.expect(f"{name}: {action} on {place} with {context}", iam.allows(policies, action, own, context))
        what = f"{name}: not {action} on {other.split(':', 2)[-1]} with {other_context}"
        checks.expect(what, not iam.allows(policies, action, other, other_context))
    for name, _ in everything(checks):
        policies = documents(checks.tree, name, **EVERYTHING[name])
        checks.expect(f"{name} may get a token", iam.allows(policies, "ecr:GetAuthorizationToken"))
    for name in (ROLE, TASK):
        policies = documents(checks.tree, name, **EVERYTHING[name])
        for action in ("ecr:PutImage", "ecr:InitiateLayerUpload", "ecr:DeleteRepository", "ecr:BatchDeleteImage"):
            checks.expect(f"{name}: not {action}", not iam.allows(policies, action, REPOSITORY))


def trust(checks):
    """Who may use the roles."""
    role = stack(checks.tree, TASK).resources["Role"]["Properties"]["AssumeRolePolicyDocument"]
    own = {"aws:SourceAccount": ACCOUNT, "aws:SourceArn": f"arn:aws:ecs:{REGION}:{ACCOUNT}:task/web/1"}
    foreign_arn = f"arn:aws:ecs:{REGION}:555555666666:task/web/1"
    cases = [
        ("ECS for a task of this account", "ecs-tasks.amazonaws.com", own, True),
        ("ECS for another account", "ecs-tasks.amazonaws.com", {**own, "aws:SourceAccount": "555555666666"}, False),
        ("ECS for a resource of another account", "ecs-tasks.amazonaws.com", {**own, "aws:SourceArn": foreign_arn}, False),
        ("ECS for nobody", "ecs-tasks.amazonaws.com", {}, False),
        ("another service", "ec2.amazonaws.com", own, False),
        ("the account", ACCOUNT, own, False),
    ]
    for who, caller, context, wanted in cases:
        found = iam.allows([role], "sts:AssumeRole", context=context, caller=caller)
        checks.equal(f"{TASK}: {who} {'may' if wanted else 'may not'} use the role", found, wanted)
    role = stack(checks.tree, ROLE).resources["Role"]["Properties"]["AssumeRolePolicyDocument"]
    for caller, wanted in (("ec2.amazonaws.com", True), ("ecs-tasks.amazonaws.com", False), (ACCOUNT, False)):
        found = iam.allows([role], "sts:AssumeRole", caller=caller)
        checks.equal(f"{ROLE}: {caller} {'may' if wanted else 'may not'} use the role", found, wanted)


def parameters(checks):
    """No parameter can widen a policy."""
    for name, parameter, values in (bad for bad in BAD_PARAMETERS if checks.concerns(bad[0])):
        for value in values:
            checks.expect(f"{name} refuses {parameter}={value}", refuses(checks.tree, name, **{parameter: value}))


def read_by_parliament(checks):
    """parliament finds no unknown action, resource or condition, and no mismatch of them."""
    for name, chosen in everything(checks):
        for document in documents(checks.tree, name, **chosen):
            sid = document["Statement"][0]["Sid"]
            findings = parliament.analyze_policy_string(json.dumps(document)).findings
            found = [f"{finding.issue} {finding.title} {finding.detail}" for finding in findings]
            checks.equal(f"{name}: parliament accepts the policy that begins with {sid}", found, [])


def action_lines(text):
    """The lines of a template that are actions of identity policies, each with its action and comment."""
    for line in text.splitlines():
        found = re.fullmatch(r"\s+- ([a-z0-9]+:[A-Za-z*]+)(?:\s+#\s*(.*))?", line)
        if found:
            yield found[1], found[2] or ""


def citations(checks):
    """The comment at each action names a call, and the file that contains it."""
    for name, _ in everything(checks):
        for action, comment in action_lines(checks.tree.text(name)):
            cited = re.search(r"`([^`]+)` in (\S+)$", comment)
            if not checks.expect(f"{name}: {action} has the call that needs it", cited, comment):
                continue
            call, path = cited.groups()
            found = checks.tree.path(path).is_file() and call in checks.tree.text(path)
            checks.expect(f"{name}: {action}: {path} has {call}", found)


def without_tests(text):
    """Rust code before its tests."""
    return re.split(r"#\[cfg\(test\)\]\n(?:pub(?:\([a-z]+\))? )?mod tests", text)[0]


def calls_in_source(tree):
    """All calls of AWS in the source of the agent."""
    found = set()
    folders = ("ecs", "aws", "acs", "resources", "runtime")
    files = [file for folder in folders for file in (tree.top / "src" / folder).rglob("*.rs") if "tests" not in str(file)]
    for file in files:
        text = without_tests(file.read_text())
        found |= set(re.findall(r"\bclient\s*\.([a-z]+(?:_[a-z]+)+)\(\)", text))
        found |= set(re.findall(r'target: "[A-Za-z]+\.([A-Za-z]+)"', text))
        found |= set(re.findall(r'\("Action", "([A-Za-z]+)"\)', text))
        found |= set(re.findall(r'"S3: ([A-Za-z]+)"', text))
        found |= {"Poll"} & ({"Poll"} if "sendCredentials" in text else set())
    return found


def sources(checks):
    """Each call of the source is granted by a template, or needs no right. A new call of the agent fails here until it is granted."""
    granted = {action.split(":")[1] for name, chosen in EVERYTHING.items()
               for action in iam.actions(documents(checks.tree, name, **chosen))}
    found = calls_in_source(checks.tree)
    checks.expect("the calls of the source are found", len(found) >= 10, found)
    for call in sorted(found):
        action = "".join(part.title() for part in call.split("_")) if "_" in call else call
        checks.expect(f"{call} is granted, or needs no right", action in granted or call in NOT_GRANTED)
    for call in NOT_GRANTED:
        checks.expect(f"{call} is still in the source", call in found)
    checks.expect("every template is known", set(EVERYTHING) <= set(TEMPLATES))
