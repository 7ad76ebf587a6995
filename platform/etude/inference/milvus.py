"""A connection to Milvus: to a server, or to an embedded database that this process alone serves and reads.

Nothing here was tried on a real server: the tests run milvus-lite, which speaks the same protocol.
"""

import logging
import os
import shutil
import tempfile
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import urlsplit

from pydantic import Field, field_validator, model_validator

from etude.config import MASK, Secret, Section
from etude.errors import UserError

if TYPE_CHECKING:
    from pymilvus import MilvusClient

CONNECT_S = 5
CALL_S = 60
EMBEDDED = "milvus.db"  # below the folder that `open_milvus` is given
# They write every failed call to stderr with its traceback, although it is raised as well; the last one that
# milvus-lite lacks a method, AllocTimestamp, which pymilvus does without.
_TALKATIVE = ("pymilvus", "pymilvus.milvus_client", "pymilvus.bulk_writer", "milvus_lite", "grpc._server")


class MilvusConfig(Section):
    """Where the vectors lie that are searched, and under which name."""

    uri: str | None = Field(
        None,
        description="http://HOST:19530 of a server, or the path of an embedded database",
    )
    token: Secret | None = Field(None, description="of a server: user:password, or a key")
    collection: str = Field(
        "etude",
        pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,199}$",
        description="what readers name: replaced as a whole",
    )
    reduce_to: int = Field(
        1024,
        ge=1,
        le=4096,
        description="directions kept of vectors beyond the 32,768 numbers of Milvus",
    )

    @field_validator("uri")
    @classmethod
    def _address_or_path(cls, uri: str | None) -> str | None:
        if uri is None:
            return uri
        if "://" not in uri:
            if not uri.strip():
                raise ValueError("it is empty: give http://HOST:19530, or a path")
            return uri
        try:
            parts = urlsplit(uri)
            known = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
        except ValueError:  # the port is none
            known = False
        if not known:
            raise ValueError("it must be http://HOST:19530 or https://..., or a path")
        if parts.username or parts.password:
            raise ValueError("it holds a user or a password: put them into milvus.token as user:password")
        return uri

    @model_validator(mode="after")
    def _token_for_a_server(self) -> Self:
        if self.token is not None and not self.serves_elsewhere:
            raise ValueError("token goes with a server, and an embedded database has none: leave it out")
        return self

    @property
    def serves_elsewhere(self) -> bool:
        """Whether a server is meant, rather than an embedded database."""
        return self.uri is not None and "://" in self.uri


class Milvus:
    """An open connection; `open_milvus` makes one. It closes with `close`, `with`, or the process."""

    def __init__(self, client: "MilvusClient", place: str, token: str, end: Callable[[], None]) -> None:
        self.client = client
        self.place = place  # for sentences
        self._token = token
        self.close = weakref.finalize(self, _close, client, end)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @contextmanager
    def told(self, what: str) -> Iterator[None]:
        """Within it, what Milvus refuses becomes a UserError that says what was tried and where."""
        import grpc
        from pymilvus import MilvusException

        try:
            yield
        except (MilvusException, grpc.RpcError) as error:
            reason = error.message if isinstance(error, MilvusException) else str(error.details())
            if self._token:
                reason = reason.replace(self._token, MASK)
            raise UserError(f"cannot {what} in {self.place}: {_one_line(reason)}") from None


def open_milvus(config: MilvusConfig, folder: Path) -> Milvus:
    """Connect to the server that `config` names, or open the embedded database, by default below `folder`.

    Raises UserError if the server is down, refuses the token or is no Milvus, or if the database cannot be
    used, is none, or is open elsewhere.
    """
    pymilvus = _quiet_pymilvus()
    token = config.token.get_secret_value() if config.token else ""
    if config.serves_elsewhere:
        assert config.uri is not None
        place, address, end = config.uri, config.uri, _nothing
    else:
        path = (Path(config.uri) if config.uri else folder / EMBEDDED).expanduser().absolute()
        place = str(path)
        address, end = _serve(path)
    try:
        client = pymilvus.MilvusClient(uri=address, token=token, timeout=CONNECT_S, dedicated=True)
    except pymilvus.MilvusException as error:
        end()
        raise UserError(_refusal(error, place)) from None
    return Milvus(client, place, token, end)


def _quiet_pymilvus() -> Any:
    """pymilvus, without what its import does to the process.

    It would read a `.env` above its own folder into the environment, and stop at an unusual MILVUS_URI. It
    reports to nobody but the server.
    """
    kept = {name: os.environ.get(name) for name in ("PYTHON_DOTENV_DISABLED", "MILVUS_URI")}
    os.environ |= {"PYTHON_DOTENV_DISABLED": "1", "MILVUS_URI": ""}
    try:
        import pymilvus
    finally:
        for name, value in kept.items():
            os.environ.pop(name)
            if value is not None:
                os.environ[name] = value
    for name in _TALKATIVE:
        logging.getLogger(name).setLevel(logging.CRITICAL)
    return pymilvus


def _serve(path: Path) -> tuple[str, Callable[[], None]]:
    """Serve an embedded database within this process: its address, and what ends it.

    Through a socket in a folder that its owner alone may enter. milvus-lite knows no passwords, and its own
    way, a port of the loopback, is open to whoever is on this machine.
    """
    import grpc
    from milvus_lite.adapter.grpc.servicer import MilvusServicer
    from milvus_lite.db import MilvusLite
    from milvus_lite.exceptions import DataDirLockedError
    from pymilvus.grpc_gen import milvus_pb2_grpc

    other = "give another milvus.uri"
    try:
        if path.is_file():
            raise UserError(f"{path} is a file, and milvus-lite's databases are folders: {other}")
        if path.is_dir() and any(path.iterdir()) and not (path / "collections").is_dir():
            raise UserError(f"{path} holds other things than a database of milvus-lite: {other}")
        database = MilvusLite(str(path))
    except DataDirLockedError:
        raise UserError(
            f"{path} is open already, and an embedded database serves one command at a time: wait until that "
            "has ended, or run a Milvus server and give its address as milvus.uri"
        ) from None
    except OSError as error:
        raise UserError(f"cannot use {path} for vectors: {error.strerror or error}; {other}") from None
    folder = tempfile.mkdtemp(prefix="etude-milvus-")
    unbounded = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
    server = grpc.server(ThreadPoolExecutor(4), options=unbounded)
    milvus_pb2_grpc.add_MilvusServiceServicer_to_server(MilvusServicer(database), server)
    address = f"unix:{folder}/socket"
    server.add_insecure_port(address)
    server.start()

    def end() -> None:
        server.stop(grace=CONNECT_S).wait()
        database.close()
        shutil.rmtree(folder, ignore_errors=True)

    return address, end


def _close(client: "MilvusClient", end: Callable[[], None]) -> None:
    client.close()
    end()


def _nothing() -> None:
    pass


def _refusal(error: Any, place: str) -> str:
    """Why a connection failed, from the gRPC status behind pymilvus's error, which is the same for all."""
    import grpc

    status = error.__cause__.code() if isinstance(error.__cause__, grpc.RpcError) else None
    if status in (grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED):
        return f"{place} refuses milvus.token: set ETUDE_MILVUS__TOKEN=user:password, or a key, in .env"
    if status == grpc.StatusCode.UNIMPLEMENTED:
        return (
            f"{place} is no Milvus server, or too old a one: give the address of its gRPC port, "
            "usually http://HOST:19530"
        )
    return (
        f"no Milvus server answers at {place} within {CONNECT_S} s: start it, or correct milvus.uri; without "
        "milvus.uri an embedded database is used"
    )


def _one_line(text: str) -> str:
    return " ".join(text.split())[:300]
