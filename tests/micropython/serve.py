"""Runs in MicroPython: a device on its own REPL line. Arguments: name=value."""

import sys

import drip

options = dict(pair.split("=", 1) for pair in sys.argv[1:])
log = drip.Log(open(options["card"], "r+b")) if "card" in options else None  # noqa: PTH123, SIM115
slots = drip.Slots(options["slots"], 16384) if "slots" in options else None
drip.run(None, options["model"], log=log, link=drip.Link(), slots=slots, arena=65536)
