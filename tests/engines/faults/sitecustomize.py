"""Python imports this by itself where its folder is on the path of a process: see `blows`."""

import blows

blows.begin()
