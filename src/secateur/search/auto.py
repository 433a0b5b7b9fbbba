"""`auto`: a model, data, a target and a floor, and nothing else.

Measure the dense model; say what is reachable; prune in steps with a recovery after each; check
each on validation data; step back when the floor breaks (`auto_strategy` says how); end with the
smallest model that holds the floor, and the verdict. Every finished step is on disk before the next
begins, the best so far among them, so a run that is killed goes on when it is called again.
"""

from __future__ import annotations

import json
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from torch import nn

from secateur.graph.trace import ExampleInputs
from secateur.search.auto_advice import TIME
from secateur.search.auto_clock import Clock, seconds_of
from secateur.search.auto_finish import finish
from secateur.search.auto_folder import MODEL, AutoFolder
from secateur.search.auto_result import AutoResult
from secateur.search.auto_subject import example_of, make_start
from secateur.search.auto_values import AutoData, AutoSettings
from secateur.search.auto_walk import Tell, Walk


def auto(
    model: nn.Module,
    data: AutoData,
    *,
    target: str,
    max_drop: float | None = None,
    floor: float | None = None,
    time_limit: str | float | None = None,
    example_inputs: ExampleInputs | None = None,
    run_dir: str | Path | None = None,
    tell: Tell | None = None,
    source: str | None = None,
    **options: Any,
) -> AutoResult:
    """The smallest model on the way to `target` that holds the floor, and whether it got there.

    target: at most what may remain, for example "latency=40%" or "macs=50%,size=2MB". max_drop,
    floor: the lowest metric, as a drop from the dense model's (0.005 is half a point of accuracy)
    and absolute. time_limit: "20m" or seconds, of all work, interrupted runs included.
    example_inputs: of the model; the first training batch where None. run_dir: where every step is
    kept; the same call goes on from there, with a larger `time_limit` too. tell: called with a line
    for each step. source: what builds the dense model, see `storage.save`. options: the other
    fields of `AutoSettings`, such as ``steps=4, epochs=2, device=Device(batch_size=16)``.

    The given model is unchanged. Raises: BudgetError where the dense model is below the floor,
    StorageError for another run's directory, TraceError, ScoreError, TrainError.
    """
    limit = seconds_of(time_limit)
    settings = AutoSettings(
        target=target, max_drop=max_drop, floor=floor, time_limit_s=limit, **options
    )
    example = example_of(data) if example_inputs is None else example_inputs
    with ExitStack() as stack:
        place = run_dir or stack.enter_context(tempfile.TemporaryDirectory())
        folder = AutoFolder(Path(place), model, example, source)
        folder.open(settings)
        finished = _finished(folder, settings)
        if finished is not None:
            return finished
        clock = Clock(folder.clock, limit_s=limit)
        start = make_start(model, data, settings, folder)
        walk = Walk(start, folder, clock, settings.lowest(start.metric), tell or _silent)
        ending = walk.go()
        clock.save()
        return finish(walk, ending)


def _finished(folder: AutoFolder, settings: AutoSettings) -> AutoResult | None:
    """The result of a run that is at its end; None where more time lets it go on."""
    if not folder.result.is_file():
        return None
    body = json.loads(folder.result.read_text(encoding="utf-8"))
    limit = settings.time_limit_s
    if body["ending"] == TIME and (limit is None or limit > body["seconds"]):
        return None
    return AutoResult.from_json(body, *folder.load(folder.path / MODEL))


def _silent(line: str) -> None:
    """Tells nobody."""
