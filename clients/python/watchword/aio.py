"""For grpc.aio: protect a server, and call one.

    server = grpc.aio.server(interceptors=[ServerInterceptor(verifier, Policy(orders_pb2.DESCRIPTOR))])

where `verifier` is CachingVerifier(connect("authority:7600", token=TokenFile("..."))).
"""

from watchword.credentials.client_aio import bearer_interceptors, connect
from watchword.credentials.plugin import call_credentials
from watchword.credentials.renewing_aio import RenewingToken
from watchword.interceptor.server_aio import ServerInterceptor
from watchword.verifier.caching_aio import CachingVerifier
from watchword.verifier.remote_aio import RemoteVerifier

__all__ = [
    "CachingVerifier",
    "RemoteVerifier",
    "RenewingToken",
    "ServerInterceptor",
    "bearer_interceptors",
    "call_credentials",
    "connect",
]
