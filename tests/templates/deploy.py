"""Deploys each template against moto, an independent imitation of AWS: created, looked at through the services, updated, deleted.

moto's CloudFormation leaves out some properties (policies of repositories and buckets, for example). These are given to the services
of moto as CloudFormation would give them: ECR and S3 read the texts.
"""

import base64
import json
import logging
import os
import warnings

import boto3
from botocore.exceptions import ClientError
from moto import mock_aws

from template import REGION, TEMPLATES, Stack, load, stack

KEYS = {"AWS_ACCESS_KEY_ID": "testing", "AWS_SECRET_ACCESS_KEY": "testing", "AWS_DEFAULT_REGION": REGION}
ROLE, TASK = "examples/ec2/instance-role.yaml", "examples/ec2/execution-role.yaml"


def run(checks):
    """All deployments."""
    # moto says what it leaves out; see above.
    logging.getLogger("moto").setLevel(logging.CRITICAL)
    warnings.filterwarnings("ignore", module="moto")
    os.environ.update(KEYS)
    os.environ.pop("AWS_PROFILE", None)
    for name, deployment in zip(TEMPLATES, (repository, publisher, bucket, instance_role, execution_role, instances)):
        if checks.concerns(name):
            with mock_aws():
                deployment(checks)


def client(service):
    """A client of moto."""
    return boto3.client(service, region_name=REGION)


def deploy(checks, name, stack_name, **parameters):
    """Creates the stack, or updates it if it exists. Returns the ids of its resources by their names in the template."""
    formation = client("cloudformation")
    given = [{"ParameterKey": key, "ParameterValue": value} for key, value in {**TEMPLATES[name], **parameters}.items()]
    settings = {"StackName": stack_name, "TemplateBody": checks.tree.text(name), "Parameters": given, "Capabilities": ["CAPABILITY_IAM"]}
    exists = any(found["StackName"] == stack_name for found in formation.describe_stacks()["Stacks"])
    (formation.update_stack if exists else formation.create_stack)(**settings)
    status = formation.describe_stacks(StackName=stack_name)["Stacks"][0]["StackStatus"]
    verb = "updated" if exists else "created"
    checks.equal(f"{name} is {verb} with {parameters or 'its defaults'}", status, "UPDATE_COMPLETE" if exists else "CREATE_COMPLETE")
    found = formation.list_stack_resources(StackName=stack_name)["StackResourceSummaries"]
    return {resource["LogicalResourceId"]: resource.get("PhysicalResourceId") for resource in found}


def outputs(stack_name):
    """The outputs of a stack."""
    found = client("cloudformation").describe_stacks(StackName=stack_name)["Stacks"][0].get("Outputs", [])
    return {output["OutputKey"]: output["OutputValue"] for output in found}


def delete(checks, name, stack_name):
    """Deletes the stack."""
    formation = client("cloudformation")
    formation.delete_stack(StackName=stack_name)
    left = [found["StackName"] for found in formation.describe_stacks()["Stacks"]]
    checks.expect(f"{name} is deleted", stack_name not in left)


def accepts(checks, name, call, **members):
    """One check: the service accepts the call."""
    try:
        call(**members)
    except ClientError as error:
        return checks.expect(name, False, error)
    return checks.expect(name, True)


def repository(checks):
    """The repository, and its texts as ECR reads them."""
    name, ecr = "examples/ecr/repository.yaml", client("ecr")
    chosen = {"PullAccounts": "333333444444,555555666666", "CodeBuildProject": "build", "Owner": "web"}
    deploy(checks, name, "repository", **chosen)
    found = ecr.describe_repositories(repositoryNames=["docker-in-aws/hello"])["repositories"][0]
    checks.equal("ECR: immutable but for latest", found["imageTagMutability"], "IMMUTABLE_WITH_EXCLUSION")
    checks.equal("ECR: the output is the address", outputs("repository")["RepositoryUri"], found["repositoryUri"])
    checks.equal("ECR: the output is the ARN", outputs("repository")["RepositoryArn"], found["repositoryArn"])
    properties = stack(checks.tree, name, **chosen).resources["Repository"]["Properties"]
    text = properties["LifecyclePolicy"]["LifecyclePolicyText"]
    for what, policy in (("the template's", text), ("lifecycle.json", checks.tree.text("examples/ecr/lifecycle.json"))):
        put = accepts(checks, f"ECR accepts the lifecycle policy: {what}", ecr.put_lifecycle_policy,
                      repositoryName="docker-in-aws/hello", lifecyclePolicyText=policy)
        if put:
            kept = ecr.get_lifecycle_policy(repositoryName="docker-in-aws/hello")["lifecyclePolicyText"]
            checks.equal(f"ECR keeps the lifecycle policy: {what}", json.loads(kept), json.loads(policy))
    policy = json.dumps(properties["RepositoryPolicyText"])
    put = accepts(checks, "ECR accepts the repository policy", ecr.set_repository_policy,
                  repositoryName="docker-in-aws/hello", policyText=policy)
    if put:
        kept = ecr.get_repository_policy(repositoryName="docker-in-aws/hello")["policyText"]
        checks.equal("ECR keeps the repository policy", json.loads(kept), json.loads(policy))
    deploy(checks, name, "repository", TagMutability="MUTABLE")
    found = ecr.describe_repositories(repositoryNames=["docker-in-aws/hello"])["repositories"][0]
    checks.equal("ECR: an update makes tags mutable", found["imageTagMutability"], "MUTABLE")
    delete(checks, name, "repository")


def publisher(checks):
    """The policy can be attached."""
    name, iam = "examples/ecr/publisher.yaml", client("iam")
    deploy(checks, name, "publisher")
    arn = outputs("publisher")["PolicyArn"]
    iam.create_user(UserName="ci")
    iam.attach_user_policy(UserName="ci", PolicyArn=arn)
    attached = iam.list_attached_user_policies(UserName="ci")["AttachedPolicies"]
    checks.equal("IAM: the policy is attached", [policy["PolicyArn"] for policy in attached], [arn])
    version = iam.get_policy(PolicyArn=arn)["Policy"]["DefaultVersionId"]
    found = iam.get_policy_version(PolicyArn=arn, VersionId=version)["PolicyVersion"]["Document"]
    wanted = stack(checks.tree, name).resources["PublisherPolicy"]["Properties"]["PolicyDocument"]
    checks.equal("IAM: the policy is that of the template", found, wanted)
    iam.detach_user_policy(UserName="ci", PolicyArn=arn)
    delete(checks, name, "publisher")


def bucket(checks):
    """The bucket, with its settings as S3 reads them."""
    name, s3 = "examples/ec2/config-bucket.yaml", client("s3")
    created = deploy(checks, name, "config")
    made = outputs("config")["BucketName"]
    checks.equal("S3: the output is the bucket", made, created["Bucket"])
    attributes = {"Bucket": made, "Bucket.Arn": f"arn:aws:s3:::{made}"}
    resources = Stack(load(checks.tree.text(name)), {}, attributes=attributes).resources
    properties = resources["Bucket"]["Properties"]
    s3.put_public_access_block(Bucket=made, PublicAccessBlockConfiguration=properties["PublicAccessBlockConfiguration"])
    s3.put_bucket_versioning(Bucket=made, VersioningConfiguration=properties["VersioningConfiguration"])
    s3.put_bucket_ownership_controls(Bucket=made, OwnershipControls=properties["OwnershipControls"])
    blocks = s3.get_public_access_block(Bucket=made)["PublicAccessBlockConfiguration"]
    checks.equal("S3: all public access is blocked", set(blocks.values()), {True})
    checks.equal("S3: versions are kept", s3.get_bucket_versioning(Bucket=made)["Status"], "Enabled")
    rules = s3.get_bucket_encryption(Bucket=made)["ServerSideEncryptionConfiguration"]["Rules"]
    checks.equal("S3: objects are encrypted", rules[0]["ApplyServerSideEncryptionByDefault"]["SSEAlgorithm"], "AES256")
    for text in ("ECS_CLUSTER=web\n", "ECS_CLUSTER=db\n"):
        s3.put_object(Bucket=made, Key="ecs.config", Body=text)
    versions = s3.list_object_versions(Bucket=made)["Versions"]
    checks.equal("S3: the old ecs.config is still there", len(versions), 2)
    # The last step: moto denies everything from here on, since it does not look at conditions.
    policy = json.dumps(resources["BucketPolicy"]["Properties"]["PolicyDocument"])
    accepts(checks, "S3 accepts the policy of the bucket", s3.put_bucket_policy, Bucket=made, Policy=policy)
    statement = json.loads(s3.get_bucket_policy(Bucket=made)["Policy"])["Statement"][0]
    checks.equal("S3: the policy is one of the bucket", statement["Resource"], [f"arn:aws:s3:::{made}", f"arn:aws:s3:::{made}/*"])
    delete(checks, name, "config")


def role_policies(created):
    """The policies of a created role, by name."""
    iam, role = client("iam"), created["Role"]
    names = iam.list_role_policies(RoleName=role)["PolicyNames"]
    return {name: iam.get_role_policy(RoleName=role, PolicyName=name)["PolicyDocument"] for name in names}


def resolved_policies(resources):
    """The same from the template."""
    kinds = [resource["Properties"] for resource in resources.values() if resource["Type"] == "AWS::IAM::Policy"]
    return {properties["PolicyName"]: properties["PolicyDocument"] for properties in kinds}


def compare_role(checks, name, stack_name, created, **parameters):
    """IAM has the role and the policies of the template."""
    resources = stack(checks.tree, name, **parameters).resources
    found = as_deployed(role_policies(created))
    checks.equal(f"{name}: IAM has the policies of the template with {parameters or 'its defaults'}", found,
                 as_deployed(resolved_policies(resources)))
    role = client("iam").get_role(RoleName=created["Role"])["Role"]
    trust = as_deployed(role["AssumeRolePolicyDocument"])
    wanted = as_deployed(resources["Role"]["Properties"]["AssumeRolePolicyDocument"])
    checks.equal(f"{name}: IAM has the trust of the template", trust, wanted)
    checks.equal(f"{name}: the output is the role", outputs(stack_name)["RoleArn"], role["Arn"])


def as_deployed(document):
    """A document without what differs between moto's account and ours."""
    return json.loads(json.dumps(document).replace("123456789012", "385605022855"))


def instance_role(checks):
    """The role of instances, without and with its features."""
    created = deploy(checks, ROLE, "instance-role")
    compare_role(checks, ROLE, "instance-role", created)
    profile = client("iam").list_instance_profiles()["InstanceProfiles"][0]
    checks.equal("IAM: the profile has the role", [role["RoleName"] for role in profile["Roles"]], [created["Role"]])
    checks.equal("IAM: the output is the profile", outputs("instance-role")["InstanceProfileArn"], profile["Arn"])
    chosen = {"LogGroup": "web", "SpotDraining": "yes", "InstanceTags": "yes"}
    compare_role(checks, ROLE, "instance-role", deploy(checks, ROLE, "instance-role", **chosen), **chosen)
    delete(checks, ROLE, "instance-role")
    checks.equal("IAM: nothing is left", client("iam").list_instance_profiles()["InstanceProfiles"], [])


def execution_role(checks):
    """The execution role, without and with its features."""
    compare_role(checks, TASK, "execution-role", deploy(checks, TASK, "execution-role"))
    key = "arn:aws:kms:us-west-2:385605022855:key/0123"
    chosen = {"Parameters": "hello", "Secrets": "hello", "KeyArn": key, "EnvironmentFiles": "files/hello"}
    compare_role(checks, TASK, "execution-role", deploy(checks, TASK, "execution-role", **chosen), **chosen)
    delete(checks, TASK, "execution-role")


def instances(checks):
    """The launch template and the group, in moto's default network."""
    name, ec2 = "examples/ec2/instances.yaml", client("ec2")
    network = ec2.describe_vpcs()["Vpcs"][0]["VpcId"]
    subnets = ",".join(subnet["SubnetId"] for subnet in ec2.describe_subnets()["Subnets"][:2])
    profile = outputs_of_role(checks)
    given = {"VpcId": network, "SubnetIds": subnets, "InstanceProfileArn": profile}
    created = deploy(checks, name, "instances", **given)
    found = ec2.describe_launch_template_versions(LaunchTemplateId=created["LaunchTemplate"])["LaunchTemplateVersions"][0]
    data = found["LaunchTemplateData"]
    launch_data(checks, data, profile)
    text = base64.b64decode(data["UserData"]).decode()
    wanted = Stack(load(checks.tree.text(name)), {**TEMPLATES[name], **given}, name="instances").resources["LaunchTemplate"]
    checks.equal("EC2: the user data is the script", text, wanted["Properties"]["LaunchTemplateData"]["UserData"])
    group = client("autoscaling").describe_auto_scaling_groups()["AutoScalingGroups"][0]
    checks.equal("Auto Scaling: sizes", [group[key] for key in ("MinSize", "DesiredCapacity", "MaxSize")], [0, 1, 4])
    checks.equal("Auto Scaling: subnets", sorted(group["VPCZoneIdentifier"].split(",")), sorted(subnets.split(",")))
    checks.equal("Auto Scaling: the launch template", group["LaunchTemplate"]["LaunchTemplateId"], created["LaunchTemplate"])
    checks.equal("Auto Scaling: the output is the group", outputs("instances")["AutoScalingGroupName"], group["AutoScalingGroupName"])
    rules = ec2.describe_security_groups(GroupIds=[outputs("instances")["SecurityGroupId"]])["SecurityGroups"][0]
    checks.equal("EC2: no port is open", rules["IpPermissions"], [])
    delete(checks, name, "instances")


def outputs_of_role(checks):
    """An instance profile for the instances."""
    deploy(checks, ROLE, "instance-role")
    return outputs("instance-role")["InstanceProfileArn"]


def launch_data(checks, data, profile):
    """How instances are started."""
    metadata = data.get("MetadataOptions", {})
    checks.equal("EC2: IMDSv2 only", metadata.get("HttpTokens"), "required")
    checks.equal("EC2: one hop to the metadata", str(metadata.get("HttpPutResponseHopLimit")), "1")
    disk = data.get("BlockDeviceMappings", [{}])[0].get("Ebs", {})
    checks.expect("EC2: the disk is encrypted", str(disk.get("Encrypted")).lower() == "true", disk)
    checks.expect("EC2: the disk ends with the instance", str(disk.get("DeleteOnTermination")).lower() == "true", disk)
    checks.equal("EC2: a failed installation ends the instance", data.get("InstanceInitiatedShutdownBehavior"), "terminate")
    checks.equal("EC2: the profile", data.get("IamInstanceProfile"), {"Arn": profile})
    checks.expect("EC2: an image of Amazon Linux", str(data.get("ImageId")).startswith("ami-"), data.get("ImageId"))
