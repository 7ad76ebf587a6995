"""Check what an experiment needs, and say for each thing what is wrong and how to mend it.

    python jobs/doctor.py
    python jobs/doctor.py --source.name folder --source.path ~/Music
    python jobs/doctor.py --config mine.yaml --clap clap_audio_model.onnx

With AudioMuse-AI as source it shows what speaks for the origin of the stored vectors; --clap runs a CLAP file
over some tracks and compares. Ends with 1 if there is a problem. All keys: --help.
"""

import sys

from etude.cli import guarded, say
from etude.config import load
from etude.services.doctor import Doctor, examine


def main(argv: list[str]) -> int:
    problems = 0
    for finding in examine(load(Doctor, argv)):
        say(str(finding))
        problems += finding.state == "problem"
    if problems:
        say(f"{problems} problem{'s' if problems > 1 else ''}: mend what is told above, then run this again")
        return 1
    say("all is well; next: python jobs/prepare_audio.py --plan, with the same --source")
    return 0


if __name__ == "__main__":
    sys.exit(guarded(main)(sys.argv[1:]))
