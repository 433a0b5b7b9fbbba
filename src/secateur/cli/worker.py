"""One of the processes that an engine started: `python -m secateur.cli.worker FOLDER`.

An error of our own ends it with code 0, told in a file, because to start again would not help; a
rank that was left alone by another ends with code 1, and the engine may start all of them again.
"""

from __future__ import annotations

import sys
import warnings
from pathlib import Path

from secateur.cli.boundary import FAILED, show_warning
from secateur.cli.engine import OUTCOME, settings_in, tell, tell_raised
from secateur.engines.leaving import leave


def main(folder: Path) -> int:
    """Run what the settings in `folder` say, as the rank that the environment says; exit code."""
    from secateur.cli.output import is_first
    from secateur.cli.run import run
    from secateur.engines.failures import Hushed, LostError

    if is_first():
        warnings.showwarning = show_warning
        (folder / OUTCOME).unlink(missing_ok=True)  # of the ranks that were lost before
    else:
        warnings.simplefilter("ignore")
    try:
        run(settings_in(folder))
    except KeyboardInterrupt:
        return FAILED
    except Hushed as hushed:
        return FAILED if hushed.again else 0
    except LostError as error:
        tell(error, folder)
        return FAILED
    except Exception as error:
        tell_raised(error, folder)
    return 0


if __name__ == "__main__":
    leave(main(Path(sys.argv[1])))
