"""One of the processes that share a search: `python -m secateur.cli.search_worker FOLDER`.

An error of our own ends it with code 0, told in a file, because another worker would come to the
same one; a worker that ends otherwise is replaced.
"""

from __future__ import annotations

import sys
import warnings
from pathlib import Path

from secateur.cli.boundary import FAILED, show_warning
from secateur.cli.engine import settings_in, tell_raised


def main(folder: Path) -> int:
    """Take part in the search that the settings in `folder` say; exit code."""
    from secateur.cli.search import take_part

    warnings.showwarning = show_warning
    try:
        take_part(settings_in(folder))
    except KeyboardInterrupt:
        return FAILED
    except Exception as error:
        tell_raised(error, folder)
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
