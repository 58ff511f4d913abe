"""Score frames, no card and no host: drip micropython install PORT model.drip score.py."""

import drip

scorer = drip.Scorer("model.drip")
frame = bytearray(scorer.frame_bytes)  # fill it from a sensor
result = scorer.score(frame)
print(result.label, result.score, "keep" if result.keep else "drop")
