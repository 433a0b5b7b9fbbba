"""Engines for work that shares itself out, one a file: `share(module, *arguments, workers, gpu,
address)` runs ``python -m module arguments`` in so many processes that know nothing of each other,
and replaces one that is lost.
"""
