"""README and docs name only commands, options, files and modules that exist, and every link resolves."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])
FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.M | re.S)
INLINE = re.compile(r"`([^`\n]+)`")
LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
OPTION = re.compile(r"(?<![\w-])--[a-z][a-z0-9-]*")
PATH = re.compile(r"(?:controller|runtime|envs|agents|tests|benchmarks|examples|docs)/[\w/.-]+\.\w+")
#: Files that docs/extending.md lets the reader write.
TO_BE_WRITTEN = {"runtime/shortcuts/input_filter.py"}
#: The change log names commands and files of older versions.
LIVING = [page for page in PAGES if page.name != "CHANGELOG.md"]


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


def text_of(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def pieces(page: Path) -> list[str]:
    """Every line of code on a page: of its blocks, with continued lines joined, and between its backticks."""
    text = text_of(page)
    blocks = "\n".join(
        body for language, body in FENCE.findall(text) if language in ("", "sh", "bash", "console", "ini")
    )
    lines = re.sub(r"\\\n\s*", " ", blocks).splitlines()
    return [line.split("  #")[0].strip() for line in lines] + INLINE.findall(FENCE.sub("", text))


def commands(page: Path, start: str) -> list[str]:
    """What follows ``start`` in a line of code, up to the end of that command."""
    found = []
    for piece in pieces(page):
        for part in re.split(r"\s(?:\||&&|&|;)\s", piece):
            match = re.search(rf"(?:^|\s|/){re.escape(start)}((?:\s.*)?)$", part)
            if match:
                found.append(match.group(1).strip())
    return found


@cache
def help_of(*words: str) -> str:
    """What ``mecpilot WORDS --help`` prints; empty where there is no such command."""
    done = subprocess.run(
        [sys.executable, str(ROOT / "mecpilot.py"), *words, "--help"],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"COLUMNS": "250", "PYTHONPATH": str(ROOT)},
    )
    return done.stdout if done.returncode == 0 else ""


def sub_command(words: list[str]) -> tuple[str, ...]:
    """The words that name the command: one, or two where the first is a group."""
    if (
        len(words) > 1
        and re.fullmatch(r"[a-z]+", words[1])
        and re.search(rf"^\W*{words[1]}\b", help_of(words[0]), re.M)
    ):
        return (words[0], words[1])
    return (words[0],)


@pytest.mark.parametrize("page", LIVING, ids=name_of)
def test_every_command_exists_with_the_options_that_are_named(page: Path) -> None:
    for line in commands(page, "mecpilot"):
        words = line.split()
        if not words or not re.fullmatch(r"[a-z]+", words[0]):
            continue  # the program as a whole: `mecpilot`, `mecpilot COMMAND --help`
        shown = help_of(*sub_command(words))
        assert shown, f"{page.name}: there is no command `mecpilot {line}`"
        known = set(OPTION.findall(shown)) | {"--help"}
        assert not set(OPTION.findall(line)) - known, f"{page.name}: `mecpilot {line}`"
        after = words[len(sub_command(words))] if len(words) > len(sub_command(words)) else "-"
        takes_argument = re.search(r"Usage: .*\[OPTIONS\] +\S", shown)
        assert takes_argument or after.startswith(("-", "[", ">")), f"{page.name}: `mecpilot {line}` takes no argument"


@pytest.mark.parametrize("page", LIVING, ids=name_of)
def test_every_module_that_is_run_exists_with_its_options(page: Path) -> None:
    for line in commands(page, "python -m"):
        module, *_ = line.split()
        if module.split(".")[0] not in ("agents", "benchmarks", "runtime"):
            continue
        spec = find_spec(module)
        assert spec is not None, f"{page.name}: `python -m {line}`"
        if spec.origin and spec.submodule_search_locations is None:
            source = Path(spec.origin).read_text(encoding="utf-8")
            missing = [option for option in OPTION.findall(line) if f'"{option}"' not in source]
            assert not missing, f"{page.name}: `python -m {line}` has no {missing}"


@pytest.mark.parametrize("page", LIVING, ids=name_of)
def test_every_target_of_make_exists(page: Path) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M))
    for line in commands(page, "make"):
        assert {word for word in line.split() if re.fullmatch(r"[a-z-]+", word)} <= targets, f"{page.name}: make {line}"


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_link_resolves(page: Path) -> None:
    for target in LINK.findall(FENCE.sub("", text_of(page))):
        if target.startswith(("http://", "https://", "mailto:")):
            continue
        file, _, anchor = target.partition("#")
        linked = page if not file else (page.parent / file).resolve()
        assert linked.exists(), f"{page.name}: {target}"
        if anchor:
            assert anchor in anchors(linked), f"{page.name}: {target}"


def anchors(page: Path) -> set[str]:
    """The anchors that a Markdown page's headings have on GitHub."""
    headings = re.findall(r"^#+ (.*)$", FENCE.sub("", text_of(page)), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", LIVING, ids=name_of)
def test_every_file_of_the_project_that_is_named_exists(page: Path) -> None:
    for piece in INLINE.findall(text_of(page)):
        if PATH.fullmatch(piece) and piece not in TO_BE_WRITTEN:
            assert (ROOT / piece).exists(), f"{page.name}: {piece}"


def test_the_front_page_fits_a_screen_or_two() -> None:
    assert len(text_of(ROOT / "README.md").splitlines()) <= 110
