"""What it costs to serve a model: money per million requests, from a latency and a price.

A machine at a price per hour answers one batch after another. That is the floor of what serving
costs: queues, networks and idle hours come on top, the last through `utilisation`.
"""

from __future__ import annotations

REQUESTS = 1_000_000
_MS_PER_HOUR = 3_600_000.0


def cost_per_million(
    latency_ms: float,
    batch_size: int = 1,
    *,
    price_per_hour: float,
    replicas: int = 1,
    utilisation: float = 1.0,
) -> float:
    """Money for a million requests, in the currency of the price.

    replicas: copies of the model that run on the machine at once, each at this latency.
    utilisation: share of the hour in which there are requests.

    A forward of 8 requests in 36 ms is 800,000 requests an hour:

    >>> cost_per_million(36.0, 8, price_per_hour=1.20)
    1.5

    Raises: ValueError for what is not positive, or a utilisation above 1.
    """
    given = {
        "latency_ms": latency_ms,
        "batch_size": batch_size,
        "price_per_hour": price_per_hour,
        "replicas": replicas,
        "utilisation": utilisation,
    }
    for name, value in given.items():
        if not value > 0:
            raise ValueError(f"{name}={value}: must be greater than zero")
    if utilisation > 1:
        raise ValueError(f"utilisation={utilisation}: is a share of the hour, at most 1")
    hours = latency_ms * REQUESTS / (batch_size * replicas) / _MS_PER_HOUR
    return hours * price_per_hour / utilisation
