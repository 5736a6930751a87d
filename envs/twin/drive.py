"""The loops over the environments of a batch: what Python calls, and what is compiled.

Compiled code looks at no index. So what comes from outside is checked: here the rows, in ``Twin`` the shapes and the
numbers of traces.
"""

from __future__ import annotations

from typing import Any

from envs.twin import conditions, frame, last_moment, link, mec_queue, observe, references, regions, state, tables
from envs.twin.compiled import compiled, inlined, rule, rules
from envs.twin.conditions import begin_loads
from envs.twin.frame import advance, look, play_frame, run_frame, settle
from envs.twin.link import meet_mec
from envs.twin.observe import observe_state, true_latencies
from envs.twin.references import observe_references
from envs.twin.state import Environment, begin, replace
from envs.twin.tables import TwinTables

environment = inlined(state.environment)
rules(conditions, frame, last_moment, link, mec_queue, observe, references, regions, state, tables)


@rule
def check_rows(t: TwinTables, rows: Any) -> None:
    """IndexError unless every row is one of the cost table."""
    for b in range(len(rows)):
        if not 0 <= rows[b] < t.rows:
            raise IndexError("got a row that is not in the cost table; expected 0 to its length less one")


@compiled
def begin_episodes(t: TwinTables, batch: Environment) -> None:
    """Put every environment at its first decision point."""
    for b in range(len(batch.state)):
        env = environment(batch, b)
        begin_loads(t, env)
        begin(env)
        meet_mec(t, env)


@compiled
def replace_episodes(t: TwinTables, batch: Environment, which: Any, others: Environment, first: int) -> None:
    """Put environments ``first``, ``first`` + 1, ... of ``others`` in place of those numbered ``which`` (K,)."""
    for k in range(len(which)):
        replace(batch, which[k], environment(others, first + k))


@compiled
def step_frames(t: TwinTables, batch: Environment, rows: Any, records: Any, skipped: Any, seen: Any, age: Any) -> None:
    """One frame of every environment, where no shortcut is asked: ``rows`` (B,) in, RECORD (B,), scores of skipped
    frames (B, K), SEEN (B,) and ages of references (B, streams) out."""
    check_rows(t, rows)
    for b in range(len(rows)):
        env = environment(batch, b)
        play_frame(t, env, rows[b], records[b], skipped[b])
        observe_state(t, env, seen[b])
        observe_references(t, env, age[b])


@compiled
def run_frames(t: TwinTables, batch: Environment, rows: Any, records: Any, skipped: Any) -> None:
    """The first part of a step, until a shortcut is asked."""
    check_rows(t, rows)
    for b in range(len(rows)):
        env = environment(batch, b)
        run_frame(t, env, rows[b], records[b], skipped[b])
        advance(t, env, records[b].first, records[b])


@compiled
def look_at_frames(t: TwinTables, batch: Environment, which: Any, look_s: Any, took_s: Any) -> None:
    """Shortcuts look at the frame at hand in the environments ``which`` (K,), for ``look_s`` (K,) on the profiled
    device; device times ``took_s`` (K,) out."""
    for k in range(len(which)):
        took_s[k] = look(t, environment(batch, which[k]), look_s[k])


@compiled
def pass_over(t: TwinTables, batch: Environment, which: Any, first: Any, records: Any) -> None:
    """Go on to frames ``first`` (K,) in the environments ``which`` (K,): a shortcut answered those before."""
    for k in range(len(which)):
        advance(t, environment(batch, which[k]), first[k], records[which[k]])


@compiled
def settle_frames(t: TwinTables, batch: Environment, records: Any) -> None:
    """The last part of a step, once every shortcut has been asked."""
    for b in range(len(records)):
        settle(t, environment(batch, b), records[b])


@compiled
def observe_all(t: TwinTables, batch: Environment, seen: Any, age: Any) -> None:
    """What every device knows: SEEN (B,) and ages of references (B, streams) out."""
    for b in range(len(seen)):
        observe_state(t, environment(batch, b), seen[b])
        observe_references(t, environment(batch, b), age[b])


@compiled
def look_ahead(t: TwinTables, batch: Environment, scratch: Any, latency_s: Any) -> None:
    """What only an oracle knows: latencies (B, C) of every candidate out; ``scratch`` (B,) RECORD is used up."""
    for b in range(len(latency_s)):
        true_latencies(t, environment(batch, b), scratch[b], latency_s[b])
