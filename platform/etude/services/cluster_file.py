"""What is wrong with a file for `ray up`, beyond what Ray's own schema says. Nothing is asked over a network.

    problems(yaml.safe_load(Path("cluster.yaml").read_text()))   -> sentences, none if all is well

Each sentence names the key and what to write there. Every check is a function from the file to sentences.
"""

import contextlib
import copy
import io
import logging
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import click
import jsonschema
import ray

Config = Mapping[str, Any]
PYTHON = f"py{sys.version_info[0]}{sys.version_info[1]}"
TAG = re.compile(rf"{re.escape(ray.__version__)}-{PYTHON}(-[a-z0-9]+)?")
STARTS = ("head_start_ray_commands", "worker_start_ray_commands")
BOOTSTRAP = "~/ray_bootstrap_config.yaml"
GROWTH = "python -m etude.services.growth"
TOKEN = "/.ray/auth_token"
# What is read here and in cloud.py, where Ray's schema takes anything.
_TEXT, _TEXTS = {"type": "string"}, {"type": "array", "items": {"type": "string"}}
_AWS_NODE = {
    "required": ["InstanceType", "ImageId"],
    "properties": {
        "InstanceType": _TEXT, "ImageId": _TEXT, "SecurityGroupIds": _TEXTS,
        "InstanceMarketOptions": {"type": "object"},
    },
}  # fmt: skip
_RULES = {"anyOf": [{"type": "object"}, {"type": "array", "items": {"type": "object"}}]}
SHAPE: dict[str, Any] = {
    "properties": {
        "provider": {
            "required": ["type"],
            "properties": {"type": _TEXT},
            "if": {"properties": {"type": {"const": "aws"}}},
            "then": {"required": ["region"], "properties": {"region": _TEXT}},
        },
        "docker": {
            "properties": {
                "image": _TEXT,
                "head_image": _TEXT,
                "worker_image": _TEXT,
                "run_options": _TEXTS,
                "head_run_options": _TEXTS,
                "worker_run_options": _TEXTS,
            }
        },
        "file_mounts": {"type": "object", "additionalProperties": _TEXT},
        "available_node_types": {
            "additionalProperties": {
                "properties": {
                    "node_config": {"type": "object", "properties": {"scheduling": _RULES}},
                    "docker": {"properties": {"worker_image": _TEXT}},
                }
            }
        },
    },
    "patternProperties": {"_commands$": _TEXTS},
    "if": {"properties": {"provider": {"properties": {"type": {"const": "aws"}}}}},
    "then": {
        "properties": {
            "available_node_types": {"additionalProperties": {"properties": {"node_config": _AWS_NODE}}}
        }
    },
}


def problems(config: Config) -> list[str]:
    """A sentence for each thing that would fail, cost more, or stand open; of a broken file the first."""
    broken = schema_problem(config)
    return [broken] if broken else [sentence for check in CHECKS for sentence in check(config)]


def advice(config: Config) -> list[str]:
    """What would cost less in a file without problems; it may be meant as it is."""
    return [
        f"{name} is not on the spot market, where GPUs cost less than half: "
        "InstanceMarketOptions: {MarketType: spot}, for Google preemptible: true"
        for name, kind in node_types(config).items()
        if kind.get("resources", {}).get("GPU") and not _spot(kind)
    ]


def schema_problem(config: Config) -> str | None:
    """What Ray's schema and its defaults say against a file; they are private to Ray and used only here."""
    from ray.autoscaler._private.util import prepare_config, validate_config

    logging.getLogger("ray.autoscaler").setLevel(logging.ERROR)  # it tells what it fills in
    if not isinstance(config.get("provider"), dict):
        return "provider is missing, or no section: is this a file for `ray up`? compare it with cluster.yaml"
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            validate_config(prepare_config(copy.deepcopy(dict(config))))
    except jsonschema.ValidationError as error:
        where = ".".join(str(part) for part in error.absolute_path) or "the file's top"
        return f"{where}: {error.message}: Ray takes no such file"
    except (
        ValueError, RuntimeError, LookupError, TypeError, AttributeError, AssertionError,
        click.ClickException,
    ) as error:  # fmt: skip
        return f"Ray cannot use this file ({error or type(error).__name__}): compare it with cluster.yaml"
    for problem in jsonschema.Draft202012Validator(SHAPE).iter_errors(config):
        where = ".".join(str(part) for part in problem.absolute_path)
        return f"{where}: {problem.message}: write it as cluster.yaml does"
    return None


def storage(config: Config) -> str | None:
    """The ETUDE_STORAGE that the containers are given."""
    for option in config.get("docker", {}).get("run_options", []):
        if found := re.search(r"\bETUDE_STORAGE=(\S+)", option):
            return found[1]
    return None


def images(config: Config) -> dict[str, str]:
    """Every image that is named, by its key."""
    docker = config.get("docker", {})
    found = {f"docker.{key}": docker[key] for key in ("image", "head_image", "worker_image") if key in docker}
    for name, kind in node_types(config).items():
        if image := kind.get("docker", {}).get("worker_image"):
            found[f"available_node_types.{name}.docker.worker_image"] = image
    return found


def node_types(config: Config) -> Mapping[str, Any]:
    """The kinds of machines by name; none for machines that are there already."""
    types: Mapping[str, Any] = config.get("available_node_types") or {}
    return types


def _versions(config: Config) -> Iterator[str]:
    if not config.get("docker", {}).get("image"):
        yield f"docker.image is missing: rayproject/ray:{ray.__version__}-{PYTHON} pins Ray and Python"
    for key, image in images(config).items():
        if not TAG.fullmatch(image.rpartition(":")[2]):
            yield (
                f"{key} is {image}, but Ray {ray.__version__} and Python {PYTHON} are installed here: "
                f"take an image whose tag begins with {ray.__version__}-{PYTHON}"
            )


def _setup(config: Config) -> Iterator[str]:
    commands = config.get("setup_commands") or []
    installs = [command for command in commands if "pip install" in command]
    if not installs:
        yield "setup_commands install nothing, so Ray would install a nightly: copy cluster.yaml's"
    elif "torch==" not in installs[0] or "-e" in installs[0].split():
        yield "setup_commands must install torch==... first and alone: or another package chooses which"
    elif not any("-c constraints.txt" in command for command in installs):
        yield "setup_commands lack -c constraints.txt: nodes would have other versions than you"
    for command in _commands(config):
        if re.search(r"ray-wheels|\d\.dev0|rayproject/ray:nightly", command):
            yield f"a nightly of Ray is asked for by `{command.strip()[:60]}`: the image brings Ray"


def _starts(config: Config) -> Iterator[str]:
    for key in STARTS:
        commands = config.get(key) or []
        if not commands or commands[0].split() != ["ray", "stop"]:
            yield f"{key} must begin with `ray stop`: a second `ray up` would meet the Ray that runs"
        start = _ray_start(config, key)
        if not start:
            yield f"{key} has no `ray start`: copy cluster.yaml's"
        elif not re.search(r"export [^;&]*\bRAY_AUTH_MODE=token\b", start):
            yield f"{key} must `export RAY_AUTH_MODE=token` before `ray start`: without it anybody may join"
    head, worker = (_ray_start(config, key) for key in STARTS)
    if head and f"--autoscaling-config={BOOTSTRAP}" not in head:
        yield f"{STARTS[0]} lack --autoscaling-config={BOOTSTRAP}: no machine would ever be added"
    if _grows(config) and not any(f"{GROWTH} {BOOTSTRAP}" in one for one in config.get(STARTS[0]) or []):
        yield f"{STARTS[0]} lack `{GROWTH} {BOOTSTRAP}`: jobs would not know which machines may come"
    if worker and "--address=$RAY_HEAD_IP:" not in worker:
        yield "worker_start_ray_commands lack --address=$RAY_HEAD_IP:6379: clusters of their own would start"


def _mounts(config: Config) -> Iterator[str]:
    mounts: Mapping[str, str] = config.get("file_mounts") or {}
    if not any(target.endswith(TOKEN) for target in mounts):
        yield f"file_mounts lack the token: /home/ray{TOKEN}: ~{TOKEN}, so that containers see it"
    for local in mounts.values():
        name = local.rstrip("/").rpartition("/")[2]
        if name in ("", ".", "..", "~", ".env", ".git"):
            yield f"file_mounts hold {local!r}, with the passwords of .env in it: name what nodes need"


def _head(config: Config) -> Iterator[str]:
    start = _ray_start(config, STARTS[0])
    kind = node_types(config).get(config.get("head_node_type", ""))
    if kind is None:  # a local provider: Ray is told on the command line
        tasks, drivers = "--num-cpus=0" not in start, "train_driver" in start
    else:
        resources = kind.get("resources", {})
        tasks, drivers = resources.get("CPU") != 0, resources.get("train_driver", 0) > 0
        if _spot(kind):
            yield "the head is on the spot market: everything ends when it is taken back; take it on demand"
    if tasks:
        yield "the head takes tasks: give it CPU: 0, or they crowd out drivers and MLflow"
    if not drivers:
        yield "the head offers no train_driver: drivers of trials would land on spot machines"


def _workers(config: Config) -> Iterator[str]:
    if any(_spot(kind) for kind in node_types(config).values()) and config["provider"].get(
        "cache_stopped_nodes", config["provider"]["type"] == "aws"
    ):
        yield "provider.cache_stopped_nodes must be false: spot machines cannot be stopped, only ended"


def _open(config: Config) -> Iterator[str]:
    for command in _commands(config):
        if "0.0.0.0" in command:
            yield f"`{command.strip()[:60]}` listens on 0.0.0.0: name 127.0.0.1, or the private address"
    if config["provider"]["type"] == "aws":
        for name, kind in node_types(config).items():
            if not kind["node_config"].get("SecurityGroupIds"):
                yield (
                    f"{name} has no SecurityGroupIds: Ray would make a group whose port 22 the world "
                    "reaches; name one of your own"
                )


CHECKS: tuple[Callable[[Config], Iterator[str]], ...] = (
    _versions, _setup, _starts, _mounts, _head, _workers, _open,
)  # fmt: skip


def _commands(config: Config) -> list[str]:
    keys = [key for key in config if key.endswith("_commands")]
    return [command for key in keys for command in config[key] or []]


def _grows(config: Config) -> bool:
    return any(
        kind.get("max_workers", 1) > kind.get("min_workers", 0) for kind in node_types(config).values()
    )


def _ray_start(config: Config, key: str) -> str:
    return next((command for command in config.get(key) or [] if "ray start" in command), "")


def _spot(kind: Mapping[str, Any]) -> bool:
    node = kind.get("node_config", {})
    scheduling = node.get("scheduling", [])
    rules: dict[str, Any] = {}
    for rule in [scheduling] if isinstance(scheduling, dict) else scheduling:
        rules |= rule
    return bool(
        node.get("InstanceMarketOptions", {}).get("MarketType") == "spot"
        or rules.get("preemptible")
        or rules.get("provisioningModel") == "SPOT"
    )
