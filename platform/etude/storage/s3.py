"""Files in a bucket of S3, or of a server that speaks its protocol.

What is busy, slow or cut off is asked again with growing pauses, and a download is whole or fails. What
asking again cannot mend (no credentials, no such bucket, forbidden) is one sentence at the first use.
"""

import functools
import posixpath
import random
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import parse_qsl, unquote, urlencode, urlsplit

import boto3
import pyarrow as pa
from boto3.s3.transfer import TransferConfig
from botocore.config import Config
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    EndpointConnectionError,
    FlexibleChecksumError,
    NoCredentialsError,
    PartialCredentialsError,
)
from pyarrow import fs
from s3transfer.utils import S3_RETRYABLE_DOWNLOAD_ERRORS as CUT_OFF

from etude.errors import StorageError, UserError

ATTEMPTS = 8  # with pauses of 1, 2, 4 ... 20 s, less a random share: together a minute at most
FIRST_ATTEMPTS = 3  # of the first question, which shows what is configured wrongly
CONNECT_S = 5.0
READ_S = 20.0  # without a single byte
HASTY_CONNECT_S, HASTY_READ_S = 3.0, 5.0
BATCH = 1000  # keys that one request may delete
OPTIONS = frozenset({"endpoint_override", "region", "scheme"})  # named as pyarrow names them
MISSING = frozenset({"404", "NoSuchKey"})
TRANSFER = TransferConfig(num_download_attempts=ATTEMPTS, max_concurrency=4)
KEYS = "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, ~/.aws/credentials or the machine's role"


@dataclass(frozen=True)
class S3Address:
    """A place in a bucket: `s3://bucket/path?endpoint_override=127.0.0.1:9000&scheme=http&region=...`."""

    bucket: str
    path: str
    options: Mapping[str, str] = field(default_factory=dict, hash=False)

    @staticmethod
    def parse(text: str) -> "S3Address":
        """Raises UserError, which quotes no secret, for anything else."""
        url = urlsplit(text)
        if "@" in url.netloc:
            raise UserError(f"the address of an S3 bucket holds a password: give it by {KEYS} instead")
        if url.scheme != "s3" or not url.netloc:
            raise UserError(f"{text} is neither a folder nor an address such as s3://bucket/folder")
        options = dict(parse_qsl(url.query))
        if any("@" in value for value in options.values()):
            raise UserError(f"an option of an S3 address holds a password: give it by {KEYS} instead")
        if strange := sorted(options.keys() - OPTIONS):
            raise UserError(
                f"an S3 address has no option {strange[0]}: it may have {', '.join(sorted(OPTIONS))}"
            )
        return S3Address(url.netloc, unquote(url.path).strip("/"), options)

    def below(self, path: str) -> "S3Address":
        """The place at a relative path."""
        joined = posixpath.normpath(posixpath.join("/", self.path, path)).strip("/")
        return S3Address(self.bucket, joined, self.options)

    @property
    def endpoint(self) -> str | None:
        """The server's URL, None if the environment or AWS's own says."""
        host = self.options.get("endpoint_override")
        return None if host is None else f"{self.options.get('scheme', 'https')}://{host}"

    def __str__(self) -> str:
        query = f"?{urlencode(self.options, safe=':')}" if self.options else ""
        path = self.path.replace("%", "%25").replace("?", "%3F").replace("#", "%23")
        return f"s3://{self.bucket}/{path}".rstrip("/") + query


class Bucket:
    """The objects whose keys begin with a path."""

    def __init__(self, clients: "Clients", address: S3Address) -> None:
        self.client, self.hasty = clients
        self.where = address

    @staticmethod
    def at(address: S3Address) -> "Bucket":
        """Asks the server, once a process, whether the bucket is there. Raises StorageError if it is not."""
        with _opening:
            clients = _clients(address.bucket, address.endpoint, address.options.get("region"))
        return Bucket(clients, address)

    @property
    def path(self) -> str:
        return self.where.path

    def address(self, path: str) -> str:
        return str(self.where.below(path))

    def object(self, path: str) -> dict[str, str]:
        """The words by which boto3 names an object."""
        return {"Bucket": self.where.bucket, "Key": self.where.below(path).path}

    def read(self, path: str) -> bytes | None:
        with told(self.where):
            for attempt in range(1, ATTEMPTS + 1):
                try:
                    return bytes(self.client.get_object(**self.object(path))["Body"].read())
                except ClientError as error:
                    if code_of(error) in MISSING:
                        return None
                    raise
                except (
                    *CUT_OFF,
                    FlexibleChecksumError,
                ):  # while the answer came: that, boto3 does not ask again
                    if attempt == ATTEMPTS:
                        raise
                    time.sleep(min(20.0, 2.0**attempt) * random.random())
        raise AssertionError("either an answer or an error")

    def write(self, path: str, data: "bytes | memoryview | pa.Buffer") -> None:
        whole = pa.py_buffer(data)
        with told(self.where):  # an object shows only once it is whole
            if whole.size < TRANSFER.multipart_threshold:
                self.client.put_object(**self.object(path), Body=whole.to_pybytes())
            else:
                self.client.upload_fileobj(pa.BufferReader(whole), **self.object(path), Config=TRANSFER)

    def append(self, path: str, data: bytes) -> None:
        self.write(path, (self.read(path) or b"") + data)

    def stat(self, path: str) -> tuple[str, int] | None:
        """The entity tag, which changes with the content, and bytes."""
        with told(self.where):
            try:
                found = self.client.head_object(**self.object(path))
            except ClientError as error:
                if code_of(error) in MISSING:
                    return None
                raise
            return found["ETag"], found["ContentLength"]

    def paths(self, folder: str) -> Iterator[str]:
        """Every object below a folder."""
        base = f"{self.where.path}/" if self.where.path else ""
        prefix = f"{self.where.below(folder).path}/".lstrip("/")
        with told(self.where):
            pages = self.client.get_paginator("list_objects_v2").paginate(
                Bucket=self.where.bucket, Prefix=prefix
            )
            for page in pages:
                for found in page.get("Contents", ()):
                    yield found["Key"].removeprefix(base)

    def delete_all(self, paths: Iterable[str]) -> None:
        keys = [{"Key": self.object(path)["Key"]} for path in paths]
        with told(self.where):
            for start in range(0, len(keys), BATCH):
                answer = self.client.delete_objects(
                    Bucket=self.where.bucket, Delete={"Objects": keys[start : start + BATCH], "Quiet": True}
                )
                if failed := answer.get("Errors"):
                    raise StorageError(f"{self.where} keeps {failed[0]['Key']}: {failed[0]['Code']}")

    def download(self, path: str, to: Path) -> None:
        with told(self.where):
            try:
                self.client.download_file(**self.object(path), Filename=str(to), Config=TRANSFER)
            except ClientError as error:
                if code_of(error) in MISSING:
                    raise FileNotFoundError(self.address(path)) from None
                raise

    def free_bytes(self) -> int | None:
        return None

    def arrow(self) -> tuple[fs.FileSystem | None, str]:
        """Credentials are found again, by the same rules, for they change on a machine that has a role."""
        url = urlsplit(self.client.meta.endpoint_url)
        own = not url.netloc.endswith(".amazonaws.com")
        filesystem = fs.S3FileSystem(
            region=self.client.meta.region_name,
            scheme=url.scheme,
            endpoint_override=url.netloc if own else None,
            connect_timeout=CONNECT_S,
            request_timeout=READ_S,
            retry_strategy=fs.AwsStandardS3RetryStrategy(max_attempts=ATTEMPTS),
        )
        return filesystem, f"{self.where.bucket}/{self.where.path}".rstrip("/")


class Clients(NamedTuple):
    """Of one bucket: for all that can wait, and for what must be done, or have failed, in 17 s."""

    patient: Any
    hasty: Any


_opening = threading.Lock()


@functools.cache
def _clients(bucket: str, endpoint: str | None, region: str | None) -> Clients:
    """Clients that may be used by several threads, of a bucket that answered.

    A redirection to the bucket's own region is followed, and that region is then kept to.
    """
    session = boto3.session.Session()
    region = region or session.region_name or "us-east-1"

    def client(region: str, attempts: int, connect_s: float = CONNECT_S, read_s: float = READ_S) -> Any:
        retries = {"mode": "standard", "total_max_attempts": attempts}
        config = Config(
            connect_timeout=connect_s, read_timeout=read_s, retries=retries, max_pool_connections=32
        )
        return session.client("s3", region_name=region, endpoint_url=endpoint, config=config)

    with told(S3Address(bucket, "")):
        answer = client(region, FIRST_ATTEMPTS).head_bucket(Bucket=bucket)
    region = str(answer.get("BucketRegion") or region)
    return Clients(client(region, ATTEMPTS), client(region, 2, HASTY_CONNECT_S, HASTY_READ_S))


def code_of(error: ClientError) -> str:
    """What the server calls an error, such as `NoSuchKey`."""
    return str(error.response.get("Error", {}).get("Code", ""))


@contextmanager
def told(address: S3Address) -> Iterator[None]:
    """Turns what boto3 raises inside into one sentence, a StorageError."""
    where = f"s3://{address.bucket}"
    try:
        yield
    except (NoCredentialsError, PartialCredentialsError) as error:
        raise StorageError(f"there are no credentials for {where}: give them by {KEYS}") from error
    except EndpointConnectionError as error:
        raise StorageError(f"no server answers for {where}: check the network and its endpoint") from error
    except ClientError as error:
        code = code_of(error)
        status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode")
        if code == "NoSuchBucket" or (code == "404" and error.operation_name == "HeadBucket"):
            reason = f"there is no bucket {where}: create it, or name another"
        elif status in (401, 403):
            reason = f"{where} forbids it ({code}): check the credentials and what they may do there"
        else:
            reason = (
                f"{where} did not do {error.operation_name} ({code}), asked several times: try again later"
            )
        raise StorageError(reason) from error
    except (BotoCoreError, boto3.exceptions.Boto3Error, ConnectionError, TimeoutError) as error:
        raise StorageError(f"{where} answers badly ({type(error).__name__}): try again later") from error
