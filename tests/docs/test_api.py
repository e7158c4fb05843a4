"""docs/api.md names every RPC with what it needs, and every reason with its status."""

from __future__ import annotations

from tests.docs.documents import code, rows
from tests.docs.reasons import reason_in
from watchword.bearer import BearerError
from watchword_server.answer import errors
from watchword_server.answer.errors import CallerUnknownError, RefusalError
from watchword_server.replica import refusal
from watchword_server.replica.fence import LeaseMissingError
from watchword_server.request import status
from watchword_server.request.access import ACCESS
from watchword_server.store.contract import (
    LastAdministratorError,
    PartitionMissingError,
    RowRefusedError,
    StoreUnavailableError,
)

API = "docs/api.md"


def test_every_rpc_is_in_the_table_with_the_scope_it_needs() -> None:
    table = {code(row[0])[0]: tuple(code(row[1])) for row in rows(API, "Calling")}
    assert table == {
        path.removeprefix("/watchword.v1.").replace("/", "."): access.scopes for path, access in ACCESS.items()
    }


def test_every_reason_of_the_service_is_in_the_table_with_its_status() -> None:
    expected = {
        kind.reason: status._CODES[kind].name
        for kind in vars(errors).values()
        if isinstance(kind, type) and issubclass(kind, RefusalError) and kind.reason != RefusalError.reason
    }
    raised = [
        BearerError("TOKEN_MISSING"),
        BearerError("TOKEN_MALFORMED"),
        BearerError("TOKEN_AMBIGUOUS"),
        CallerUnknownError("TOKEN_INACTIVE", "it ended"),
        LastAdministratorError("x"),
        PartitionMissingError("x"),
        RowRefusedError("x"),
        StoreUnavailableError("x"),
        LeaseMissingError("x"),
        refusal.protocol("x"),
        refusal.flooding(),
        refusal.limited(),
        refusal.lagging(),
        refusal.replaced(),
    ]
    answers = [status.answer_for(error) for error in raised]
    for answer in (*answers, status.overloaded(), status.draining(), status.internal()):
        assert answer is not None
        expected[reason_in(answer[2])] = answer[0].name
    assert {code(row[0])[0]: code(row[1])[0] for row in rows(API, "Error reasons")} == expected
