"""What a step on many ranks sends, takes and needs, as arithmetic: no process is started.

A `Workload` says what a model is made of, a `Mesh` how the ranks stand, a `Machine` how fast they
compute and talk. `forecast` puts the three together, for models of a trillion parameters as for
small ones. `benchmarks/simulator.py` compares what is said here with what real runs send.
"""
