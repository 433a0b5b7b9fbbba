"""How several processes share a training, one kind a file.

`make(world, model=..., example_inputs=..., sync_batch_norm=...)` gives a `training.Parallel`.
"""
