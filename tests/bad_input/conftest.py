"""Whatever is sent, the same server still answers a good call afterwards, and holds what it held before."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.conftest import Watchword
from tests.path.party import Party, administrator, unique
from watchword.v1 import token_service_pb2 as pb


@pytest.fixture
def admin(watchword: Watchword) -> Party:
    """Holds `watchword.*` and may issue everything."""
    return administrator(watchword)


@pytest.fixture(autouse=True)
def unharmed(watchword: Watchword, admin: Party) -> Iterator[None]:
    """Around every test here: bad input loses nothing."""
    pid, kept = watchword.server.pid, admin.issue(unique("kept"))
    before = admin.record(kept.token.token_id)
    yield
    assert watchword.server.pid == pid
    assert admin.record(kept.token.token_id) == before
    # Without waiting: a hostile verifier may have left a lease behind.
    assert admin.revoke(pb.RevokeRequest(token=kept.secret, no_wait=True)).revoked_count == 1
