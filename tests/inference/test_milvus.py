"""Whoever cannot reach Milvus is told where and why, soon; an embedded database is this process's alone."""

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from pydantic import BaseModel, ValidationError

from etude.config import explain, mask, without_secrets
from etude.errors import UserError
from etude.inference.milvus import MilvusConfig, open_milvus
from etude.services.daemon import free_port
from tests.support.milvus_server import TokenCheck, milvus_server

TOKEN = "root:Tr0ub4dor"


class Job(BaseModel):
    """The top of a configuration, as far as this section needs one."""

    milvus: MilvusConfig = MilvusConfig()


def refusal(**values: object) -> str:
    with pytest.raises(ValidationError) as error:
        Job.model_validate({"milvus": values})
    return explain(Job, error.value)


@pytest.mark.parametrize(
    "uri", ["http://", "https://:19530", "ftp://10.0.0.1", "http://host:99999", "http://host:0", "  "]
)
def test_an_address_that_is_none_is_refused(uri: str) -> None:
    assert refusal(uri=uri).startswith("milvus.uri: it ")


def test_a_password_in_the_address_is_refused_and_not_shown() -> None:
    said = refusal(uri=f"http://{TOKEN}@10.0.0.1:19530")
    assert "put them into milvus.token" in said
    assert "Tr0ub4dor" not in said


def test_a_token_goes_with_a_server_only() -> None:
    assert "token goes with a server" in refusal(token=TOKEN, uri="some/folder.db")
    config = MilvusConfig.model_validate({"token": TOKEN, "uri": "http://10.0.0.1:19530"})
    assert "Tr0ub4dor" not in f"{config!r} {mask(config)} {without_secrets(config)}"


@pytest.mark.parametrize("name", ["", "1st", "a-b", "a b", "a" * 201, 'a"'])
def test_a_name_that_milvus_does_not_take_is_refused(name: str) -> None:
    assert refusal(collection=name).startswith("milvus.collection: ")


@pytest.mark.timeout(200)
def test_a_server_that_is_down_is_named_soon(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    address = f"http://127.0.0.1:{free_port()}"
    config = MilvusConfig.model_validate({"uri": address, "token": TOKEN})
    with pytest.raises(UserError, match=f"no Milvus server answers at {address}") as error:
        open_milvus(config, tmp_path)
    assert "Tr0ub4dor" not in f"{error.value!r} {capfd.readouterr()}"


def test_a_wrong_token_is_told_and_never_shown(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    check = TokenCheck("root:another")
    with milvus_server(tmp_path / "served", check) as address:
        config = MilvusConfig.model_validate({"uri": address, "token": TOKEN})
        with pytest.raises(UserError, match=r"refuses milvus\.token: set ETUDE_MILVUS__TOKEN") as at_once:
            open_milvus(config, tmp_path)
        with pytest.raises(UserError, match=r"refuses milvus\.token"):
            open_milvus(MilvusConfig(uri=address), tmp_path)
        check.token = TOKEN
        with open_milvus(config, tmp_path) as milvus:
            check.token = "root:changed since"
            with pytest.raises(UserError, match="cannot list") as later, milvus.told("list"):
                milvus.client.list_collections(timeout=5)
    assert "is not correct" in str(later.value)
    assert "Tr0ub4dor" not in f"{at_once.value!r} {later.value!r} {capfd.readouterr()}"


@pytest.mark.timeout(200)
def test_a_server_that_went_away_is_told(tmp_path: Path) -> None:
    with milvus_server(tmp_path / "served") as address:
        milvus = open_milvus(MilvusConfig(uri=address), tmp_path)
    with pytest.raises(UserError, match=f"cannot list in {address}: "), milvus.told("list"):
        milvus.client.list_collections(timeout=5)
    milvus.close()


def test_what_is_no_database_is_left_as_it_is(tmp_path: Path) -> None:
    file, music = tmp_path / "old.db", tmp_path / "Music"
    file.write_bytes(b"SQLite format 3\0")
    music.mkdir()
    (music / "a.flac").write_bytes(b"fLaC")
    for path, said in [
        (file, "is a file"),
        (music, "holds other things"),
        (file / "below.db", "cannot use"),
    ]:
        with pytest.raises(UserError, match=f"{path} .*{said}|{said} {path}"):
            open_milvus(MilvusConfig(uri=str(path)), tmp_path)
    assert file.read_bytes() == b"SQLite format 3\0"
    assert [one.name for one in music.iterdir()] == ["a.flac"]


def test_a_database_is_open_once_at_a_time(tmp_path: Path) -> None:
    first = open_milvus(MilvusConfig(), tmp_path)
    with pytest.raises(UserError, match=r"milvus\.db is open already"):
        open_milvus(MilvusConfig(), tmp_path)
    first.close()
    open_milvus(MilvusConfig(uri=str(tmp_path / "milvus.db")), tmp_path / "elsewhere").close()


@pytest.fixture
def own_temporary_folder(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Where no other test leaves anything; of a short name, for sockets lie there."""
    with tempfile.TemporaryDirectory(prefix="etude-") as folder:
        monkeypatch.setattr(tempfile, "tempdir", folder)
        yield


def test_an_embedded_database_is_served_to_its_owner_and_leaves_nothing(
    tmp_path: Path, own_temporary_folder: None
) -> None:
    def listening() -> set[tuple[object, ...]]:
        connections = psutil.Process().net_connections("inet")
        return {(one.fd, *one.laddr) for one in connections if one.status == psutil.CONN_LISTEN}

    def sockets() -> set[Path]:
        return set(Path(tempfile.gettempdir()).glob("etude-milvus-*"))

    before = listening(), sockets(), psutil.Process().children(recursive=True)
    with open_milvus(MilvusConfig(), tmp_path) as milvus:
        assert milvus.client.list_collections() == []
        assert listening() == before[0]
        (folder,) = sockets() - before[1]
        assert folder.stat().st_mode & 0o777 == 0o700
        assert folder.stat().st_uid == os.getuid()
        assert psutil.Process().children(recursive=True) == before[2]
    milvus.close()  # again: nothing more happens
    assert (listening(), sockets(), psutil.Process().children(recursive=True)) == before
