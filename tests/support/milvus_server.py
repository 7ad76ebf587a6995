"""milvus-lite on a port, and a library of random vectors to fill it with."""

import base64
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import numpy as np
from numpy.typing import NDArray

from etude.sources.base import Track


class TokenCheck(grpc.ServerInterceptor):  # type: ignore[misc]
    """A stand-in for the authorisation of a Milvus server, which milvus-lite lacks.

    As Milvus's proxy does, it answers every call without the right token with the status UNAUTHENTICATED.
    What it says beside that repeats the token that came, as no server should.
    """

    def __init__(self, token: str) -> None:
        self.token = token

    def intercept_service(self, continuation: Any, details: Any) -> Any:
        header = dict(details.invocation_metadata).get("authorization", "")
        came = base64.b64decode(header).decode()
        if came == self.token:
            return continuation(details)

        def refuse(request: Any, context: Any) -> None:
            context.abort(grpc.StatusCode.UNAUTHENTICATED, f"auth check failure, {came} is not correct")

        return grpc.unary_unary_rpc_method_handler(refuse)


@contextmanager
def milvus_server(folder: Path, check: TokenCheck | None = None) -> Iterator[str]:
    """The address at which a database in `folder` is served, to whoever passes `check`."""
    from milvus_lite.adapter.grpc.servicer import MilvusServicer  # it imports pymilvus, which a test watches
    from milvus_lite.db import MilvusLite
    from pymilvus.grpc_gen import milvus_pb2_grpc

    database = MilvusLite(str(folder))
    server = grpc.server(ThreadPoolExecutor(4), interceptors=[check] if check else [])
    milvus_pb2_grpc.add_MilvusServiceServicer_to_server(MilvusServicer(database), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        server.stop(grace=0).wait()
        database.close()


def tracks(n: int) -> list[Track]:
    return [Track(f"t-{i:04d}", f"{i}.wav", f"Track {i}") for i in range(n)]


def vectors(n: int, dim: int = 24, seed: int = 0) -> NDArray[np.float32]:
    return np.random.default_rng(seed).normal(size=(n, dim)).astype(np.float32)


def exact(query_D: NDArray[np.floating], library_ND: NDArray[np.floating], k: int) -> list[tuple[str, float]]:
    """The k nearest by cosine, computed one by one in float64; equal ones in the order of their ids."""
    query = query_D.astype(np.float64)
    cosines = [
        float(row @ query / np.sqrt((row @ row) * (query @ query))) for row in library_ND.astype(np.float64)
    ]
    order = sorted(range(len(cosines)), key=lambda i: (-round(cosines[i], 6), i))[:k]
    return [(f"t-{i:04d}", cosines[i]) for i in order]
