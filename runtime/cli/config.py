"""``mecpilot config``: print the configuration, or check a file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from controller.errors import UsageError
from runtime.config.load import load_config
from runtime.config.show import as_toml
from runtime.config.tree import Config

app = typer.Typer(no_args_is_help=True, add_completion=False, help="The configuration file of device and MEC.")


@app.command()
def show(
    config: Annotated[
        Path | None, typer.Option("--config", help="Print the values of this file; default: the defaults.")
    ] = None,
) -> None:
    """Print every setting as a commented TOML file, which is itself a valid configuration."""
    print(as_toml(Config() if config is None else load_config(config)), end="")


@app.command()
def check(file: Annotated[Path, typer.Argument(help="Configuration file.")]) -> None:
    """Say whether a configuration file is valid: names, types, limits, and keys where they are needed. Files that it
    names are not opened."""
    from runtime.link.mecs.address import addresses_of
    from runtime.security.resolve import check_keys

    config = load_config(file)
    try:
        _check_names(config)
        check_keys(config.security, addresses_of(config.device.mec), config.mec.bind)
    except UsageError as error:
        raise UsageError(f"config file {file}: {error}") from None
    print(f"{file} is valid; files that it names were not opened")


def _check_names(config: Config) -> None:
    """UsageError for a controller or a workload that does not exist."""
    from runtime.device.deciding import check_name
    from runtime.workloads.registry import check_workload_name

    if config.controller.name is not None:
        check_name(config.controller.name)
    check_workload_name(config.workload.name)
