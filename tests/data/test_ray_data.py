"""What goes wrong in a worker or in the cluster reaches the user as what it is."""

import errno
import os

import pyarrow as pa
import pytest
import ray
import ray.data
from ray.core.generated.autoscaler_pb2 import ClusterConfig, NodeGroupConfig

from etude.data.ray_data import Cluster, cluster, prepare_context, rows_of
from etude.errors import UserError


def test_a_full_disk_in_a_worker_is_one_here(ray_session: None) -> None:
    def full(batch: pa.Table) -> pa.Table:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    prepare_context()
    dataset = ray.data.range(2).map_batches(full, batch_format="pyarrow", batch_size=None)
    with pytest.raises(OSError, match=r"No space left on device for a node$") as caught:
        list(rows_of(dataset))
    assert caught.value.errno == errno.ENOSPC


def test_a_sentence_for_the_user_stays_one(ray_session: None) -> None:
    def refuse(batch: pa.Table) -> pa.Table:
        raise UserError("there is no such model: choose another")

    prepare_context()
    dataset = ray.data.range(2).map_batches(refuse, batch_format="pyarrow", batch_size=None)
    with pytest.raises(UserError, match=r"^there is no such model: choose another$"):
        list(rows_of(dataset))


def test_a_cluster_that_stands_still_is_given_up(ray_session: None) -> None:
    prepare_context(still_s=3)
    too_large = cluster().cpus + 1
    dataset = ray.data.range(2).map_batches(lambda batch: batch, batch_size=None, num_cpus=too_large)
    with pytest.raises(UserError, match="nothing has moved in the cluster for 3 s"):
        list(rows_of(dataset))


def test_a_cluster_counts_with_what_its_autoscaler_may_bring(
    ray_session: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert cluster() == Cluster(2, 0, grows=False)
    groups = [
        NodeGroupConfig(name="head", max_count=1, resources={"train_driver": 64}),
        NodeGroupConfig(name="cpu", max_count=5, resources={"CPU": 8}),
        NodeGroupConfig(name="gpu", max_count=3, resources={"CPU": 16, "GPU": 4}),
        NodeGroupConfig(name="unlimited", max_count=-1, resources={"CPU": 8}),
    ]
    config = ClusterConfig(node_group_configs=groups)
    monkeypatch.setattr(ray._private.state.state, "get_cluster_config", lambda: config)
    assert cluster() == Cluster(40, 12, grows=True)
