"""The thesaurus: 216 feelings in 6 categories of 6 subcategories, at 6 levels each.

Positions and musical factors are those of facts b (facts/projection_and_emotion.md), emotion_nodes.json; the
names of the subcategories are Étude's own, in the order that the formulas ask for.
"""

import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from itertools import product
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.distance import cdist

from etude.emotion.vad import VAD, clipped
from etude.errors import UserError

# Subcategories rise in valence and in dominance.
SUBCATEGORIES: dict[str, tuple[str, ...]] = {
    "joy": ("relief", "hope", "contentment", "pride", "delight", "elation"),
    "sad": ("despair", "grief", "loneliness", "sorrow", "melancholy", "nostalgia"),
    "anger": ("hatred", "bitterness", "resentment", "frustration", "irritation", "defiance"),
    "fear": ("horror", "panic", "dread", "anxiety", "worry", "suspense"),
    "surprise": ("shock", "confusion", "disbelief", "astonishment", "amazement", "wonder"),
    "disgust": ("revulsion", "loathing", "aversion", "disapproval", "disdain", "contempt"),
}
CATEGORIES: tuple[str, ...] = tuple(SUBCATEGORIES)
LEVELS = ("subtle", "mild", "moderate", "strong", "intense", "extreme")
MAJOR = frozenset({"joy", "surprise"})
N_NODES: Final = 216
_BASE = {  # valence, arousal and dominance of a category
    "joy": (0.8, 0.6, 0.6),
    "sad": (-0.6, 0.3, 0.3),
    "anger": (-0.5, 0.8, 0.8),
    "fear": (-0.7, 0.7, 0.2),
    "surprise": (0.3, 0.8, 0.5),
    "disgust": (-0.6, 0.5, 0.6),
}
_WEIGHTS = np.sqrt([2.0, 2.0, 1.0, 1.0])  # of the four in a distance
_REACH = 3  # steps along the levels or the subcategories to a related node of the same category
_NEAR = 0.35  # distance to a related node of another category; two steps along the levels of joy are 0.36
_SOFTNESS = 0.2  # a related node that is so much farther counts 1/e


@dataclass(frozen=True)
class Node:
    """One feeling: where it lies, how it is played (facts b), and which are related to it."""

    id: int  # category * 36 + subcategory * 6 + level
    name: str
    category: str
    subcategory: str
    level: str
    vad: VAD
    mode: str  # major or minor
    tempo_factor: float
    dynamics_factor: float
    related: tuple[int, ...]  # ids, ascending

    @property
    def path(self) -> str:
        """`category/subcategory/level`, lower case: unique, and what users type."""
        return f"{self.category}/{self.subcategory}/{self.level}".lower()


class Thesaurus:
    """216 nodes in the order of their ids, and distances among feelings."""

    def __init__(self, nodes: Sequence[Node]) -> None:
        assert [node.id for node in nodes] == list(range(N_NODES)), "readers see to it"
        self.nodes = tuple(nodes)
        self.vad_N4: NDArray[np.float64] = np.array([node.vad for node in nodes])
        self._by_path = {node.path: node for node in self.nodes}
        self._by_id = {str(node.id): node for node in self.nodes}
        self._by_name: dict[str, list[Node]] = {}
        for node in self.nodes:
            self._by_name.setdefault(node.name.lower(), []).append(node)

    def distance(self, a_N4: NDArray[np.floating], b_M4: NDArray[np.floating]) -> NDArray[np.float64]:
        """[n, m]: sqrt(2 dv² + 2 da² + dd² + di²), facts b."""
        return distance(a_N4, b_M4)

    def nearest(self, vad_N4: NDArray[np.floating], k: int = 1) -> NDArray[np.int64]:
        """Ids [n, k] of the k nodes nearest to each row [n, 4], the nearest first."""
        assert 1 <= k <= N_NODES
        order = np.argsort(distance(vad_N4, self.vad_N4), axis=1, kind="stable")
        return order[:, :k].astype(np.int64)

    def find(self, name: str) -> Node:
        """The node of this path, name or id. Raises UserError that names close ones."""
        wanted = name.strip().lower()
        if node := self._by_path.get(wanted) or self._by_id.get(wanted):
            return node
        named = self._by_name.get(wanted, [])
        if len(named) == 1:
            return named[0]
        if named:
            paths = ", ".join(node.path for node in named)
            raise UserError(f"{name} is the name of several nodes of the thesaurus: give one of {paths}")
        raise UserError(f"the thesaurus has no node {name!r:.60}: {self._hint(wanted)}")

    def related(self, node_id: int) -> list[tuple[int, float]]:
        """Ids of related nodes with weights by distance, which sum to 1, the closest first."""
        ids = np.array(self.nodes[node_id].related, dtype=np.int64)
        far = distance(self.vad_N4[[node_id]], self.vad_N4[ids])[0]
        weight = np.exp(-far / _SOFTNESS)
        weight /= weight.sum()
        order = np.argsort(far, kind="stable")
        return [(int(ids[i]), float(weight[i])) for i in order]

    def _hint(self, wanted: str) -> str:
        below = [path for path in self._by_path if wanted and path.startswith(wanted.rstrip("/") + "/")]
        known = [*self._by_path, *self._by_name]
        close = below[:: max(1, len(below) // 6)] or difflib.get_close_matches(wanted, known, n=3, cutoff=0.5)
        if close:
            return f"close to it are {', '.join(close)}"
        return f"give an id from 0 to {N_NODES - 1} or a path such as {self.nodes[26].path}"


def distance(a_N4: NDArray[Any], b_M4: NDArray[Any]) -> NDArray[np.float64]:
    """[n, m]: sqrt(2 dv² + 2 da² + dd² + di²), facts b."""
    return np.asarray(cdist(np.asarray(a_N4) * _WEIGHTS, np.asarray(b_M4) * _WEIGHTS))


def relations(vad_N4: NDArray[np.floating]) -> list[tuple[int, ...]]:
    """For each of 216 nodes the ids of those related to it; the relation goes both ways.

    In its category up to three steps along the levels or along the subcategories; elsewhere what is near.
    """
    category, subcategory, level = np.unravel_index(np.arange(N_NODES), (6, 6, 6))
    same = category[:, None] == category
    subs, levels = (abs(axis[:, None] - axis) for axis in (subcategory, level))
    beside = same & (np.minimum(subs, levels) == 0) & (np.maximum(subs, levels) <= _REACH)
    related = beside | (~same & (distance(vad_N4, vad_N4) < _NEAR))
    np.fill_diagonal(related, False)
    return [tuple(int(other) for other in np.flatnonzero(row)) for row in related]


def tempo_factor(vad: VAD) -> float:
    """What a tempo is multiplied by, facts b."""
    return 1 + 0.4 * (vad.arousal - 0.5)


def dynamics_factor(vad: VAD) -> float:
    """What loudness is multiplied by, facts b."""
    return 0.5 + 0.5 * vad.intensity


def mode_of(category: str) -> str:
    """Major for joy and surprise, facts b."""
    return "major" if category in MAJOR else "minor"


@cache
def thesaurus() -> Thesaurus:
    """Étude's own thesaurus, always the same."""
    places = list(product(range(6), repeat=3))
    vads = [_vad(*place) for place in places]
    related = relations(np.array(vads))
    nodes = []
    for number, ((c, s, k), vad) in enumerate(zip(places, vads, strict=True)):
        category, level = CATEGORIES[c], LEVELS[k]
        subcategory = SUBCATEGORIES[category][s]
        nodes.append(
            Node(
                id=number,
                name=f"{level} {subcategory}",
                category=category,
                subcategory=subcategory,
                level=level,
                vad=vad,
                mode=mode_of(category),
                tempo_factor=tempo_factor(vad),
                dynamics_factor=dynamics_factor(vad),
                related=related[number],
            )
        )
    return Thesaurus(nodes)


def _vad(category: int, subcategory: int, level: int) -> VAD:
    valence, arousal, dominance = _BASE[CATEGORIES[category]]
    intensity = (level + 1) / 6
    shift = (subcategory - 2.5) / 5 * 0.3
    vad = (valence + shift, arousal * (0.5 + 0.5 * intensity), dominance + 0.5 * shift, intensity)
    return VAD(*(float(number) for number in clipped(np.array(vad))))
