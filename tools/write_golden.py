"""Write tests/golden/ anew: the public names and the command line's flags, frozen by tests.

Run it through `make golden` after a change of the public interface that is wanted, and read the
difference before committing it: it is what users will notice.
"""

from __future__ import annotations

from pathlib import Path

import secateur
from secateur.cli import describe_flags

GOLDEN = Path(__file__).parent.parent / "tests" / "golden"


def main() -> None:
    """Write both files and say where."""
    lines = {"public_api.txt": sorted(secateur.__all__), "cli_flags.txt": describe_flags()}
    for name, content in lines.items():
        (GOLDEN / name).write_text("\n".join(content) + "\n", encoding="utf-8")
        print(f"{GOLDEN / name}: {len(content)} lines")


if __name__ == "__main__":
    main()
