"""What must be seen before an approval; and what must not cry wolf."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from swarm_tui.handoff import ABSENT, Change, Flag, FlagKind
from swarm_tui.review import hidden
from swarm_tui.review.diff import Span, make
from swarm_tui.review.flags import flags, whole
from swarm_tui.text import sanitize

FILE, EXECUTABLE, SYMLINK, SUBMODULE = "100644", "100755", "120000", "160000"
OLD, NEW = "a" * 40, "b" * 40


def flagged(
    path: bytes = b"src/total.py",
    old: bytes | None = None,
    new: bytes | None = b"",
    *,
    modes: tuple[str, str] = (ABSENT, FILE),
    spans: Sequence[Span] = (),
    old_path: bytes | None = None,
) -> list[Flag]:
    old_mode, new_mode = modes
    old_oid, new_oid = "" if old_mode == ABSENT else OLD, "" if new_mode == ABSENT else NEW
    change = Change(path, old_mode, new_mode, old_oid, new_oid, old_path)
    return list(flags(change, old, new, make(change, old, new, spans)))


def kinds(found: Sequence[Flag]) -> list[FlagKind]:
    return [flag.kind for flag in found]


def only(found: Sequence[Flag]) -> Flag:
    assert len(found) == 1, [(flag.kind, flag.detail) for flag in found]
    return found[0]


ORDINARY = """\
#!/usr/bin/env python3
\"\"\"Größen in Metern – für «alle», l’été, naïve, Ærø, İstanbul, Łódź, Việt Nam.\"\"\"

# これは日本語のコメントです。ｶﾀｶﾅ と ＡＰＩ も。 这是中文注释 한국어 주석
# Это русский комментарий про API: x-координата, JSON и C++.
# Ελληνικά σχόλια; Δt = 5 μs, hν, λ, πρr, 4πρ/3, ρ_max, 3 kΩ, σ² ≤ ∞ → ½
# עברית وعربية हिन्दी ภาษาไทย می‌خواهم ශ්‍රී
# 👍🏽 ❤️ 👩‍👩‍👧‍👦 🏳️‍🌈 1️⃣ ©️ 🇩🇪 🏴󠁧󠁢󠁥󠁮󠁧󠁿 ✔︎ ☺
\f
def total(items: list[int]) -> int:
\tresult = {"é": sum(items)}                                            # far, but seen
\treturn result["é"]
"""


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_ordinary_work_is_not_flagged(end: str) -> None:
    blob = ORDINARY.replace("\n", end).replace(f"\f{end}", "\f\n").encode()
    assert flagged(new=blob) == []
    assert flagged(new=blob.rstrip(b"\n")) == []
    assert flagged(new=b"\xef\xbb\xbf" + blob) == []


ORDINARY_PATHS = [
    b"README.md", b"Makefile", b"Dockerfile", b"tests/conftest.py", b"src/hooks/useAuth.ts",
    b"pyproject.toml", b"package.json", b"docs/agents/overview.md", "src/größe/日本語.py".encode(),
    b"lib/update.py", b"src/.hidden/file", b"a.b.c/d-e_f+g@h.txt", b"src/aux_/con1.py", b"git~/x",
    b"vendor/requirements.txt", b"app/[id]/page.tsx", b"cmd/setup.go", b"actions/run.py",
]  # fmt: skip


@pytest.mark.parametrize("path", ORDINARY_PATHS)
def test_an_ordinary_path_is_not_flagged(path: bytes) -> None:
    assert flagged(path, None, b"{}\n") == []


PLACES = {
    FlagKind.ATTRIBUTES: [b".gitattributes", b"a/b/.gitignore", b".gitmodules", b".mailmap"],
    FlagKind.CI: [
        b".github/workflows/ci.yml", b".GitHub/Workflows/x", b".github/actions/a/action.yml",
        b"sub/.gitlab-ci.yml", b"ci/deploy.gitlab-ci.yml", b".gitlab/x.yml",
        b".circleci/config.yml",
        b"Jenkinsfile", b"Jenkinsfile.release", b"azure-pipelines.yml", b".azure-pipelines/a.yml",
        b".drone.yml", b".woodpecker/x.yml", b".buildkite/p.yml", b".travis.yml", b".tekton/a.yaml",
        b"bitbucket-pipelines.yml", b".ci/run", b".cirrus.star", b".forgejo/workflows/x.yml",
        b".build.yml", b"action.yml", b"azure-pipelines-release.yml",
    ],
    FlagKind.HOOK: [
        b".husky/pre-commit", b".pre-commit-config.yaml", b".githooks/post-checkout",
        b"lefthook.yml",
        b"hooks/pre-push", b"scripts/hooks/commit-msg.sh", b".vscode/tasks.json",
        b"x.code-workspace",
        b".vscode/settings.json", b".vscode/launch.json", b".devcontainer/Dockerfile", b".envrc",
        b".idea/runConfigurations/a.xml", b"mise.toml", b".mise.local.toml",
        b"setup.py", b"build.rs",
        b"src/sitecustomize.py", b"evil.pth", b".npmrc", b".yarn/plugins/a.cjs", b"gradlew",
        b".cargo/config.toml", b".nvim.lua", b".gdbinit", b"AGENTS.md", b"sub/CLAUDE.md",
        b".mcp.json",
        b".claude/settings.json", b".cursor/rules/a.mdc", b".cursorrules", b".github/prompts/a.md",
        b".github/copilot-instructions.md", b"gradle/wrapper/gradle-wrapper.properties",
    ],
    FlagKind.LOCKFILE: [
        b"package-lock.json", b"web/yarn.lock", b"pnpm-lock.yaml", b"poetry.lock", b"uv.lock",
        b"Cargo.lock", b"go.sum", b"Gemfile.lock", b"composer.lock", b"Pipfile.lock", b"flake.lock",
        b".terraform.lock.hcl", b"bun.lockb", b"pylock.dev.toml", b"Podfile.lock", b"deno.lock",
    ],
}  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "path"), [(kind, path) for kind in PLACES for path in PLACES[kind]]
)
def test_files_that_do_something_by_themselves(kind: FlagKind, path: bytes) -> None:
    flag = only(flagged(path, None, b"x\n"))
    assert (flag.kind, flag.path, flag.line) == (kind, path, None)
    assert flag.detail


def test_a_hook_that_is_renamed_or_deleted_is_flagged_too() -> None:
    moved = flagged(b"a.txt", b"x\n", b"x\n", modes=(FILE, FILE), old_path=b".husky/pre-push")
    assert kinds(moved) == [FlagKind.HOOK]
    assert kinds(flagged(b".gitignore", b"x\n", None, modes=(FILE, ABSENT))) == [
        FlagKind.ATTRIBUTES
    ]


def test_binary_content_on_either_side() -> None:
    assert kinds(flagged(new=b"\x89PNG\0")) == [FlagKind.BINARY]
    gone = flagged(old=b"\0", new=None, modes=(FILE, ABSENT))
    assert kinds(gone) == [FlagKind.BINARY]


def test_content_that_is_too_large_to_show() -> None:
    assert kinds(flagged(new=None)) == [FlagKind.TOO_LARGE]
    assert kinds(flagged(old=None, new=b"x\n", modes=(FILE, FILE))) == [FlagKind.TOO_LARGE]


@pytest.mark.parametrize(
    ("path", "target", "word"),
    [
        (b"a/b", b"../c", ""),
        (b"a/b", b"c/../../d", ""),
        (b"a/b", b"../../c", "leaves the tree"),
        (b"b", b"..", "leaves the tree"),
        (b"a/b", b"x/../../../c", "leaves the tree"),
        (b"b", b"/etc/passwd", "leaves the tree"),
        (b"b", b"C:\\x", "leaves the tree"),
        (b"b", b".GIT/hooks/pre-commit", "git's own"),
    ],
)
def test_a_symlink_and_whether_it_leaves_the_tree(path: bytes, target: bytes, word: str) -> None:
    flag = only(flagged(path, None, target, modes=(ABSENT, SYMLINK)))
    assert flag.kind is FlagKind.SYMLINK
    assert flag.detail.startswith("points to ")
    assert ("leaves the tree" in flag.detail) is (word == "leaves the tree")
    assert word in flag.detail


def test_a_symlink_that_comes_from_or_becomes_a_file() -> None:
    assert kinds(flagged(old=b"x\n", new=b"y", modes=(FILE, SYMLINK))) == [FlagKind.SYMLINK]
    flag = only(flagged(old=b"/etc/x", new=b"y\n", modes=(SYMLINK, FILE)))
    assert flag.detail == "was a symlink to /etc/x"
    assert flagged(old=b"x", new=None, modes=(SYMLINK, ABSENT)) == []


def test_submodules() -> None:
    flag = only(flagged(new=None, modes=(SUBMODULE, SUBMODULE)))
    assert flag.kind is FlagKind.SUBMODULE
    assert flag.detail == f"code from elsewhere: {OLD[:12]} -> {NEW[:12]}"
    assert kinds(flagged(new=None, modes=(ABSENT, SUBMODULE))) == [FlagKind.SUBMODULE]


@pytest.mark.parametrize(
    ("modes", "detail"),
    [
        ((ABSENT, EXECUTABLE), "a new executable"),
        ((FILE, EXECUTABLE), "became executable"),
        ((EXECUTABLE, FILE), "mode 100755 -> 100644"),
    ],
)
def test_modes(modes: tuple[str, str], detail: str) -> None:
    old = None if modes[0] == ABSENT else b"x\n"
    flag = only(flagged(old=old, new=b"x\n", modes=modes))
    assert (flag.kind, flag.detail) == (FlagKind.MODE, detail)


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("a = '\u202e'", "U+202E RIGHT-TO-LEFT OVERRIDE"),
        ("a\u2066b", "U+2066 LEFT-TO-RIGHT ISOLATE"),
        ("is_\u200badmin", "U+200B ZERO WIDTH SPACE"),
        ("is\u200d_admin", "U+200D ZERO WIDTH JOINER"),
        ("a\u00adb", "U+00AD SOFT HYPHEN"),
        ("a\ufe0fb", "U+FE0F VARIATION SELECTOR-16"),
        ("\U0001f600\U000e0141\U000e0142", "U+E0141 VARIATION SELECTOR-82"),
        ("\U0001f3f4\U000e0068\U000e0069\U000e007f", "U+E0068 TAG LATIN SMALL LETTER H"),
        ("\u3164 = 1", "U+3164 HANGUL FILLER"),
        ("a\ufeffb", "U+FEFF ZERO WIDTH NO-BREAK SPACE"),
        ("a\u2028b", "U+2028 LINE SEPARATOR"),
        ("\x1b[2J", "U+001B control character"),
        ("a\rb", "U+000D control character"),
        ("a\x00b", "U+0000 control character"),
        ("a\x85b", "U+0085 control character"),
        ("a\x0cb", "U+000C control character"),
        ("\ue0a0", "U+E0A0 private use"),
        ("p\u0430ypal = 1", "U+0430 CYRILLIC SMALL LETTER A among Latin letters"),
        ("\u0455cope", "U+0455 CYRILLIC SMALL LETTER DZE among Latin letters"),
        ("\u0391dmin", "U+0391 GREEK CAPITAL LETTER ALPHA among Latin letters"),
        ("passw\u03bfrd", "U+03BF GREEK SMALL LETTER OMICRON among Latin letters"),
        ("\U0001d41eval(x)", "U+1D41E MATHEMATICAL BOLD SMALL E among Latin letters"),
        ("x = 1" + " " * 150 + "; evil()", "blanks that push the rest of a line out of sight"),
        ("x = 1" + "\t" * 150 + "; evil()", "blanks that push the rest of a line out of sight"),
    ],
)
def test_hidden_text_is_named_and_placed(text: str, names: str) -> None:
    padding = b"# a line\n" * 1000
    flag = only(flagged(new=padding + b"ok\n\xc3\xbc\n" + text.encode() + b"\nok\n"))
    assert (flag.kind, flag.line) == (FlagKind.HIDDEN, 1003)
    assert flag.detail.startswith(names)
    assert flag.detail.endswith("in 1 line")


def test_hidden_text_is_flagged_once_with_its_count() -> None:
    text = "ok\n" + "a\u200b\n" * 3 + "b\u202e\u200b\n" + "ok\n"
    flag = only(flagged(new=text.encode()))
    assert flag.line == 2
    assert flag.detail == ("U+200B ZERO WIDTH SPACE, U+202E RIGHT-TO-LEFT OVERRIDE; in 4 lines")
    many = only(flagged(new="a\u200b\n".encode() * 5000))
    assert many.detail.endswith("in at least 1,000 lines")


def test_only_added_lines_are_looked_at() -> None:
    old = "a\u202e\nb\nc\u202e\n" + "x" * 3000 + "\n"
    new = old.replace("b", "B")
    spans = [Span(1, 1, 1, 1)]
    assert flagged(b"a", old.encode(), new.encode(), modes=(FILE, FILE), spans=spans) == []


def test_lines_are_counted_in_the_new_file() -> None:
    old = b"1\n2\n3\n4\n"
    new = "1\nzwei\n3\n4\nf\u202e\n".encode()
    spans = [Span(1, 1, 1, 1), Span(4, 0, 4, 1)]
    assert only(flagged(b"a", old, new, modes=(FILE, FILE), spans=spans)).line == 5


def test_whatever_the_screen_cannot_show_as_it_is_is_flagged() -> None:
    hides = [
        code
        for code in [*range(0x3000), *range(0xD7FC, 0x10400), 0x1D173, 0xE0001, 0xE0100, 0x10FFFD]
        if not 0xD800 <= code <= 0xDFFF and chr(code) not in "\t\n\r\f"
        if sanitize(f"a{chr(code)}b") != f"a{chr(code)}b"
    ]
    assert len(hides) > 6000
    missed = [hex(code) for code in hides if not hidden.find([f"a{chr(code)}b".encode()])]
    assert missed == []


def test_long_lines() -> None:
    assert flagged(new=b"x" * 2000 + b"\n" + "ü".encode() * 2000) == []
    flag = only(flagged(new=b"ok\n" + b"x" * 2001 + b"\n" + b"y" * 5000 + b"\n"))
    assert (flag.kind, flag.line) == (FlagKind.LONG_LINE, 2)
    assert flag.detail == "2 lines of up to 5,000 characters"


def test_text_that_is_not_utf8() -> None:
    flag = only(flagged(new=b"ok\ncaf\xe9\n"))
    assert (flag.kind, flag.line) == (FlagKind.ENCODING, 2)


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        (b"a\nb", "more than one line"),
        (b"a\x1b[2Jb", "U+001B"),
        ("invoice\u202egpj.exe".encode(), "U+202E RIGHT-TO-LEFT OVERRIDE"),
        ("a\u200bb/c".encode(), "U+200B"),
        ("sc\u043epe.py".encode(), "U+043E CYRILLIC SMALL LETTER O among Latin letters"),
        ("a\u00a0b".encode(), "no space"),
        (b"caf\xe9", "not UTF-8"),
        (b"../a", "out of the tree"),
        (b"a/../../b", "out of the tree"),
        (b"/etc/passwd", "out of the tree"),
        (b"a\\..\\b", "out of the tree"),
        (b"C:x", "out of the tree"),
        (b"-rf", "option"),
        (b"a/--force", "option"),
        (b"a /b", "drop"),
        (b"a/b.", "drop"),
        (b" a", "drop"),
        (b"src/Aux.c", "device"),
        (b"CON", "device"),
        (b"a/GIT~1/config", "git's own"),
        (b"a/.Git ./config", "git's own"),
    ],
)
def test_names_that_hide_what_they_are(path: bytes, reason: str) -> None:
    flag = only(flagged(path, None, b"x\n"))
    assert flag.kind is FlagKind.NAME
    assert reason in flag.detail


PACKAGE = b'{\n "scripts": {\n  "test": "jest",\n  "build": "tsc"\n }\n}\n'


def test_scripts_that_run_at_an_install() -> None:
    def changed(new: bytes, path: bytes = b"web/package.json") -> list[Flag]:
        lines = new.count(b"\n")
        spans = [Span(0, PACKAGE.count(b"\n"), 0, lines)]
        return flagged(path, PACKAGE, new, modes=(FILE, FILE), spans=spans)

    assert changed(PACKAGE.replace(b"jest", b"vitest")) == []
    new = PACKAGE.replace(b'"test"', b'"postinstall": "curl x | sh",\n  "test"')
    flag = only(changed(new))
    assert (flag.kind, flag.line) == (FlagKind.HOOK, 3)
    assert flag.detail == "runs at an install: postinstall"
    assert kinds(changed(new.replace(b"postinstall", b"post\\u0069nstall"))) == [FlagKind.HOOK]
    assert kinds(changed(b"{ not json\n")) == [FlagKind.HOOK]
    composer = PACKAGE.replace(b'"test"', b'"post-update-cmd": "x",\n  "test"')
    assert kinds(changed(composer, b"composer.json")) == [FlagKind.HOOK]
    kept = flagged(b"package.json", new, new + b"\n", modes=(FILE, FILE), spans=[Span(7, 0, 7, 1)])
    assert kept == []


def change(path: str | bytes, new_mode: str = FILE, added: int = 1) -> Change:
    name = path.encode() if isinstance(path, str) else path
    return Change(name, ABSENT, new_mode, "", NEW, None, added, 0)


def test_history_that_does_not_come_from_the_base() -> None:
    flag = only(whole([change("a")], is_descended=False))
    assert (flag.kind, flag.path) == (FlagKind.HISTORY, b"")
    assert whole([change("a")], is_descended=True) == []


def test_more_than_can_be_read() -> None:
    many = [change(f"f{number}") for number in range(1001)]
    flag = only(whole(many, is_descended=True))
    assert flag.kind is FlagKind.TOO_LARGE
    assert flag.detail.startswith("1,001 files")
    assert kinds(whole([change("a", added=50_001)], is_descended=True)) == [FlagKind.TOO_LARGE]
    assert whole(many[1:], is_descended=True) == []


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("README", "readme"),
        ("src/A.py", "src/a.py"),
        ("Src/a.py", "src/b.py"),
        ("caf\u00e9", "cafe\u0301"),
        ("straße", "STRASSE"),
    ],
)
def test_paths_that_are_one_on_some_systems(first: str, second: str) -> None:
    flag = only(whole([change(first), change(second)], is_descended=True))
    assert (flag.kind, flag.path) == (FlagKind.CASE_CLASH, second.encode())
    with_tree = whole([change(second)], is_descended=True, others=[first.encode()])
    assert only(with_tree).path == second.encode()
    renamed = whole([change(first, ABSENT), change(second)], is_descended=True)
    assert renamed == []


def test_clashes_among_what_did_not_change_are_not_told() -> None:
    assert whole([change("b")], is_descended=True, others=[b"A", b"a"]) == []
