"""What the example policies grant, and what is used. See the script `used`."""

import os
import shlex
import shutil
import sys
from pathlib import Path

import iam
from harness import Checks, Tree
from laptop import ACCOUNT, REGION, Laptop, wait_for
from policies import PUBLISHER, ROLE, TASK
from real import base_image, docker
from template import Stack, load

REPOSITORY = "docker-in-aws/hello"
ARN = f"arn:aws:ecr:{REGION}:{ACCOUNT}:repository/{REPOSITORY}"
INSTANCE_ROLE = f"arn:aws:iam::{ACCOUNT}:role/ecsInstanceRole"
TASK_ROLE = f"arn:aws:iam::{ACCOUNT}:role/hello-execution"
USER = f"arn:aws:iam::{ACCOUNT}:user/ci"
GRANTS = {
    USER: (PUBLISHER, {"RepositoryArn": ARN}),
    # Without LogGroup: Docker's log driver talks to CloudWatch Logs, which ecs-local has not.
    INSTANCE_ROLE: (ROLE, {"ClusterName": "default", "RepositoryArn": ARN, "BucketName": "config", "SpotDraining": "yes",
                           "InstanceTags": "yes"}),
    # Without KeyArn: SSM and Secrets Manager decrypt, and ecs-local has no keys.
    TASK_ROLE: (TASK, {"RepositoryArn": ARN, "Secrets": "hello", "Parameters": "hello", "EnvironmentFiles": "files/hello"}),
}
"""Each identity with the template of its policies."""
NOT_USED_HERE = {"ecr:BatchCheckLayerAvailability", "ecs:SubmitAttachmentStateChanges"}
"""The first: AWS documents it for every pull. Docker asks only at a push whether a layer exists; other clients ask at a pull, too. The
second: the agent reports the trunk interface of an instance with it, which this machine does not have."""


def main(binaries, port):
    """Runs everything; returns the exit code."""
    top = Path(__file__).resolve().parents[2]
    folder = top / "target/templates-used"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    checks = Checks(Tree(top))
    laptop = Laptop(folder, binaries, port)
    made = base_image(folder)
    try:
        laptop.serve()
        documents = {arn: policies(checks, arn) for arn in GRANTS}
        keys = laptop.call("identities", identity(USER, documents[USER]))
        for arn in (INSTANCE_ROLE, TASK_ROLE):
            laptop.call("identities", identity(arn, documents[arn]))
        image = publish(laptop, top, keys)
        fetch_settings(laptop)
        run_tasks(laptop, image)
        drain(laptop)
        recorded = laptop.call("actions")
        compare(checks, recorded, documents)
        finds_faults(checks, recorded, documents)
    finally:
        laptop.end()
        clean(laptop, made)
    print(f"{len(checks.passed)} passed, {len(checks.failed)} failed")
    return 1 if checks.failed or not checks.passed else 0


def policies(checks, arn):
    """One document with all statements that an identity gets from its template."""
    name, parameters = GRANTS[arn]
    found = Stack(load(checks.tree.text(name)), parameters, place=(ACCOUNT, REGION)).policies()
    return {"Version": "2012-10-17", "Statement": [statement for part in found for statement in part["Statement"]]}


def identity(arn, document):
    """The request that gives an identity its policy."""
    kind = {"user": arn.rsplit("/", 1)[1]} if ":user/" in arn else {"role": arn}
    return {**kind, "policy": document}


def publish(laptop, top, keys):
    """The publisher, who may nothing else, makes `make login publish logout`. Returns the image's name."""
    laptop.aws("ecr", "create-repository", "--repository-name", REPOSITORY)
    image = f"127.0.0.1:{laptop.port}/{REPOSITORY}"
    make = ("make", "-C", str(top / "examples/ecr"), f"REPOSITORY={REPOSITORY}")
    laptop.run(*make, "login", "publish", keys=keys)
    # Other clients ask for the manifest before they push. Docker does so here; it has the layers.
    laptop.run("docker", "pull", image, keys=keys)
    laptop.run(*make, "logout", keys=keys)
    return image


def fetch_settings(laptop):
    """What the user data fetches, with the role of the instance."""
    keys = laptop.call("sessions", {"role": INSTANCE_ROLE, "session": "i-0123456789abcdef0"})
    for name in ("ecs.config", "ecs-agent.tar.gz"):
        laptop.call("objects", {"bucket": "config", "key": name, "text": "ECS_CLUSTER=default\n"})
        laptop.aws("s3api", "get-object", "--bucket", "config", "--key", name, str(laptop.folder / name), keys=keys)


def start_agent(laptop):
    """The agent with every feature that the role of the instance has rights for."""
    laptop.call("instance-tags", {"team": "web"})
    services = {f"AWS_ENDPOINT_URL_{service}": laptop.url for service in ("SECRETS_MANAGER", "SSM", "S3", "EC2")}
    command = [*shlex.split(os.environ.get("AGENT_WITH", "")), f"{laptop.binaries}/ecs-agent"]
    laptop.start("agent", command, ECS_CLUSTER="default", ECS_BACKEND_HOST=laptop.url, ECS_DATADIR=str(laptop.folder / "data"),
                 AWS_EC2_METADATA_SERVICE_ENDPOINT=laptop.url, ECS_IMAGE_PULL_BEHAVIOR="always", ECS_ENABLE_SPOT_INSTANCE_DRAINING="true",
                 ECS_CONTAINER_INSTANCE_TAGS='{"stage":"test"}', ECS_CONTAINER_INSTANCE_PROPAGATE_TAGS_FROM="ec2_instance", **services)
    wait_for("the agent", lambda: connected(laptop))


def connected(laptop):
    """Whether the agent has registered and listens."""
    arns = laptop.aws("ecs", "list-container-instances")["containerInstanceArns"]
    found = laptop.aws("ecs", "describe-container-instances", "--container-instances", *arns)["containerInstances"] if arns else []
    return any(instance["agentConnected"] for instance in found)


def run_tasks(laptop, image):
    """A task with the role of the instance, and one with an execution role, secrets and an environment file."""
    laptop.call("secrets", {"name": "hello/db", "value": "secret"})
    laptop.call("parameters", {"name": "/hello/key", "value": "key"})
    laptop.call("objects", {"bucket": "files", "key": "hello/app.env", "text": "A=1\n"})
    start_agent(laptop)
    container = f'{{"name": "hello", "image": "{image}", "memory": 32, "stopTimeout": 2'
    secrets = (f'"secrets": [{{"name": "DB", "valueFrom": "arn:aws:secretsmanager:{REGION}:{ACCOUNT}:secret:hello/db"}}, '
               f'{{"name": "KEY", "valueFrom": "arn:aws:ssm:{REGION}:{ACCOUNT}:parameter/hello/key"}}], '
               '"environmentFiles": [{"value": "arn:aws:s3:::files/hello/app.env", "type": "s3"}]')
    for words in ((f"[{container}}}]",), (f"[{container}, {secrets}}}]", "--execution-role-arn", TASK_ROLE)):
        forget(image)
        laptop.aws("ecs", "register-task-definition", "--family", "used", "--container-definitions", *words)
        task = laptop.aws("ecs", "run-task", "--task-definition", "used")["tasks"][0]["taskArn"]
        state = wait_for("the task", lambda task=task: settled(laptop, task))
        if state["lastStatus"] != "RUNNING":
            raise RuntimeError(f"the task has stopped: {state.get('stoppedReason')} {state['containers'][0].get('reason')}")
        ask_for_tags(laptop, task)
        laptop.aws("ecs", "stop-task", "--task", task)
        wait_for("the task's end", lambda task=task: described(laptop, task)["lastStatus"] == "STOPPED")


def ask_for_tags(laptop, task):
    """What a container asks at 169.254.170.2, asked on this host. The agent asks ECS for the tags."""
    (container,) = docker_lines("ps", "-q", "--filter", f"label=com.amazonaws.ecs.task-arn={task}")
    variables = docker_lines("inspect", "--format", "{{join .Config.Env \" \"}}", container)
    (endpoint,) = [value for name, _, value in (variable.partition("=") for variable in variables)
                   if name == "ECS_CONTAINER_METADATA_URI_V4"]
    laptop.run("curl", "-sSf", "--max-time", "10", endpoint.replace("169.254.170.2", "127.0.0.1:51679") + "/taskWithTags")


def described(laptop, task):
    """A task as ECS sees it."""
    return laptop.aws("ecs", "describe-tasks", "--tasks", task)["tasks"][0]


def settled(laptop, task):
    """The task once it runs or has stopped."""
    found = described(laptop, task)
    return found if found["lastStatus"] in ("RUNNING", "STOPPED") else None


def forget(image):
    """Docker forgets the image, so that the next pull is a whole one."""
    for tag in docker_lines("image", "ls", "--format", "{{.Repository}}:{{.Tag}}", image):
        docker("image", "rm", "--force", tag)


def docker_lines(*words):
    """The lines that Docker prints."""
    return docker(*words).split()


def drain(laptop):
    """A Spot notice makes the agent drain its instance."""
    laptop.call("metadata", {"path": "spot/instance-action", "text": '{"action": "terminate", "time": "2030-01-01T00:00:00Z"}'})
    call = "ecs:UpdateContainerInstancesState"
    wait_for("the draining", lambda: any(entry["action"] == call for entry in laptop.call("actions")["actions"]))


def compare(checks, recorded, documents):
    """Both ways. Each recorded call is also asked of an evaluation of its own (`iam`)."""
    checks.equal("no record was dropped", recorded["dropped"], 0)
    for arn, document in documents.items():
        own = [entry for entry in recorded["actions"] if entry["principal"] == arn]
        denied = sorted({entry["action"] for entry in own if entry["outcome"] == "denied"})
        checks.equal(f"{arn}: nothing that was needed is missing", denied, [])
        used = {entry["action"] for entry in own if entry["outcome"] == "allowed"}
        granted = iam.actions([document])
        checks.equal(f"{arn}: nothing is granted that was not used", sorted(granted - used - NOT_USED_HERE), [])
        checks.equal(f"{arn}: nothing was used that is not granted", sorted(used - granted), [])
        for entry in own:
            what = f"{arn}: {entry['action']} on {entry['resource'].split(':', 2)[-1]}"
            checks.expect(what, iam.allows([document], entry["action"], entry["resource"], context()))


def finds_faults(checks, recorded, documents):
    """The comparison finds a right too many and a right too few."""
    for arn, document in documents.items():
        more = {**document, "Statement": [*document["Statement"], {"Effect": "Allow", "Action": "ecr:DeleteRepository", "Resource": ARN}]}
        first, *rest = document["Statement"]
        for what, changed in (("too many", more), ("too few", {**document, "Statement": rest})):
            trial = Checks(checks.tree, fault_in="")
            compare(trial, recorded, {**documents, arn: changed})
            checks.expect(f"{arn}: a right {what} is found ({first['Sid']})", any(name.startswith(arn) for name, _ in trial.failed))


def context():
    """What conditions see in these calls."""
    cluster = f"arn:aws:ecs:{REGION}:{ACCOUNT}:cluster/default"
    return {"ecs:cluster": cluster, "ecs:CreateAction": "RegisterContainerInstance", "aws:ResourceAccount": ACCOUNT}


def clean(laptop, made):
    """Removes containers and images."""
    for container in docker_lines("ps", "-aq", "--filter", "label=com.amazonaws.ecs.task-definition-family=used"):
        docker("rm", "--force", container)
    forget(f"127.0.0.1:{laptop.port}/{REPOSITORY}")
    if made:
        docker("image", "rm", "--force", "busybox:latest")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], int(sys.argv[2])))
