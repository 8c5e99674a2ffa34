"""Paths whose files do something by themselves: to git, to a build machine, to a developer."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Final

from swarm_tui.handoff import FlagKind

_GIT_HOOKS: Final = (
    "applypatch-msg|pre-applypatch|post-applypatch|pre-commit|pre-merge-commit|prepare-commit-msg"
    "|commit-msg|post-commit|pre-rebase|post-checkout|post-merge|pre-push|pre-receive|update"
    "|proc-receive|post-receive|post-update|reference-transaction|push-to-checkout|pre-auto-gc"
    "|post-rewrite|sendemail-validate|fsmonitor-watchman|p4-\\w+|post-index-change"
)
"""githooks(5)."""

_PLACES: Final = (
    (
        FlagKind.ATTRIBUTES,
        "tells git how to treat files",
        (r"\.(gitattributes|gitmodules|gitignore|mailmap|gitconfig|lfsconfig)",),
    ),
    (
        FlagKind.CI,
        "runs on a build machine",
        (
            r"\.(github|gitea|forgejo)/(workflows|actions)/.*",
            r"^action\.ya?ml",
            r"([^/]*\.)?gitlab-ci\.ya?ml|[^/]*\.gitlab-ci\.ya?ml|\.gitlab/.*",
            r"\.(circleci|buildkite|woodpecker|tekton|semaphore|teamcity|builds|ci)/.*",
            r"tekton/.*|\.?azure-pipelines(/.*|[^/]*\.ya?ml)",
            r"jenkinsfile[^/]*|[^/]*\.jenkinsfile",
            r"\.(drone|woodpecker|travis|cirrus|build|appveyor)\.(ya?ml|star|jsonnet)",
            r"(bitbucket-pipelines|buildkite|appveyor|cloudbuild|buildspec|codemagic)\.ya?ml",
        ),
    ),
    (
        FlagKind.HOOK,
        "runs at operations of git",
        (
            r"\.(husky|githooks|lefthook|git-hooks)/.*",
            r"\.pre-commit-(config|hooks)\.ya?ml|\.?lefthook(-local)?\.(ya?ml|toml|json)",
            r"\.overcommit\.yml",
            rf"hooks/({_GIT_HOOKS})(\.\w+)?",
        ),
    ),
    (
        FlagKind.HOOK,
        "an editor or debugger acts on it when the folder is opened",
        (
            r"\.vscode/(tasks|settings|launch|mcp)\.json|[^/]*\.code-workspace",
            r"\.devcontainer/.*|\.devcontainer\.json|\.zed/(tasks|settings)\.json",
            r"\.idea/(runconfigurations/.*|tools/.*|workspace\.xml|watchertasks\.xml|startup\.xml)",
            r"\.run/[^/]*\.run\.xml|\.fleet/.*",
            r"\.(exrc|n?vimrc|nvim\.lua|lvimrc|dir-locals(-2)?\.el|gdbinit|lldbinit)",
        ),
    ),
    (
        FlagKind.HOOK,
        "runs when a shell enters the folder",
        (r"\.(envrc|autoenv(\.\w+)?|in)|\.?mise(\.\w+)*\.toml|\.?mise/.*|\.rtx\.toml",),
    ),
    (
        FlagKind.HOOK,
        "runs when something is installed, built or started",
        (
            r"setup\.py|(site|user)customize\.py|[^/]*\.pth|build\.rs|binding\.gyp",
            r"\.(npmrc|yarnrc|yarnrc\.yml|bazelrc|bazeliskrc)|\.?pnpmfile\.c?js",
            r"\.yarn/(plugins|releases)/.*|\.cargo/config(\.toml)?|\.mvn/.*|tools/bazel",
            r"(gradlew|mvnw)(\.bat|\.cmd)?|gradle/wrapper/.*",
        ),
    ),
    (
        FlagKind.HOOK,
        "steers other coding agents",
        (
            r"(agents?|claude|claude\.local|gemini|qwen|copilot-instructions)\.md",
            r"\.(claude|cursor|codex|gemini|windsurf|roo|continue|kiro|junie|agents|opencode)/.*",
            r"\.(cursor|windsurf|cline|roo)rules(/.*|-[^/]*)?|\.goosehints|\.aider\.conf\.ya?ml",
            r"\.?mcp\.json|opencode\.jsonc?|\.github/(instructions|prompts|agents|chatmodes)/.*",
        ),
    ),
    (
        FlagKind.LOCKFILE,
        "decides which code of others is used",
        (
            r"package-lock\.json|npm-shrinkwrap\.json|yarn\.lock|pnpm-lock\.yaml|bun\.lockb?",
            r"(deno|poetry|uv|pdm|pixi|pipfile|cargo|gemfile|composer|mix|rebar|pubspec)\.lock",
            r"(podfile|flake|paket|shard|conan|renv|spago|chart|buf|devbox|berksfile)\.lock",
            r"pylock(\.[^/]+)?\.toml|conda-lock\.ya?ml|requirements[^/]*\.lock|go(\.work)?\.sum",
            r"(package|cartfile)\.resolved|(buildscript-)?gradle\.lockfile|packages\.lock\.json",
            r"gradle/verification-metadata\.xml|module\.bazel\.lock|\.terraform\.lock\.hcl",
            r"stack\.yaml\.lock|cabal\.project\.freeze|manifest\.toml|dub\.selections\.json",
            r"[^/]*\.opam\.locked|cpanfile\.snapshot",
        ),
    ),
)
"""Kind, what it does, and patterns of paths in lower case: their ends, at any depth, unless they
begin with "^". A Dockerfile, a Makefile and tests are not here: they run when somebody says so."""


def _pattern(shapes: Sequence[str]) -> re.Pattern[str]:
    anywhere = "|".join(shape for shape in shapes if not shape.startswith("^"))
    rooted = "".join(f"|{shape[1:]}" for shape in shapes if shape.startswith("^"))
    return re.compile(f"(?:(?:.*/)?(?:{anywhere}){rooted})", re.DOTALL)


_PATTERNS: Final = [(kind, does, _pattern(shapes)) for kind, does, shapes in _PLACES]


def kinds(path: bytes) -> Iterator[tuple[FlagKind, str]]:
    """What the file at this path does by itself; case does not matter, as on some systems."""
    folded = path.decode("utf-8", "replace").casefold()
    for kind, does, pattern in _PATTERNS:
        if pattern.fullmatch(folded):
            yield kind, does
