"""The stages that a recipe can list. Each file has `run(work, settings, place) -> Work`, from what
the stage before it made and the settings that `stage_settings.Stage` holds for it. `work.model` is
the stage's own to change; what it writes goes into `place.folder`, the caller saves its model.
"""
