"""The statistics of a production comparison: is a candidate good enough for an A/B test against the live model?

Nothing here draws or writes for people: `rankitect.reports` does.
"""
