"""The cache of files from elsewhere: what comes back, what goes first, what processes and kills do to it."""

import errno
import multiprocessing
import os
import time
import uuid
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from etude.storage.cache import STALE_S, DiskCache
from etude.storage.files import Files
from tests.support.s3_server import address, s3_faults


def kept(folder: Path) -> list[Path]:
    return [path for path in folder.glob("??/*") if path.is_file()]


def total(folder: Path) -> int:
    return sum(path.stat().st_size for path in kept(folder))


def age(cache: DiskCache, key: str, seconds: float) -> None:
    """Make a file's last use so long ago."""
    when = time.time() - seconds
    os.utime(cache._path(key), (when, when))


def test_a_file_comes_back_as_it_was(tmp_path: Path) -> None:
    cache = DiskCache(tmp_path, 100)
    assert cache.get("a") is None
    cache.put("a", b"one")
    cache.put("a", b"two!")
    assert cache.get("a") == b"two!"
    assert DiskCache(tmp_path, 100).get("a") == b"two!"


def test_the_least_recently_used_goes_first(tmp_path: Path) -> None:
    cache = DiskCache(tmp_path, 100)
    for i, key in enumerate("abcd"):
        cache.put(key, bytes(25))
        age(cache, key, 100 - i)
    assert cache.get("a") is not None  # used now, though it came first
    cache.put("e", bytes(25))
    assert cache.get("b") is None
    assert {key for key in "acde" if cache.get(key)} >= {"a", "e"}
    assert total(tmp_path) <= 100


def test_the_size_holds_after_every_file(tmp_path: Path) -> None:
    cache = DiskCache(tmp_path, 1000)
    for i in range(200):
        cache.put(str(i), bytes(1 + i * 7 % 90))
        assert total(tmp_path) <= 1000
    assert cache.get("199") is not None
    assert total(tmp_path) > 700  # it makes room, it does not empty


def test_what_is_larger_than_the_cache_is_not_kept(tmp_path: Path) -> None:
    cache = DiskCache(tmp_path, 100)
    cache.put("a", bytes(60))
    cache.put("b", bytes(101))
    assert cache.get("b") is None
    assert cache.get("a") is not None


@pytest.mark.parametrize(
    "key", ["../../outside", "/etc/passwd", "a/b", "..", "", "\0", "é\ud800", "x" * 5000]
)
def test_no_key_names_a_place_outside(tmp_path: Path, key: str) -> None:
    cache = DiskCache(tmp_path / "cache", 100)
    cache.put(key, b"data")
    assert cache.get(key) == b"data"
    assert [path.name for path in tmp_path.iterdir()] == ["cache"]
    (path,) = kept(tmp_path / "cache")
    assert len(path.name) == 64 and set(path.name) <= set("0123456789abcdef")


def test_files_that_were_there_before_the_count_are_counted(tmp_path: Path) -> None:
    cache = DiskCache(tmp_path, 100)
    for key in "abc":
        cache.put(key, bytes(30))
    (tmp_path / "bytes").unlink()
    cache.put("d", bytes(30))
    assert total(tmp_path) <= 100


def test_what_a_killed_process_left_is_cleared_away(tmp_path: Path) -> None:
    cache = DiskCache(tmp_path, 100)
    cache.put("a", bytes(10))
    old = cache._path("a").with_name(".killed")
    old.write_bytes(bytes(500))
    os.utime(old, (0, time.time() - 2 * STALE_S))
    young = old.with_name(".being-written")
    young.write_bytes(b"")
    (tmp_path / "bytes").write_bytes(b"%-31d\n" % 99)  # the count of a process that was killed while writing
    cache.put("b", bytes(80))
    assert not old.exists()
    assert young.exists()
    assert cache.get("a") and cache.get("b")  # the count was put right, so both have room


def test_a_full_disk_costs_the_copy_and_not_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(*args: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    cache = DiskCache(tmp_path, 100)
    monkeypatch.setattr("etude.storage.cache.os.fsync", full)
    cache.put("a", b"data")
    assert cache.get("a") is None
    assert not [path for path in tmp_path.rglob("*") if path.name.startswith(".")]
    assert "cannot be written (No space left on device)" in caplog.text


@pytest.mark.parametrize("count", [b"", b"many\n", b"-5", b"\0" * 32, b"9" * 100, "٣".encode()])
def test_a_damaged_count_is_put_right(tmp_path: Path, count: bytes) -> None:
    cache = DiskCache(tmp_path, 100)
    cache.put("a", bytes(60))
    (tmp_path / "bytes").write_bytes(count)
    for key in "bcd":
        cache.put(key, bytes(30))
        assert cache.get(key) is not None
        assert total(tmp_path) <= 100


def test_a_folder_that_cannot_be_written_is_said_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_bytes(b"")
    cache = DiskCache(tmp_path / "file", 100)
    for key in "abc":
        assert cache.get(key) is None
        cache.put(key, b"data")
    assert len(caplog.records) == 1


def test_a_folder_that_others_filled_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def read_only(*args: Any) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    cache = DiskCache(tmp_path, 100)
    cache.put("a", b"data")
    monkeypatch.setattr("etude.storage.cache.os.utime", read_only)
    assert cache.get("a") == b"data"


def churn(folder: Path, worker: int) -> int:
    """Put and get like one of several fetching actors; the number of wrong answers."""
    cache = DiskCache(folder, 20_000)
    wrong = 0
    for i in range(150):
        n = (i * 7 + worker) % 40
        data = cache.get(str(n))
        wrong += data is not None and data != bytes([n]) * (500 + n)
        cache.put(str(n), bytes([n]) * (500 + n))
    return wrong


def test_several_processes_share_a_folder(tmp_path: Path) -> None:
    with multiprocessing.get_context("spawn").Pool(3) as pool:
        assert pool.starmap(churn, [(tmp_path, worker) for worker in range(3)]) == [0, 0, 0]
    assert total(tmp_path) <= 20_000
    assert not [path for path in kept(tmp_path) if path.name.startswith(".")]


def test_a_file_of_s3_is_fetched_once(s3_port: int, tmp_path: Path) -> None:
    with s3_faults(s3_port) as proxy:
        files = Files(address(proxy.port, uuid.uuid4().hex))
        files.write("shard", b"one" * 1000)
        proxy.requests.clear()
        for _ in range(5):
            assert DiskCache(tmp_path, 10_000).open(files, "shard").read() == b"one" * 1000
        assert proxy.requests["GET"] == 1
        files.write("shard", b"two" * 1000)  # a shard that was prepared anew
        cache = DiskCache(tmp_path, 10_000)
        opened = cache.open(files, "shard")
        for number in range(10):
            files.write(f"{number}", bytes(3000))
            cache.open(files, f"{number}")
            assert total(tmp_path) <= 10_000
        assert opened.read() == b"two" * 1000  # still, though it went from the cache
        assert DiskCache(tmp_path, 10).open(files, "shard").read() == b"two" * 1000
        with pytest.raises(FileNotFoundError):
            cache.open(files, "none")


def test_a_file_that_others_make_go_while_it_is_opened_is_there_all_the_same(
    s3_port: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = Files(address(s3_port, uuid.uuid4().hex))
    files.write("shard", b"one")
    cache = DiskCache(tmp_path, 100)
    cache.open(files, "shard")
    exists, utime, memory_map = Path.exists, os.utime, pa.memory_map
    for name, real in (("pathlib.Path.exists", exists), ("os.utime", utime)):

        def after_others(path: Path, *args: Any, real: Any = real, **named: Any) -> Any:
            found = real(path, *args, **named)
            for file in kept(tmp_path):
                file.unlink()
            return found

        with monkeypatch.context() as patched:
            patched.setattr(name, after_others)
            assert cache.open(files, "shard").read() == b"one"

    def before_mapping(path: str) -> Any:
        for file in kept(tmp_path):
            if not file.name.startswith("."):
                file.unlink()
        return memory_map(path)

    cache.open(files, "shard")
    monkeypatch.setattr(pa, "memory_map", before_mapping)
    assert cache.open(files, "shard").read() == b"one"


def opened_by(root: str, folder: Path) -> bytes:
    return bytes(DiskCache(folder, 10**8).open(Files(root), "shard").read())


def test_processes_that_want_the_same_fetch_it_once(s3_port: int, tmp_path: Path) -> None:
    with s3_faults(s3_port) as proxy:
        files = Files(address(proxy.port, uuid.uuid4().hex))
        files.write("shard", b"one" * 100_000)
        proxy.requests.clear()
        with multiprocessing.get_context("spawn").Pool(2) as pool:
            found = pool.starmap(opened_by, [(files.root, tmp_path)] * 4, chunksize=1)
        assert found == [b"one" * 100_000] * 4
        assert proxy.requests["GET"] == 1


def test_a_cache_on_a_full_disk_costs_no_file(
    s3_port: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(*args: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    files = Files(address(s3_port, uuid.uuid4().hex))
    files.write("shard", b"one")
    monkeypatch.setattr("etude.storage.cache.os.fsync", full)
    assert DiskCache(tmp_path, 100).open(files, "shard").read() == b"one"
    assert "cannot be written (No space left on device)" in caplog.text
