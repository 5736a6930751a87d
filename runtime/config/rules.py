"""Rules between settings that are each valid alone. Messages name flags, which name the keys of a file too."""

from __future__ import annotations

from collections.abc import Collection
from typing import TypeVar

import msgspec

from controller.errors import UsageError
from runtime.config.sections.device import ControllerSection, EmulationSection, SourceSection
from runtime.config.sections.fields import Section
from runtime.config.sections.security import SecuritySection
from runtime.config.sections.shortcuts import CacheSection, FilterSection
from runtime.config.settings import as_path, settings
from runtime.config.sizes import bytes_of
from runtime.config.tree import Config

AnySection = TypeVar("AnySection", bound=Section)

MIN_FPS = 0.001
#: Resizing and encoding a campus picture takes 1.5 to 4 times as long as resizing it, on one thread, up to 512 px. At
#: 768 px it is not resized, and encoding takes 25 to 40 times as long as what is left.
MIN_SLOWDOWN_OF_HARDWARE_ENCODER = 20.0


def check_rules(config: Config) -> None:
    """UsageError for the first rule that the configuration breaks. Touches no file."""
    _check_source(config.source)
    _check_controller(config.controller)
    _check_emulation(config.emulation)
    check_security(config.security)
    check_filter(config.filter)
    check_cache(config.cache)
    _check_size(config.mec.cache)


def _check_source(source: SourceSection) -> None:
    if 0 < source.fps < MIN_FPS:
        raise UsageError(f"--fps {source.fps:g}; expected 0, or at least {MIN_FPS:g}")
    if source.fps_from and source.input is None:
        raise UsageError("got --source-fps without --source; expected a video file as --source")
    if source.fps_from and source.fps == 0:
        raise UsageError("got --source-fps file with --fps 0 (as fast as they are answered); expected one of them")


def _check_controller(controller: ControllerSection) -> None:
    if controller.decision is not None and controller.name is not None:
        raise UsageError(f"got --decision and --controller {controller.name}; expected one of them")
    if controller.policy is not None and controller.name not in (None, "ppo"):
        raise UsageError(f"got --policy and --controller {controller.name}; expected --controller ppo")


def checked(section: AnySection, name: str) -> AnySection:
    """The same section; UsageError if a value is not one that a configuration file may have."""
    try:
        return msgspec.convert(msgspec.to_builtins(section, enc_hook=str), type(section), dec_hook=as_path)
    except msgspec.ValidationError as error:
        raise UsageError(f"{name}: {error}") from None


def check_security(security: SecuritySection) -> None:
    """UsageError for keys beside the switch that does without."""
    for flag, value in (("--key", security.key), ("--mec-key", security.mec_key), ("--allow", security.allow)):
        if security.plain and value is not None:
            raise UsageError(f"got --plain and {flag} {value}; expected keys, or --plain to go without")


def check_filter(filter_: FilterSection) -> None:
    """UsageError for a mode that is no word and no threshold, and for settings that it does not use."""
    if filter_.mode != "auto":
        unused = ("target", "feature", "max_age") if filter_.mode == "off" else ("target",)
        _check_unused(filter_, "filter", unused, "--filter auto")
    if filter_.mode in ("off", "auto"):
        return
    try:
        threshold = float(filter_.mode)
    except ValueError:
        threshold = -1.0
    if not 0.0 < threshold <= 1.0:  # not a number is refused too
        raise UsageError(f"--filter {filter_.mode}; expected off, auto, or a threshold above 0 and up to 1")


def is_roi(mode: str) -> bool:
    """Whether decisions may run a part of the picture; UsageError for a word that says neither."""
    if mode not in ("off", "auto"):
        raise UsageError(f"--roi {mode!r}; expected 'off' or 'auto'")
    return mode == "auto"


def check_cache(cache: CacheSection) -> None:
    """UsageError for a size that cannot be read, and for settings of a cache that there is not."""
    _check_size(cache.size)
    if not cache.size_bytes:
        _check_unused(cache, "cache", ("agreement", "verify_frac", "threshold", "ttl_s", "eviction"), "--cache 32MB")


def _check_unused(section: Section, name: str, unused: Collection[str], switch: str) -> None:
    """UsageError for the first of these settings that is not at its default, though ``switch`` is not given."""
    for setting in settings(name):
        value = getattr(section, setting.key)
        if setting.key in unused and value != setting.default:
            raise UsageError(f"got {setting.flag} {value} without {switch}; expected both, or neither")


def _check_emulation(emulation: EmulationSection) -> None:
    if emulation.hardware_encoder and emulation.slowdown < MIN_SLOWDOWN_OF_HARDWARE_ENCODER:
        raise UsageError(
            f"--hardware-encoder with --slowdown {emulation.slowdown:g}; expected at least "
            f"{MIN_SLOWDOWN_OF_HARDWARE_ENCODER:g}, because the encoding is done in software within the emulated time"
        )


def _check_size(size: str) -> None:
    try:
        bytes_of(size)
    except UsageError as error:
        raise UsageError(f"--cache {error}") from None
