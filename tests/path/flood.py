"""More checks than a server can answer, from a process of its own: as many at a time as it is told, until its standard
input ends. Prints how the calls ended.

    python -m tests.path.flood 127.0.0.1:7600 400
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections import Counter

import grpc

from watchword.status import error_info
from watchword.token import new_token, new_token_id
from watchword.v1 import token_service_pb2 as pb
from watchword.v1 import token_service_pb2_grpc

TOKENS_PER_CALL = 300
"""A few milliseconds of the server's time, in a request that is decoded before its caller is known."""
CALL_SECONDS_MAX = 60


async def flood(address: str, calls_at_a_time: int) -> Counter[str]:
    """Calls until standard input ends."""
    loop = asyncio.get_running_loop()
    commands = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(commands), sys.stdin)
    secret = (await commands.readline()).decode().strip()
    metadata = (("authorization", f"Bearer {secret}"),)
    junk = [new_token(new_token_id(2**47)).text.decode() for _ in range(TOKENS_PER_CALL)]
    request = pb.BatchValidateRequest(requests=[pb.ValidateRequest(token=token) for token in junk])
    ends: Counter[str] = Counter()

    async def call_again_and_again(stub: token_service_pb2_grpc.TokenServiceAsyncStub) -> None:
        while True:
            try:
                await stub.BatchValidate(request, metadata=metadata, timeout=CALL_SECONDS_MAX)
                ends["OK"] += 1
            except grpc.aio.AioRpcError as error:
                info = error_info(error)
                ends[error.code().name if info is None else info.reason] += 1

    async with grpc.aio.insecure_channel(address) as channel:
        stub = token_service_pb2_grpc.TokenServiceStub(channel)
        callers = [asyncio.create_task(call_again_and_again(stub)) for _ in range(calls_at_a_time)]
        _say("flooding")
        await commands.read()
        for caller in callers:
            caller.cancel()
        await asyncio.gather(*callers, return_exceptions=True)
    return ends


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    _say(json.dumps(asyncio.run(flood(sys.argv[1], int(sys.argv[2])))))
