"""A credentials fetcher on the original gRPC implementation: credentials_fetcher.py SOCKET LOG.

Writes each call to LOG as a line of JSON. A document or lease that contains FAIL is refused for good, one that contains LATER for now.
"""

import json
import pathlib
import sys
import tempfile
from concurrent import futures

import grpc
from google.protobuf import json_format
from grpc_tools import protoc

here = pathlib.Path(__file__).parent
out = tempfile.TemporaryDirectory()
if protoc.main(["protoc", f"-I{here}", f"--python_out={out.name}", f"--grpc_python_out={out.name}",
                str(here / "credentials_fetcher.proto")]):
    sys.exit("the messages cannot be compiled")
sys.path.insert(0, out.name)
import credentials_fetcher_pb2 as messages  # noqa: E402
import credentials_fetcher_pb2_grpc as service  # noqa: E402

socket, log = sys.argv[1:]


def note(method, request, context):
    text = json_format.MessageToJson(request, preserving_proto_field_name=True)
    with open(log, "a", encoding="utf-8") as file:
        file.write(json.dumps({"method": method, "request": json.loads(text)}) + "\n")
    if "FAIL" in text:
        context.abort(grpc.StatusCode.INVALID_ARGUMENT, "ERROR: ä of 100% is wrong\n")
    if "LATER" in text:
        context.abort(grpc.StatusCode.UNAVAILABLE, "not now")


def lease(name, documents):
    accounts = [json.loads(document)["DomainJoinConfig"]["MachineAccountName"] for document in documents]
    return messages.Lease(lease_id=name, kerberos_file_paths=[f"/krb/{name}/{account}" for account in accounts])


class Fetcher(service.CredentialsFetcherServiceServicer):
    def AddKerberosLease(self, request, context):
        note("AddKerberosLease", request, context)
        return lease("joined", request.credspec_contents)

    def AddNonDomainJoinedKerberosLease(self, request, context):
        note("AddNonDomainJoinedKerberosLease", request, context)
        return lease("domainless", request.credspec_contents)

    def RenewNonDomainJoinedKerberosLease(self, request, context):
        note("RenewNonDomainJoinedKerberosLease", request, context)
        return messages.Renewed(renewed_kerberos_file_paths=["/krb/domainless/x"])

    def DeleteKerberosLease(self, request, context):
        note("DeleteKerberosLease", request, context)
        return messages.Lease(lease_id=request.lease_id)


server = grpc.server(futures.ThreadPoolExecutor(max_workers=2))
service.add_CredentialsFetcherServiceServicer_to_server(Fetcher(), server)
server.add_insecure_port(f"unix:{socket}")
server.start()
server.wait_for_termination()
