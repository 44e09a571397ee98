"""The documents say what is true: trees, paths, tests, links and commands are compared with the disk."""

import re
import shlex
import subprocess
from pathlib import Path

import pytest

from omnihuman import cli

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)


def names(start: str) -> list[str]:
    """First words of the README's block that begins with `start`; each line holds a name and its purpose."""
    block = next(block for block in BLOCKS if block.startswith(start))
    matches = [re.fullmatch(r"(\S+) {2,}\S.*", line) for line in block.splitlines()]
    return [match[1] for match in matches if match or pytest.fail(f"a line of the block {start} has no purpose")]


TREE, RESULTS = names("src/"), names("reports/")


def commands() -> list[str]:
    """Every `omnihuman ...` of the README, from code blocks and from the text around them."""
    lines = [line for block in BLOCKS for line in block.splitlines() if line.startswith("omnihuman ")]
    return lines + re.findall(r"`(omnihuman [^`\n]+)`", re.sub(r"```.*?```", "", README, flags=re.DOTALL))


def test_the_tree_names_what_exists_and_once() -> None:
    assert len(TREE) == len(set(TREE))
    assert not [name for name in TREE if not (ROOT / name).exists() or (ROOT / name).is_dir() != name.endswith("/")]


def test_the_tree_names_every_module_package_and_tracked_entry() -> None:
    source = ROOT / "src/omnihuman"
    packages = {f"{path.parent.relative_to(ROOT)}/" for path in source.rglob("__init__.py")}
    modules = {str(path.relative_to(ROOT)) for path in source.glob("*.py")} - {"src/omnihuman/__init__.py"}
    assert packages | modules <= set(TREE)
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode or not listed.stdout:
        pytest.skip("no git checkout, so that nobody knows what is tracked")
    tracked = {Path(path).parts[0] for path in listed.stdout.splitlines()}
    assert tracked <= {Path(name).parts[0] for name in TREE + RESULTS}


@pytest.mark.parametrize("command", commands())
def test_the_command_line_takes_the_readmes_commands(command: str) -> None:
    assert cli._parser().parse_args(shlex.split(command)[1:]).verb


def test_make_has_the_readmes_targets() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"(?:^|`)make ([a-z-]+)", README, re.MULTILINE))
    assert {"demo", "test", "check"} <= targets <= set(re.findall(r"^([a-z-]+):.*##", makefile, re.MULTILINE))


@pytest.mark.parametrize("path", [ROOT / "README.md", *sorted(ROOT.glob("docs/**/*.md"))], ids=lambda path: path.name)
def test_links_lead_somewhere(path: Path) -> None:
    links = re.findall(r"\]\(([^)#:]+)\)", path.read_text(encoding="utf-8"))
    assert not [link for link in links if not (path.parent / link).exists()]


def test_the_paper_map_names_files_and_tests_that_exist() -> None:
    text = (ROOT / "docs/paper_map.md").read_text(encoding="utf-8")
    named = re.findall(r"`([\w/.]+\.(?:py|yaml))(?:::(\w+))?`", text)
    assert len(named) > 40
    for path, test in named:
        file = next((folder / path for folder in (ROOT, ROOT / "src/omnihuman") if (folder / path).is_file()), None)
        assert file, path
        assert not test or f"def {test}(" in file.read_text(encoding="utf-8"), f"{path}::{test}"
