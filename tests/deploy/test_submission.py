"""What is submitted is small and whole, and it is what runs, in the driver and on every node."""

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from etude.config import read_yaml
from etude.services import daemon
from etude.services.local import Ports, ray_environment, ray_head

REPOSITORY = Path(__file__).resolve().parents[2]
JOB = """
import ray
import etude

def here():
    import etude
    return etude.__file__, etude.__version__

print("driver", *here())
ray.init(log_to_driver=False)
print("worker", *ray.get(ray.remote(here).remote()))
print("train", *ray.get(ray.remote(num_cpus=1)(here).remote()))
"""


def copy_of_the_repository(folder: Path) -> Path:
    """The files that git knows, at `folder`."""
    names = subprocess.run(
        ["git", "-C", REPOSITORY, "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        capture_output=True, text=True, check=True,
    ).stdout.split("\0")  # fmt: skip
    for name in filter(None, names):
        if (REPOSITORY / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(REPOSITORY / name, folder / name)
    return folder


def test_what_is_packed_is_small_and_whole(tmp_path: Path) -> None:
    from ray._private.runtime_env.packaging import create_package

    source = copy_of_the_repository(tmp_path / "repository")
    for left in (
        ".git/objects/x",
        ".venv/lib/x",
        ".env",
        "store/FORMAT",
        "mlruns/x",
        "mlflow.db",
        "best.onnx",
    ):
        (source / left).parent.mkdir(parents=True, exist_ok=True)
        (source / left).write_bytes(b"secret")
    package = tmp_path / "package.zip"
    create_package(str(source), package, include_gitignore=True)
    packed = {name for name in zipfile.ZipFile(package).namelist() if not name.endswith("/")}
    assert package.stat().st_size < 5_000_000
    needed = {
        str(path.relative_to(source))
        for folder in ("platform", "jobs", "search_spaces")
        for path in (source / folder).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts and ".egg-info" not in str(path)
    }
    assert len(needed) > 200
    assert needed <= packed
    allowed = ("platform/", "jobs/", "search_spaces/")
    beside = {name for name in packed if not name.startswith(allowed)}
    assert beside <= {
        ".gitignore", ".rayignore", "Makefile", "README.md", "assets.txt", "cluster.yaml", "constraints.txt",
        "pyproject.toml", "runtime_env.yaml",
    }  # fmt: skip


@pytest.mark.slow
def test_the_submitted_code_runs_on_the_head_and_on_workers(tmp_path: Path) -> None:
    """The environment has this package installed, editable; a changed copy is submitted, and wins."""
    source = copy_of_the_repository(tmp_path / "repository")
    package = source / "platform" / "etude" / "__init__.py"
    package.write_text(package.read_text().replace("0.1.0", "0.1.0+submitted"))
    (source / "jobs" / "where.py").write_text(JOB)
    (source / "search_spaces" / "shipped.yaml").write_text("sweep: {}\n")
    home = tmp_path / "home"
    home.mkdir()
    ports = Ports(ray=daemon.free_port(), dashboard=daemon.free_port())
    address = ray_head(home, ports, "http://127.0.0.1:1")
    ray = str(Path(sys.executable).with_name("ray"))
    submit = [
        ray,
        "job",
        "submit",
        "--address",
        address,
        "--working-dir",
        ".",
        "--runtime-env",
        "runtime_env.yaml",
    ]
    try:
        done = subprocess.run(
            [*submit, "--", "python", "jobs/where.py"], cwd=source, env=_shell(home),
            capture_output=True, text=True, timeout=500, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        said = [
            line.split()
            for line in done.stdout.splitlines()
            if line.startswith(("driver", "worker", "train"))
        ]
        assert [one[0] for one in said] == ["driver", "worker", "train"]
        for _, file, version in said:
            assert version == "0.1.0+submitted"
            assert "working_dir_files" in file
            assert not file.startswith((str(source), str(REPOSITORY)))
    finally:
        daemon.stop(home / "services", "ray")


def test_the_environment_of_a_job_names_only_a_path_in_what_is_submitted() -> None:
    assert read_yaml(REPOSITORY / "runtime_env.yaml") == {"env_vars": {"PYTHONPATH": "platform"}}


def _shell(home: Path) -> dict[str, str]:
    """The environment of a user's shell that has this home's token, and no path to this package."""
    import os

    clean = {key: value for key, value in os.environ.items() if not key.startswith(("ETUDE_", "PYTHON"))}
    return clean | ray_environment(home)
