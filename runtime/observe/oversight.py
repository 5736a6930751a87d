"""What guard and shadow did in a run, in the words of the summary and of the log."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from controller.guard.guard import REASONS

#: Estimates below this have shown the wrong sign (docs/policy.md).
LEAST_DIFFERENCE = 0.005


def oversight_texts(notes: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """A line for each of "guard" and "shadow" that has something to say, from their notes (``Run.oversight``)."""
    texts = {"guard": guard_text(notes.get("guard", {})), "shadow": shadow_text(notes.get("shadow", {}))}
    return {name: text for name, text in texts.items() if text}


def guard_text(notes: Mapping[str, Any]) -> str:
    """How often the guard has handed over, and why; nothing if it never did."""
    counts = {reason: int(notes.get(f"hand_overs_{reason}", 0)) for reason in REASONS}
    if not any(counts.values()):
        return ""
    why = ", ".join(f"{reason} {count}" for reason, count in counts.items() if count)
    share = notes["classical_decisions"] / notes["decisions"]
    return f"handed over {sum(counts.values())}x ({why}), returned {notes['returns']:.0f}x; decided {share:.1%}"


def shadow_text(notes: Mapping[str, Any]) -> str:
    """How often the candidate agrees, and what its decisions would be worth by the model."""
    if not notes:
        return ""
    if not notes["decisions"]:
        return f"{notes['controller']}: no decision"
    equal = f"{notes['controller']}: {notes['equal_frac']:.0%} of {notes['decisions']} decisions equal"
    difference, error = notes["modelled_difference"], notes["modelled_difference_error"] or 0.0
    if abs(difference) < max(LEAST_DIFFERENCE, error):
        return f"{equal}, no difference in utility seen (estimate {difference:+.4f})"
    real, spread = notes["real_utility_of_active"], f" +- {error:.4f}" if error else ""
    got = "" if real is None else f", which got {real:.4f}"
    return f"{equal}, estimated {difference:+.4f}{spread} utility per frame against the active controller{got}"
