"""Model sources. Each file has `load(rest, options) -> LoadedModel`, `rest` being what stands
after the colon of a specification."""
