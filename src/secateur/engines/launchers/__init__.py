"""Engines that start processes, one a file: `launch(module, *arguments, nproc, restarts, gpu,
address)` runs ``python -m module arguments`` in `nproc` processes that find each other by
`joining`, each with a GPU where asked, on this machine or on the cluster at `address`, and comes
back when all are done. A process that ends with another code than 0 is taken for lost: all of
them are started again, `restarts` times.
"""

from secateur.core.errors import EngineError


class KilledError(EngineError):
    """A process was ended from outside; what the others say is only that it is gone."""
