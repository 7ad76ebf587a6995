"""How well texts find music in the space of a frozen audio model, and music its texts."""

from dataclasses import asdict, dataclass

from etude.evaluation.cross_modal import RECALLS, CrossModal
from etude.evaluation.figures import Line, shown

_WAYS = {"t2a": "text_to_music", "a2t": "music_to_text"}


@dataclass(frozen=True)
class ProjectionFigures:
    """Retrieval both ways, and the loss in batches of the size that was trained with."""

    retrieval: CrossModal
    loss: float

    @property
    def score(self) -> float:
        return self.retrieval.text_to_music_recall_at_1

    def named(self) -> dict[str, float]:
        """Seed 3's names and units: recall in percent, MRR from 0 to 1; chance is beside each.

        MLflow takes no `@` in a name; `as_dict` says `R_at_1` there.
        """
        found = asdict(self.retrieval)
        figures = {}
        for short, way in _WAYS.items():
            for end in ("", "_chance"):
                for k in RECALLS:
                    figures[f"{short}_R@{k}{end}"] = 100 * found[f"{way}_recall_at_{k}{end}"]
                figures[f"{short}_MRR{end}"] = found[f"{way}_mrr{end}"]
                figures[f"{short}_median_rank{end}"] = found[f"{way}_median_rank{end}"]
        return figures | {"loss": self.loss}

    def as_dict(self, prefix: str) -> dict[str, float]:
        return {f"{prefix}/{name.replace('@', '_at_')}": value for name, value in self.named().items()}

    def lines(self, things: str) -> list[Line]:
        found, lines = self.named(), []
        for way in _WAYS:
            for figure, unit in (*((f"R@{k}", " %") for k in (10, 1, 5)), ("MRR", "")):
                value, chance = (found[f"{way}_{figure}{end}"] for end in ("", "_chance"))
                times = f"{value / chance:.1f} times chance, {chance:.3g}{unit}"
                lines.append(Line(f"{way}_{figure}", shown(value, 3 if figure == "MRR" else 2) + unit, times))
            value, chance = (found[f"{way}_median_rank{end}"] for end in ("", "_chance"))
            lines.append(Line(f"{way}_median_rank", f"{value:.1f}", f"chance {chance:.1f}, 1 is best"))
        return lines

    def held_out(self, things: str) -> str:
        n_tracks, n_captions = self.retrieval.n_tracks, self.retrieval.n_captions
        return f"{n_tracks:.0f} held-out {things} with {n_captions:.0f} captions"
