"""Data sources. Each file has `load(rest, *, seed) -> Data`, `rest` being what stands after the
colon of a specification."""
