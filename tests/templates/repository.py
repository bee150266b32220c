"""The ECR template: who may pull, what expires, which tags move, what is kept. And the bucket, whose template has a policy as well."""

import json

import iam
from template import ACCOUNT, REGION, Stack, load, refuses, stack

NAME = "examples/ecr/repository.yaml"
BUCKET = "examples/ec2/config-bucket.yaml"
PULL = ("ecr:BatchGetImage", "ecr:BatchCheckLayerAvailability", "ecr:GetDownloadUrlForLayer")
OTHER, THIRD = "333333444444", "555555666666"
PROJECT = f"arn:aws:codebuild:{REGION}:{ACCOUNT}:project/build"


def repository(tree, **parameters):
    """The properties of the repository."""
    return stack(tree, NAME, **parameters).resources["Repository"]["Properties"]


def run(checks):
    """All checks of the repository and of the bucket."""
    if checks.concerns(BUCKET):
        bucket(checks)
    if checks.fault_in == BUCKET:
        return
    for group in (accounts, code_build, lifecycle, settings, bad_parameters):
        group(checks)


def accounts(checks):
    """Other accounts."""
    checks.expect("without readers the repository has no policy", "RepositoryPolicyText" not in repository(checks.tree))
    for given in ([OTHER], [OTHER, THIRD]):
        policy = repository(checks.tree, PullAccounts=",".join(given)).get("RepositoryPolicyText")
        if not checks.expect(f"with {given} the repository has a policy", policy):
            continue
        for action in PULL:
            for caller in (OTHER, THIRD, "999999999999", "codebuild.amazonaws.com"):
                found = iam.allows([policy], action, caller=caller)
                checks.equal(f"{given}: {action} by {caller}", found, caller in given)
        checks.equal(f"{given}: nothing but a pull", iam.actions([policy]), set(PULL))


def code_build(checks):
    """CodeBuild, for one project of this account."""
    policy = repository(checks.tree, CodeBuildProject="build").get("RepositoryPolicyText", {"Statement": []})
    checks.equal("CodeBuild: nothing but a pull", iam.actions([policy]), set(PULL))
    own = {"aws:SourceAccount": ACCOUNT, "aws:SourceArn": PROJECT}
    cases = [
        ("its project", "codebuild.amazonaws.com", own, True),
        ("another project", "codebuild.amazonaws.com", {**own, "aws:SourceArn": PROJECT + "2"}, False),
        ("another account", "codebuild.amazonaws.com", {**own, "aws:SourceAccount": OTHER}, False),
        ("a call without a source", "codebuild.amazonaws.com", {}, False),
        ("another service", "ecs-tasks.amazonaws.com", own, False),
        ("an account", OTHER, own, False),
    ]
    for who, caller, context, wanted in cases:
        for action in PULL:
            found = iam.allows([policy], action, context=context, caller=caller)
            checks.equal(f"CodeBuild: {action} by {who}", found, wanted)
    both = repository(checks.tree, CodeBuildProject="build", PullAccounts=OTHER).get("RepositoryPolicyText", {"Statement": []})
    checks.equal("accounts and CodeBuild together are two statements", len(both["Statement"]), 2)


def rules(text):
    """The rules of a lifecycle policy."""
    return json.loads(text)["rules"]


def lifecycle(checks):
    """Orphans expire, and nothing else."""
    found = rules(repository(checks.tree)["LifecyclePolicy"]["LifecyclePolicyText"])
    wanted = [{
        "rulePriority": 10,
        "description": "Untagged images expire",
        "selection": {"tagStatus": "untagged", "countType": "sinceImagePushed", "countUnit": "days", "countNumber": 7},
        "action": {"type": "expire"},
    }]
    checks.equal("the lifecycle policy expires untagged images after 7 days", found, wanted)
    checks.equal("lifecycle.json is the same policy", rules(checks.tree.text("examples/ecr/lifecycle.json")), wanted)
    days = rules(repository(checks.tree, UntaggedDays=30)["LifecyclePolicy"]["LifecyclePolicyText"])[0]["selection"]["countNumber"]
    checks.equal("the days are a parameter", days, 30)


def settings(checks):
    """Scans, tags, and what is kept."""
    whole = stack(checks.tree, NAME).resources["Repository"]
    found = whole["Properties"]
    checks.equal("every push is scanned", found.get("ImageScanningConfiguration"), {"ScanOnPush": True})
    checks.equal("images outlive the stack", whole.get("DeletionPolicy"), "Retain")
    checks.equal("images outlive a change of the name", whole.get("UpdateReplacePolicy"), "Retain")
    checks.equal("tags of commits do not move", found.get("ImageTagMutability"), "IMMUTABLE_WITH_EXCLUSION")
    latest = [{"ImageTagMutabilityExclusionFilterType": "WILDCARD", "ImageTagMutabilityExclusionFilterValue": "latest"}]
    checks.equal("only latest moves", found.get("ImageTagMutabilityExclusionFilters"), latest)
    for choice in ("IMMUTABLE", "MUTABLE"):
        chosen = repository(checks.tree, TagMutability=choice)
        checks.equal(f"{choice} can be chosen", chosen.get("ImageTagMutability"), choice)
        checks.expect(f"{choice} has no exclusion", "ImageTagMutabilityExclusionFilters" not in chosen)
    checks.expect("without an owner there is no tag", "Tags" not in found)
    checks.equal("the owner is a tag", repository(checks.tree, Owner="web").get("Tags"), [{"Key": "owner", "Value": "web"}])
    checks.equal("the outputs", sorted(stack(checks.tree, NAME).outputs()), ["RepositoryArn", "RepositoryUri"])


def bad_parameters(checks):
    """What ECR would refuse later, or what would let too many in."""
    bad = {
        "RepositoryName": ["A", "a", "Docker/hello", "docker/Hello", "docker//hello", "/hello", "hello/", "hel lo", "hello:1", "x" * 257],
        "PullAccounts": ["*", "33333344444", f"{OTHER},*", f"{OTHER}, {THIRD}", "arn:aws:iam::333333444444:root"],
        "CodeBuildProject": ["*", "build*", "-"],
        "UntaggedDays": ["0", "-1"],
        "TagMutability": ["mutable", ""],
    }
    for parameter, values in bad.items():
        for value in values:
            checks.expect(f"{NAME} refuses {parameter}={value[:40]}", refuses(checks.tree, NAME, **{parameter: value}))
    for name in ("hello", "docker-in-aws/hello", "a/b/c_d.e-f"):
        checks.expect(f"{NAME} accepts RepositoryName={name}", not refuses(checks.tree, NAME, RepositoryName=name))


def bucket(checks):
    """The bucket is private, encrypted, versioned, and speaks TLS only."""
    attributes = {"Bucket": "config", "Bucket.Arn": "arn:aws:s3:::config"}
    resources = stack_with(checks.tree, attributes)
    found = resources["Bucket"]["Properties"]
    blocks = ("BlockPublicAcls", "BlockPublicPolicy", "IgnorePublicAcls", "RestrictPublicBuckets")
    for block in blocks:
        checks.equal(f"the bucket: {block}", found.get("PublicAccessBlockConfiguration", {}).get(block), True)
    checks.equal("the bucket keeps versions", found.get("VersioningConfiguration"), {"Status": "Enabled"})
    rules_found = found.get("LifecycleConfiguration", {}).get("Rules", [])
    ends = [rule.get("NoncurrentVersionExpiration") for rule in rules_found if rule.get("Status") == "Enabled"]
    checks.equal("old versions, with old passwords, expire", ends, [{"NoncurrentDays": 30}])
    checks.equal("the bucket has no access control lists", found.get("OwnershipControls"),
                 {"Rules": [{"ObjectOwnership": "BucketOwnerEnforced"}]})
    checks.expect("the bucket is encrypted", "AES256" in json.dumps(found.get("BucketEncryption", {})))
    checks.equal("the bucket outlives the stack", resources["Bucket"].get("DeletionPolicy"), "Retain")
    checks.equal("the bucket outlives a replacement", resources["Bucket"].get("UpdateReplacePolicy"), "Retain")
    policy = resources["BucketPolicy"]["Properties"]["PolicyDocument"]
    everybody = {"Statement": [{"Effect": "Allow", "Principal": "*", "Action": "s3:*", "Resource": "*"}]}
    for place in ("arn:aws:s3:::config", "arn:aws:s3:::config/ecs.config"):
        for action in ("s3:GetObject", "s3:PutObject", "s3:ListBucket"):
            for secure in ("true", "false"):
                allowed = iam.allows([everybody, policy], action, place, {"aws:SecureTransport": secure}, ACCOUNT)
                checks.equal(f"the bucket: {action} on {place} with TLS {secure}", allowed, secure == "true")
    checks.equal("the policy of the bucket allows nothing by itself", iam.actions([policy]), set())


def stack_with(tree, attributes):
    """The resources of the bucket's template, with names for the bucket."""
    return Stack(load(tree.text(BUCKET)), {}, attributes=attributes).resources
