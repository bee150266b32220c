"""Reads requests of OTLP/HTTP in JSON from standard input, with the classes of OpenTelemetry, and prints the spans by their ids.

Nothing of this repository is used. An unknown member, or one of another type, is an error. In OTLP's JSON the ids are hexadecimal, in
that of protobuf base64; everything else is the same."""
import base64
import json
import sys

from google.protobuf.json_format import ParseDict
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

found = {}
for body in json.load(sys.stdin):
    for resource in body["resourceSpans"]:
        for scope in resource["scopeSpans"]:
            for span in scope["spans"]:
                for member in {"traceId", "spanId", "parentSpanId"} & span.keys():
                    span[member] = base64.b64encode(bytes.fromhex(span[member])).decode()
    request = ParseDict(body, ExportTraceServiceRequest())
    for resource in request.resource_spans:
        attributes = {pair.key: pair.value.string_value for pair in resource.resource.attributes}
        for scope in resource.scope_spans:
            for span in scope.spans:
                assert len(span.trace_id) == 16 and len(span.span_id) == 8, span
                found[span.span_id.hex()] = {
                    "trace": span.trace_id.hex(),
                    "parent": span.parent_span_id.hex(),
                    "name": span.name,
                    "kind": Span.SpanKind.Name(span.kind),
                    "start": span.start_time_unix_nano,
                    "end": span.end_time_unix_nano,
                    "service": attributes["service.name"],
                }
print(json.dumps(found))
