"""Key files and the list of admitted devices: what is written, what is trusted, what a running MEC sees of an edit."""

from __future__ import annotations

import os
import stat
import threading
from pathlib import Path

import pytest

from controller.errors import FailureError, UsageError
from runtime.security.allow_list import AllowList, allow, parse, read_list, revoke
from runtime.security.key_files import key_folder, own_names, public_key, read_pair, write_pair
from runtime.security.keys import KEY_CHARS, fingerprint, is_key, new_pair


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "keys"


class TestKeys:
    def test_a_new_public_key_is_one_word_that_no_shell_or_command_takes_for_anything_else(self) -> None:
        for _ in range(50):
            key = new_pair().public
            assert is_key(key)
            assert len(key) == KEY_CHARS
            assert key[0].isalnum()
            assert not set(key) & set("'\"\\ _`,;|~")

    @pytest.mark.parametrize("text", ["", "a" * 39, "a" * 41, "_" * 40, "#" * 40, "\u00e9" * 40])
    def test_other_texts_are_no_keys(self, text: str) -> None:
        assert not is_key(text)

    def test_a_secret_is_in_no_text_of_its_pair(self) -> None:
        pair = new_pair()
        assert pair.secret not in f"{pair} {pair!r}"

    def test_fingerprints_differ(self) -> None:
        assert fingerprint(new_pair().public) != fingerprint(new_pair().public)


class TestFiles:
    def test_what_is_written_is_what_is_read(self, folder: Path) -> None:
        pair = write_pair(folder, "camera-1")
        assert read_pair(folder / "camera-1.key") == pair
        assert public_key(str(folder / "camera-1.pub")) == pair.public == public_key(pair.public)
        assert own_names(folder) == ["camera-1"]

    def test_only_the_owner_may_read_a_secret_whatever_the_umask_says(self, folder: Path) -> None:
        before = os.umask(0)
        try:
            write_pair(folder, "mec")
        finally:
            os.umask(before)
        assert stat.S_IMODE((folder / "mec.key").stat().st_mode) == 0o600
        assert stat.S_IMODE((folder / "mec.pub").stat().st_mode) == 0o644
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        assert sorted(os.listdir(folder)) == ["mec.key", "mec.pub"]

    def test_a_key_is_replaced_on_request_only(self, folder: Path) -> None:
        old = write_pair(folder, "mec")
        with pytest.raises(UsageError, match="exists; expected another name, or --overwrite"):
            write_pair(folder, "mec")
        assert read_pair(folder / "mec.key") == old
        new = write_pair(folder, "mec", overwrite=True)
        assert read_pair(folder / "mec.key") == new != old

    @pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o620, 0o777])
    def test_a_secret_that_others_can_read_or_write_is_refused(self, folder: Path, mode: int) -> None:
        write_pair(folder, "mec")
        (folder / "mec.key").chmod(mode)
        with pytest.raises(UsageError, match=r"can be read or written by others.*run: chmod 600"):
            read_pair(folder / "mec.key")

    @pytest.mark.root
    def test_a_secret_of_another_user_is_refused(self, folder: Path) -> None:
        if os.geteuid() != 0:
            pytest.skip("only root can give a file away")
        write_pair(folder, "mec")
        os.chown(folder / "mec.key", 12345, -1)
        with pytest.raises(UsageError, match="belongs to user 12345"):
            read_pair(folder / "mec.key")

    def test_a_link_to_an_open_secret_and_a_pipe_are_refused(self, folder: Path) -> None:
        write_pair(folder, "mec")
        (folder / "mec.key").chmod(0o644)
        (folder / "link.key").symlink_to(folder / "mec.key")
        with pytest.raises(UsageError, match="can be read"):
            read_pair(folder / "link.key")
        os.mkfifo(folder / "pipe.key", 0o600)
        with pytest.raises(UsageError, match="not a regular file"):
            read_pair(folder / "pipe.key")

    @pytest.mark.parametrize("text", ["", "hello", "mecpilot-secret-key", "mecpilot-secret-key short", "\x00" * 60])
    def test_a_file_without_a_key_is_refused_and_not_repeated(self, folder: Path, text: str) -> None:
        write_pair(folder, "mec")
        (folder / "mec.key").write_text(text)
        with pytest.raises(UsageError, match="holds no secret key"):
            read_pair(folder / "mec.key")

    def test_a_secret_key_is_not_taken_for_a_public_one(self, folder: Path) -> None:
        pair = write_pair(folder, "mec")
        with pytest.raises(UsageError, match="is a secret key") as caught:
            public_key(str(folder / "mec.key"))
        assert pair.secret not in str(caught.value)
        with pytest.raises(UsageError, match="neither a public key"):
            public_key("nothing")

    def test_names_cannot_leave_the_folder(self, folder: Path) -> None:
        for name in ("../mec", "a/b", "", ".hidden", "a" * 64):
            with pytest.raises(UsageError, match="name"):
                write_pair(folder, name)
        assert not folder.exists() or not os.listdir(folder)

    def test_a_folder_that_cannot_be_made_is_one_line(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("")
        with pytest.raises(FailureError, match="choose another --dir"):
            write_pair(tmp_path / "file" / "keys", "mec")

    def test_the_folder_is_what_is_given_else_what_the_environment_says(self) -> None:
        home = {"XDG_CONFIG_HOME": "/c"}
        assert key_folder(Path("/a"), home | {"MECPILOT_KEYS": "/b"}) == Path("/a")
        assert key_folder(None, home | {"MECPILOT_KEYS": "/b"}) == Path("/b")
        assert key_folder(None, home) == Path("/c/mecpilot/keys")
        assert key_folder(None, {}) == Path.home() / ".config/mecpilot/keys"


KEYS = [new_pair().public for _ in range(3)]


class TestList:
    @pytest.fixture
    def path(self, tmp_path: Path) -> Path:
        return tmp_path / "allowed.txt"

    def test_names_keys_and_roles(self) -> None:
        listed = parse(f"# who\n\ncamera-1 {KEYS[0]} device\n  boss\t{KEYS[1]} operator,device\n")
        assert [(entry.name, entry.roles) for entry in listed.by_key.values()] == [
            ("camera-1", ("device",)),
            ("boss", ("device", "operator")),
        ]

    @pytest.mark.parametrize(
        ("text", "why"),
        [
            (f"camera {KEYS[0]}", "line 1: expected a name, a public key"),
            (f"\ncamera {KEYS[0][:-1]} device", "line 2: expected a name, a public key"),
            (f"camera {KEYS[0]} king", "role 'king'; expected device or operator"),
            (f"../camera {KEYS[0]} device", "name '../camera'"),
            (f"a {KEYS[0]} device\nb {KEYS[0]} device", "line 2: the key of a again"),
            (f"a {KEYS[0]} device\na {KEYS[1]} operator", "line 2: a has other roles above"),
        ],
        ids=["few words", "short key", "role", "name", "key twice", "roles twice"],  # keys are random
    )
    def test_a_line_that_makes_no_sense_is_named(self, text: str, why: str) -> None:
        with pytest.raises(UsageError, match=why):
            parse(text)

    def test_edits_keep_comments_and_other_lines(self, path: Path) -> None:
        path.write_text(f"# mine\nold {KEYS[0]} device\n")
        allow(path, "new", KEYS[1], ("operator",))
        revoke(path, "old")
        assert path.read_text() == f"# mine\nnew {KEYS[1]} operator\n"
        assert stat.S_IMODE(path.stat().st_mode) == 0o644

    def test_a_second_key_of_a_name_has_its_roles_and_one_of_them_can_be_revoked(self, path: Path) -> None:
        allow(path, "camera", KEYS[0], ("operator",))
        allow(path, "camera", KEYS[1], None)
        assert read_list(path).roles == {"camera": ("operator",)}
        allow(path, "camera", KEYS[1], ("device",))
        assert read_list(path).roles == {"camera": ("device",)}
        assert [entry.key for entry in revoke(path, "camera", KEYS[0])] == [KEYS[0]]
        assert set(read_list(path).by_key) == {KEYS[1]}

    def test_what_cannot_be_edited_is_refused_and_changes_nothing(self, path: Path) -> None:
        allow(path, "camera", KEYS[0], None)
        before = path.read_text()
        with pytest.raises(UsageError, match="listed as camera"):
            allow(path, "other", KEYS[0], None)
        with pytest.raises(UsageError, match="lists no key of nobody"):
            revoke(path, "nobody")
        path.write_text(before + "nonsense\n")
        with pytest.raises(UsageError, match="line 3"):
            allow(path, "more", KEYS[1], None)
        assert path.read_text() == before + "nonsense\n"

    def test_editors_at_the_same_time_lose_no_line(self, path: Path) -> None:
        keys = [new_pair().public for _ in range(12)]
        editors = [
            threading.Thread(target=allow, args=(path, f"camera-{number}", key, None))
            for number, key in enumerate(keys)
        ]
        for editor in editors:
            editor.start()
        for editor in editors:
            editor.join()
        assert set(read_list(path).by_key) == set(keys)

    def test_a_list_that_others_can_write_is_refused(self, path: Path) -> None:
        allow(path, "camera", KEYS[0], None)
        path.chmod(0o664)
        with pytest.raises(UsageError, match="can be written by others"):
            AllowList(path, lambda _: None)


class TestRunningMec:
    """What a MEC that runs sees of the list. The clock is the test's."""

    @pytest.fixture(autouse=True)
    def begin(self, tmp_path: Path) -> None:
        self.path, self.lines, self.now_s = tmp_path / "allowed.txt", list[str](), 0.0
        allow(self.path, "camera", KEYS[0], None)
        self.list = AllowList(self.path, self.lines.append, lambda: self.now_s)

    def name_of(self, key: str) -> str:
        self.now_s += 1.0
        return self.list.name_of(key)

    def test_an_edit_holds_from_the_next_look_on(self) -> None:
        assert self.name_of(KEYS[0]) == "camera"
        allow(self.path, "boss", KEYS[1], ("operator",))
        revoke(self.path, "camera")
        assert self.list.name_of(KEYS[1]) == ""  # not looked at again yet
        assert self.name_of(KEYS[1]) == "boss"
        assert self.name_of(KEYS[0]) == ""
        assert self.list.may("boss", "operator")
        assert not self.list.may("boss", "device")
        assert not self.list.may("camera", "device")
        assert [line for line in self.lines if "1 key is admitted" in line]

    @pytest.mark.parametrize("text", ["nonsense\n", "\x00\xff" * 100, f"a {KEYS[1]} device\na {KEYS[2]} operator\n"])
    def test_a_broken_list_leaves_the_last_good_one_and_one_line(self, text: str) -> None:
        self.path.write_bytes(text.encode("latin-1"))
        assert [self.name_of(key) for key in KEYS] == ["camera", "", ""]
        assert self.name_of(KEYS[0]) == "camera"
        assert len(self.lines) == 1
        assert "stays in force" in self.lines[0]
        self.path.write_text(f"other {KEYS[1]} device\n")
        assert [self.name_of(key) for key in KEYS] == ["", "other", ""]

    def test_a_list_that_vanished_or_was_opened_to_others_leaves_the_last_good_one(self) -> None:
        self.path.rename(self.path.with_suffix(".away"))
        assert self.name_of(KEYS[0]) == "camera"
        self.path.with_suffix(".away").rename(self.path)
        self.path.chmod(0o666)
        assert self.name_of(KEYS[0]) == "camera"
        assert len(self.lines) == 2

    def test_a_list_that_is_not_there_yet_admits_nobody_until_it_is(self, tmp_path: Path) -> None:
        later = AllowList(tmp_path / "later.txt", self.lines.append, lambda: self.now_s)
        assert later.name_of(KEYS[0]) == ""
        assert not len(later)
        allow(tmp_path / "later.txt", "camera", KEYS[0], None)
        self.now_s += 1.0
        assert later.name_of(KEYS[0]) == "camera"
