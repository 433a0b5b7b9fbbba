"""Zoos: one file each, found by its name.

``names() -> list[str]`` lists the models, ``build(name, seed) -> (model, example_inputs)`` makes
one in evaluation mode with random weights, at its real widths and the smallest inputs that it
takes. A zoo whose everyday list is a selection has ``all_names()`` besides.
"""
