"""What holds for the properties of all unit tests."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

# A busy machine may stand still for seconds at any moment: neither a deadline for one example nor one for drawing them
# says anything of the code. Every run tries the same examples, as hypothesis itself does in CI: a change is refused for
# what it changed. `--hypothesis-profile default` looks for others.
settings.register_profile(
    "headrace", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow], print_blob=True
)
settings.load_profile("headrace")
