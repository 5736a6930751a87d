"""What an adoption shall do, as the user asked for it."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from controller.errors import UsageError
from controller.scenario import Scenario, ScenarioRange
from runtime.adoption import recipes
from runtime.codecs import get_codec
from runtime.codecs.streams import StreamCodec
from runtime.cores import usable_cores
from runtime.decoders.base import MOST_CLASSES
from runtime.workloads.adopted.description import LONGEST_NAME
from runtime.workloads.registry import check_free_name

TASKS = ("detect", "classify", "text", "custom")
COLOURS = ("rgb", "bgr", "grey")
FITS = ("stretch", "letterbox", "corner")
#: Of tasks whose outputs are usually read in one way.
DECODERS = {"text": "db", "classify": "classify"}
_TIME = re.compile(r"(\d+(?:\.\d+)?)\s*([smh]?)")
_SECONDS = {"": 60.0, "s": 1.0, "m": 60.0, "h": 3600.0}
#: Processes that measure, where the user does not say: each holds a model, its answers, and frames.
MOST_JOBS = 4
#: A name becomes that of the workload and of files.
_NAME = re.compile(r"[A-Za-z0-9][\w.-]{0,63}")


@dataclass(frozen=True)
class Request:
    """Everything that the user said. None and () are left to mecpilot."""

    model: str  # an ONNX file, or file.py:function
    out: Path
    name: str
    footage: Path  # a video, or a folder of pictures
    task: str
    decode: str | None = None  # a decoder's name, or file.py:function
    decode_options: Mapping[str, float | str | bool] = field(default_factory=dict)  # of the decoder
    codecs: tuple[str, ...] = ()  # to try beside the usual ones
    labels: Path | None = None
    classes: tuple[str, ...] = ()
    resolutions_px: tuple[int, ...] = ()
    colours: str | None = None  # rgb, bgr or grey
    scale: float | None = None  # the pixels are multiplied by it first
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    fit: str | None = None  # stretch, letterbox or corner
    threshold: float | None = None
    scorer: str | None = None  # file.py:function
    budget_s: float = 1200.0  # for all relatives
    relatives: bool = True
    profile: bool = True
    fps: float | None = None  # of the frames; None: up to 10 of a video, and pictures of a folder have no times
    frames: int | None = None  # the first ones of the footage; None: as many as the time allows
    samples: int | None = None  # measured per split; None: as many as the time allows
    jobs: int = field(default_factory=lambda: min(usable_cores(), MOST_JOBS))
    seed: int = 0
    scenarios: ScenarioRange | None = None  # conditions from which episodes are drawn
    demo: Scenario | None = None
    words: str = ""  # of a recipe: what the model and the footage are

    @staticmethod
    def of(model: str, out: Path, name: str, given: Mapping[str, Any], progress: recipes.Progress) -> Request:
        """The request of a command line; where ``model`` names a recipe, its files are fetched and made first.

        ``given`` are options by the names of the fields, None, () or {} where the user said nothing, and ``data``,
        where a recipe looks for its model. UsageError for what is missing.
        """
        said = {key: value for key, value in given.items() if value not in (None, (), {}) and key != "data"}
        recipe = recipes.find(model, given.get("data"), given.get("seed") or 0, progress)
        if recipe is not None:
            known = {each.name for each in fields(Request)}
            of_recipe = {key: value for key, value in _parsed(recipe.options).items() if key in known}
            where = {"footage": recipe.footage, "scenarios": recipe.scenarios, "demo": recipe.demo}
            said = where | of_recipe | said | {"words": recipe.words}
            model = str(recipe.model)
        for option in ("footage", "task"):
            if option not in said:
                raise UsageError(f"--{option} is missing; expected it with the model {model}")
        return Request(model, out, name, **said)

    @property
    def decoder(self) -> str:
        """The decoder's name, or file.py:function; "" where the user has to say it."""
        return self.decode or DECODERS.get(self.task, "")

    def check(self) -> None:
        """UsageError for what needs no file to be seen as wrong; FailureError for a plug-in that fails."""
        if self.task not in TASKS:
            raise UsageError(f"--task {self.task}; expected one of: {', '.join(TASKS)}")
        for option, value, known in (("colours", self.colours, COLOURS), ("fit", self.fit, FITS)):
            if value is not None and value not in known:
                raise UsageError(f"--{option} {value}; expected one of: {', '.join(known)}")
        if not _NAME.fullmatch(self.name):
            raise UsageError(
                f"--name {self.name!r}; expected up to 64 letters, digits, '.', '-' or '_'; without "
                "--name it is that of the folder --out"
            )
        check_free_name(self.name)
        if self.task == "detect" and not self.decoder:
            raise UsageError(
                "--task detect without --decode; expected the decoder of the model's outputs, such as yolov8, or "
                "file.py:function"
            )
        if self.task == "custom" and (self.decode is None or self.scorer is None):
            raise UsageError("--task custom needs --decode file.py:function and --scorer file.py:function")
        for codec in self.codecs:
            if isinstance(get_codec(codec), StreamCodec):
                raise UsageError(f"--codec {codec}: its payloads refer to earlier ones; expected one without a memory")
        if self.mean and self.std and len(self.mean) != len(self.std):
            raise UsageError(f"--mean has {len(self.mean)} numbers and --std {len(self.std)}; expected as many of each")
        if any(value <= 0 for value in self.std):
            raise UsageError(f"--std {','.join(map(str, self.std))}; expected numbers above 0")
        if not self.footage.exists():
            raise UsageError(
                f"--footage {self.footage}: no such file or folder; expected a video or a folder of images (of a "
                "camera: a recording)"
            )
        if self.labels is not None and not self.labels.exists():
            raise UsageError(f"--labels {self.labels}: no such file or folder")


def _parsed(options: Mapping[str, Any]) -> dict[str, Any]:
    """Options of a recipe under the names of the fields; texts are read as on the command line."""
    read: dict[str, tuple[str, Callable[[Any], Any]]] = {
        "resolutions": ("resolutions_px", parse_widths),
        "classes": ("classes", parse_classes),
        "mean": ("mean", lambda text: parse_numbers(text, "mean")),
        "std": ("std", lambda text: parse_numbers(text, "std")),
        "budget": ("budget_s", lambda text: parse_time_s(text, "budget")),
    }
    found = {}
    for key, value in options.items():
        name, parse = read.get(key, (key, None))
        found[name] = parse(value) if parse is not None and isinstance(value, str) else value
    return found


def parse_time_s(text: str, option: str) -> float:
    """Seconds of "20m", "90s" or "1.5h"; a bare number is minutes. UsageError for anything else."""
    found = _TIME.fullmatch(text.strip().lower())
    if found is None or float(found[1]) == 0:
        raise UsageError(f"{option} {text!r}; expected a time such as 20m, 90s or 1h")
    return float(found[1]) * _SECONDS[found[2]]


def parse_numbers(text: str | None, option: str) -> tuple[float, ...]:
    """The numbers of "0.5,0.5,0.5"; () for None. UsageError for anything else."""
    if text is None:
        return ()
    try:
        numbers = tuple(float(part) for part in text.split(","))
    except ValueError:
        raise UsageError(f"{option} {text!r}; expected numbers separated by commas") from None
    if not all(math.isfinite(number) for number in numbers):
        raise UsageError(f"{option} {text!r}; expected finite numbers")
    if len(numbers) not in (1, 3):
        raise UsageError(f"{option} {text!r}: {len(numbers)} numbers; expected one, or one per channel")
    return numbers


def parse_options(texts: Sequence[str] | None) -> dict[str, float | str | bool]:
    """The options of a decoder, each given as "name=value". UsageError for anything else."""
    found: dict[str, float | str | bool] = {}
    for text in texts or ():
        name, equals, value = text.partition("=")
        if not name.isidentifier() or not equals or not value:
            raise UsageError(f"--decode-option {text!r}; expected name=value, such as unclip=1.5")
        found[name] = {"true": True, "false": False}.get(value.lower(), _number_or_text(value))
    return found


def _number_or_text(text: str) -> float | str:
    try:
        number = float(text)
    except ValueError:
        return text
    if not math.isfinite(number):
        raise UsageError(f"--decode-option: got {text}; expected a finite number")
    return number


def parse_widths(text: str | None) -> tuple[int, ...]:
    """Widths in pixels of "640,480,320", largest first; () for None. UsageError for anything else."""
    if text is None:
        return ()
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() and 8 <= int(part) <= 8192 for part in parts):
        raise UsageError(f"--resolutions {text!r}; expected widths from 8 to 8192, such as 640,480,320")
    return tuple(sorted({int(part) for part in parts}, reverse=True))


def parse_classes(text: str | None) -> tuple[str, ...]:
    """Names of classes: "car,person", or a text file with a name a line; () for None. UsageError for a bad file."""
    if text is None:
        return ()
    path = Path(text)
    try:
        lines = path.read_text().splitlines() if path.is_file() else text.split(",")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"--classes {text}: {error}; expected a text file with a name per line") from None
    names = tuple(line.strip() for line in lines if line.strip())
    if not names or len(set(names)) != len(names):
        raise UsageError(f"--classes {text}: {len(names)} names, {len(set(names))} different; expected different names")
    if len(names) > MOST_CLASSES or max(map(len, names)) > LONGEST_NAME:
        raise UsageError(
            f"--classes {text[:60]}: {len(names)} names of up to {max(map(len, names))} letters; expected at most "
            f"{MOST_CLASSES} names of up to {LONGEST_NAME}"
        )
    return names
