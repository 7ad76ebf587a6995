"""Files are whole or absent, in a folder and on S3, and what goes wrong between is mended or said."""

import os
import pickle
import stat
import time
import uuid
from pathlib import Path

import pytest

from etude.errors import StorageError, UserError
from etude.storage import s3
from etude.storage.files import Files, split
from tests.support.s3_server import BUCKET, address, client, s3_faults


@pytest.fixture(params=["folder", "s3"])
def files(request: pytest.FixtureRequest, tmp_path: Path) -> Files:
    if request.param == "folder":
        return Files(tmp_path / "root")
    return Files(address(request.getfixturevalue("s3_port"), f"{uuid.uuid4().hex}/root"))


def test_both_kinds_do_the_same(files: Files) -> None:
    assert files.read("a/b") is None
    assert not files.exists("a/b")
    assert files.list("a", ".json", "") == []
    files.write("a/b.json", b"one")
    files.write("a/b.json", b"two")
    files.write("a/c/d.arrow", b"")
    files.append("log", b"1\n")
    files.append("log", b"2\n")
    assert files.read("a/b.json") == b"two"
    assert files.read("log") == b"1\n2\n"
    assert files.exists("a/c/d.arrow")
    assert files.list("a", ".json", ".arrow") == ["a/b.json", "a/c/d.arrow"]
    assert files.list("", "") == ["a/b.json", "a/c/d.arrow", "log"]
    assert files.read_all(["a/b.json", "none"]) == {"a/b.json": b"two"}
    with files.open("a/b.json") as opened:
        assert opened.read() == b"two"
    with pytest.raises(FileNotFoundError):
        files.open("none")
    before = files.version("log")
    assert before[1] == 4
    files.write("log", b"1\n3\n")
    assert files.version("log") != before
    files.delete_all(["a/b.json", "never there"])
    assert files.list("a", "") == ["a/c/d.arrow"]
    assert (files.free_bytes() is None) == (not files.local)


def test_a_place_is_named_by_its_address(files: Files) -> None:
    below = files.at("runs/one")
    below.write("x", b"1")
    assert files.read("runs/one/x") == b"1"
    assert (below.name, below.parent.name) == ("one", "runs")
    assert split(below.address("best.pt")) == (below, "best.pt")
    assert pickle.loads(pickle.dumps(below)) == below
    assert pickle.loads(pickle.dumps(below)).read("x") == b"1"


def test_a_folder_is_told_from_one_of_the_same_name_elsewhere(files: Files) -> None:
    here, elsewhere = files.at("runs/one"), files.at("copies/one")
    assert here.identity().startswith("one-")
    assert here.identity() == files.at("runs/one").identity() != elsewhere.identity()


@pytest.mark.parametrize("name", ["a b", "ü 日本", "a+b", "100%", "a%20b", "a%2520b", "x?y", "x#y", "a=b&c"])
def test_a_folder_of_any_name_is_one_and_the_same(files: Files, name: str) -> None:
    files.write(f"{name}/x", b"1")
    below = files.at(name)
    assert below.list("", "") == ["x"]
    assert pickle.loads(pickle.dumps(below)).read("x") == b"1"
    assert (below.name, below.parent) == (name, files)
    around, file = split(below.parent.address(f"{name}/{name}"))
    assert (around, file) == (below, name)


def test_pyarrow_finds_the_same_place(files: Files) -> None:
    files.write("x", b"1")
    filesystem, path = files.arrow()
    if filesystem is None:
        assert Path(path, "x").read_bytes() == b"1"
    else:
        with filesystem.open_input_file(f"{path}/x") as opened:
            assert opened.read() == b"1"


def test_results_are_exact_through_faults(s3_port: int, pauses: list[float]) -> None:
    """Every fifth request or so is refused, cut off or answered to nobody; large files go in parts."""
    large = bytes(range(256)) * 50_000
    assert len(large) > s3.TRANSFER.multipart_threshold
    where = uuid.uuid4().hex
    with s3_faults(s3_port) as proxy:
        files = Files(address(proxy.port, where))
        proxy.share = 0.2
        for number in range(70):
            files.write(f"{number}", b"%d" % number * 1000)
        files.write("large", large)
        assert files.read("large") == large
        names = [f"{number}" for number in range(70)]
        assert files.read_all(names) == {name: name.encode() * 1000 for name in names}
        files.delete_all(names[:40])
        assert files.list("", "") == sorted([*names[40:], "large"])
        assert proxy.counts.total() > 20, proxy.counts
        assert {"503", "500", "lost"} <= proxy.counts.keys()
        assert proxy.counts["short"] + proxy.counts["reset"] > 0
    assert pauses, "it was tried again after a pause"
    assert Files(address(s3_port, where)).read("large") == large  # nothing else was left by the faults


def test_a_download_is_exact_through_faults(s3_port: int, tmp_path: Path, pauses: list[float]) -> None:
    with s3_faults(s3_port, seed=1) as proxy:
        files = Files(address(proxy.port, uuid.uuid4().hex))
        data = bytes(range(256)) * 100_000
        files.write("large", data)
        proxy.share = 0.3
        for _ in range(5):
            files.download("large", tmp_path / "large")
            assert (tmp_path / "large").read_bytes() == data
        assert proxy.counts.total() > 5, proxy.counts
        with pytest.raises(FileNotFoundError):
            files.download("none", tmp_path / "none")


def test_a_server_that_refuses_for_good_is_told(s3_port: int, pauses: list[float]) -> None:
    with s3_faults(s3_port) as proxy:
        files = Files(address(proxy.port, "x"))
        proxy.refuse = True
        with pytest.raises(StorageError, match=r"did not do PutObject \(SlowDown\), asked several times"):
            files.write("x", b"")
        assert proxy.counts["503"] == s3.ATTEMPTS
        assert max(pauses) <= 20


def test_what_is_configured_wrongly_is_told_at_once(
    s3_port: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    started = time.monotonic()
    end = f"endpoint_override=127.0.0.1:{s3_port}&scheme=http"
    with pytest.raises(StorageError, match="there is no bucket s3://none-such: create it"):
        Files(f"s3://none-such/x?{end}")
    with pytest.raises(StorageError, match="no server answers for s3://etude-test"):
        Files(address(9, "x"))
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    s3._clients.cache_clear()
    with pytest.raises(
        StorageError, match="no credentials for s3://etude-test: give them by AWS_ACCESS_KEY_ID"
    ):
        Files(address(s3_port, "x"))
    assert time.monotonic() - started < 60  # not the minutes of all attempts
    with pytest.raises(UserError, match="holds a password") as caught:
        Files(f"s3://key:s3cret@{BUCKET}/x")
    assert "s3cret" not in str(caught.value)
    with pytest.raises(UserError, match="gs://bucket/x is neither a folder nor an address such as s3://"):
        Files("gs://bucket/x")
    with pytest.raises(UserError, match="no option endpoint"):
        Files("s3://bucket/x?endpoint=y")
    (tmp_path / "file").touch()
    with pytest.raises(NotADirectoryError):
        Files(tmp_path / "file")


def test_what_is_forbidden_is_told(s3_port: int) -> None:
    """The stand-in server forbids nothing by itself, so the proxy does."""
    with s3_faults(s3_port, kinds=["403"]) as proxy:
        files = Files(address(proxy.port, "x"))
        proxy.share = 1
        with pytest.raises(StorageError, match=r"s3://etude-test forbids it \(AccessDenied\)"):
            files.read("x")
        assert proxy.counts["403"] == 1  # and is not asked again


def test_the_environment_may_name_the_server(s3_port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{s3_port}")
    s3._clients.cache_clear()
    files = Files(f"s3://{BUCKET}/from-environment")
    files.write("x", b"1")
    assert client(s3_port).get_object(Bucket=BUCKET, Key="from-environment/x")["Body"].read() == b"1"
    s3._clients.cache_clear()


def test_a_renamed_file_is_on_the_disk_with_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced = []

    def sync(descriptor: int) -> None:
        synced.append(stat.S_ISDIR(os.fstat(descriptor).st_mode))

    monkeypatch.setattr(os, "fsync", sync)
    Files(tmp_path).write("a", b"1")
    assert synced == [False, True], "the content before its name"
