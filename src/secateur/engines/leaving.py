"""How a rank ends when its work is done: at once, without the interpreter's own end.

A thread of gloo lets go of a message's tensors a moment after those who wait for it go on. Where
the interpreter is being taken down by then, asking for its lock ends the process by SIGABRT,
although all is done (pytorch pull request 179291), and whoever started the ranks starts them again.
"""

from __future__ import annotations

import os
import sys
import threading
from typing import NoReturn


def leave(code: int) -> NoReturn:
    """End this process when its threads are done, daemons aside, and what it said is written."""
    own = threading.current_thread()
    for thread in threading.enumerate():
        if thread is not own and not thread.daemon:
            thread.join()
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(code)
