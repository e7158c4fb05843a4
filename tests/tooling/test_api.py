"""What the protos promise and the server's one table of who may call what are the same list."""

from __future__ import annotations

from google.protobuf.descriptor import ServiceDescriptor

from tests.tooling.sources import ROOT
from watchword.v1 import (
    audit_service_pb2,
    fleet_service_pb2,
    subject_service_pb2,
    token_service_pb2,
    verifier_service_pb2,
)
from watchword_server.request.access import ACCESS

FILES = (
    audit_service_pb2.DESCRIPTOR,
    fleet_service_pb2.DESCRIPTOR,
    subject_service_pb2.DESCRIPTOR,
    token_service_pb2.DESCRIPTOR,
    verifier_service_pb2.DESCRIPTOR,
)


def services() -> list[ServiceDescriptor]:
    return [service for file in FILES for service in file.services_by_name.values()]


def test_files_looked_at_are_all_that_define_services() -> None:
    """Else a new file's RPCs would be asked about by nobody."""
    protos = (ROOT / "protos").rglob("*.proto")
    defining = {path.relative_to(ROOT / "protos").as_posix() for path in protos if "\nservice " in path.read_text()}
    assert defining == {file.name for file in FILES}


def test_every_rpc_is_in_the_access_table_and_nothing_else_is() -> None:
    methods = {f"/{service.full_name}/{method.name}" for service in services() for method in service.methods}
    assert methods == set(ACCESS)


def test_every_rpc_but_one_needs_a_scope_of_watchwords_own() -> None:
    """`*` does not cover those: a token issued with it can do nothing here but see itself, or succeed itself."""
    for path, access in ACCESS.items():
        assert access.scopes or path == "/watchword.v1.TokenService/WhoAmI"
        assert all(scope.startswith("watchword.") for scope in access.scopes)
