"""Files that `tune` writes, which are plans too."""

from pathlib import Path

from restart_sampling.base.errors import InputError
from restart_sampling.base.numbers import is_finite
from restart_sampling.base.strict_json import parse_json

PLAN_FORMAT = "restart-sampling-plan/1"


def read_plan_file(path: Path) -> tuple[str, str | None, float | None]:
    """Reads the text of a plan, the identity of the net that it was found for, and the guidance scale of the search.

    Raises:
        InputError: no such file, or it is damaged or of another kind.
    """
    try:
        content = parse_json(path.read_bytes())
    except OSError as error:
        raise InputError(f"plan {path} cannot be read ({error.strerror})") from error
    except ValueError as error:
        raise InputError(
            f"plan {path} is not JSON ({error}); give a file that 'restart-sampling tune' wrote"
        ) from error
    if not isinstance(content, dict) or content.get("format") != PLAN_FORMAT:
        raise InputError(
            f"plan {path} has no format {PLAN_FORMAT}; give a file that 'restart-sampling tune' wrote (those of 'text "
            f"tune' are samplers for the text commands)"
        )
    plan, made_for, found_at = (content.get(key) for key in ("plan", "model_sha256", "guidance"))
    if not isinstance(plan, str) or not isinstance(made_for, str | None):
        raise InputError(f"plan {path} is damaged: its plan and its model_sha256 have to be texts; tune again")
    if not (found_at is None or is_finite(found_at)):
        raise InputError(f"plan {path} is damaged: its guidance has to be a finite number; tune again")
    return plan, made_for, found_at
