"""An evaluation in words: a page in the order a reader wants, and the few lines that a job prints."""

from collections.abc import Sequence
from dataclasses import asdict

from etude.evaluation.distribution import PERCENTILES, Spread
from etude.evaluation.figures import shown
from etude.evaluation.library import Evaluation
from etude.evaluation.retrieval import Agreement
from etude.evaluation.speed import cores

_COLUMNS = {
    "R@1": "recall_1", "R@5": "recall_5", "mAP@10": "map_10", "overlap@10": "overlap_10",
    "mean rank shift": "rank_shift",
}  # fmt: skip


def short(evaluation: Evaluation) -> str:
    """The figures that a person asks for first."""
    m, d = evaluation.metrics, evaluation.distribution
    low, high = (shown(end) for end in d.skill_interval)
    lines = [
        f"{_what(evaluation)}:",
        f"  skill                {shown(m.skill)}   (95 % interval {low} to {high}; 0 = best constant)",
        f"  cosine               {shown(m.cosine, 4)}  (best constant {shown(m.constant_cosine, 4)})",
        f"  cosine of tracks     {shown(m.track_cosine, 4)}  "
        f"(best constant {shown(m.track_constant_cosine, 4)})",
        f"  neighbour overlap    {shown(m.overlap)}   (chance {shown(m.overlap_chance)})",
    ]
    if isinstance(evaluation.answers, str):
        lines.append(f"  text queries         {evaluation.answers}")
    else:
        mean, chance = evaluation.answers.mean, evaluation.answers.chance
        lines.append(
            f"  text queries         R@1 {shown(mean.recall_1)}, R@5 {shown(mean.recall_5)}, mAP@10 "
            f"{shown(mean.map_10)} (chance {shown(chance.recall_1)}, {shown(chance.recall_5)}, "
            f"{shown(chance.map_10)})"
        )
    for timing in evaluation.timings:
        if timing.threads == 1:
            lines.append(
                f"  {timing.what + ', 1 thread':20} {timing.ms:.1f} ms a segment, "
                f"{timing.times_realtime:.0f} times realtime"
            )
    return "\n".join(lines)


def markdown(evaluation: Evaluation, plots: Sequence[str]) -> str:
    """The report as a page; `plots` lie beside it."""
    sections = [
        f"# {_what(evaluation)}\n\n{_provenance(evaluation)}",
        f"## Quality\n\n{_quality(evaluation)}",
        f"## Spread\n\n{_spread(evaluation)}",
        f"## Text queries\n\n{_queries(evaluation)}",
        f"## Cost\n\n{_cost(evaluation)}",
        "## Plots\n\n" + "\n\n".join(f"![{name}]({name})" for name in plots),
    ]
    return "\n\n".join(sections) + "\n"


def _what(evaluation: Evaluation) -> str:
    inputs = evaluation.inputs
    of = "all sets" if inputs.settings.set == "all" else f"the {inputs.settings.set} set"
    return (
        f"student {inputs.model.hash[:8]} against {inputs.study.teacher.id} on {len(inputs.dataset)} tracks "
        f"of {of} ({inputs.dataset.n_segments} segments)"
    )


def _provenance(evaluation: Evaluation) -> str:
    inputs = evaluation.inputs
    if inputs.model.record.get("data_hash") != inputs.study.data_hash:
        seen = (
            "The library, or its split, is not the one the student was trained on: it may know some tracks."
        )
    elif inputs.settings.set == "test":
        seen = "The library is the one the student was trained on; no choice has seen these tracks."
    elif inputs.settings.set == "validation":
        seen = "It has not learned from these tracks, but it was chosen by them."
    else:
        seen = "It has learned from these tracks, or some of them: this says nothing of other music."
    return f"{seen} Every track counts the same, however long."


def _quality(evaluation: Evaluation) -> str:
    m, d = evaluation.metrics, evaluation.distribution

    def interval(ends: tuple[float, float]) -> str:
        return f"{shown(ends[0])} to {shown(ends[1])}"

    rows = [
        ("skill (1 = the teacher)", f"{shown(m.skill)} ({interval(d.skill_interval)})", "0"),
        ("cosine to the teacher", shown(m.cosine, 4), shown(m.constant_cosine, 4)),
        ("skill of whole tracks", f"{shown(m.track_skill)} ({interval(d.track_skill_interval)})", "0"),
        ("cosine of whole tracks", shown(m.track_cosine, 4), shown(m.track_constant_cosine, 4)),
        ("MSE, raw", f"{d.mse:.4g}", f"{d.mse_constant:.4g}"),
        ("MSE, at length 1", f"{d.mse_unit:.4g}", f"{d.mse_unit_constant:.4g}"),
    ]
    rows += [
        (f"overlap of the {k} nearest", shown(overlap), f"{shown(chance)} (chance)")
        for k, (overlap, chance) in evaluation.neighbours.items()
    ]
    note = "In brackets, where 95 % of skills lie when other tracks are drawn (bootstrap by track)."
    return f"{_table(('figure', 'student', 'best constant'), rows)}\n\n{note}"


def _spread(evaluation: Evaluation) -> str:
    d = evaluation.distribution
    spreads: dict[str, Spread] = {
        "cosine of segments": d.cosine, "cosine of tracks": d.track_cosine,
        "length, student": d.student_length, "length, teacher": d.teacher_length,
    }  # fmt: skip
    rows = [
        (name, *(f"{value:.4g}" for value in (one.mean, one.std, *one.percentiles.values())))
        for name, one in spreads.items()
    ]
    return _table(("", "mean", "std", *(f"{p} %" for p in PERCENTILES)), rows)


def _queries(evaluation: Evaluation) -> str:
    found, texts = evaluation.answers, evaluation.inputs.texts
    if isinstance(found, str):
        return f"{found[0].upper()}{found[1:]}."
    assert not isinstance(texts, str)

    def row(name: str, one: Agreement) -> tuple[str, ...]:
        values = asdict(one)
        return (name, *(shown(values[key], 2 if key == "rank_shift" else 3) for key in _COLUMNS.values()))

    each = zip(found.queries, found.each, strict=True)
    rows = [row("**mean**", found.mean), row("chance", found.chance)]
    rows += [row(query.replace("|", "\\|"), one) for query, one in each]
    return (
        f"{_table(('query', *_COLUMNS), rows)}\n\nThe student's tracks are ranked by {texts.by}. "
        "The teacher's ranking counts as right; a rank shift is in places, of the teacher's first ten tracks."
    )


def _cost(evaluation: Evaluation) -> str:
    inputs = evaluation.inputs
    record, model = inputs.model.record, inputs.model
    parameters, macs = (float(str(record.get(key, "nan"))) / 1e6 for key in ("parameters", "macs"))
    files = [
        f"`{path.name}` {path.stat().st_size / 1e6:.1f} MB" for path in (model.path, model.waveform) if path
    ]
    size = f"{shown(parameters, 2)} M parameters, {shown(macs, 0)} M multiply-adds a segment"
    rows = [
        (t.what, str(t.threads), f"{t.ms:.1f}", f"{t.times_realtime:.0f}", f"{t.peak_mb:.0f}")
        for t in evaluation.timings
    ]
    heads = ("form", "threads", "ms a segment", "times realtime", "peak memory, MB")
    note = (
        f"Median of several segments, each form in a process of its own, on {cores()} processor cores. The "
        "teacher hears waveforms, its front end included. Times realtime is a segment's length over its "
        "time; segments of a track overlap by half, so that a long track goes at half of it."
    )
    return f"{size}; {', '.join(files)}.\n\n{_table(heads, rows)}\n\n{note}"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
