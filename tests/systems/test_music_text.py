"""A music and a text encoder find each other, and what the teachers say in their space."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch.nn.parallel import DistributedDataParallel

from etude.audio.augment import AugmentConfig
from etude.audio.recipe import FeatureRecipe
from etude.data.batches import Batch, Dataset, Targets, TrackRow
from etude.data.music_text import Captioned, MusicTextBatch, add_captions
from etude.data.sampling import SamplingConfig, TrainingSegments
from etude.data.text import CachedTeacher
from etude.errors import UserError
from etude.experiments.music_text import MusicTextExperiment
from etude.objectives.weighting import weighted_sum
from etude.students import StudentConfig
from etude.students.text_encoder import TextStudentConfig
from etude.students.tokenizer import TokenizerConfig, train_tokenizer
from etude.students.tokens import Tokens
from etude.systems.music_text import MusicText, MusicTextObjective, MusicTextWeights
from etude.training.synchronised import synchronise
from tests.support.library import DIM, made_up_splits
from tests.support.ranks import on_two_ranks

WORDS = ("reed", "drum", "harp", "bell", "lute", "horn", "viol", "fife", "gong", "lyre", "oboe", "tuba")
OTHER_DIM = 3
MUSIC = StudentConfig(name="convnet", width=0.1, dropout=0)
TEXT = TextStudentConfig(name="mean", hidden=16, dropout=0, max_tokens=16)


def captions_of(place: int) -> tuple[str, ...]:
    """Three that say the same of a track, and of no other."""
    word = WORDS[place % len(WORDS)]
    return tuple(
        f"{before} {word} {after}" for before, after in (("a", "alone"), ("one", "song"), ("the", "tune"))
    )


def tokens() -> Tokens:
    texts = [text for place in range(len(WORDS)) for text in captions_of(place)]
    return Tokens(train_tokenizer(texts, TokenizerConfig(vocabulary=300, min_frequency=1)), TEXT.max_tokens)


@pytest.fixture(scope="module")
def captioned(tmp_path_factory: pytest.TempPathFactory) -> Captioned:
    return captioned_in(tmp_path_factory.mktemp("library"))


def captioned_in(folder: Path) -> Captioned:
    """Nine tracks, two teachers, three captions each."""
    train = made_up_splits(folder, 14).train
    rows = []
    for row in train:
        second = row.segment_targets[:, :OTHER_DIM].copy()
        also = (Targets(second, second.mean(axis=0)),)
        rows.append(TrackRow(row.track, row.mel, row.segment_targets, row.track_target, also))
    captions = [captions_of(place) for place in range(len(rows))]
    return Captioned(Dataset(rows, train.recipe), captions, tokens(), None)


def system(objective: MusicTextObjective | None = None, **terms: int) -> MusicText:
    torch.manual_seed(0)
    return MusicText(
        MUSIC, TEXT, objective or MusicTextObjective(), AugmentConfig(), FeatureRecipe(),
        dim=16, vocabulary=tokens().vocabulary, teachers=terms or {"musicnn": DIM, "clap": OTHER_DIM},
    )  # fmt: skip


def stream(captioned: Captioned) -> TrainingSegments:
    return TrainingSegments(captioned.dataset, SamplingConfig(segments_per_track=2), captioned.batch)


def test_it_learns_to_find_music_by_its_words_and_what_both_teachers_say(captioned: Captioned) -> None:
    pair = system()
    data = stream(captioned)
    pair.start_at(data)
    before = pair.evaluate(captioned, 8)
    optimizer = torch.optim.AdamW([p for p in pair.parameters() if p.requires_grad], lr=1e-2)
    for epoch in range(40):
        for batch in data.batches(8, seed=0, epoch=epoch):
            terms = pair(batch, torch.Generator().manual_seed(0))
            assert set(terms) == set(pair.weights) == {"contrastive", "musicnn", "clap"}
            weighted_sum(terms, pair.weights).backward()
            optimizer.step()
            optimizer.zero_grad()
    after = pair.evaluate(captioned, 8)
    assert after.score == after.retrieval.text_to_music_mrr
    assert before.score < 0.6 < 0.9 < after.score
    assert after.retrieval.music_to_text_mrr > 0.9
    # A map of an untrained encoder answers the teacher's mean, and no more.
    assert all(found.skill < 0.2 for found in before.teachers.values())
    assert all(found.skill > 0.5 for found in after.teachers.values())
    shown = {line.name: line for line in after.lines("tracks")}
    assert "times chance" in shown["text to music R@10"].beside
    assert {"skill of musicnn", "skill of clap"} <= set(shown)


def test_workers_share_the_same_pairs(captioned: Captioned) -> None:
    data = stream(captioned)

    def pairs(batches: list[MusicTextBatch]) -> list[tuple[int, int]]:
        return [
            pair for batch in batches
            for pair in zip(batch.audio.track.tolist(), batch.caption.tolist(), strict=True)
        ]  # fmt: skip

    for epoch in range(3):
        whole = pairs(list(data.batches(6, seed=5, epoch=epoch)))
        halves = [
            pairs(list(data.batches(6, seed=5, epoch=epoch, rank=rank, world_size=2))) for rank in (0, 1)
        ]
        assert sorted(halves[0] + halves[1]) == sorted(whole)
        assert [pair for two in zip(*halves, strict=True) for pair in two] == whole
    drawn = {
        caption for epoch in range(8) for _, caption in pairs(list(data.batches(6, seed=5, epoch=epoch)))
    }
    assert len(drawn) > len(captioned.captions)  # not always the same one of a track's


def steps_of(rank: int, folder: Path, world_size: int = 2) -> dict[str, torch.Tensor]:
    """The terms of three steps, and the state after them."""
    data = stream(captioned_in(folder / f"library-{rank}-of-{world_size}"))
    pair = system().train()
    pair.start_at(data)
    synchronise(pair)
    module = DistributedDataParallel(pair, broadcast_buffers=False) if world_size > 1 else pair
    optimizer = torch.optim.SGD(pair.parameters(), lr=0.1)
    found = {}
    for step in range(3):
        batch = next(data.batches(8, seed=0, epoch=step, rank=rank, world_size=world_size))
        terms = module(batch)
        weighted_sum(terms, pair.weights).backward()
        optimizer.step()
        optimizer.zero_grad()
        found |= {f"{step}/{name}": term.detach() for name, term in terms.items()}
    return found | {f"after/{name}": value.clone() for name, value in pair.state_dict().items()}


@pytest.mark.slow
def test_two_workers_learn_what_one_learns(tmp_path: Path) -> None:
    """The whole pair, batch norm and all: every rank has the contrast of all pairs, and its share of what is
    said of single segments. The losses of later steps tell that weights moved alike; they themselves differ
    a little where max pooling chooses by rounding."""
    first, second = on_two_ranks(steps_of, tmp_path, tmp_path)
    alone = steps_of(0, tmp_path, world_size=1)
    assert any("running_var" in name for name in alone)
    assert alone["0/contrastive"] != alone["2/contrastive"]
    for name, value in alone.items():
        one, other = first[name], second[name]
        if name.startswith("after"):
            torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-5, msg=name)
        elif name.endswith("contrastive"):
            torch.testing.assert_close(torch.stack([one, other]), value.expand(2), atol=1e-5, rtol=1e-5)
        else:
            torch.testing.assert_close((one + other) / 2, value, atol=1e-5, rtol=1e-5, msg=name)


def test_chunks_change_no_loss_and_no_gradient(captioned: Captioned) -> None:
    """In double precision, where no pooling chooses by rounding, and with the batch norm's own statistics."""
    batch = next(iter(stream(captioned).batches(8, seed=0, epoch=0)))
    batch = replace(batch, audio=replace(batch.audio, mel=batch.audio.mel.double()))
    found = []
    for chunk in (None, 3):
        objective = MusicTextObjective.model_validate({"contrastive": {"chunk": chunk}})
        pair = system(objective).double().eval()
        loss = weighted_sum(pair.losses(batch), pair.weights)
        loss.backward()
        gradients = {name: p.grad for name, p in pair.named_parameters() if p.grad is not None}
        found.append((loss, gradients))
    (plain, wanted), (chunked, gradients) = found
    torch.testing.assert_close(chunked, plain, atol=1e-5, rtol=0)
    assert wanted.keys() == gradients.keys()
    for name, gradient in wanted.items():
        torch.testing.assert_close(gradients[name], gradient, atol=1e-5, rtol=0)


def test_a_state_is_the_same_pair_again(captioned: Captioned) -> None:
    first = system()
    state = {name: value + 1 for name, value in first.state_dict().items()}
    again = MusicText(
        MUSIC, TEXT, MusicTextObjective(), AugmentConfig(), FeatureRecipe(), dim=16,
        vocabulary=tokens().vocabulary, teachers={"musicnn": DIM, "clap": OTHER_DIM}, state=state,
    )  # fmt: skip
    assert all(torch.equal(value, state[name]) for name, value in again.state_dict().items())


def test_a_state_of_another_pair_is_refused() -> None:
    state = system(musicnn=DIM).state_dict()
    sigmoid = MusicTextObjective.model_validate({"contrastive": {"form": "sigmoid"}})
    for objective, teachers in ((sigmoid, {"musicnn": DIM}), (MusicTextObjective(), {"musicnn": 7})):
        with pytest.raises(UserError, match="the checkpoint holds another pair than its configuration says"):
            MusicText(
                MUSIC, TEXT, objective, AugmentConfig(), FeatureRecipe(), dim=16,
                vocabulary=tokens().vocabulary, teachers=teachers, state=state,
            )  # fmt: skip


def test_weights_are_the_seeds_where_a_teacher_is_there() -> None:
    assert MusicTextObjective().resolved(["musicnn", "clap"]) == {
        "contrastive": 0.3, "musicnn": 0.3, "clap": 0.4,
    }  # fmt: skip
    assert MusicTextObjective().resolved(["clap"]) == {"contrastive": 0.3, "clap": 0.4}
    given = MusicTextObjective(weights=MusicTextWeights(clap=0.2))
    with pytest.raises(ValueError, match=r"objective\.weights\.clap is 0\.2, and there is no such teacher"):
        given.resolved(["musicnn"])
    with pytest.raises(ValueError, match="all weights are 0"):
        MusicTextObjective(weights=MusicTextWeights(contrastive=0, musicnn=0)).resolved(["musicnn"])


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"objective": {"weights": {"clap": 0.4}}}, "there is no such teacher"),
        ({"prepare": {"also": [{"name": "msd_musicnn"}]}}, "say the same"),
        ({"sampling": {"strategy": "both"}}, "leave sampling.strategy at segments"),
        ({"augment": {"mixup_alpha": 0.3}}, "a mix has no caption"),
        ({"text": {"name": "mean", "layers": 3}}, "belong to the transformer"),
    ],
)
def test_settings_that_do_not_fit_are_refused(wrong: dict[str, object], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        MusicTextExperiment.model_validate(wrong)


def test_a_caption_longer_than_the_encoder_takes_is_named(tmp_path: Path) -> None:
    splits = made_up_splits(tmp_path)
    rows = [*splits.train, *splits.validation, *splits.test]
    captions = {row.track.id: ("a reed alone",) for row in rows}
    assert add_captions(splits, captions, tokens(), None).data_hash != splits.data_hash
    captions[rows[-1].track.id] = ("reed drum harp bell " * 8,)
    with pytest.raises(UserError, match=r"has more than 16 tokens: raise text\.max_tokens"):
        add_captions(splits, captions, tokens(), None)


class Curt:
    """A teacher of texts that reads no more than 20 characters."""

    id, dim, normalized, license = "curt-1", 4, True, "CC0"

    def too_long(self, texts: list[str]) -> list[int]:
        return [i for i, text in enumerate(texts) if len(text) > 20]

    def embed(self, texts: list[str]) -> np.ndarray:
        return np.ones((len(texts), self.dim), np.float32)


def test_a_caption_longer_than_its_teacher_takes_is_named_before_training(tmp_path: Path) -> None:
    splits = made_up_splits(tmp_path)
    captions = {row.track.id: ("a reed",) for row in (*splits.train, *splits.validation, *splits.test)}
    teacher = CachedTeacher(Curt(), tmp_path / "cache")
    assert add_captions(splits, captions, tokens(), teacher)
    captions[splits.test[0].track.id] = ("a reed and a drum and a harp",)
    with pytest.raises(UserError, match="is longer than curt-1 takes: choose another text_teacher"):
        add_captions(splits, captions, tokens(), teacher)


def test_several_targets_stand_beside_a_batch(captioned: Captioned) -> None:
    batch = captioned.dataset.batch([(0, 0), (1, 0)])
    assert isinstance(batch, Batch)
    assert batch.also[0].shape == (2, OTHER_DIM)
    np.testing.assert_array_equal(batch.also[0].numpy(), batch.target[:, :OTHER_DIM].numpy())
