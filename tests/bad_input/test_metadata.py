"""Metadata beyond the limit, and methods that nobody serves."""

from __future__ import annotations

import grpc
import pytest

from tests.conftest import Watchword
from tests.path.party import Party, code_of, refused

PATH = "/watchword.v1.TokenService/ListScopes"


def test_metadata_well_below_the_limit_is_taken(admin: Party) -> None:
    admin.send(PATH, b"", metadata=(*admin.metadata, ("x-note", "x" * 4096)))


@pytest.mark.parametrize("size", [20_000, 200_000])
def test_overlong_metadata_is_refused_by_grpcio(watchword: Watchword, admin: Party, size: int) -> None:
    metadata = (*admin.metadata, ("x-note", "x" * size))
    if watchword.server.transport == "grpcio":
        assert refused(admin.send, PATH, b"", metadata=metadata).code is grpc.StatusCode.RESOURCE_EXHAUSTED
        return
    # The native transport has no such limit of its own, or says it in its own words; it goes on either way.
    assert code_of(admin.send, PATH, b"", metadata=metadata) in {
        grpc.StatusCode.OK,
        grpc.StatusCode.UNKNOWN,
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        grpc.StatusCode.UNAVAILABLE,
    }


@pytest.mark.parametrize("path", ["/watchword.v1.TokenService/", "/watchword.v2.TokenService/Issue", "/x/y", "//", "/"])
def test_paths_that_are_no_method_are_unimplemented(admin: Party, path: str) -> None:
    assert refused(admin.send, path, b"").code is grpc.StatusCode.UNIMPLEMENTED


def test_a_hundred_entries_of_another_name_do_not_hide_the_token(admin: Party) -> None:
    others = tuple((f"x-{at}", "y") for at in range(100))
    admin.send(PATH, b"", metadata=(*others, *admin.metadata))
