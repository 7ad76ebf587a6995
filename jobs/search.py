"""Search a prepared library by words, or by a recording of your own.

    python jobs/search.py "slow piano piece in a minor key"    the ten nearest tracks
    python jobs/search.py --like song.mp3                      what sounds like it
    python jobs/search.py --serve                              a page in the browser, until Ctrl-C
    python jobs/search.py --model FOLDER --top 20 "..."        another export than the newest

The config.yaml in the model's folder says which library, unless other options do. All keys: --help.
"""

import sys

from etude.cli import Progress, guarded, say
from etude.config import load
from etude.errors import UserError
from etude.inference.search import listing, open_search
from etude.inference.search_page import search_app, serve
from etude.inference.settings import Search


def main(argv: list[str]) -> int:
    settings = load(Search, argv)
    if [bool(settings.query), settings.like is not None, settings.serve].count(True) != 1:
        raise UserError('say what to look for, as in "slow piano", or give one of --like FILE and --serve')
    library = open_search(settings, Progress("embed"))
    if settings.serve:
        app = search_app(library, settings.top, settings.names)
        serve(app, settings.host, settings.port, lambda address: say(f"{library.name}: {address}"))
        say("stopped")
        return 0
    found = (
        library.like(settings.like, settings.top)
        if settings.like
        else library.find(settings.query, settings.top)
    )
    say(f"the {len(found)} nearest of {library.name}, each with its cosine:\n{listing(found)}")
    if settings.query and not library.reader.knows(settings.query):
        say("the model knows none of these words, so the order means nothing: try others")
    return 0


if __name__ == "__main__":
    sys.exit(guarded(main)(sys.argv[1:]))
