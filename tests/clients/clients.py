"""Inside a container: clients in Python of the credentials and of the metadata, chosen by the first argument.

Each prints one JSON value, or fails with a traceback. Nothing of this repository is used."""
import datetime
import json
import os
import sys
import time
import urllib.request

import botocore.session
import urllib3
from botocore.exceptions import CredentialRetrievalError
from botocore.utils import ContainerMetadataFetcher, MetadataRetrievalError
from opentelemetry.sdk.extension.aws.resource.ecs import AwsEcsResourceDetector

HOST = "http://169.254.170.2"
PATH = os.environ["AWS_CONTAINER_CREDENTIALS_RELATIVE_URI"]
V4 = os.environ["ECS_CONTAINER_METADATA_URI_V4"]


def shown(found):
    keys = found.get_frozen_credentials()
    return {"AccessKeyId": keys.access_key, "SecretAccessKey": keys.secret_key, "Token": keys.token}


def credentials():
    """botocore's provider: the keys, and how many seconds they last."""
    found = botocore.session.Session().get_credentials()
    left = found._expiry_time - datetime.datetime.now(datetime.timezone.utc)
    return shown(found) | {"seconds": left.total_seconds()}


def full_uri():
    """The same by the variable with the whole URL, which takes a header along."""
    os.environ["AWS_CONTAINER_CREDENTIALS_FULL_URI"] = HOST + os.environ.pop("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI")
    os.environ["AWS_CONTAINER_AUTHORIZATION_TOKEN"] = "anything"
    return shown(botocore.session.Session().get_credentials())


def wrong_id():
    """What a person reads if the id is wrong."""
    os.environ["AWS_CONTAINER_CREDENTIALS_RELATIVE_URI"] = PATH[:-4] + "beef"
    try:
        botocore.session.Session().get_credentials()
    except CredentialRetrievalError as error:
        return str(error)


def unavailable():
    """Asks until the credentials come; what botocore's fetcher said before, without a repetition."""
    refusals, fetcher = [], ContainerMetadataFetcher(sleep=lambda seconds: time.sleep(0.1))
    while True:
        try:
            return {"AccessKeyId": fetcher.retrieve_uri(PATH)["AccessKeyId"], "refusals": refusals}
        except MetadataRetrievalError as error:
            refusals += [] if str(error) in refusals else [str(error)]


def patient():
    """urllib3 asks again after the time in Retry-After, once the limit of the container is used up."""
    impatient = urllib3.PoolManager(retries=False)
    answers = [impatient.request("GET", V4)]
    while answers[-1].status == 200 and len(answers) < 500:
        answers.append(impatient.request("GET", V4))
    refused = answers[-1]
    retries = urllib3.Retry(total=10, status_forcelist=[429], backoff_factor=0, respect_retry_after_header=True)
    began = time.monotonic()
    answer = urllib3.PoolManager(retries=retries).request("GET", V4)
    return {
        "served": len(answers) - 1,
        "refused": [refused.status, refused.headers["content-type"], refused.data.decode()],
        "then": [answer.status, json.loads(answer.data)["Name"], len(answer.retries.history)],
        "seconds": time.monotonic() - began,
    }


def detector():
    """OpenTelemetry's attributes of the container."""
    return dict(AwsEcsResourceDetector(raise_on_error=True).detect().attributes)


print(json.dumps(globals()[sys.argv[1]]()))
