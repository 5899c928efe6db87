"""Files that `tune` writes, which are plans too."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from restart_sampling.base.errors import InputError
from restart_sampling.base.numbers import is_finite, is_whole
from restart_sampling.base.strict_json import parse_json

PLAN_FORMAT = "restart-sampling-plan/1"


def read_plan_file(path: Path) -> tuple[str, dict[str, Any]]:
    """Reads the text of a plan, and what `Plan` has of the nets and the guidance scale that it was found for.

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
    plan, found = content.get("plan"), made_for_of(content)
    if not isinstance(plan, str) or not all(isinstance(found[key], str | None) for key in ("made_for", "or_made_for")):
        raise InputError(
            f"plan {path} is damaged: its plan, its model_sha256 and its net_sha256 have to be texts; tune again"
        )
    if not (found["D"] is None or is_whole(found["D"])):
        raise InputError(f"plan {path} is damaged: its D has to be a whole number; tune again")
    if not (found["found_at"] is None or is_finite(found["found_at"])):
        raise InputError(f"plan {path} is damaged: its guidance has to be a finite number; tune again")
    return plan, found


def made_for_of(content: Mapping[str, Any]) -> dict[str, Any]:
    """Returns what `Plan` has of the content of a file beside the plan itself."""
    keys = {"made_for": "model_sha256", "or_made_for": "net_sha256", "D": "D", "found_at": "guidance"}
    return {name: content.get(key) for name, key in keys.items()}
