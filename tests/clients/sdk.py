"""Inside a container: the credentials that botocore finds, and a call that is signed with them."""
import json
import os

import botocore.session

session = botocore.session.Session()
found = session.get_credentials()
keys = found.get_frozen_credentials()
ecs = session.create_client("ecs", region_name="us-west-2", endpoint_url=os.environ["ENDPOINT"])
print(json.dumps({
    "method": found.method,
    "AccessKeyId": keys.access_key,
    "SecretAccessKey": keys.secret_key,
    "Token": keys.token,
    "clusters": ecs.list_clusters()["clusterArns"],
}))
