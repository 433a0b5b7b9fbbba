"""The command line: `secateur inspect | plan | apply | verify | run | report`.

One command a file; `app` holds the table of them, `settings` their flags, `recipe` reads YAML.
Results go to stdout, everything else to stderr; exit code 0 done, 1 failed, 2 wrong usage.
"""

import sys

from secateur.cli.app import describe_flags, make_app
from secateur.engines.leaving import leave

__all__ = ["describe_flags", "main", "make_app"]


def main() -> None:
    """Run the command line on the arguments of this process."""
    try:
        make_app()()
    except SystemExit as ended:
        joined = "secateur.engines.joining" in sys.modules  # a rank, whatever started it
        if joined and isinstance(ended.code, int | None):
            leave(ended.code or 0)
        raise
