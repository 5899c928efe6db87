"""A plan for each model that comes with the package: a plan suits a model."""

from restart_sampling.models.by_name import BUNDLED

# What `tune` found at 20 evaluations.
DEFAULT_PLANS = {name: f"{name}-tuned-20" for name in BUNDLED}
