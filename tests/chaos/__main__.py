"""Breaks things, one after the other, and says what was seen: `python -m tests.chaos --help`."""

from __future__ import annotations

import asyncio
import sys
import time
import traceback
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from collections.abc import Sequence

    from logagg.tests.chaos.scenario import Outcome, Scenario


@click.command()
@click.option("--short", is_flag=True, help="The form for CI, of a few seconds each.")
@click.option("--only", metavar="NAME", multiple=True, help="This scenario; may be given several times.")
@click.option("--list", "listed", is_flag=True, help="Say which scenarios there are.")
@click.option("--keep", is_flag=True, help="Keep the folder of a scenario that broke a promise, with the daemon's log.")
@click.pass_context
def main(ctx: click.Context, short: bool, only: Sequence[str], listed: bool, keep: bool) -> None:
    """Break things under load, and compare what was acknowledged with what is there.

    The table at the end is the one of docs/reliability.md. Exits with 1 when a promise was broken.
    """
    # As pytest has it: what is shared by tests is imported by its plain name.
    sys.path.insert(0, str(Path(__file__).parents[1]))
    from .scenarios import SCENARIOS

    if unknown := set(only) - {each.name for each in SCENARIOS}:
        raise click.BadParameter(f"no such scenario: {', '.join(sorted(unknown))}", param_hint="--only")
    chosen = [each for each in SCENARIOS if not only or each.name in only]
    if listed:
        click.echo("\n".join(f"{each.name}: {each.fault}" for each in chosen))
        return
    outcomes = [_run(each, short, keep) for each in chosen]
    click.echo(_table(chosen, outcomes))
    ctx.exit(any(outcome.broken for outcome in outcomes))


def _run(scenario: Scenario, short: bool, keep: bool) -> Outcome:
    from .harness import perform
    from .scenario import Outcome

    click.echo(f"\n{scenario.name}: {scenario.fault}\n  {scenario.promise}")
    began = time.monotonic()
    try:
        outcome = asyncio.run(perform(scenario, short=short, keep=keep))
    except Exception as error:  # the others are still to be run
        traceback.print_exc()
        outcome = Outcome({}, [f"the scenario failed: {error!r}"])
    width = max(map(len, outcome.figures), default=0)
    for name, value in outcome.figures.items():
        click.echo(f"    {name:{width}}  {_text(value)}")
    said = "\n".join(f"  BROKEN: {each}" for each in outcome.broken)
    click.echo(said or f"  held, {time.monotonic() - began:.0f} s")
    return outcome


def _table(scenarios: Sequence[Scenario], outcomes: Sequence[Outcome]) -> str:
    lines = ["", "| fault | promise | figures |", "|---|---|---|"]
    for scenario, outcome in zip(scenarios, outcomes, strict=True):
        said = [f"{name}: {_text(value)}" for name, value in outcome.figures.items()]
        said += [f"**broken: {each}**" for each in outcome.broken]
        lines.append(f"| {scenario.fault} | {scenario.promise} | {'; '.join(said)} |")
    return "\n".join(lines)


def _text(value: float | str) -> str:
    return value if isinstance(value, str) else f"{value:,}"


if __name__ == "__main__":
    main(prog_name="python -m tests.chaos")
