"""Values that every other package shares: graph, plan, budget, cost, proof, errors.

Nothing here imports another part of secateur.
"""
