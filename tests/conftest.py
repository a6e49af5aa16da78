"""What every test shares: how many examples hypothesis draws."""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

# `ci` is the same on every run and machine, so that a red test is red for the one who looks into it, too. `long` draws
# new architectures on every run: of eight spaces, so that every identity is tried on 10,000 architectures.
_SLOW_TO_DRAW = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much]
settings.register_profile("ci", max_examples=20, deadline=None, derandomize=True, suppress_health_check=_SLOW_TO_DRAW)
settings.register_profile("long", max_examples=1250, deadline=None, suppress_health_check=_SLOW_TO_DRAW)
settings.load_profile("long" if os.environ.get("RANKITECT_HYPOTHESIS") == "long" else "ci")
