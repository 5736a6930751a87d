"""Read the outcomes that `mecpilot device --workload campus --outcomes FILE` writes, and summarise them per model.
Run: python examples/outcomes_to_pandas.py outcomes.jsonl (needs: pip install pandas)"""

import json
import sys
from collections.abc import Iterable
from typing import Any


def row(line: str) -> dict[str, Any]:
    """One outcome as a flat mapping: its numbers, its decision's fields, and the parts of its latency."""
    outcome: dict[str, Any] = json.loads(line)
    decision, parts = outcome.pop("decision") or {}, outcome.pop("breakdown_ms")
    for nested in ("prediction", "truth"):
        outcome.pop(nested, None)
    return outcome | decision | {f"{name}_ms": value for name, value in parts.items()}


def table(lines: Iterable[str]) -> Any:
    """A DataFrame with one row per frame."""
    try:
        import pandas
    except ModuleNotFoundError:
        sys.exit("pandas is not installed: pip install pandas")
    return pandas.DataFrame([row(line) for line in lines])


if __name__ == "__main__":
    with open(sys.argv[1], encoding="utf-8") as file:
        outcomes = table(file)
    print(outcomes.groupby(["status", "model"], dropna=False)[["latency_ms", "payload_bytes", "energy_j"]].mean())
