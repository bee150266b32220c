"""Reads both forms of the agent's page with prometheus_client, and prints what it found as JSON."""
import json
import urllib.request

from prometheus_client.openmetrics import parser as openmetrics
from prometheus_client import parser as classic


def families(accept, parser):
    request = urllib.request.Request("http://127.0.0.1:51680/metrics", headers={"Accept": accept})
    with urllib.request.urlopen(request, timeout=10) as answer:
        kind, text = answer.headers["Content-Type"], answer.read().decode()
    found = list(parser(text))
    return {
        "kind": kind,
        "types": {family.name: family.type for family in found},
        "without_help": [family.name for family in found if not family.documentation],
        "samples": sum(len(family.samples) for family in found),
        "running": [s.value for f in found for s in f.samples if s.name == "ecs_agent_tasks" and s.labels["status"] == "RUNNING"],
    }


print(json.dumps({
    "classic": families("text/plain", classic.text_string_to_metric_families),
    "openmetrics": families("application/openmetrics-text;version=1.0.0", openmetrics.text_string_to_metric_families),
}))
