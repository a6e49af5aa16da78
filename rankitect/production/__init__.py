"""The statistics of a production comparison: is a candidate good enough for an A/B test against the live model?

Here belong the rows on which two models are compared (`evidence.py`), the change with its interval (`change.py`),
calibration, gates, the size of the A/B test (`experiment.py`) and the registry of production models. Nothing here draws
or writes for people: `rankitect.reports` does. Nothing here trains or evaluates a model.

The way in is `change.py`.
"""
