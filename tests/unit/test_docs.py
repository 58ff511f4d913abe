"""What the documents name exists: links, commands and their options, targets of make."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import typer

from drip.cli import app

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = ("docs", "firmware", "host", "models", "tests", "tools")
DOCUMENTS = sorted(
    [*ROOT.glob("*.md"), *(path for name in FOLDERS for path in (ROOT / name).rglob("*.md"))]
)
NAMES = [path.relative_to(ROOT).as_posix() for path in DOCUMENTS]


@cache
def anchors(path: Path) -> frozenset[str]:
    """The anchors of a document's headings, as GitHub makes them."""
    found: set[str] = set()
    fenced = False
    for line in path.read_text().splitlines():
        fenced ^= line.startswith("```")
        heading = re.match(r"#+ (.*)", line)
        if heading is None or fenced:
            continue
        slug = re.sub(r"[^\w\- ]", "", heading[1].strip().lower()).replace(" ", "-")
        again = sum(re.sub(r"-\d+$", "", other) == slug for other in found)
        found.add(f"{slug}-{again}" if again else slug)
    return frozenset(found)


def commands(group: Any, words: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], set[str]]]:
    """Every command of the command line with its options."""
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, (*words, name))
        else:
            known = {o for p in command.params for o in (*p.opts, *p.secondary_opts)}
            yield (*words, name), known | {"--help"}


COMMANDS = dict(commands(typer.main.get_command(app)))


@pytest.mark.parametrize("path", DOCUMENTS, ids=NAMES)
def test_every_link_leads_somewhere(path: Path) -> None:
    for link in re.findall(r"\]\(([^)\s]+)\)", path.read_text()):
        if re.match(r"https?:", link):
            continue
        name, _, anchor = link.partition("#")
        target = (path.parent / name).resolve() if name else path
        assert target.exists(), f"{path.name}: {link}"
        assert not anchor or anchor in anchors(target), f"{path.name}: {link}"


@pytest.mark.parametrize("path", DOCUMENTS, ids=NAMES)
def test_every_command_and_option_exists(path: Path) -> None:
    groups = {words[:1] for words in COMMANDS if len(words) == 2}
    text = path.read_text().replace("\\\n", " ")
    for said in re.findall(r"(?:^ {4}|^|`|&& )drip ([a-z][^`\n|&#]*)", text, flags=re.MULTILINE):
        words = tuple(said.split())
        if words in groups:
            continue
        known = COMMANDS.get(words[:1], COMMANDS.get(words[:2]))
        assert known is not None, f"{path.name}: drip {said}"
        for option in re.findall(r"(?<!\S)--?[a-z][\w-]*", said):
            assert option in known, f"{path.name}: {option} of drip {said}"


def test_the_targets_of_make_are_told() -> None:
    targets = set(re.findall(r"^([a-z-]+):.*## ", (ROOT / "Makefile").read_text(), re.MULTILINE))
    guide = (ROOT / "CONTRIBUTING.md").read_text()
    told = {word for span in re.findall(r"`([^`]*)`", guide) for word in span.split()}
    told |= set(re.findall(r"^ {4}make ([a-z-]+)", guide, re.MULTILINE))
    assert targets <= told, targets - told
    for path in DOCUMENTS:
        for target in re.findall(r"(?:^ {4}|`)make ([a-z][a-z-]*)", path.read_text(), re.MULTILINE):
            assert target in targets, f"{path.name}: make {target}"
