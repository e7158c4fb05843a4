"""The seam between an interceptor and whoever judges tokens: contract, verdicts, and a caching verifier's settings."""

from watchword.verifier.contract import (
    BlockingVerifier,
    BoundCounter,
    ImmediateVerifier,
    OpenStream,
    StreamGates,
    Verifier,
    VerifierUnavailableError,
)
from watchword.verifier.limits import CacheLimits
from watchword.verifier.misses import MissLimits
from watchword.verifier.status import Measurement, VerifierStatus
from watchword.verifier.verdict import Active, Answer, Bindings, Bound, Inactive, Insufficient, Position, Verdict

__all__ = [
    "Active",
    "Answer",
    "Bindings",
    "BlockingVerifier",
    "Bound",
    "BoundCounter",
    "CacheLimits",
    "ImmediateVerifier",
    "Inactive",
    "Insufficient",
    "Measurement",
    "MissLimits",
    "OpenStream",
    "Position",
    "StreamGates",
    "Verdict",
    "Verifier",
    "VerifierStatus",
    "VerifierUnavailableError",
]
