"""Whether a Ray head can be used from here: seconds until a sentence, where Ray itself tries for minutes."""

import http.client
import json
import os
import urllib.error
import urllib.request
from urllib.parse import urlsplit

import grpc
import ray
from ray._private.authentication.http_token_authentication import get_auth_headers_if_auth_enabled
from ray._private.grpc_utils import init_grpc_channel  # with the token, as every client of Ray
from ray._private.services import canonicalize_bootstrap_address
from ray._raylet import AuthenticationTokenLoader  # type: ignore[attr-defined]
from ray.core.generated.gcs_service_pb2 import CheckAliveRequest
from ray.core.generated.gcs_service_pb2_grpc import NodeInfoGcsServiceStub
from ray.exceptions import AuthenticationError

from etude.errors import UserError

TIMEOUT_S = 5.0
TOKEN_ADVICE = (
    "give it the cluster's token: export RAY_AUTH_MODE=token, and the token in ~/.ray/auth_token or in the "
    "file that RAY_AUTH_TOKEN_PATH names"
)


def require_head(address: str, timeout_s: float = TIMEOUT_S) -> None:
    """Ask the head at `host:port` whether it is alive; it says its version only to those with its token.

    Raises UserError if nothing answers in `timeout_s`, the token is missing or wrong, or its Ray is another.
    """
    if address.lower().startswith(("http://", "https://")):
        raise UserError(
            f"RAY_ADDRESS is {address}, a dashboard: submit there with ray job submit --address, or set "
            "RAY_ADDRESS to the head's host:6379"
        )
    require_token()
    channel = init_grpc_channel(address)
    try:
        reply = NodeInfoGcsServiceStub(channel).CheckAlive(CheckAliveRequest(), timeout=timeout_s)
    except grpc.RpcError as error:
        if error.code() in (grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED):
            raise UserError(_refused(f"the Ray head at {address}")) from None
        reason = error.code().name.lower().replace("_", " ")
        raise UserError(
            f"no Ray head answers at {address} ({reason}): is the cluster up, the address right, and "
            "does a firewall let this machine in?"
        ) from None
    finally:
        channel.close()
    _same_version(f"the Ray head at {address}", reply.ray_version)


def require_dashboard(address: str, timeout_s: float = TIMEOUT_S) -> str:
    """The version of the cluster with the dashboard `address`, http://host:8265, where jobs are submitted.

    Raises UserError as `require_head` does.
    """
    _require_url(address)
    require_token()
    url = f"{address.rstrip('/')}/api/version"
    request = urllib.request.Request(url, headers=get_auth_headers_if_auth_enabled({}))
    try:
        with urllib.request.urlopen(request, timeout=timeout_s) as answer:
            version = str(json.load(answer)["ray_version"])
    except urllib.error.HTTPError as error:
        if error.code in (401, 403):
            raise UserError(_refused(f"the Ray head behind {address}")) from None
        raise UserError(f"{address} answers with status {error.code}, not as a Ray dashboard does") from None
    except (ValueError, KeyError, TypeError, http.client.HTTPException):
        raise UserError(f"{address} does not answer as a Ray dashboard does: its port is 8265") from None
    except OSError as error:
        reason = error.reason if isinstance(error, urllib.error.URLError) else error
        raise UserError(
            f"no Ray dashboard answers at {address} ({reason}): is `ray dashboard cluster.yaml` running?"
        ) from None
    _same_version(f"the Ray head behind {address}", version)
    return version


def find_head() -> str:
    """The address of this machine's head, or of the one that RAY_ADDRESS names.

    Raises UserError if there is none.
    """
    try:
        return str(canonicalize_bootstrap_address("auto"))
    except ConnectionError as error:
        raise UserError("no Ray head runs here: start it first, or name it in RAY_ADDRESS") from error


def _require_url(address: str) -> None:
    try:
        parts = urlsplit(address)
        good = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        good = False
    if not good or any(letter.isspace() for letter in address):
        raise UserError(f"{address!r} is no dashboard's address: give http://HOST:8265")


def require_token() -> None:
    """Raises UserError if RAY_AUTH_MODE asks for a token and there is none, or none that can be read."""
    if os.environ.get("RAY_AUTH_MODE") != "token":
        return
    try:
        found = AuthenticationTokenLoader.instance().has_token()
    except AuthenticationError:
        found = False
    if not found:
        raise UserError(f"RAY_AUTH_MODE is token and there is no token to be read: {TOKEN_ADVICE}")


def _refused(who: str) -> str:
    if os.environ.get("RAY_AUTH_MODE") != "token":
        return f"{who} wants a token and none was sent: {TOKEN_ADVICE}"
    return f"{who} refuses the token, which is another cluster's: {TOKEN_ADVICE}"


def _same_version(who: str, version: str) -> None:
    if version != ray.__version__:
        raise UserError(
            f"{who} runs Ray {version}, here is {ray.__version__}: take the image rayproject/ray:"
            f"{ray.__version__}-py311 for the cluster, or install the cluster's version here"
        )
