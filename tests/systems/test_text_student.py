"""The text system learns a teacher's vectors of held-out queries, and exports what it measured."""

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from numpy.typing import NDArray

from etude.data.queries import QueryConfig, QuerySampler
from etude.data.text import TextSplits, open_queries
from etude.errors import UserError
from etude.export.onnx import export_onnx
from etude.objectives.distillation import ObjectiveConfig
from etude.objectives.weighting import weighted_sum
from etude.students.text import TextStudentConfig
from etude.students.tokens import load_tokenizer
from etude.systems.text_student import TextSystem, figures

DIM = 16


class Words:
    """A made-up teacher: a fixed direction for every word, summed, so that there is something to learn."""

    id, dim, normalized, license = "words-0", DIM, True, "none"

    def too_long(self, texts: Sequence[str]) -> list[int]:
        return []

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        sums = np.stack([np.sum([self._word(w) for w in text.lower().split()], axis=0) for text in texts])
        unit: NDArray[np.float32] = (sums / np.linalg.norm(sums, axis=1, keepdims=True)).astype(np.float32)
        return unit

    def _word(self, word: str) -> NDArray[np.float64]:
        return np.random.default_rng(list(word.encode())).normal(size=DIM) + 0.3


@pytest.fixture(scope="module")
def splits(tmp_path_factory: pytest.TempPathFactory) -> TextSplits:
    config = QueryConfig(categories=("Emotion_Mood", "Genre_Style"), per_epoch=512, evaluated=40)
    return open_queries(
        QuerySampler(config), Words(), load_tokenizer(None, 77), tmp_path_factory.mktemp("cache")
    )


def _system(
    splits: TextSplits, anchors: torch.Tensor | None = None, seed: int = 0, **objective: object
) -> TextSystem:
    torch.manual_seed(seed)
    student = TextStudentConfig(hidden=64, token_dim=32, layers=1, dropout=0)
    return TextSystem(
        student,
        ObjectiveConfig.model_validate(objective),
        vocabulary=splits.train.tokens.vocabulary,
        dim=DIM,
        normalized=True,
        anchors_AD=anchors,
    )


def _train(system: TextSystem, splits: TextSplits, epochs: int) -> None:
    system.train()
    optimizer = torch.optim.AdamW(system.parameters(), lr=3e-3)
    for epoch in range(epochs):
        for batch in splits.train.batches(32, seed=0, epoch=epoch):
            loss = weighted_sum(system(batch, torch.Generator()), system.weights)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()


def test_it_learns_queries_that_it_never_saw(splits: TextSplits) -> None:
    system = _system(splits, weights={"cosine": 1.0, "similarity": 0.5})
    system.start_at(splits.train)
    before = system.evaluate(splits.validation, 16)
    assert before.skill < 0.1
    _train(system, splits, 4)
    after = system.evaluate(splits.validation, 16)
    assert after.skill > 0.5
    assert after.overlap > before.overlap
    assert (after.n_tracks, after.n_segments) == (40.0, 40.0)


def test_the_teachers_own_vectors_are_perfect(splits: TextSplits) -> None:
    perfect = figures(splits.test.vectors, splits.test)
    assert perfect.cosine == pytest.approx(1)
    assert perfect.skill == pytest.approx(1)
    assert perfect.overlap == pytest.approx(1)
    constant = figures(np.tile(splits.test.vectors.mean(axis=0), (len(splits.test), 1)), splits.test)
    assert constant.cosine < 0.9


def test_it_starts_at_the_teachers_mean_and_spread(splits: TextSplits) -> None:
    system = _system(splits)
    system.start_at(splits.train)
    mean, std = splits.train.target_statistics()
    np.testing.assert_array_equal(system.mean, mean)
    np.testing.assert_allclose(system.variance, std**2)
    np.testing.assert_array_equal(system.student.head.norm.bias.detach(), mean)


def test_every_term_is_there_and_has_a_weight(splits: TextSplits) -> None:
    weights = {"cosine": 1.0, "mse": 0.5, "similarity": 0.5, "kl": 0.1, "semantic": 0.1}
    anchors = torch.from_numpy(splits.train.anchors())
    system = _system(splits, anchors, weights=weights, logit_scale="learned")
    batch = next(splits.train.batches(8, seed=0, epoch=0))
    terms = system.losses(batch)
    assert set(terms) == set(weights)
    assert system.weights == weights
    weighted_sum(terms, system.weights).backward()
    assert system.scale.logit_scale is not None and system.scale.logit_scale.grad is not None
    assert all(p.grad is not None and p.grad.isfinite().all() for p in system.parameters())


def test_the_semantic_term_without_anchors_is_refused(splits: TextSplits) -> None:
    with pytest.raises(UserError, match="semantic"):
        _system(splits, weights={"cosine": 1.0, "semantic": 0.1})


def test_evaluating_leaves_the_mode_and_does_not_depend_on_the_batch(splits: TextSplits) -> None:
    system = _system(splits).train()
    one, all_at_once = system.embed(splits.test, 1), system.embed(splits.test, 40)
    assert system.training
    np.testing.assert_allclose(one, all_at_once, atol=1e-5)


def test_with_the_head_only_nothing_else_moves(splits: TextSplits) -> None:
    system = _system(splits)
    system.start_at(splits.train)
    before = {name: value.clone() for name, value in system.state_dict().items()}
    system.train_head_only()
    _train(system, splits, 1)
    moved = {name for name, value in system.state_dict().items() if not torch.equal(value, before[name])}
    assert moved == {f"student.head.{name}" for name, _ in system.student.head.named_parameters()}


def test_the_exported_file_gives_the_same_figures(tmp_path: Path, splits: TextSplits) -> None:
    system = _system(splits).eval()
    (spec,) = system.exports()
    path = export_onnx(spec, tmp_path)
    assert path.name == "text_student.onnx"
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    shapes = {i.name: (i.type, i.shape[1:]) for i in session.get_inputs()}
    assert shapes == dict.fromkeys(("input_ids", "attention_mask"), ("tensor(int64)", [77]))
    assert [output.name for output in session.get_outputs()] == ["embedding"]
    vectors = []
    for texts in (splits.test.texts[:1], splits.test.texts[1:]):
        input_ids, mask = splits.test.tokens.ids(texts, length=77)
        feed = {"input_ids": input_ids.numpy(), "attention_mask": mask.numpy()}
        vectors.append(session.run(["embedding"], feed)[0])
    np.testing.assert_allclose(np.concatenate(vectors), system.embed(splits.test, 16), atol=1e-5)
    assert math.isfinite(figures(np.concatenate(vectors), splits.test).skill)
