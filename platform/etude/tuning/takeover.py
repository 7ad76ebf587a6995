"""A member of a population goes on from another's checkpoint, and what it had learned itself stays known."""

import json

from etude.storage.files import Files
from etude.training.checkpoint import checkpoint_name, load_latest, newest_first, own_history

KEPT = "before-"  # the epochs that a member told of before it took over, which its checkpoint then has not


def take_over(donor: Files, member: Files, epoch: int) -> None:
    """Put the donor's checkpoint after `epoch`, and its best ones, in the place of all that the member has.

    Files are replaced whole, and the one that a run resumes from comes last: cut off, it can be done again.
    """
    kept = f"{KEPT}{epoch:04d}.json"
    if not member.exists(kept):  # else it was cut off, and the checkpoint may be the donor's already
        member.write(kept, json.dumps(_history(member)).encode())
    newest = checkpoint_name(epoch)
    best = [name for name in donor.list("", ".pt") if name.startswith("best")]
    for name in (*best, newest):
        content = donor.read(name)
        assert content is not None, f"{donor} has no {name}"
        member.write(name, content)
    member.delete_all(name for name in newest_first(member) if name != newest)


def own_epochs(member: Files) -> list[dict[str, float]]:
    """The figures of every epoch that a trial trained itself, whomever it took over from."""
    files = [name for name in member.list("", ".json") if name.startswith(KEPT)]
    kept = member.read_all(files)
    found: list[dict[str, float]] = []
    after = 0
    for name in files:
        found += [one for one in json.loads(kept[name]) if one["epoch"] > after]
        after = int(name.removeprefix(KEPT).removesuffix(".json"))
    return found + [one for one in _history(member) if one["epoch"] > after]


def _history(member: Files) -> list[dict[str, float]]:
    state = load_latest(member)
    return own_history(state) if state else []
