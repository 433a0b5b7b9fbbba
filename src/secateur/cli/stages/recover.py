"""`recover`: train what is left, with a teacher or without; what is masked stays masked."""

from __future__ import annotations

from secateur.cli.output import say
from secateur.cli.recovery import recover_
from secateur.cli.recovery_settings import Recovery
from secateur.cli.work import Place, Work


def run(work: Work, settings: Recovery, place: Place) -> Work:
    """The model trained, from its newest checkpoint. Raises: TrainError."""
    say(f"{place.name}: recovering for up to {settings.epochs} epochs")
    log = recover_(work.model, place.subject, settings, folder=place.folder.checkpoints)
    place.write_text(place.folder.log, log.to_jsonl())
    return work
