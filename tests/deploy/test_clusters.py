"""The files for clusters pass Ray's schema and what it lacks; one thing wrong is named."""

import json
import re
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import yaml

from etude.services.cloud import examine_cluster
from etude.services.cluster_file import advice, images, problems, storage
from etude.services.kuberay_file import kuberay_problems

REPOSITORY = Path(__file__).resolve().parents[2]
FILES = ["cluster.yaml", "deploy/gcp.yaml", "deploy/on-premises.yaml"]
RAYJOB = "deploy/kuberay-rayjob.yaml"


def read(name: str) -> Any:
    """What a file holds, every place a value of its own, so that an edit changes one of YAML's anchored."""
    documents = list(yaml.safe_load_all((REPOSITORY / name).read_text()))
    found = json.loads(json.dumps(documents))
    return found if len(found) > 1 else found[0]


@pytest.mark.parametrize("name", FILES)
def test_a_file_for_a_cluster_has_no_problem(name: str) -> None:
    assert problems(read(name)) == []


@pytest.mark.parametrize("name", FILES)
def test_what_is_mounted_is_there_and_no_secret_goes_along(name: str) -> None:
    mounts = read(name)["file_mounts"]
    assert mounts.pop("/home/ray/.ray/auth_token") == "~/.ray/auth_token"
    assert all((REPOSITORY / local).exists() for local in mounts.values())
    needed = {"platform", "jobs", "search_spaces", "pyproject.toml", "constraints.txt", "assets.txt"}
    assert set(mounts.values()) == needed


def test_the_cluster_on_aws_grows_from_nothing_and_shrinks_again() -> None:
    config = read("cluster.yaml")
    workers = {name: kind for name, kind in config["available_node_types"].items() if name != "head"}
    assert [kind["min_workers"] for kind in workers.values()] == [0, 0]
    assert sum(kind["max_workers"] for kind in workers.values()) <= config["max_workers"]
    assert 0 < config["idle_timeout_minutes"] <= 15
    assert len(config["provider"]["availability_zone"].split(",")) > 1
    assert "InstanceMarketOptions" not in config["available_node_types"]["head"]["node_config"]
    assert storage(config) == "s3://my-etude-bucket/etude"
    assert set(images(config).values()) == {"rayproject/ray:2.60.0-py311", "rayproject/ray:2.60.0-py311-gpu"}


@pytest.mark.parametrize("name", FILES)
def test_servers_listen_where_the_cluster_alone_reaches_them(name: str) -> None:
    _, mlflow, start, *_ = read(name)["head_start_ray_commands"]
    assert "mlflow server --host $IP" in mlflow
    assert "--dashboard-host=127.0.0.1" in start
    # A DNS name would need --allowed-hosts; the private address is allowed by default.
    assert "MLFLOW_TRACKING_URI=http://$IP:5000" in start


@pytest.mark.parametrize("name", FILES)
def test_tasks_compute_with_as_many_threads_as_they_reserve(name: str) -> None:
    for key in (HEAD, WORKER):
        (start,) = (one for one in read(name)[key] if "ray start" in one)
        assert "unset OMP_NUM_THREADS" in start.partition("ray start")[0]  # which `ray up` sets to 1


HEAD, WORKER = "head_start_ray_commands", "worker_start_ray_commands"
Edit = Callable[[dict[str, Any]], object]


def without(key: str, index: int, text: str, instead: str = "") -> Edit:
    def edit(config: dict[str, Any]) -> None:
        assert text in config[key][index]
        config[key][index] = config[key][index].replace(text, instead)

    return edit


def head(config: dict[str, Any]) -> dict[str, Any]:
    kind: dict[str, Any] = config["available_node_types"]["head"]
    return kind


def gpu(config: dict[str, Any]) -> dict[str, Any]:
    kind: dict[str, Any] = config["available_node_types"]["gpu_worker"]
    return kind


BROKEN: list[tuple[Edit, str]] = [
    (lambda c: c.update(workers=3), "'workers' was unexpected"),
    (lambda c: c.pop("provider"), "provider is missing, or no section"),
    (lambda c: c.update(head_node_type="boss"), "head_node_type"),
    (lambda c: gpu(c).update(min_workers=9, max_workers=9), "max_workers` is smaller than the sum"),
    (lambda c: head(c)["resources"].update(train_driver=0.5), "not of type 'integer'"),
    (lambda c: c["docker"].update(image="rayproject/ray:2.59.0-py311"), r"docker\.image is .*2\.59\.0"),
    (lambda c: c["docker"].update(image="rayproject/ray:2.60.0-py312"), "py312, but Ray 2.60.0"),
    (lambda c: c["docker"].update(image="rayproject/ray:nightly-py311"), "begins with 2.60.0-py311"),
    (lambda c: gpu(c)["docker"].update(worker_image="rayproject/ray:latest"), "gpu_worker.docker"),
    (lambda c: c.pop("docker"), "docker.image is missing"),
    (lambda c: c.pop("setup_commands"), "Ray would install a nightly"),
    (lambda c: c["setup_commands"].pop(0), "torch==... first and alone"),
    (without("setup_commands", 1, "-c constraints.txt "), "other versions than you"),
    (lambda c: c["setup_commands"].append("pip install ray-3.0.0.dev0.whl"), "a nightly of Ray"),
    (lambda c: c[HEAD].pop(0), "head_start_ray_commands must begin with `ray stop`"),
    (lambda c: c[WORKER].pop(0), "worker_start_ray_commands must begin with `ray stop`"),
    (lambda c: c[WORKER].pop(1), "worker_start_ray_commands has no `ray start`"),
    (without(HEAD, 2, "RAY_AUTH_MODE=token "), "head_start_ray_commands must `export RAY_AUTH_MODE"),
    (without(WORKER, 1, "RAY_AUTH_MODE=token "), "worker_start_ray_commands must `export RAY_AUTH_MODE"),
    (without(HEAD, 2, "--autoscaling-config=~/ray_bootstrap_config.yaml"), "no machine would ever be added"),
    (lambda c: c[HEAD].pop(3), "jobs would not know which machines may come"),
    (without(WORKER, 1, "--address=$RAY_HEAD_IP:6379"), "clusters of their own"),
    (without(HEAD, 2, "--dashboard-host=127.0.0.1", "--dashboard-host=0.0.0.0"), "listens on 0.0.0.0"),
    (without(HEAD, 1, "--host $IP", "--host 0.0.0.0"), "listens on 0.0.0.0"),
    (lambda c: c["file_mounts"].pop("/home/ray/.ray/auth_token"), "file_mounts lack the token"),
    (lambda c: c["file_mounts"].update({"/home/ray/etude": "."}), "with the passwords of .env in it"),
    (lambda c: head(c)["resources"].update(CPU=4), "the head takes tasks"),
    (lambda c: head(c)["resources"].pop("train_driver"), "no train_driver"),
    (
        lambda c: head(c)["node_config"].update(InstanceMarketOptions={"MarketType": "spot"}),
        "the head is on the spot market",
    ),
    (lambda c: c["provider"].pop("cache_stopped_nodes"), "cache_stopped_nodes must be false"),
    (lambda c: gpu(c)["node_config"].pop("SecurityGroupIds"), "gpu_worker has no SecurityGroupIds"),
]


@pytest.mark.parametrize(("edit", "sentence"), BROKEN, ids=[sentence for _, sentence in BROKEN])
def test_one_thing_wrong_is_named(edit: Edit, sentence: str) -> None:
    config = read("cluster.yaml")
    edit(config)
    said = problems(config)
    assert any(re.search(sentence, one) for one in said), said


def test_a_head_of_ones_own_says_on_the_command_line_what_it_offers() -> None:
    config = read("deploy/on-premises.yaml")
    without(HEAD, 2, "--num-cpus=0 --resources='{\"train_driver\": 64}'")(config)
    assert [sentence.split(":")[0] for sentence in problems(config)] == [
        "the head takes tasks", "the head offers no train_driver",
    ]  # fmt: skip


def test_a_spot_machine_of_google_is_known_in_both_forms() -> None:
    config = read("deploy/gcp.yaml")
    node = config["available_node_types"]["gpu_worker"]["node_config"]
    node["scheduling"] = [{"provisioningModel": "SPOT"}]
    assert problems(config) == advice(config) == []
    node["scheduling"] = [{"onHostMaintenance": "TERMINATE"}]
    assert problems(config) == []
    assert "preemptible: true" in advice(config)[0]


def test_gpus_on_demand_are_allowed_and_their_price_is_named(tmp_path: Path) -> None:
    config = read("cluster.yaml")
    gpu(config)["node_config"].pop("InstanceMarketOptions")
    assert problems(config) == []
    path = tmp_path / "cluster.yaml"
    path.write_text(json.dumps(config))
    _, cost = islice(examine_cluster(path, REPOSITORY), 2)  # what follows asks AWS
    assert (cost.name, cost.state) == ("cost", "advice")
    assert "gpu_worker is not on the spot market" in cost.text


def test_a_rayjob_has_no_problem() -> None:
    assert kuberay_problems(read(RAYJOB)) == []


def test_the_one_server_that_listens_everywhere_says_why() -> None:
    lines = (REPOSITORY / RAYJOB).read_text().splitlines()
    places = [number for number, line in enumerate(lines) if "0.0.0.0" in line.partition("#")[0]]
    assert len(places) == 2
    assert all("#" in lines[number] or "0.0.0.0:" in lines[number - 1] for number in places)


def cluster(documents: list[Any]) -> Any:
    return documents[-1]["spec"]["rayClusterSpec"]


BROKEN_JOBS: list[tuple[Callable[[list[Any]], object], str]] = [
    (lambda d: d.pop(), "0 documents of kind RayJob"),
    (lambda d: d.insert(0, "text"), "document 1: 'text' is not of type 'object'"),
    (lambda d: d[0].update(kind=["x"]), r"document 1\.kind"),
    (lambda d: d[-1].pop("metadata"), "'metadata' is a required property"),
    (
        lambda d: cluster(d)["headGroupSpec"]["template"]["spec"]["containers"][0].update(image=5),
        "5 is not of type 'string'",
    ),
    (lambda d: cluster(d).pop("headGroupSpec"), "'headGroupSpec' is a required property"),
    (lambda d: cluster(d).update(authOption={"mode": "token"}), "'authOption' was unexpected"),
    (lambda d: cluster(d)["headGroupSpec"]["rayStartParams"].update({"num-cpus": 0}), "0 is not of type"),
    (lambda d: cluster(d).update(rayVersion="2.59.0"), "rayVersion is 2.59.0"),
    (lambda d: cluster(d)["authOptions"].update(mode="disabled"), "authOptions.mode must be token"),
    (lambda d: cluster(d).update(enableInTreeAutoscaling=False), "none would come"),
    (lambda d: cluster(d)["headGroupSpec"]["rayStartParams"].pop("num-cpus"), "the head takes tasks"),
    (lambda d: cluster(d)["headGroupSpec"]["rayStartParams"].pop("resources"), "no train_driver"),
    (lambda d: cluster(d)["workerGroupSpecs"][0].update(minReplicas=5), "minReplicas is above"),
    (
        lambda d: cluster(d)["workerGroupSpecs"][1]["template"]["spec"]["containers"][0].update(
            image="x:latest"
        ),
        "x:latest is no image of Ray 2.60.0",
    ),
    (lambda d: d[-1]["spec"].update(shutdownAfterJobFinishes=False), "would stay, and cost"),
    (lambda d: d.remove(next(one for one in d if one["kind"] == "NetworkPolicy")), "no NetworkPolicy"),
    (
        lambda d: next(one for one in d if one["kind"] == "Service")["spec"].update(type="LoadBalancer"),
        "etude-mlflow is reachable from outside",
    ),
]


@pytest.mark.parametrize(("edit", "sentence"), BROKEN_JOBS, ids=[sentence for _, sentence in BROKEN_JOBS])
def test_one_thing_wrong_with_a_rayjob_is_named(edit: Callable[[list[Any]], object], sentence: str) -> None:
    documents = read(RAYJOB)
    edit(documents)
    said = kuberay_problems(documents)
    assert any(re.search(sentence, one) for one in said), said
