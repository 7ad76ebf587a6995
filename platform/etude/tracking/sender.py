"""Delivers to MLflow in the background, so that nobody who trains waits for a server.

Checkpoints are the spool: their history holds every epoch with its time, so what a killed process had not
delivered is sent again from there. MLflow keeps a point that comes twice with the same time once.
"""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from mlflow.entities import Metric, Param, RunTag
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from etude.config import mask
from etude.errors import UserError
from etude.tracking import NO_FIGURES

QUEUE = 10_000  # deliveries; a longer outage of a large sweep is made up for from checkpoints
FIRST_PAUSE_S = 1.0
LONGEST_PAUSE_S = 15.0
REFUSALS = (401, 403)
_PARAMS_A_BATCH = 100  # MLflow's own limit
AGAIN = "nothing is lost, see to the server and give the same command again"
T = TypeVar("T")
log = logging.getLogger(__name__)


class Sender:
    """Delivers in order in a thread of its own, again and again while the server is away; never raises."""

    def __init__(self, uri: str) -> None:
        """Asks the server nothing yet."""
        self.uri = uri
        self._client = MlflowClient(tracking_uri=uri, registry_uri=uri)
        self._queue: deque[Callable[[], None]] = deque()
        self._changed = threading.Condition()
        self._at_work = False
        self._there: dict[str, set[int]] = {}  # epochs by run that the server has
        self._given_up = 0
        self._reason = "no answer yet"

    def __reduce__(self) -> tuple[Any, ...]:
        return Sender, (self.uri,)  # Ray Tune stores its callbacks, and threads cannot be stored

    def log_history(self, run_id: str, history: Sequence[Mapping[str, float]]) -> None:
        """Hand over the figures of epochs; those that the server has are not sent again."""
        epochs = [(int(entry["epoch"]), _points(entry)) for entry in history]
        if epochs:
            self._put(lambda: self._send_epochs(run_id, epochs))

    def log_params(self, run_id: str, config: Mapping[str, Any]) -> None:
        """Hand over a nested configuration with dotted keys; what was logged before stays."""
        self._put(lambda: send_params(self._client, run_id, config))

    def tag(self, run_id: str, tags: Mapping[str, str]) -> None:
        """Hand over tags."""
        told = [RunTag(key, value) for key, value in tags.items()]
        self._put(lambda: self._client.log_batch(run_id, tags=told))

    def end(self, run_id: str, status: str, at_ms: float | None = None) -> None:
        """Hand over a final status, FINISHED, FAILED or KILLED, of a run that ended now or at a time."""
        ended = int(at_ms or time.time() * 1000)
        self._put(lambda: self._client.set_terminated(run_id, status, ended))

    def flush(self, timeout_s: float) -> str:
        """Wait until all is delivered, at most so long; says what is not, and is empty if nothing is left."""
        with self._changed:
            self._changed.wait_for(lambda: not self._queue, timeout_s)
            left = len(self._queue) + self._given_up
        told = f"MLflow at {mask(self.uri)} has not taken all that was to be logged"
        return f"{told} ({left} left, {self._reason})" if left else ""

    @property
    def waiting(self) -> int:
        """Deliveries that are still to be made."""
        return len(self._queue)

    def _put(self, deliver: Callable[[], None]) -> None:
        with self._changed:
            if len(self._queue) >= QUEUE:
                self._given_up += 1
                return
            self._queue.append(deliver)
            if not self._at_work:
                self._at_work = True
                threading.Thread(target=self._work, name="mlflow sender", daemon=True).start()

    def _work(self) -> None:
        """Deliver until nothing is left."""
        away, pause = False, FIRST_PAUSE_S
        while True:
            with self._changed:
                if not self._queue:
                    self._at_work = False
                    return
                deliver = self._queue[0]
            try:
                deliver()
            except Exception as error:
                self._reason = reason(error)
                if is_away(error):
                    if not away:
                        log.warning(
                            "MLflow at %s does not answer (%s): work goes on, what is to be logged waits",
                            mask(self.uri), self._reason,
                        )  # fmt: skip
                    away = True
                    time.sleep(pause)
                    pause = min(2 * pause, LONGEST_PAUSE_S)
                    continue
                log.warning("MLflow at %s refused what was to be logged: %s", mask(self.uri), self._reason)
                self._given_up += 1
            else:
                if away:
                    log.warning("MLflow at %s answers again: what waited is delivered", mask(self.uri))
                away, pause = False, FIRST_PAUSE_S
            with self._changed:
                self._queue.popleft()
                self._changed.notify_all()

    def _send_epochs(self, run_id: str, epochs: Sequence[tuple[int, list[Metric]]]) -> None:
        """One request an epoch, so that the server has all of its figures or none."""
        if run_id not in self._there:
            known = self._client.get_metric_history(run_id, epochs[0][1][0].key)
            self._there[run_id] = {point.step for point in known}
        for step, points in epochs:
            if step not in self._there[run_id]:
                self._client.log_batch(run_id, metrics=points)
                self._there[run_id].add(step)


def patiently(call: Callable[[], T], uri: str, patience_s: float) -> T:
    """The answer of a call that is made again while the server is away.

    Raises UserError after that time, or at once if the server is there and refuses.
    """
    until, pause, told = time.monotonic() + patience_s, FIRST_PAUSE_S, False
    while True:
        try:
            return call()
        except MlflowException as error:
            if not is_away(error):
                raise refusal(error, uri) from error
            said = f"MLflow at {mask(uri)} does not answer ({reason(error)})"
            if time.monotonic() + pause > until:
                raise UserError(f"{said}: {AGAIN}") from error
            if not told:
                log.warning("%s: waiting up to %.0f s for it", said, patience_s)
                told = True
        time.sleep(pause)
        pause = min(2 * pause, LONGEST_PAUSE_S)


def is_away(error: Exception) -> bool:
    """Whether a server may answer otherwise later: out of reach, overloaded, or failing in itself."""
    if not isinstance(error, MlflowException):
        return False
    status: int = error.get_http_status_code()
    return status >= 500 or status == 429


def refusal(error: MlflowException, uri: str) -> UserError:
    """What a user is told of a server that answers, and does not do what it is asked."""
    if error.get_http_status_code() in REFUSALS:
        return refused(uri)
    return UserError(f"MLflow at {mask(uri)} refuses ({reason(error)}): {AGAIN}")


def refused(uri: str) -> UserError:
    """What a user is told of a server that does not know who this is, or does not let them."""
    return UserError(
        f"MLflow at {mask(uri)} does not let you in: set MLFLOW_TRACKING_USERNAME and "
        "MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN, to what its owner gave you"
    )


def reason(error: Exception) -> str:
    """The cause in an error of MLflow's client, in a part of a line, without secrets."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return str(mask(lines[0].rpartition("Caused by ")[2]))[:200].rstrip(")")


def send_params(client: MlflowClient, run_id: str, config: Mapping[str, Any]) -> None:
    """Log the parameters of a nested configuration that a run does not have yet."""
    known = set(client.get_run(run_id).data.params)
    flat = {k: str(v)[:6000] for k, v in _flatten(mask(config)).items() if k not in known}
    params = [Param(key, value) for key, value in flat.items()]
    for start in range(0, len(params), _PARAMS_A_BATCH):
        client.log_batch(run_id, params=params[start : start + _PARAMS_A_BATCH])


def _points(entry: Mapping[str, float]) -> list[Metric]:
    """An epoch's figures, sorted: the first is one that every epoch has."""
    at_ms, step = int(entry["at_ms"]), int(entry["epoch"])
    names = sorted(entry.keys() - set(NO_FIGURES))
    return [Metric(name, float(entry[name]), at_ms, step) for name in names]


def _flatten(value: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, item in value.items():
        if isinstance(item, Mapping):
            flat |= _flatten(item, f"{prefix}{key}.")
        else:
            flat[prefix + key] = item
    return flat
