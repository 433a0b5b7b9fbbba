"""How several processes share a training, one kind a file: `make(world, sync_batch_norm=...)` gives
a `training.Parallel`. `none` is one process with all of it; torch's own means are behind the rest.
"""
