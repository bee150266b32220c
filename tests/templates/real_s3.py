"""The user data with the real aws CLI, which fetches from moto's S3. Everything else is as in `user_data`."""

import logging
import os
import shutil
import tempfile

import boto3
from moto.server import ThreadedMotoServer

from template import REGION
from user_data import CONFIG, PROGRAMS, Run

KEYS = {"AWS_ACCESS_KEY_ID": "testing", "AWS_SECRET_ACCESS_KEY": "testing"}
BUCKET = "config-of-web"


def run(checks):
    """A bucket that has everything, and one without ecs.config."""
    if not shutil.which("aws"):
        checks.skip("no aws CLI")
        return
    logging.getLogger("werkzeug").setLevel(logging.ERROR)  # one line for each request
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        url = f"http://{host}:{port}"
        for has_config in (True, False):
            with tempfile.TemporaryDirectory(prefix="templates-s3-") as folder:
                fetch(checks, url, folder, has_config)
    finally:
        server.stop()


def fetch(checks, url, folder, has_config):
    """One run of the user data."""
    s3 = boto3.client("s3", region_name=REGION, endpoint_url=url, aws_access_key_id="testing", aws_secret_access_key="testing")
    s3.create_bucket(Bucket=BUCKET, CreateBucketConfiguration={"LocationConstraint": REGION})

    def upload(made):
        names = ["ecs-agent.tar.gz", *(["ecs.config"] if has_config else [])]
        for name in names:
            s3.upload_file(str(made.sandbox.root / "bucket" / name), BUCKET, name)

    variables = {**KEYS, "AWS_ENDPOINT_URL": url, "AWS_MAX_ATTEMPTS": "1", "NO_PROXY": "127.0.0.1"}
    variables.update({name: os.environ[name] for name in ("PYENV_ROOT",) if name in os.environ})
    programs = [program for program in PROGRAMS if program != "aws"]
    made = Run(checks.tree, f"{folder}/instance", before=upload, programs=programs, variables=variables)
    what = "with ecs.config in S3" if has_config else "without ecs.config in S3"
    checks.equal(f"the real aws CLI, {what}: the user data {'succeeds' if has_config else 'fails'}", made.outcome.code == 0, has_config)
    checks.equal(f"the real aws CLI, {what}: what is in /etc/ecs", made.left(), ["ecs.config"] if has_config else [])
    seen = {line.split(" ", 1)[0] for line in made.outcome.modes}
    checks.equal(f"the real aws CLI, {what}: mode 0600 at all times", seen, {"600"})
    if has_config:
        checks.equal(f"the real aws CLI, {what}: the file is that of the bucket", made.config.read_text(), CONFIG)
    else:
        checks.expect(f"the real aws CLI, {what}: the reason is shown", "NoSuchKey" in made.outcome.output, made.outcome.output)
        checks.expect(f"the real aws CLI, {what}: the agent is not started", not made.has_started_agent())
    for item in s3.list_objects_v2(Bucket=BUCKET).get("Contents", []):
        s3.delete_object(Bucket=BUCKET, Key=item["Key"])
    s3.delete_bucket(Bucket=BUCKET)
