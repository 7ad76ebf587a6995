"""How far a cluster grows: read from its file or from Kubernetes, told to Ray, and counted with."""

import datetime
import ipaddress
import json
import os
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import ray
import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from ray.autoscaler._private.kuberay import node_provider

from etude.cluster import largest, room_for
from etude.data.ray_data import Cluster, cluster
from etude.errors import UserError
from etude.services.daemon import free_port
from etude.services.growth import Kind, announce, kinds, of_kuberay

REPOSITORY = Path(__file__).resolve().parents[2]


def test_the_file_for_aws_says_how_far_its_cluster_grows() -> None:
    assert kinds(yaml.safe_load((REPOSITORY / "cluster.yaml").read_text())) == [
        Kind("head", {"train_driver": 64}, 1, 1),
        Kind("cpu_worker", {"CPU": 16}, 0, 4),
        Kind("gpu_worker", {"CPU": 8, "GPU": 1}, 0, 4),
    ]


def test_no_kind_goes_beyond_the_whole_cluster() -> None:
    config = {
        "head_node_type": "head", "max_workers": 3,
        "available_node_types": {
            "head": {"resources": {"CPU": 2}}, "without_limit": {"resources": {"CPU": 1}},
            "many": {"resources": {"CPU": 1}, "min_workers": 1, "max_workers": 9},
            "unknown": {"resources": {}},
        },
    }  # fmt: skip
    assert [(kind.name, kind.least, kind.most) for kind in kinds(config)] == [
        ("head", 1, 1), ("without_limit", 0, 3), ("many", 1, 3),
    ]  # fmt: skip


@pytest.mark.parametrize(
    "config",
    [
        None, [], "text", {"max_workers": 3},
        {"head_node_type": "a", "max_workers": 0.5, "available_node_types": {"b": {"resources": {"CPU": 1}}}},
        {
            "head_node_type": "a", "max_workers": 1,
            "available_node_types": {"b": {"resources": {"CPU": float("inf")}}},
        },
    ],
)  # fmt: skip
def test_another_file_is_refused(config: Any) -> None:
    with pytest.raises(UserError, match="this configures no autoscaler"):
        kinds(config)


@pytest.fixture
def head(ray_session: None) -> Iterator[str]:
    """The address of a head that is told how far it grows, for the time of a test."""
    address = ray.get_runtime_context().gcs_address
    yield address
    announce([], address)


def test_what_may_come_is_counted_with(head: str) -> None:
    assert cluster() == Cluster(cpus=2, gpus=0, grows=False)
    assert room_for({"CPU": 16}) == 0
    announce(kinds(yaml.safe_load((REPOSITORY / "cluster.yaml").read_text())), head)
    # The CPUs of machines with GPUs are not brought for preparing.
    assert cluster() == Cluster(cpus=64, gpus=4, grows=True)
    assert room_for({"CPU": 16}) == 4
    assert room_for({"CPU": 1, "GPU": 0.5}) == 8
    assert room_for({"CPU": 17}) == 0
    assert (largest("CPU"), largest("GPU")) == (16, 1)


def test_the_command_tells_a_running_head(head: str, tmp_path: Path) -> None:
    done = growth({"RAY_ADDRESS": head}, str(REPOSITORY / "cluster.yaml"))
    assert done.returncode == 0, done.stderr
    assert "4 x cpu_worker" in done.stdout
    assert room_for({"CPU": 16}) == 4


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["cluster.yaml"], "no Ray head answers at 127.0.0.1"),
        (["README.md"], "README.md cannot be read as YAML"),
        (["nowhere.yaml"], "nowhere.yaml cannot be read"),
        (["--kuberay", "true"], "this is no pod of KubeRay"),
        (["--kuberay"], "--kuberay needs a COMMAND"),
    ],
)
def test_what_is_wrong_is_one_sentence(words: list[str], sentence: str) -> None:
    done = growth({"RAY_ADDRESS": f"127.0.0.1:{free_port()}"}, *words)
    assert done.returncode == 2
    assert sentence in done.stderr
    assert "Traceback" not in done.stderr


def growth(environment: dict[str, str], *words: str) -> "subprocess.CompletedProcess[str]":
    """Run the command as a head's start commands do."""
    return subprocess.run(
        [sys.executable, "-m", "etude.services.growth", *words],
        env={**os.environ, **environment}, cwd=REPOSITORY, capture_output=True, text=True, check=False,
        timeout=400,
    )  # fmt: skip


class FakeKubernetes(BaseHTTPRequestHandler):
    """Stands in for Kubernetes: one RayCluster over TLS, for who has the account's token."""

    def do_GET(self) -> None:
        allowed = self.headers["Authorization"] == "Bearer the-account"
        found = self.path == "/apis/ray.io/v1/namespaces/etude/rayclusters/etude-tune-x7"
        self.send_response(200 if allowed and found else 404 if allowed else 403)
        self.end_headers()
        if allowed and found:
            self.wfile.write(json.dumps(ray_cluster()).encode())

    def log_message(self, *arguments: Any) -> None: ...


def ray_cluster() -> dict[str, Any]:
    """What KubeRay's operator makes of our RayJob."""
    job = list(yaml.safe_load_all((REPOSITORY / "deploy/kuberay-rayjob.yaml").read_text()))[-1]
    return {
        "metadata": {"name": "etude-tune-x7", "namespace": "etude"}, "spec": job["spec"]["rayClusterSpec"],
    }  # fmt: skip


@pytest.fixture
def account(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The account of a pod, with a Kubernetes that knows it."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "kubernetes")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(hours=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False
        )
        .sign(key, hashes.SHA256())
    )
    (tmp_path / "ca.crt").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    (tmp_path / "key").write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    (tmp_path / "token").write_text("the-account")
    (tmp_path / "namespace").write_text("etude")
    server = ThreadingHTTPServer(("127.0.0.1", 0), FakeKubernetes)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "ca.crt", tmp_path / "key")
    server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setattr(node_provider, "IN_CLUSTER_TOKEN_PATH", str(tmp_path / "token"))
    monkeypatch.setattr(node_provider, "IN_CLUSTER_CA_CERT_PATH", str(tmp_path / "ca.crt"))
    monkeypatch.setattr(
        node_provider.url_from_resource, "__defaults__",
        ("v1", f"https://127.0.0.1:{server.server_port}"),
    )  # fmt: skip
    yield tmp_path
    server.shutdown()
    server.server_close()


def test_kubernetes_says_how_far_a_rayjob_grows(account: Path) -> None:
    head, cpu, gpu = kinds(of_kuberay("etude-tune-x7", account))
    assert (head.resources["train_driver"], head.most) == (64, 1)
    assert (cpu.name, cpu.resources["CPU"], cpu.most) == ("cpu-worker", 15, 4)
    assert (gpu.resources["CPU"], gpu.resources["GPU"], gpu.least, gpu.most) == (7, 1, 0, 4)


def test_an_account_without_the_right_is_told_so(account: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ray.autoscaler._private.kuberay.autoscaling_config.RAYCLUSTER_FETCH_RETRY_S", 0)
    (account / "token").write_text("another")
    with pytest.raises(UserError, match="enableInTreeAutoscaling"):
        of_kuberay("etude-tune-x7", account)
