"""Every Python example of README and docs runs, and tables that repeat the code agree with it."""

from __future__ import annotations

import doctest
import re
from pathlib import Path

import pytest

from hmgym.envs.observation import observation_table

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)


def examples() -> list[tuple[str, str]]:
    return [
        (f"{page.name}-{number}", block)
        for page in PAGES
        for number, block in enumerate(BLOCK.findall(page.read_text(encoding="utf-8")))
    ]


@pytest.mark.parametrize("block", [block for _, block in examples()], ids=[name for name, _ in examples()])
def test_example_runs(block: str) -> None:
    if ">>>" not in block:
        exec(compile(block, "<example>", "exec"), {})
        return
    test = doctest.DocTestParser().get_doctest(block, {}, "example", None, 0)
    assert doctest.DocTestRunner(optionflags=doctest.ELLIPSIS).run(test).failed == 0


def test_excerpts_of_examples_are_what_runs() -> None:
    files = [path.read_text(encoding="utf-8") for path in (ROOT / "tests" / "extending").glob("*.py")]
    excerpts = re.findall(r"^```py\n(.*?)^```", (ROOT / "docs" / "extending.md").read_text("utf-8"), re.M | re.S)
    assert len(excerpts) > 5
    assert not [excerpt for excerpt in excerpts if not any(excerpt in file for file in files)]


def test_the_observation_table_is_that_of_the_code() -> None:
    assert observation_table(3) in (ROOT / "docs" / "environments.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    links = re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8"))
    missing = [link for link in links if "://" not in link and not (page.parent / link).exists()]
    assert not missing
