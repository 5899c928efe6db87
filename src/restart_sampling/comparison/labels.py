"""Short labels for the rows of a table, and what they stand for below it."""

from collections.abc import Sequence

_LONGEST = 24  # a name in a cell


def labelled(names: Sequence[str], plans: Sequence[str]) -> tuple[dict[str, list[str]], dict[str, str]]:
    """Makes the first columns of a table, narrow whatever names and plans are.

    Args:
        names: of the rows.
        plans: likewise; "" where there is none.

    Returns:
        Column `row`, and `plan` where plans are short and not the names; and by labels, what they leave out.
    """
    number = {name: f"#{place}" for place, name in enumerate(dict.fromkeys(names), start=1)}
    labels = [name if len(name) <= _LONGEST else number[name] for name in names]
    columns = {"row": labels}
    beside = any(plan not in ("", name) for plan, name in zip(plans, names, strict=True))
    if beside and max(map(len, plans)) <= _LONGEST:
        columns["plan"], beside = [*plans], False
    legend = {}
    for label, name, plan in zip(labels, names, plans, strict=True):
        texts = [name] * (label != name) + [plan] * (beside and plan not in ("", name))
        if texts:
            legend[label] = ": ".join(texts)
    return columns, legend
