"""The administrator, in most of the end-to-end tests the one who acts."""

from __future__ import annotations

import pytest

from tests.conftest import Watchword
from tests.path.party import Party, administrator


@pytest.fixture
def admin(watchword: Watchword) -> Party:
    """Holds `watchword.*` and may issue everything."""
    return administrator(watchword)
