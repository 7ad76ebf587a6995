"""What is wrong with an account shows before a machine is started; a real server speaks AWS's protocols."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
import yaml
from aiohttp import web
from moto.server import ThreadedMotoServer

from etude.errors import UserError
from etude.services import cloud
from etude.services.cloud import QUOTAS, Cluster, examine_cluster
from etude.services.daemon import free_port
from etude.services.findings import Finding
from tests.support.serving import serving

REPOSITORY = Path(__file__).resolve().parents[2]
REGION = "us-west-2"
IMAGE = "ami-12c6146b"  # one of those that moto brings


@pytest.fixture(scope="module")
def moto() -> Iterator[str]:
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    address = "http://{}:{}".format(*server.get_host_and_port())
    keys = {"aws_access_key_id": "AKIAPLANTED", "aws_secret_access_key": "planted-secret"}
    iam = boto3.client("iam", region_name=REGION, endpoint_url=address, **keys)
    for name in ("etude-head", "etude-worker"):
        iam.create_instance_profile(InstanceProfileName=name)
    yield address
    server.stop()


@pytest.fixture
def quotas() -> Iterator[tuple[dict[str, float], str]]:
    """vCPUs by quota code, and the address of a service that tells them: moto knows no quotas of EC2."""
    allowed = dict.fromkeys(QUOTAS.values(), 256.0)

    async def answer(request: web.Request) -> web.Response:
        asked = json.loads(await request.read())
        assert request.headers["X-Amz-Target"].endswith(".GetServiceQuota")
        assert asked["ServiceCode"] == "ec2"
        return web.json_response({"Quota": {"Value": allowed[asked["QuotaCode"]]}})

    app = web.Application()
    app.router.add_post("/", answer)
    with serving(app) as port:
        yield allowed, f"http://127.0.0.1:{port}"


@pytest.fixture
def aws(moto: str, quotas: tuple[dict[str, float], str], monkeypatch: pytest.MonkeyPatch) -> Any:
    """Credentials and addresses as a shell would have them; an EC2 client."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_ENDPOINT_URL", moto)
    monkeypatch.setenv("AWS_ENDPOINT_URL_SERVICE_QUOTAS", quotas[1])
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nonexistent")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAPLANTED")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "planted-secret")
    return boto3.client("ec2", region_name=REGION)


@pytest.fixture
def folder(aws: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository with an edited cluster.yaml, a token, and all that it names on AWS."""
    for name in ("platform", "jobs", "search_spaces"):
        (tmp_path / name).mkdir()
    for name in ("pyproject.toml", "constraints.txt", "assets.txt"):
        shutil.copy(REPOSITORY / name, tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    token = tmp_path / ".ray" / "auth_token"
    token.parent.mkdir()
    token.write_text("planted-token")
    token.chmod(0o600)
    s3 = boto3.client("s3", region_name=REGION)
    name = f"etude-{tmp_path.name.replace('_', '-')}"
    s3.create_bucket(Bucket=name, CreateBucketConfiguration={"LocationConstraint": REGION})
    vpc = aws.describe_vpcs(Filters=[{"Name": "is-default", "Values": ["true"]}])["Vpcs"][0]["VpcId"]
    group = aws.create_security_group(GroupName=tmp_path.name, Description="etude", VpcId=vpc)["GroupId"]
    aws.authorize_security_group_ingress(
        GroupId=group, IpProtocol="tcp", FromPort=22, ToPort=22, CidrIp="203.0.113.7/32"
    )
    text = (REPOSITORY / "cluster.yaml").read_text()
    for old, new in {
        "my-etude-bucket": name, "sg-00000000000000000": group, "ami-00000000000000000": IMAGE,
    }.items():  # fmt: skip
        assert old in text
        text = text.replace(old, new)
    (tmp_path / "cluster.yaml").write_text(text)
    return tmp_path


def found(folder: Path) -> dict[str, Finding]:
    findings = {one.name: one for one in examine_cluster(folder / "cluster.yaml", folder)}
    assert not any("planted" in str(one) for one in findings.values())
    return findings


def cluster(folder: Path) -> Cluster:
    return Cluster(yaml.safe_load((folder / "cluster.yaml").read_text()), folder)


def changed(folder: Path, old: str, new: str) -> None:
    path = folder / "cluster.yaml"
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))


def test_all_is_well(folder: Path) -> None:
    findings = found(folder)
    names = ["file", "token", "mounts", "account", "bucket", "machines", "quota"]
    assert {name: one.state for name, one in findings.items()} == dict.fromkeys(names, "ok"), findings
    assert "G and VT spot 32 of 256 vCPUs" in findings["quota"].text
    assert "standard on demand 68 of 256" in findings["quota"].text
    bucket = findings["bucket"].text.split("/")[2]
    assert "Contents" not in boto3.client("s3", region_name=REGION).list_objects_v2(Bucket=bucket)


def test_without_credentials_one_sentence_says_so(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    findings = found(folder)
    assert list(findings)[-1] == "account"
    assert str(findings["account"]).endswith(
        "no AWS credentials here: run `aws configure`, or set AWS_PROFILE"
    )


def test_an_account_that_does_not_answer_is_told(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{free_port()}")
    assert "AWS does not answer: Could not connect" in str(found(folder)["account"])


def test_what_aws_denies_is_told_in_its_words(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def deny(request: web.Request) -> web.Response:
        error = "<Error><Code>AccessDenied</Code><Message>You may not.</Message></Error>"
        return web.Response(status=403, text=error, content_type="text/xml")

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", deny)
    with serving(app) as port:
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", f"http://127.0.0.1:{port}")
        with pytest.raises(
            UserError, match=r"You may not \(AccessDenied\): allow it in IAM; deploy/README\.md"
        ):
            cloud.bucket(cluster(folder))


def test_a_bucket_that_is_not_there_or_elsewhere_is_told(folder: Path) -> None:
    text = (folder / "cluster.yaml").read_text()
    name = text.split("ETUDE_STORAGE=s3://")[1].split("/")[0]
    changed(folder, name, "nobody-has-this")
    with pytest.raises(UserError, match=r"\(NoSuchBucket\): make it with `aws s3 mb`"):
        cloud.bucket(cluster(folder))
    boto3.client("s3", region_name="us-east-1").create_bucket(Bucket=f"{name}-east")
    changed(folder, "nobody-has-this", f"{name}-east")
    with pytest.raises(UserError, match=r"is in us-east-1, the machines in us-west-2"):
        cloud.bucket(cluster(folder))
    changed(folder, f"s3://{name}-east/etude", "/mnt/share")
    with pytest.raises(UserError, match=r"give s3://bucket/prefix"):
        cloud.bucket(cluster(folder))


def test_a_quota_that_is_too_small_is_told_with_its_code(
    folder: Path, quotas: tuple[dict[str, float], str]
) -> None:
    quotas[0]["L-3819A6DF"] = 0.0  # a new account's, for GPUs on the spot market
    with pytest.raises(
        UserError, match=r"VT, spot, have 32 vCPUs, and your quota L-3819A6DF in us-west-2 is 0"
    ):
        cloud.quota(cluster(folder))


@pytest.mark.parametrize("those", ["0.0.0.0/0", "128.0.0.0/1"])
def test_a_group_open_to_the_internet_is_a_problem(folder: Path, aws: Any, those: str) -> None:
    group = yaml.safe_load((folder / "cluster.yaml").read_text())["available_node_types"]["head"]
    aws.authorize_security_group_ingress(
        GroupId=group["node_config"]["SecurityGroupIds"][0],
        IpProtocol="tcp", FromPort=8265, ToPort=8265, CidrIp=those,
    )  # fmt: skip
    with pytest.raises(UserError, match=r"lets the whole internet in"):
        cloud.machines(cluster(folder))


def test_values_that_were_not_edited_are_found(folder: Path) -> None:
    shutil.copy(REPOSITORY / "cluster.yaml", folder)
    with pytest.raises(
        UserError, match=r"head could not be started: The security group .*sg-00000000000000000"
    ):
        cloud.machines(cluster(folder))


def test_a_token_that_is_missing_or_open_to_others_is_told(folder: Path) -> None:
    token = folder / ".ray" / "auth_token"
    token.chmod(0o644)
    with pytest.raises(UserError, match=r"chmod 600 ~/.ray/auth_token"):
        cloud.token(cluster(folder))
    token.unlink()
    with pytest.raises(UserError, match=r"ray get-auth-token --generate"):
        cloud.token(cluster(folder))


def test_a_token_that_is_no_text_or_hidden_by_another_is_told(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    token = folder / ".ray" / "auth_token"
    token.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match=r"cannot be read .*it should hold the token, as text"):
        cloud.token(cluster(folder))
    token.unlink()
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", "/elsewhere")  # then `ray get-auth-token` writes no file
    with pytest.raises(UserError, match=r"unset RAY_AUTH_TOKEN_PATH.*then ray get-auth-token --generate"):
        cloud.token(cluster(folder))
    changed(folder, "~/.ray/auth_token  #", "~nobody-here/.ray/auth_token  #")
    with pytest.raises(UserError, match=r"no such user's home"):
        cloud.token(cluster(folder))


def test_an_aws_profile_that_is_not_there_is_one_sentence(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_PROFILE", "nosuch")
    assert "(nosuch) could not be found: name one of those" in found(folder)["account"].text


def test_half_a_key_is_not_taken_for_silence_of_aws(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    assert "AWS was not asked: Partial credentials" in found(folder)["account"].text


def test_a_family_without_a_known_quota_hides_no_other(
    folder: Path, quotas: tuple[dict[str, float], str]
) -> None:
    quotas[0]["L-3819A6DF"] = 0.0
    config = yaml.safe_load((folder / "cluster.yaml").read_text())
    config["available_node_types"]["cpu_worker"]["node_config"]["InstanceType"] = "inf1.xlarge"
    with pytest.raises(UserError, match=r"your quota L-3819A6DF in us-west-2 is 0"):
        cloud.quota(Cluster(config, folder))


def test_a_kind_without_a_limit_counts_with_that_of_the_cluster(folder: Path) -> None:
    config = yaml.safe_load((folder / "cluster.yaml").read_text())
    del config["available_node_types"]["gpu_worker"]["max_workers"]
    assert "G and VT spot 64 of 256 vCPUs" in cloud.quota(Cluster(config, folder))


@pytest.mark.parametrize(
    "edit",
    [
        lambda c: c["available_node_types"].update(head=5),
        lambda c: c["available_node_types"]["head"]["node_config"].pop("ImageId"),
        lambda c: c["available_node_types"]["head"]["node_config"].update(InstanceType=[1]),
        lambda c: c["available_node_types"]["gpu_worker"]["node_config"].update(InstanceMarketOptions="spot"),
        lambda c: c["file_mounts"].update({"/home/ray/etude/jobs": None}),
        lambda c: c.update(file_mounts=["jobs"]),
        lambda c: c["docker"].update(run_options=[{"a": 1}]),
        lambda c: c["docker"].pop("container_name"),
        lambda c: c["provider"].pop("region"),
        lambda c: c["provider"].pop("type"),
        lambda c: c.update(setup_commands=[["pip install x"]]),
        lambda c: c.pop("head_node_type"),
    ],
)
def test_a_wrong_type_deep_inside_is_one_problem_and_nothing_more_is_asked(
    edit: Callable[[Any], object], folder: Path
) -> None:
    config = yaml.safe_load((folder / "cluster.yaml").read_text())
    edit(config)
    (folder / "cluster.yaml").write_text(json.dumps(config))
    findings = found(folder)
    assert [(one.name, one.state) for one in findings.values()] == [("file", "problem")]


def test_an_image_of_another_ray_is_told_beside_the_rest(folder: Path) -> None:
    changed(folder, "image: rayproject/ray:2.60.0-py311  #", "image: rayproject/ray:2.59.0-py311  #")
    findings = found(folder)
    assert "docker.image is rayproject/ray:2.59.0-py311, but Ray 2.60.0" in findings["file"].text
    assert findings["quota"].state == "ok"


def test_files_that_are_no_cluster_are_told(tmp_path: Path) -> None:
    path = tmp_path / "cluster.yaml"
    for text, said in [
        ("a: [", "cannot be read"), ("day: 2026-99-99\n", "cannot be read"), ("- 1\n", "holds no keys"),
        ("", "holds 0 documents"), ("a: 1\n---\nb: 2\n", "holds 2 documents"),
        ("provider: 5\ncluster_name: x\n", "provider is missing, or no section"),
    ]:  # fmt: skip
        path.write_text(text)
        (finding,) = examine_cluster(path, tmp_path)
        assert finding.state == "problem"
        assert said in finding.text
    (finding,) = examine_cluster(tmp_path / "none.yaml", tmp_path)
    assert "No such file" in finding.text


@pytest.mark.parametrize("name", ["deploy/gcp.yaml", "deploy/on-premises.yaml", "deploy/kuberay-rayjob.yaml"])
def test_other_clouds_files_are_checked_without_an_account(name: str, folder: Path) -> None:
    findings = list(examine_cluster(REPOSITORY / name, folder))
    assert {one.state for one in findings} <= {"ok", "not used"}


def test_the_job_ends_with_1_if_there_is_a_problem(folder: Path) -> None:
    job = [sys.executable, str(REPOSITORY / "jobs" / "cluster.py"), "cluster.yaml"]

    def run() -> subprocess.CompletedProcess[str]:
        return subprocess.run(job, cwd=folder, capture_output=True, text=True, timeout=400, check=False)

    done = run()
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    assert done.stdout.splitlines()[-1].startswith("all is well; next: ray up cluster.yaml")
    (folder / ".ray" / "auth_token").unlink()
    done = run()
    assert (done.returncode, done.stderr) == (1, "")
    assert done.stdout.splitlines()[-1].startswith("1 problem:")
