"""Programs that the fault tests start; they are no tests, and find each other by their folder."""

collect_ignore_glob = ["*.py"]
