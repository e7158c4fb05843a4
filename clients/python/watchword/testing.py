"""For the tests of services that Watchword protects: an authority in the process, or served on a loopback port.

authority = FakeAuthority()
token = authority.issue("alice", scopes=["orders.read"])
server = grpc.aio.server(interceptors=[ServerInterceptor(authority.verifier("orders"), policy)])
"""

from watchword.fake_authority import BlockingFakeVerifier, FakeAuthority, FakeVerifier, ReportedUse
from watchword.fake_service import serve

__all__ = ["BlockingFakeVerifier", "FakeAuthority", "FakeVerifier", "ReportedUse", "serve"]
