"""What is compiled is kept, and one line says when that is impossible; who needs nothing compiled needs no compiler."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from support.live import ROOT

import runtime.compiler
from runtime.compiler import Compiled, Sources

MISSING = "import sys; sys.modules['numba'] = None"
OLD = "import numba; numba.__version__ = '0.61.2'"
SIGNS = ("from runtime.codecs import get_codec", "get_codec('signs').prepare()")
TWIN = ("from support.twins import make_twin", "make_twin(batch=2).reset()")


def run(*lines: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """These lines in a process of their own."""
    paths = os.pathsep.join(map(str, (ROOT, ROOT / "tests")))
    known = {**os.environ, "PYTHONPATH": paths, **environment}
    command = [sys.executable, "-c", "\n".join((*lines, "print('done')"))]
    return subprocess.run(command, env=known, capture_output=True, text=True, timeout=300)


def caught(*lines: str) -> tuple[str, ...]:
    """Lines whose UsageError is printed."""
    tried = (f"    {line}" for line in lines)
    return "from controller.errors import UsageError", "try:", *tried, "except UsageError as error:", "    print(error)"


class TestWithoutACompiler:
    @pytest.mark.parametrize(
        ("line", "expected"),
        [(MISSING, "compiled code needs numba 0.68 or newer"), (OLD, "got numba 0.61.2; expected 0.68 or newer")],
    )
    @pytest.mark.parametrize("needed", [SIGNS, ("import envs.twin.twin",)], ids=["signs", "twin"])
    def test_one_that_is_missing_or_too_old_is_named_in_one_line(
        self, needed: tuple[str, ...], line: str, expected: str
    ) -> None:
        done = run(line, *caught(*needed))
        assert (done.returncode, done.stderr) == (0, "")
        first, *others = done.stdout.splitlines()
        assert first.startswith(expected)
        assert "install it with: pip install" in first
        assert others == ["done"]

    @pytest.mark.parametrize("command", ["device", "mec"])
    def test_campus_ends_with_that_line(self, command: str, tmp_path: Path) -> None:
        options = {
            "device": ("--mec", "tcp://127.0.0.1:1", "--frames", "2", "--outcomes", str(tmp_path / "outcomes.jsonl")),
            "mec": ("--bind", "tcp://127.0.0.1:*"),
        }[command]
        arguments = ("mecpilot", command, "--workload", "campus", *options)
        done = run(
            MISSING,
            f"sys.argv = {list(arguments)!r}",
            "import runpy",
            "runpy.run_module('mecpilot', run_name='__main__')",
        )
        assert (done.returncode, done.stdout) == (2, "")
        assert [line for line in done.stderr.splitlines() if "compiled code needs numba" in line]
        assert "Traceback" not in done.stderr

    def test_garments_needs_none(self) -> None:
        lines = (
            "import numpy as np",
            "import runtime.device.run, runtime.mec.server",
            "from runtime.bundles.bundle import open_pair",
            "from runtime.inference.segments import Segments",
            "bundle, workload = open_pair('garments', None)",
            "segments = Segments(bundle, workload)",
            "segments.prepare_codecs()",
            "for px in sorted({d.resolution_px for d in bundle.space.decisions}):",
            "    d = next(d for d in bundle.space.decisions if d.resolution_px == px and d.payload != 'none')",
            "    segments.whole(np.zeros(bundle.frame_shape, np.uint8), d)",
        )
        done = run(MISSING, *lines)
        assert (done.returncode, done.stdout) == (0, "done\n"), done.stderr

    def test_the_codecs_can_be_listed_and_stand_alone_payloads_need_none(self) -> None:
        lines = (
            "import numpy as np",
            "from runtime.codecs import decode, encode",
            "decode('signs', encode('signs', np.ones((3, 4, 5), np.float32)), (3, 4, 5))",
        )
        assert run(MISSING, *lines).stdout == "done\n"


class TestWhereItIsKept:
    def test_a_folder_that_cannot_be_written_is_named_and_another_is_used(self, tmp_path: Path) -> None:
        (tmp_path / "file").touch()
        done = run(*SIGNS, NUMBA_CACHE_DIR=str(tmp_path / "file"))
        assert (done.returncode, done.stdout) == (0, "done\n")
        first, *others = done.stderr.splitlines()
        assert first.startswith(f"cannot keep compiled code in {tmp_path / 'file'} (")
        assert all(line.startswith("compiling the codec of signs") for line in others)

    def test_compiling_is_announced_once_and_kept(self, tmp_path: Path) -> None:
        first, second = (run(*TWIN, NUMBA_CACHE_DIR=str(tmp_path / "kept")) for _ in range(2))
        assert (first.stdout, first.stderr) == ("done\n", "compiling the twin, once, about 20 s\n")
        assert (second.stdout, second.stderr) == ("done\n", "")

    def test_a_prepared_folder_may_be_read_only(self, tmp_path: Path) -> None:
        """Other tests may run as `root`, who can write anywhere, so the file system refuses by name."""
        refused = (
            "import tempfile",
            "def refuse(dir=None, made=tempfile.TemporaryFile, **options):",
            "    if str(dir).startswith(KEPT):",
            "        raise OSError(30, 'Read-only file system')",
            "    return made(dir=dir, **options)",
            "tempfile.TemporaryFile = refuse",
        )
        folder = tmp_path / "kept"
        run(*SIGNS, NUMBA_CACHE_DIR=str(folder))
        before = {path: path.read_bytes() for path in folder.rglob("*.nb?")}
        assert before
        counted = "import numba.core.caching as c; print(c.tempfile.TemporaryFile is refuse)"
        done = run(f"KEPT = {str(folder)!r}", *refused, counted, *SIGNS, NUMBA_CACHE_DIR=str(folder))
        assert (done.stdout, done.stderr) == ("True\ndone\n", "")  # no word of compiling
        assert {path: path.read_bytes() for path in folder.rglob("*.nb?")} == before

    def test_a_change_of_a_source_or_of_the_compiler_module_takes_another_folder(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path))
        source, other = tmp_path / "source.py", tmp_path / "compiler.py"
        source.write_text("one")
        other.write_text("one")
        folders = {Sources("it", 1, (source,)).folder}
        source.write_text("two")
        folders.add(Sources("it", 1, (source,)).folder)
        monkeypatch.setattr(runtime.compiler, "__file__", str(other))
        folders.add(Sources("it", 1, (source,)).folder)
        assert len(folders) == 3


def total(rows: np.ndarray, factor: int) -> int:
    """A function to compile."""
    found = 0
    for row in rows:
        found += factor * row
    return found


@pytest.fixture
def compiled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Compiled:
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path))
    return Compiled(Sources("a sum", 1, (Path(__file__),)), total)


def test_it_does_what_its_source_does_in_any_thread(compiled: Compiled) -> None:
    rows = np.arange(1000)
    found: list[int] = []
    threads = [threading.Thread(target=lambda: found.append(compiled.always(rows, 3))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [compiled.plain(rows, 3)] * 4
    assert compiled.__doc__ == total.__doc__


def test_a_row_of_numbers_of_another_size_is_refused(compiled: Compiled) -> None:
    assert compiled.always(np.arange(4), 3) == 18
    with pytest.raises(TypeError):
        compiled.always(np.arange(4, dtype=np.int8), 3)


def test_a_call_with_other_tables_looks_at_types_again(compiled: Compiled) -> None:
    assert compiled(np.arange(4), 3) == 18
    assert compiled(np.arange(4, dtype=np.int8), 3) == 18
