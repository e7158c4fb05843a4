"""Watchword's Python client library: check bearer tokens in gRPC servers, and send them from gRPC clients.

What both stacks share is here; watchword.aio and watchword.sync hold the interceptors and channels of each, and
watchword.testing an authority for tests.
"""

from watchword.credentials.renewal_status import RenewalStatus
from watchword.credentials.source import StaticToken, TokenFile, TokenSource, TokenSourceError, TokenVariable
from watchword.credentials.target import PlaintextRefusedError
from watchword.identity import Identity, NoIdentityError, current_identity
from watchword.logs import MaskTokens
from watchword.policy import AUTHENTICATED, PUBLIC, Policy, PolicyError, Rule
from watchword.status import FieldViolation, error_info, field_violations, retry_delay_seconds
from watchword.verifier.contract import VerifierUnavailableError

__all__ = [
    "AUTHENTICATED",
    "PUBLIC",
    "FieldViolation",
    "Identity",
    "MaskTokens",
    "NoIdentityError",
    "PlaintextRefusedError",
    "Policy",
    "PolicyError",
    "RenewalStatus",
    "Rule",
    "StaticToken",
    "TokenFile",
    "TokenSource",
    "TokenSourceError",
    "TokenVariable",
    "VerifierUnavailableError",
    "current_identity",
    "error_info",
    "field_violations",
    "retry_delay_seconds",
]
