"""What is wrong with the documents of a KubeRay RayJob, as far as it can be told without a cluster.

The schema holds the fields that are used here, with the names and types of KubeRay's own definition; any
other field of these levels is an error, because Kubernetes would drop it without a word.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jsonschema
import ray

from etude.services.cluster_file import GROWTH, TAG

Document = Mapping[str, Any]


def _object(required: Sequence[str] = (), **fields: Any) -> dict[str, Any]:
    return {
        "type": "object", "properties": fields, "required": list(required), "additionalProperties": False,
    }  # fmt: skip


_TEXT, _COUNT, _SWITCH = {"type": "string"}, {"type": "integer", "minimum": 0}, {"type": "boolean"}
_TEXTS = {"type": "object", "additionalProperties": _TEXT}
_PODS = {
    "type": "object",
    "required": ["spec"],
    "properties": {
        "spec": {
            "type": "object",
            "required": ["containers"],
            "properties": {
                "containers": {
                    "type": "array",
                    "minItems": 1,
                    "items": {
                        "type": "object",
                        "required": ["name", "image", "resources"],
                        "properties": {"image": _TEXT},
                    },
                }
            },
        }
    },
}
_HEAD = _object(["template", "rayStartParams"], serviceType=_TEXT, rayStartParams=_TEXTS, template=_PODS)
_WORKERS = _object(
    ["groupName", "template", "rayStartParams", "minReplicas", "maxReplicas"],
    groupName=_TEXT, replicas=_COUNT, minReplicas=_COUNT, maxReplicas=_COUNT,
    rayStartParams=_TEXTS, template=_PODS, idleTimeoutSeconds=_COUNT,
)  # fmt: skip
_CLUSTER = _object(
    ["rayVersion", "headGroupSpec", "workerGroupSpecs"],
    rayVersion=_TEXT,
    authOptions=_object(["mode"], mode={"enum": ["disabled", "token"]}),
    enableInTreeAutoscaling=_SWITCH,
    autoscalerOptions=_object(
        version={"enum": ["v1", "v2"]},
        idleTimeoutSeconds=_COUNT,
        upscalingMode={"enum": ["Default", "Aggressive", "Conservative"]},
    ),
    headGroupSpec=_HEAD,
    workerGroupSpecs={"type": "array", "minItems": 1, "items": _WORKERS},
)
SCHEMA: dict[str, Any] = _object(
    ["apiVersion", "kind", "metadata", "spec"],
    apiVersion={"const": "ray.io/v1"},
    kind={"const": "RayJob"},
    metadata={"type": "object", "required": ["name"]},
    spec=_object(
        ["entrypoint", "rayClusterSpec"],
        entrypoint=_TEXT,
        submissionMode={"enum": ["K8sJobMode", "HTTPMode", "InteractiveMode", "SidecarMode"]},
        backoffLimit=_COUNT, shutdownAfterJobFinishes=_SWITCH, ttlSecondsAfterFinished=_COUNT,
        activeDeadlineSeconds=_COUNT, runtimeEnvYAML=_TEXT, rayClusterSpec=_CLUSTER,
    ),
)  # fmt: skip

DOCUMENT: dict[str, Any] = {
    "type": "object",
    "required": ["apiVersion", "kind", "metadata"],
    "properties": {
        "apiVersion": _TEXT, "kind": _TEXT, "spec": {"type": "object"},
        "metadata": {"type": "object", "required": ["name"], "properties": {"name": _TEXT}},
    },
}  # fmt: skip


def kuberay_problems(documents: Sequence[Document]) -> list[str]:
    """One sentence for each thing that is wrong with the file's RayJob and what stands beside it."""
    for number, one in enumerate(documents, 1):
        try:
            jsonschema.validate(one, DOCUMENT)
        except jsonschema.ValidationError as error:
            where = ".".join(["", *(str(part) for part in error.absolute_path)])
            return [f"document {number}{where}: {error.message}: Kubernetes takes no such document"]
    jobs = [one for one in documents if one["kind"] == "RayJob"]
    if len(jobs) != 1:
        return [f"the file holds {len(jobs)} documents of kind RayJob: one is needed"]
    try:
        jsonschema.validate(jobs[0], SCHEMA)
    except jsonschema.ValidationError as error:
        where = ".".join(str(part) for part in error.absolute_path) or "RayJob"
        return [f"{where}: {error.message}: KubeRay knows no such RayJob"]
    return [*_job(jobs[0]["spec"]), *_cluster(jobs[0]["spec"]["rayClusterSpec"]), *_beside(documents)]


def _job(spec: Document) -> Iterator[str]:
    if not spec.get("shutdownAfterJobFinishes"):
        yield "shutdownAfterJobFinishes must be true: the cluster would stay, and cost, after the job"
    if not spec["entrypoint"].startswith(f"{GROWTH} --kuberay "):
        yield f"entrypoint must begin with `{GROWTH} --kuberay`: the job would not know which pods may come"


def _cluster(cluster: Document) -> Iterator[str]:
    if cluster["rayVersion"] != ray.__version__:
        yield f"rayVersion is {cluster['rayVersion']}, but Ray {ray.__version__} is installed here"
    if cluster.get("authOptions", {}).get("mode") != "token":
        yield "authOptions.mode must be token: without it any pod may run code there"
    if not cluster.get("enableInTreeAutoscaling"):
        yield "enableInTreeAutoscaling must be true: workers begin at zero, and none would come"
    head, groups = cluster["headGroupSpec"], cluster["workerGroupSpecs"]
    if head["rayStartParams"].get("num-cpus") != "0":
        yield 'the head takes tasks: headGroupSpec.rayStartParams.num-cpus must be "0"'
    if not re.search(r'\\"train_driver\\": *\d', head["rayStartParams"].get("resources", "")):
        yield "the head offers no train_driver: rayStartParams.resources must name it as Ray's JSON in quotes"
    for group in (head, *groups):
        for container in group["template"]["spec"]["containers"]:
            if not TAG.fullmatch(container["image"].rpartition(":")[2]):
                yield f"{container['image']} is no image of Ray {ray.__version__} and of the Python used here"
    for group in groups:
        if group["minReplicas"] > group["maxReplicas"]:
            yield f"{group['groupName']}: minReplicas is above maxReplicas"


def _beside(documents: Sequence[Document]) -> Iterator[str]:
    kinds = {one.get("kind") for one in documents}
    if "NetworkPolicy" not in kinds:
        yield "there is no NetworkPolicy: any pod could reach MLflow, which asks for no password"
    for one in documents:
        if one["kind"] == "Service" and one.get("spec", {}).get("type", "ClusterIP") != "ClusterIP":
            yield f"the Service {one['metadata']['name']} is reachable from outside: type must be ClusterIP"
