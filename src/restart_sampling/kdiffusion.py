"""`sample_restart`, under the name by which other programs import it."""

from restart_sampling.sampling.kdiffusion import restart_plan as restart_plan
from restart_sampling.sampling.kdiffusion import sample_restart as sample_restart
