"""Do texts find the music that they describe, and music its texts?

Both ways all tracks of a held-out set are ranked, and every track weighs the same:

- text to music: each caption ranks the tracks; a track's figures are the means over its captions.
- music to text: each track ranks the tracks by the best of their captions, so that several captions of one
  track are not several tracks.

Tracks that tie stand in every order equally often: figures are the means over these orders, so an encoder
that answers always the same is at chance. A caption that several tracks carry is right for each of them:
for one of them, the others do not compete by it. Chance is that of a ranking at random of what competes: with
t tracks k / t for recall at k, (t + 1) / 2 for the median rank, and (1 + 1/2 + ... + 1/t) / t for the mean
reciprocal rank. It is exact but where tracks share some of their captions, music to text.
"""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from etude.evaluation.metrics import track_means, unit
from etude.evaluation.retrieval import TIE

RECALLS = (1, 5, 10)
_CELLS = 4_000_000  # cosines at a time, 32 MB: all pairs of a large library would not fit into memory
_NUMBERS = 16_000_000  # of vectors that are made float64 at a time, 128 MB
Floats = NDArray[np.float64]
Vectors = NDArray[np.floating]


@dataclass(frozen=True)
class CrossModal:
    """Retrieval both ways, each figure with its chance. Of recall and mrr more is better, of ranks less."""

    text_to_music_recall_at_1: float
    text_to_music_recall_at_1_chance: float
    text_to_music_recall_at_5: float
    text_to_music_recall_at_5_chance: float
    text_to_music_recall_at_10: float
    text_to_music_recall_at_10_chance: float
    text_to_music_median_rank: float  # over tracks, of the mean over a track's captions; 1 is best
    text_to_music_median_rank_chance: float
    text_to_music_mrr: float  # mean reciprocal rank
    text_to_music_mrr_chance: float
    music_to_text_recall_at_1: float
    music_to_text_recall_at_1_chance: float
    music_to_text_recall_at_5: float
    music_to_text_recall_at_5_chance: float
    music_to_text_recall_at_10: float
    music_to_text_recall_at_10_chance: float
    music_to_text_median_rank: float
    music_to_text_median_rank_chance: float
    music_to_text_mrr: float
    music_to_text_mrr_chance: float
    n_tracks: float  # tracks with captions
    n_captions: float

    def as_dict(self, prefix: str) -> dict[str, float]:
        """Plain numbers named `<prefix>/<figure>`, for reports that take only those."""
        return {f"{prefix}/{name}": float(value) for name, value in asdict(self).items()}


def cross_modal(
    music_TD: NDArray[np.floating],
    text_CD: NDArray[np.floating],
    track_C: NDArray[np.integer],
    caption_C: NDArray[Any] | None = None,
) -> CrossModal:
    """Compare tracks with captions; `track_C` says which row of `music_TD` a caption describes.

    `caption_C` [c], numbers or texts, says which captions are the same; without it no two are. Vectors do not
    say it: those of an encoder that has collapsed are all the same.
    Tracks without a caption compete text to music, and take no part music to text. Raises ValueError if there
    is no caption or a vector is not finite.
    """
    music_TD, text_CD, track_C = np.asarray(music_TD), np.asarray(text_CD), np.asarray(track_C)
    if not len(track_C):
        raise ValueError("there is no caption to compare music with")
    if not (np.isfinite(music_TD).all() and np.isfinite(text_CD).all()):
        raise ValueError("an encoder gave vectors that are not finite numbers, which have no ranking")
    captions = np.arange(len(track_C)) if caption_C is None else np.asarray(caption_C)
    caption_C = np.unique(captions, return_inverse=True)[1]
    order_C = np.argsort(track_C, kind="stable")  # music to text wants a track's captions side by side
    text, music = text_CD[order_C], music_TD
    track_C, caption_C = track_C[order_C], caption_C[order_C]
    described, row_C = np.unique(track_C, return_inverse=True)

    by_text = _ranked_by_text(music, text, track_C, caption_C)
    by_music = _ranked_by_music(music[described], text, row_C, caption_C)
    n_tracks = len(described)
    figures = _figures("text_to_music", track_means(by_text, row_C, n_tracks))
    figures |= _figures("music_to_text", by_music)
    return CrossModal(**figures, n_tracks=float(n_tracks), n_captions=float(len(text)))


def _ranked_by_text(
    music_TD: Vectors, text_CD: Vectors, track_C: NDArray[Any], caption_C: NDArray[Any]
) -> Floats:
    """What `_places` says of each caption's track among all tracks [c, figures]."""
    carriers = _where(caption_C)
    places = []
    for rows in _blocks(len(text_CD), len(music_TD)):
        score_RT = _cosines(text_CD[rows], music_TD)
        for score_T, own, caption in zip(score_RT, track_C[rows], caption_C[rows], strict=True):
            others = track_C[carriers[caption]]
            score_T[others[others != own]] = -np.inf
        places.append(_places(score_RT, track_C[rows]))
    return np.concatenate(places)


def _ranked_by_music(
    music_TD: Vectors, text_CD: Vectors, track_C: NDArray[Any], caption_C: NDArray[Any]
) -> Floats:
    """What `_places` says of each track among all tracks by their best captions [t, figures].

    Captions are in the order of tracks, and every track has one.
    """
    carriers = _where(caption_C)
    firsts = np.flatnonzero(np.diff(track_C, prepend=-1))
    own_captions = np.split(caption_C, firsts[1:])
    places = []
    for rows in _blocks(len(music_TD), len(text_CD)):
        score_RC = _cosines(music_TD[rows], text_CD)
        own_R = np.arange(len(music_TD))[rows]
        for score_C, own in zip(score_RC, own_R, strict=True):
            for caption in own_captions[own]:
                others = carriers[caption]
                score_C[others[track_C[others] != own]] = -np.inf
        places.append(_places(np.maximum.reduceat(score_RC, firsts, axis=1), own_R))
    return np.concatenate(places)


def _cosines(a_RD: Vectors, b_ND: Vectors) -> Floats:
    """All cosines [r, n] in float64; a library of wide vectors would not fit into memory as such."""
    at_once = max(1, _NUMBERS // a_RD.shape[1])
    found = np.empty((len(a_RD), len(b_ND)))
    for row in range(0, len(a_RD), at_once):
        some = unit(a_RD[row : row + at_once])
        for column in range(0, len(b_ND), at_once):
            others = unit(b_ND[column : column + at_once])
            found[row : row + at_once, column : column + at_once] = some @ others.T
    return found


def _blocks(n_rows: int, n_columns: int) -> Iterator[slice]:
    size = max(1, _CELLS // n_columns)
    return (slice(start, start + size) for start in range(0, n_rows, size))


def _where(caption_C: NDArray[Any]) -> dict[int, NDArray[np.intp]]:
    """The places of every caption."""
    found: dict[int, list[int]] = defaultdict(list)
    for place, caption in enumerate(caption_C):
        found[caption].append(place)
    return {caption: np.array(places) for caption, places in found.items()}


def _places(score_RT: Floats, own_R: NDArray[Any]) -> Floats:
    """Recalls, rank and reciprocal rank of the own track of every row, then the chance of each [r, 10].

    What scores -inf does not compete.
    """
    own = np.take_along_axis(score_RT, own_R[:, None], axis=1)
    n_better = (score_RT > own + TIE).sum(axis=1)
    n_tied = (np.abs(score_RT - own) <= TIE).sum(axis=1)  # itself among them
    n_all = np.isfinite(score_RT).sum(axis=1)
    return np.concatenate([_among(n_better, n_tied), _among(np.zeros_like(n_all), n_all)], axis=1)


def _among(n_better: NDArray[Any], n_tied: NDArray[Any]) -> Floats:
    """Means of the figures over the places after `n_better`, `n_tied` of them."""
    harmonic = np.concatenate([[0.0], np.cumsum(1 / np.arange(1, (n_better + n_tied).max() + 1))])
    recalls = [np.clip((k - n_better) / n_tied, 0, 1) for k in RECALLS]
    reciprocal = (harmonic[n_better + n_tied] - harmonic[n_better]) / n_tied
    return np.stack([*recalls, n_better + (n_tied + 1) / 2, reciprocal], axis=1)


def _figures(way: str, places_TF: Floats) -> dict[str, float]:
    """Over all tracks: means, and of ranks the median."""
    names = [*(f"recall_at_{k}" for k in RECALLS), "median_rank", "mrr"]
    found = {}
    for column, name in enumerate([*names, *(f"{name}_chance" for name in names)]):
        middle = np.median if name.startswith("median_rank") else np.mean
        found[f"{way}_{name}"] = float(middle(places_TF[:, column]))
    return found
