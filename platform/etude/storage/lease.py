"""A lease: an object on S3 that one process makes and keeps renewing, and another may take when it stops.

All of it rests on conditional writes, and on the server's clock alone.
"""

import atexit
import contextlib
import logging
import signal
import threading
import time
import uuid
from collections.abc import Mapping
from email.utils import parsedate_to_datetime

from botocore.exceptions import ClientError

from etude.errors import StorageError
from etude.storage.s3 import MISSING, Bucket, code_of, told

STALE_S = 60.0  # without renewal a lease is free
LOST_S = 35.0  # without renewal its holder stops, well before others take it
RENEW_S = 10.0  # with 17 s until a renewal has failed, 54 s at most pass before the holder stops
TRIES = 5
NOT_SO = frozenset({"PreconditionFailed", "412", "ConditionalRequestConflict", "409"})
log = logging.getLogger(__name__)


class Lease:
    """An object on S3 whose metadata say who holds it, written anew by a thread."""

    def __init__(self, bucket: Bucket, path: str) -> None:
        self._bucket = bucket
        self._client = bucket.client
        self._thread = threading.Thread(target=self._keep, name="lease", daemon=True)
        self._object = bucket.object(path)
        self._over = threading.Event()
        self._me: Mapping[str, str] = {}
        self._tag = ""  # changes whenever the object is written
        self._renewed = 0.0
        self._taken = self.interrupts = False

    @property
    def lost(self) -> bool:
        """Whether another has it or may have it, also if this process slept or no thread renews it."""
        return self._taken or time.monotonic() - self._renewed > LOST_S

    def take(self, me: Mapping[str, str]) -> dict[str, str] | None:
        """None if it is held now, else who holds it."""
        self._me = me
        other: dict[str, str] = {}
        for _ in range(TRIES):
            if self._write(IfNoneMatch="*") or self._is_mine():
                self._begin()
                return None
            found = self._look()
            if found is None:
                continue  # it was released meanwhile
            other, tag, age_s = found
            if age_s <= STALE_S:
                return other
            if self._write(IfMatch=tag) or self._is_mine():
                self._begin()
                return None
        return other

    def _begin(self) -> None:
        atexit.register(self.release)
        self._client = self._bucket.hasty
        self._thread.start()

    def release(self) -> None:
        """Let another have it at once; done at the end of the process too, unless that is killed."""
        self._over.set()
        atexit.unregister(self.release)
        self._thread.join()
        self._client = self._bucket.client
        try:
            if not self.lost and self._is_mine():
                self._delete()
        except StorageError as error:
            log.warning("%s; the lock in %s is free for others in %g s", error, self._bucket.where, STALE_S)

    def _delete(self) -> None:
        with told(self._bucket.where):
            try:
                self._client.delete_object(**self._object, IfMatch=self._tag)
            except ClientError as error:  # as the second try finds it if the answer to the first was lost
                if code_of(error) not in NOT_SO | MISSING:
                    raise

    def _keep(self) -> None:
        while not self._over.wait(RENEW_S):
            with contextlib.suppress(StorageError):  # nobody answers: another cannot have taken it either
                self._taken = not (self._write(IfMatch=self._tag) or self._is_mine())
            if self.lost:
                if self.interrupts and not self._over.is_set():
                    signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
                return

    def _write(self, **condition: str) -> bool:
        """Say who holds it, on a condition, and whether that was met."""
        asked = time.monotonic()
        body = uuid.uuid4().hex.encode()  # never twice the same, so that the tag changes
        with told(self._bucket.where):
            try:
                answer = self._client.put_object(
                    **self._object, Body=body, Metadata=dict(self._me), **condition
                )
            except ClientError as error:
                if code_of(error) in NOT_SO | MISSING:
                    return False
                raise
        self._tag, self._renewed = answer["ETag"], asked
        return True

    def _is_mine(self) -> bool:
        """Whether a write was done, though its answer was lost and the next try found it done."""
        asked = time.monotonic()
        found = self._look()
        if found is None or found[0].get("owner") != self._me["owner"]:
            return False
        self._tag, self._renewed = found[1], asked - found[2]
        return True

    def _look(self) -> tuple[dict[str, str], str, float] | None:
        """Who holds it, its tag, and how long ago that was written, by the server's clock; None if nobody."""
        with told(self._bucket.where):
            try:
                answer = self._client.head_object(**self._object)
            except ClientError as error:
                if code_of(error) in MISSING:
                    return None
                raise
        now = parsedate_to_datetime(answer["ResponseMetadata"]["HTTPHeaders"]["date"])
        return answer["Metadata"], answer["ETag"], (now - answer["LastModified"]).total_seconds()
