"""For blocking gRPC: protect a thread-pool server, and call one.

    server = grpc.server(pool, interceptors=[ServerInterceptor(verifier, Policy(orders_pb2.DESCRIPTOR))])

where `verifier` is CachingVerifier(connect("authority:7600", token=TokenFile("..."))).
"""

from watchword.credentials.client_sync import bearer_interceptor, connect
from watchword.credentials.plugin import call_credentials
from watchword.credentials.renewing_sync import RenewingToken
from watchword.interceptor.server_sync import ServerInterceptor
from watchword.verifier.caching_sync import CachingVerifier
from watchword.verifier.remote_sync import RemoteVerifier

__all__ = [
    "CachingVerifier",
    "RemoteVerifier",
    "RenewingToken",
    "ServerInterceptor",
    "bearer_interceptor",
    "call_credentials",
    "connect",
]
