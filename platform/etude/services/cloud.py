"""What `ray up` needs, looked at before machines cost anything: the file, the token, the AWS account.

Nothing is started. In the bucket one small object is written and deleted again.
"""

import ipaddress
import os
import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import boto3
import yaml
from botocore.config import Config as ClientConfig
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    HTTPClientError,
    NoCredentialsError,
    ProfileNotFound,
)
from botocore.exceptions import ConnectionError as NotConnected

from etude.errors import UserError
from etude.services.cluster_file import (
    TOKEN,
    Config,
    advice,
    images,
    node_types,
    problems,
    schema_problem,
    storage,
)
from etude.services.findings import Finding, NotUsed
from etude.services.kuberay_file import kuberay_problems

QUICK = ClientConfig(connect_timeout=5, read_timeout=10, retries={"total_max_attempts": 2})
# Service Quotas' codes for running vCPUs, by family and market (AWS's documentation of EC2's quotas).
QUOTAS = {
    ("standard", False): "L-1216C47A", ("standard", True): "L-34B43A08",
    ("G and VT", False): "L-DB2E81BA", ("G and VT", True): "L-3819A6DF",
    ("P", False): "L-417A185B", ("P", True): "L-7212CCBC",
}  # fmt: skip
NARROW = 8  # bits: a range of fewer is a large part of the internet
FAMILIES = {"g": "G and VT", "vt": "G and VT", "p": "P"} | dict.fromkeys("acdhimrtz", "standard")


@dataclass(frozen=True)
class Cluster:
    """A file for `ray up`, and the folder that its relative paths begin at."""

    config: Config
    folder: Path

    @property
    def region(self) -> str:
        """Where the machines would be."""
        return str(self.config["provider"]["region"])

    def client(self, service: str) -> Any:
        """A client of one of AWS's services there, which gives up within seconds."""
        return boto3.Session().client(service, region_name=self.region, config=QUICK)


def examine_cluster(path: Path, folder: Path) -> Iterator[Finding]:
    """Check one thing after the other. `folder` is where `ray up` will be run."""
    try:
        documents = [one for one in yaml.safe_load_all(path.read_text()) if one is not None]
    except (OSError, ValueError, yaml.YAMLError) as error:
        yield Finding("file", "problem", f"{path} cannot be read: {' '.join(str(error).split())}")
        return
    if any(isinstance(one, dict) and one.get("kind") == "RayJob" for one in documents):
        said = kuberay_problems(documents)
        yield Finding("RayJob", "problem" if said else "ok", "\n".join(said) or f"{path} is valid")
        return
    config = documents[0] if len(documents) == 1 else None
    if not isinstance(config, dict):
        held = f"{len(documents)} documents" if len(documents) != 1 else "no keys"
        yield Finding(
            "file", "problem",
            f"{path} holds {held}: give a file for `ray up`, such as cluster.yaml, or one with a RayJob",
        )  # fmt: skip
        return
    if said := problems(config):
        yield Finding("file", "problem", "\n".join(said))
    else:
        image = images(config)["docker.image"]
        yield Finding("file", "ok", f"{path} is valid; {image} has the Ray and Python that run here")
        if costs := advice(config):
            yield Finding("cost", "advice", "\n".join(costs))
    if schema_problem(config):  # the others could not read it
        return
    cluster = Cluster(config, folder)
    for name, check in CHECKS.items():
        finding = _finding(name, lambda check=check: check(cluster))  # type: ignore[misc]
        yield finding
        if name == "account" and finding.state != "ok":  # the others would say the same again
            return


def token(cluster: Cluster) -> str:
    """The token that is mounted: without it no node would start."""
    mounts = cluster.config.get("file_mounts") or {}
    local = next((one for target, one in mounts.items() if target.endswith(TOKEN)), None)
    if local is None:
        raise NotUsed("no token is mounted")
    path = _local(cluster, local)
    try:
        held = path.is_file() and path.read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{local} cannot be read ({error}): it should hold the token, as text") from None
    if not held:
        taken = [name for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH") if os.environ.get(name)]
        first = f"unset {' '.join(taken)}, for Ray takes that token and writes none; then " if taken else ""
        raise UserError(f"{local} holds no token: {first}ray get-auth-token --generate")
    if path.stat().st_mode & 0o077:
        raise UserError(f"{local} can be read by others on this machine: chmod 600 {local}")
    return f"{local} is there, for you alone"


def mounts(cluster: Cluster) -> str:
    """What is copied to the nodes."""
    mounted = cluster.config.get("file_mounts") or {}
    named = {local for target, local in mounted.items() if not target.endswith(TOKEN)}
    missing = sorted(one for one in named if not _local(cluster, one).exists())
    if missing:
        raise UserError(f"{', '.join(missing)} is not here: run `ray up` in the repository's root")
    return f"{len(named)} files and folders are there"


def account(cluster: Cluster) -> str:
    """Whose credentials these are."""
    if cluster.config["provider"]["type"] != "aws":
        raise NotUsed("accounts are looked at on AWS only: try `ray up` with max_workers: 0 first")
    return f"{cluster.client('sts').get_caller_identity()['Arn']}, {cluster.region}"


def bucket(cluster: Cluster) -> str:
    """Whether an object can be written, with your credentials; the nodes have those of their profiles."""
    uri = storage(cluster.config)
    if uri is None:
        raise UserError("docker.run_options give no ETUDE_STORAGE: nodes would share no folder")
    place = urlsplit(uri)
    if place.scheme != "s3":
        raise UserError(f"ETUDE_STORAGE is {uri}: machines on AWS share no folder; give s3://bucket/prefix")
    key = f"{place.path.strip('/')}/written-by-a-check".strip("/")
    s3 = cluster.client("s3")
    try:
        where = s3.get_bucket_location(Bucket=place.netloc)["LocationConstraint"] or "us-east-1"
        s3.put_object(Bucket=place.netloc, Key=key, Body=b"etude")
        s3.delete_object(Bucket=place.netloc, Key=key)
    except ClientError as error:
        raise UserError(f"the bucket {place.netloc} cannot be written: {_said(error)}") from None
    if where != cluster.region:
        raise UserError(
            f"the bucket {place.netloc} is in {where}, the machines in {cluster.region}: move one"
        )
    return f"{uri} can be written with your credentials"


def machines(cluster: Cluster) -> str:
    """Whether EC2 would start one machine of each kind, asked with DryRun."""
    ec2 = cluster.client("ec2")
    for name, kind in node_types(cluster.config).items():
        node = kind["node_config"]
        try:
            groups = ec2.describe_security_groups(GroupIds=node.get("SecurityGroupIds", []))["SecurityGroups"]
            ec2.describe_images(ImageIds=[node["ImageId"]])
            ec2.run_instances(MinCount=1, MaxCount=1, DryRun=True, **node)
        except ClientError as error:
            if error.response["Error"]["Code"] != "DryRunOperation":
                raise UserError(f"{name} could not be started: {_said(error)}") from None
        for group in groups:
            if _open_to_the_world(group):
                raise UserError(
                    f"the security group {group['GroupId']} lets the whole internet in: allow port 22 from "
                    "your own address, and all within the group"
                )
    return f"EC2 would start {', '.join(node_types(cluster.config))}, and nothing is open to the internet"


def quota(cluster: Cluster) -> str:
    """The vCPUs of all machines against what the account may run."""
    kinds = node_types(cluster.config)
    types = sorted({kind["node_config"]["InstanceType"] for kind in kinds.values()})
    described = cluster.client("ec2").describe_instance_types(InstanceTypes=types)["InstanceTypes"]
    cores = {one["InstanceType"]: one["VCpuInfo"]["DefaultVCpus"] for one in described}
    wanted: Counter[tuple[str, bool]] = Counter()
    said: list[str] = []
    for name, kind in kinds.items():
        node = kind["node_config"]
        letters = re.match(r"[a-z]+", node["InstanceType"])
        family = FAMILIES.get(letters[0] if letters else "")
        if family is None:
            said.append(f"no quota is known for {node['InstanceType']}: look in AWS's console")
            continue
        most = cluster.config.get("max_workers", 2)  # Ray's own defaults
        n_machines = (
            1 if name == cluster.config["head_node_type"] else min(kind.get("max_workers", most), most)
        )
        spot = node.get("InstanceMarketOptions", {}).get("MarketType") == "spot"
        wanted[family, spot] += n_machines * cores[node["InstanceType"]]
    quotas = cluster.client("service-quotas")
    for (family, spot), n_cores in wanted.items():
        code = QUOTAS[family, spot]
        allowed = quotas.get_service_quota(ServiceCode="ec2", QuotaCode=code)["Quota"]["Value"]
        market = "spot" if spot else "on demand"
        if n_cores > allowed:
            raise UserError(
                f"the machines of {family}, {market}, have {n_cores} vCPUs, and your quota {code} "
                f"in {cluster.region} is {allowed:g}: ask for more in Service Quotas, or lower max_workers"
            )
        said.append(f"{family} {market} {n_cores} of {allowed:g} vCPUs")
    return ", ".join(said)


CHECKS: dict[str, Callable[[Cluster], str]] = {
    "token": token, "mounts": mounts, "account": account, "bucket": bucket, "machines": machines,
    "quota": quota,
}  # fmt: skip


def _local(cluster: Cluster, name: str) -> Path:
    """What is mounted, on this machine."""
    try:
        return cluster.folder / Path(name).expanduser()
    except RuntimeError:
        raise UserError(f"file_mounts name {name}, and there is no such user's home") from None


def _finding(name: str, check: Callable[[], str]) -> Finding:
    try:
        return Finding(name, "ok", check())
    except NotUsed as reason:
        return Finding(name, "not used", str(reason))
    except UserError as error:
        return Finding(name, "problem", str(error))
    except (ClientError, BotoCoreError) as error:
        return Finding(name, "problem", _said(error))


def _said(error: Exception) -> str:
    """One sentence of AWS's error, with what to do where that is known."""
    if isinstance(error, NoCredentialsError):
        return "there are no AWS credentials here: run `aws configure`, or set AWS_PROFILE"
    if isinstance(error, ProfileNotFound):
        return f"{error}: name one of those in ~/.aws/config with AWS_PROFILE, or unset it"
    if not isinstance(error, ClientError | HTTPClientError | NotConnected):
        return f"AWS was not asked: {' '.join(str(error).split())}"
    if not isinstance(error, ClientError):
        return f"AWS does not answer: {' '.join(str(error).split())}"
    code, text = error.response["Error"].get("Code", ""), error.response["Error"].get("Message", "")
    advice = {
        "ExpiredToken": "sign in again",
        "InvalidClientTokenId": "the access key is no longer valid: make another",
        "NoSuchBucket": "make it with `aws s3 mb`, or name another in ETUDE_STORAGE",
        "AccessDenied": "allow it in IAM; deploy/README.md lists the rights",
        "UnauthorizedOperation": "allow it in IAM; deploy/README.md lists the rights",
    }
    return f"{text.rstrip('.') or code} ({code})" + (f": {advice[code]}" if code in advice else "")


def _open_to_the_world(group: dict[str, Any]) -> bool:
    rules = group["IpPermissions"]
    ranges = [one.get("CidrIp") for rule in rules for one in rule.get("IpRanges", [])]
    ranges += [one.get("CidrIpv6") for rule in rules for one in rule.get("Ipv6Ranges", [])]
    return any(one and ipaddress.ip_network(one, strict=False).prefixlen < NARROW for one in ranges)
