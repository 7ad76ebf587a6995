"""How well music finds its words, words their music, and both what the teachers say."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass

from etude.evaluation.cross_modal import CrossModal
from etude.evaluation.figures import Line, shown
from etude.evaluation.metrics import Metrics


@dataclass(frozen=True)
class MusicTextFigures:
    """Retrieval both ways, and how well each teacher was learned."""

    retrieval: CrossModal
    teachers: Mapping[str, Metrics]  # by loss term

    @property
    def score(self) -> float:
        return self.retrieval.text_to_music_mrr

    def as_dict(self, prefix: str) -> dict[str, float]:
        figures = self.retrieval.as_dict(prefix)
        for term, metrics in self.teachers.items():
            figures |= metrics.as_dict(f"{prefix}/{term}")
        return figures

    def lines(self, things: str) -> list[Line]:
        found, lines = asdict(self.retrieval), []
        for way in ("text to music", "music to text"):
            for figure, name in (("mrr", "MRR"), ("recall_at_1", "R@1"), ("recall_at_5", "R@5"),
                                 ("recall_at_10", "R@10")):  # fmt: skip
                value, chance = (found[f"{way.replace(' ', '_')}_{figure}{end}"] for end in ("", "_chance"))
                times = f"{value / chance:.1f} times chance, {chance:.3f}"
                lines.append(Line(f"{way} {name}", shown(value), times))
            value, chance = (found[f"{way.replace(' ', '_')}_median_rank{end}"] for end in ("", "_chance"))
            lines.append(Line(f"{way} median rank", f"{value:.1f}", f"chance {chance:.1f}, 1 is best"))
        lines += [
            Line(f"skill of {term}", shown(metrics.skill), "0 = best constant, 1 = the teacher")
            for term, metrics in self.teachers.items()
        ]
        return lines

    def held_out(self, things: str) -> str:
        return (
            f"{self.retrieval.n_tracks:.0f} held-out {things} with {self.retrieval.n_captions:.0f} captions"
        )
