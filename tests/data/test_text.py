"""A stream is a pure function of its arguments, whole over ranks, and asks its teacher for a text once."""

import json
import multiprocessing
import pickle
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from etude.data.queries import QueryConfig, QuerySampler
from etude.data.text import CachedTeacher, TextBatch, TextSplits, open_queries
from etude.errors import UserError
from etude.students.tokens import Tokens, load_tokenizer

DIM = 6


class Fake:
    """A teacher whose vectors follow from the text alone, and that counts what it is asked for."""

    id, dim, normalized, license = "fake-0", DIM, True, "none"

    def __init__(self) -> None:
        self.asked: list[str] = []

    def too_long(self, texts: Sequence[str]) -> list[int]:
        return [i for i, text in enumerate(texts) if len(text) > 200]

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        self.asked += texts
        return np.stack([vector(text) for text in texts])


def vector(text: str) -> NDArray[np.float32]:
    raw = np.frombuffer(sha256(text.encode()).digest()[:DIM], dtype=np.uint8).astype(np.float32) - 100
    return raw / np.linalg.norm(raw)


@pytest.fixture(scope="module")
def tokens() -> Tokens:
    return load_tokenizer(None, 77)


@pytest.fixture(scope="module")
def sampler() -> QuerySampler:
    return QuerySampler(QueryConfig(per_epoch=50, evaluated=12))


@pytest.fixture(scope="module")
def splits(tmp_path_factory: pytest.TempPathFactory, sampler: QuerySampler, tokens: Tokens) -> TextSplits:
    return open_queries(sampler, Fake(), tokens, tmp_path_factory.mktemp("cache"))


def _ids(batch: TextBatch) -> list[tuple[int, ...]]:
    """The tokens of every text, without padding."""
    return [
        tuple(row[mask.bool()].tolist())
        for row, mask in zip(batch.input_ids, batch.attention_mask, strict=True)
    ]


def test_batches_hold_the_epochs_queries_with_their_vectors(splits: TextSplits, tokens: Tokens) -> None:
    batches = list(splits.train.batches(16, seed=3, epoch=2))
    texts = splits.train.sampler.training(3, 2)[:48]
    assert len(batches) == splits.train.steps(16) == 3
    np.testing.assert_array_equal(torch.cat([b.target for b in batches]), [vector(t) for t in texts])
    assert [row for b in batches for row in _ids(b)] == [tuple(tokens.ids([t])[0][0].tolist()) for t in texts]
    assert all(b.target.dtype == torch.float32 for b in batches)
    assert all(b.input_ids.shape[1] == b.attention_mask.sum(dim=1).max() for b in batches)


@settings(max_examples=20)
@given(st.integers(0, 9), st.integers(0, 9), st.sampled_from([1, 2, 4]), st.sampled_from([4, 8, 300]))
def test_ranks_share_the_global_batch(
    splits: TextSplits, seed: int, epoch: int, world_size: int, batch_size: int
) -> None:
    stream = splits.train
    whole = list(stream.batches(batch_size, seed=seed, epoch=epoch))
    assert len(whole) == stream.steps(batch_size)
    shares = [
        list(stream.batches(batch_size, seed=seed, epoch=epoch, rank=rank, world_size=world_size))
        for rank in range(world_size)
    ]
    for step, batch in enumerate(whole):
        together, ids = torch.empty_like(batch.target), [()] * batch_size
        for rank in range(world_size):
            together[rank::world_size] = shares[rank][step].target
            ids[rank::world_size] = _ids(shares[rank][step])
        assert torch.equal(together, batch.target)
        assert ids == _ids(batch)


def test_a_batch_that_workers_cannot_share_is_refused(splits: TextSplits) -> None:
    with pytest.raises(UserError, match="10 queries cannot be shared by 4 workers"):
        next(splits.train.batches(10, seed=0, epoch=0, rank=0, world_size=4))


def test_fewer_queries_than_a_batch_still_train(splits: TextSplits) -> None:
    assert splits.train.steps(64) == 1
    assert [len(b.target) for b in splits.train.batches(64, seed=0, epoch=0)] == [64]


def test_held_out_sets_are_fixed_and_whole(splits: TextSplits, sampler: QuerySampler) -> None:
    assert splits.validation.texts == sampler.held_out("validation")
    assert splits.test.texts == sampler.held_out("test")
    batches = list(splits.test.batches(5))
    assert [len(b.target) for b in batches] == [5, 5, 2]
    assert len(splits.test) == 12
    np.testing.assert_array_equal(
        torch.cat([b.target for b in batches]), [vector(t) for t in splits.test.texts]
    )


def test_statistics_are_the_teachers(splits: TextSplits, sampler: QuerySampler) -> None:
    mean, std = splits.train.target_statistics()
    vectors = np.stack([vector(text) for text in sampler.training(sampler.config.seed, 0)])
    np.testing.assert_allclose(mean, vectors.mean(axis=0), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(std, vectors.std(axis=0), rtol=1e-5)
    assert mean.dtype == std.dtype == np.float32


def test_anchors_are_the_terms(splits: TextSplits, sampler: QuerySampler) -> None:
    terms = [term for values in sampler.terms.values() for term in values]
    anchors = splits.train.anchors()
    assert anchors.dtype == np.float32
    np.testing.assert_allclose(anchors, [vector(term) for term in terms], atol=1e-6)


def test_a_text_is_asked_for_once(tmp_path: Path, sampler: QuerySampler, tokens: Tokens) -> None:
    teacher = Fake()
    first = open_queries(sampler, teacher, tokens, tmp_path)
    batches = list(first.train.batches(10, seed=0, epoch=0))
    assert len(teacher.asked) == len(set(teacher.asked)) > 12
    again = Fake()
    second = open_queries(sampler, again, tokens, tmp_path)
    for ours, theirs in zip(batches, second.train.batches(10, seed=0, epoch=0), strict=True):
        assert torch.equal(ours.target, theirs.target)
    assert again.asked == []
    assert first.data_hash == second.data_hash


def test_repeated_and_many_texts_keep_their_order(tmp_path: Path) -> None:
    teacher = Fake()
    texts = [f"text {i % 700}" for i in range(1500)]
    vectors = CachedTeacher(teacher, tmp_path).embed(texts)
    np.testing.assert_array_equal(vectors, [vector(text) for text in texts])
    assert len(teacher.asked) == 700
    assert CachedTeacher(teacher, tmp_path).embed([]).shape == (0, DIM)


def test_teachers_do_not_share_vectors(tmp_path: Path) -> None:
    CachedTeacher(Fake(), tmp_path).embed(["pop"])
    other = Fake()
    other.id = "fake-1"
    CachedTeacher(other, tmp_path).embed(["pop"])
    assert other.asked == ["pop"]


def _many(folder: Path, worker: int) -> None:
    teacher = CachedTeacher(Fake(), folder)
    for step in range(15):
        texts = [f"text {i}" for i in range(step * 5, step * 5 + 20)] + [f"own {worker} {step}"]
        np.testing.assert_array_equal(teacher.embed(texts), [vector(text) for text in texts])


def test_processes_may_write_at_once(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    workers = [context.Process(target=_many, args=(tmp_path, i)) for i in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
    assert [worker.exitcode for worker in workers] == [0] * 4
    teacher = Fake()
    CachedTeacher(teacher, tmp_path).embed([f"own {i} {step}" for i in range(4) for step in range(15)])
    assert teacher.asked == []


def test_a_stream_can_go_to_another_process(splits: TextSplits) -> None:
    teacher = splits.train.teacher
    copy = pickle.loads(pickle.dumps(teacher))
    np.testing.assert_array_equal(copy.embed(["pop"]), teacher.embed(["pop"]))


def test_a_broken_cache_is_named(tmp_path: Path) -> None:
    (tmp_path / "fake-0.sqlite").write_bytes(b"no database at all, but long enough to be read as one" * 50)
    with pytest.raises(UserError, match=r"fake-0\.sqlite cannot be used: file is not a database"):
        CachedTeacher(Fake(), tmp_path)
    with pytest.raises(UserError, match=r"cannot keep the teacher's vectors in .*fake-0\.sqlite/text"):
        CachedTeacher(Fake(), tmp_path / "fake-0.sqlite" / "text")


def test_vectors_of_another_length_are_not_taken(tmp_path: Path) -> None:
    CachedTeacher(Fake(), tmp_path).embed(["pop"])
    other = Fake()
    other.dim = 7
    with pytest.raises(UserError, match="vectors of another length than 7: remove it"):
        CachedTeacher(other, tmp_path).embed(["pop"])


def test_what_the_teacher_would_cut_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"the text 'x{40}\.\.\.' is longer than fake-0 takes"):
        CachedTeacher(Fake(), tmp_path).embed(["pop", "x" * 201])


def test_what_the_student_would_cut_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "terms.json"
    words = [f"word{i} and some more of them" for i in range(12)]
    path.write_text(json.dumps({"A": words, "B": [f"other {word}" for word in words]}))
    sampler = QuerySampler(QueryConfig(terms=path, held_out=0.3, evaluated=20))
    with pytest.raises(UserError, match="tokens, the model takes 6: shorten it"):
        open_queries(sampler, Fake(), load_tokenizer(None, 6), tmp_path)


def test_the_hash_tells_what_was_learned_from(tmp_path: Path, tokens: Tokens, sampler: QuerySampler) -> None:
    other = Fake()
    other.id = "fake-1"
    changed = QuerySampler(QueryConfig(per_epoch=50, evaluated=12, categories=("Genre_Style", "Voice_Type")))
    hashes = {
        open_queries(sampler, Fake(), tokens, tmp_path).data_hash,
        open_queries(sampler, other, tokens, tmp_path).data_hash,
        open_queries(changed, Fake(), tokens, tmp_path).data_hash,
    }
    assert len(hashes) == 3
