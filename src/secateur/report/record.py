"""`result.json`: the result and what follows from it, written whole or not at all.

`dense`, `pruned` and `random` each hold at least params, macs, size_bytes, latency_ms, accuracy;
`proof` holds max_abs_error, groups_checked, groups_shape_only. Verdict, speed-up and the warnings
that follow from the figures are for readers of the file and are computed again on loading.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from secateur.core.atomic import write_text
from secateur.core.errors import StorageError
from secateur.report.result import Result
from secateur.report.verdict import gain, headline, warnings

FORMAT = 1


def result_to_json(result: Result) -> dict[str, Any]:
    """What `result.json` holds."""
    gained = gain(result, result.pruned)
    return {
        "format": FORMAT,
        "verdict": headline(result),
        **result.to_json(),
        "speedup": None if gained is None else gained.to_json(),
        "all_warnings": list(warnings(result)),
    }


def save_result(result: Result, path: str | Path) -> None:
    """Write `result.json` whole or not at all. Raises: StorageError, ValueError for NaN."""
    text = json.dumps(result_to_json(result), indent=1, ensure_ascii=False, allow_nan=False)
    write_text(Path(path), text + "\n")


def load_result(path: str | Path) -> Result:
    """Read what `save_result` wrote. Raises: StorageError naming the file and what to do."""
    path = Path(path)
    try:
        body = json.loads(path.read_text(encoding="utf-8"))
        if body["format"] != FORMAT:
            raise StorageError(
                f"{path} has format {body['format']}, this secateur reads format {FORMAT}; "
                "run again, or install the secateur that wrote it"
            )
        return Result.from_json(body)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise StorageError(
            f"{path} is not a secateur result ({type(error).__name__}: {error}); "
            "give a finished run directory, as in `secateur report runs/demo`"
        ) from error
