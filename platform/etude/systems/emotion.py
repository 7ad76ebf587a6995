"""One of the five emotion models (seed 5) with its objective and its figures."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import xlogy
from torch import Tensor, nn

from etude.data.emotion_examples import CATEGORY_NODES, EmotionBatch, EmotionStream, Examples, HeldOut
from etude.emotion.expression import EXPRESSION
from etude.emotion.models import FILES, Model
from etude.emotion.thesaurus import CATEGORIES, thesaurus
from etude.emotion.vad import decode
from etude.errors import UserError
from etude.evaluation.emotion import EmotionFigures, Hits, figures, top
from etude.objectives.emotion import EmotionObjective, output_terms, recognizer_terms, weights_of
from etude.students.emotion import EmotionNetwork, build_emotion_network
from etude.students.emotion_folding import folded
from etude.students.emotion_layers import EmotionStudentConfig
from etude.systems.base import ExportSpec

DISTRIBUTIONS = frozenset({"melody", "harmony"})
Heads = tuple[
    NDArray[np.float32], NDArray[np.float32]
]  # scores of the categories [n, 6], of the nodes [n, 216]
HEAD_RATE = 50.0  # of the learning rate: the heads read an embedding whose numbers hardly differ
INPUT, OUTPUT, BATCH_AXIS = "input", "output", "batch_size"  # in the files: facts, b


class EmotionSystem(nn.Module):
    """A network and what it is asked for."""

    variance: Tensor

    def __init__(self, model: Model, student: EmotionStudentConfig, objective: EmotionObjective) -> None:
        super().__init__()
        self.model = model
        self.network: EmotionNetwork = build_emotion_network(model, student)
        self.register_buffer("variance", torch.ones(self.network.plan.output.n_out))
        self._objective = objective
        self.network.freeze_first(student.frozen_layers)

    @property
    def weights(self) -> dict[str, float]:
        return weights_of(self.model, self._objective)

    def start_at(self, data: EmotionStream) -> None:
        """Begin as the best constant, and know how far inputs and targets spread."""
        mean, spread = (torch.from_numpy(array) for array in data.target_statistics())
        self.variance.copy_(spread.square())
        if self.network.plan.standardised:
            self.network.standardise_by(*(torch.from_numpy(array) for array in data.input_statistics()))
        self.network.start_at(mean)

    def train_head_only(self) -> None:
        raise UserError(
            "the emotion models have no projection head: set training.stage2_epochs to 0, and "
            "student.frozen_layers for what shall stay as it is"
        )

    def compile_student(self) -> None:
        self.network.compile()

    def reset_logit_scale(self) -> None:
        raise UserError("the emotion models have no logit scale: leave it out of training.reset")

    def rate_of(self, parameter: str) -> float:
        return HEAD_RATE if "_head." in parameter else 1.0

    def losses(self, batch: EmotionBatch, generator: torch.Generator | None = None) -> dict[str, Tensor]:
        """The terms of a batch. Examples are moved by their stream, so the generator has no use."""
        if self.model != "recognizer":
            logits_BO = self.network.logits(batch.inputs)
            return output_terms(
                self.model, logits_BO, batch.targets,
                variance_O=self.variance, config=self._objective, weight_B=batch.weight,
            )  # fmt: skip
        embedding_BE = self.network(batch.inputs)
        return recognizer_terms(
            embedding_BE, self.network.heads(embedding_BE),
            target_BE=batch.targets, category=batch.node // CATEGORY_NODES, node=batch.nodes,
            variance_E=self.variance, config=self._objective, weight_B=batch.weight,
        )  # fmt: skip

    forward = losses

    @torch.inference_mode()
    def answers(self, examples: Examples, batch_size: int) -> NDArray[np.float32]:
        """What the model says of all examples [n, out]."""
        was_training = self.training
        self.eval()
        found = []
        for start in range(0, len(examples), batch_size):
            chosen = np.arange(start, min(start + batch_size, len(examples)))
            inputs = examples.batch(chosen).inputs.to(self.variance.device)
            found.append(self.network(inputs).float().cpu().numpy())
        self.train(was_training)
        return np.concatenate(found)

    @torch.inference_mode()
    def evaluate(self, dataset: HeldOut, batch_size: int) -> EmotionFigures:
        found = self.answers(dataset.examples, batch_size)
        if self.model == "harmony":
            return compare(found, dataset, misled_NO=self.answers(dataset.examples.misled(), batch_size))
        if self.model != "recognizer":
            return compare(found, dataset)
        category_NC, node_NC = self.network.heads(torch.from_numpy(found).to(self.variance.device))
        return compare(found, dataset, (category_NC.cpu().numpy(), node_NC.cpu().numpy()))

    def exports(self) -> Sequence[ExportSpec]:
        """The network with its norms folded in, without heads."""
        return (export_spec(self.model, self.network),)


def export_spec(model: Model, network: EmotionNetwork) -> ExportSpec:
    """The network as one ONNX file, batch norm folded into its weights."""
    inputs = {INPUT: torch.zeros(2, network.plan.n_in)}
    return ExportSpec(FILES[model], folded(network, standardisation=False), inputs, OUTPUT, BATCH_AXIS)


def compare(
    answers_NO: NDArray[np.float32],
    held_out: HeldOut,
    heads: Heads | None = None,
    misled_NO: NDArray[np.float32] | None = None,
) -> EmotionFigures:
    """Figures of answers [n, out] beside the best constant's; with `heads`, of theirs too.

    `misled_NO` are answers [n, out] to another piece's emotion: what is better than these is owed to it.
    """
    examples = held_out.examples
    constant_NO = np.tile(held_out.constant, (len(examples), 1))
    loss, of_constant = (errors(examples, found) for found in (answers_NO, constant_NO))
    shares, skills = dict[str, Hits](), {}
    if examples.model == "recognizer":
        shares = _class_shares(answers_NO, held_out, heads)
    if examples.model in DISTRIBUTIONS:
        best = examples.targets.argmax(axis=1)
        name = "next_chord" if examples.model == "harmony" else "commonest_pitch"
        hits = (top(answers_NO, best, 1), top(constant_NO, best, 1))
        shares[f"{name}_accuracy"] = Hits(*hits, 1 / len(held_out.constant))
    if examples.model == "dynamics":
        squared = [(found - examples.targets) ** 2 for found in (answers_NO, constant_NO)]
        skills = {one.name: (squared[0][:, i], squared[1][:, i]) for i, one in enumerate(EXPRESSION)}
    if misled_NO is not None:
        skills["emotion"] = (loss, errors(examples, misled_NO))
    return figures(loss, of_constant, examples.piece, shares=shares, skills=skills)


def errors(examples: Examples, answers_NO: NDArray[np.floating]) -> NDArray[np.float64]:
    """The loss of every answer [n]: squared error, or for distributions the divergence from the target."""
    target, answer = examples.targets.astype(np.float64), answers_NO.astype(np.float64)
    if examples.model not in DISTRIBUTIONS:
        return np.asarray(((answer - target) ** 2).mean(axis=1))
    return np.asarray((xlogy(target, target) - xlogy(target, np.maximum(answer, 1e-12))).sum(axis=1))


def _class_shares(
    embedding_NE: NDArray[np.float32], held_out: HeldOut, heads: Heads | None
) -> dict[str, Hits]:
    """Hits of the nodes nearest to the embedding, and of the heads, beside those of the commonest classes."""
    examples = held_out.examples
    node, category = examples.node, examples.node // CATEGORY_NODES
    usual_node = np.tile(held_out.frequency, (len(examples), 1))
    usual = usual_node.reshape(len(examples), len(CATEGORIES), -1).sum(axis=2)
    close = -thesaurus().distance(decode(embedding_NE), thesaurus().vad_N4)
    nearest = close.reshape(len(examples), len(CATEGORIES), -1).max(axis=2)
    scores = {"nearest_category": (nearest, 1), "nearest_5_nodes": (close, 5)}
    if heads is not None:
        scores = {"category_accuracy": (heads[0], 1), "top_5_nodes": (heads[1], 5)} | scores
    of = {1: (category, usual), 5: (node, usual_node)}
    return {
        name: Hits(top(found, of[k][0], k), top(of[k][1], of[k][0], k), k / found.shape[1])
        for name, (found, k) in scores.items()
    }
