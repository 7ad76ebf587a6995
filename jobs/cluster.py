"""Check a file for a cluster, or a cluster that runs, before minutes are lost; nothing is started.

    python jobs/cluster.py cluster.yaml                           the file, the token, the account, the quota
    python jobs/cluster.py deploy/kuberay-rayjob.yaml             the file
    python jobs/cluster.py --head http://127.0.0.1:8265           a running head: reachable, token, version

Ends with 1 if there is a problem. Before `ray job submit`, let `ray dashboard cluster.yaml` run beside.
"""

import argparse
import sys
from pathlib import Path

from etude.cli import guarded, say
from etude.services.cloud import examine_cluster
from etude.services.head import require_dashboard


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("file", nargs="?", type=Path, help="for ray up, or with a RayJob")
    what.add_argument("--head", metavar="URL", help="where the dashboard of a running cluster answers")
    chosen = parser.parse_args(argv)
    if chosen.head is not None:
        say(f"{chosen.head} takes this token and runs Ray {require_dashboard(chosen.head)}, as here")
        return 0
    n_problems, start = 0, "ray up"
    for finding in examine_cluster(chosen.file, Path.cwd()):
        say(str(finding))
        n_problems += finding.state == "problem"
        start = "kubectl apply -f" if finding.name == "RayJob" else start
    if n_problems:
        say(f"{n_problems} problem{'s' if n_problems > 1 else ''}: mend them, then run this again")
        return 1
    say(f"all is well; next: {start} {chosen.file} (what it costs is in deploy/README.md)")
    return 0


if __name__ == "__main__":
    sys.exit(guarded(main)(sys.argv[1:]))
