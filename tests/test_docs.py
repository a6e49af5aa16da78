"""What the documentation says of the project is so: files, links, scripts, versions."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

import rankitect

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(DOCS.rglob("*.md"))]
LINK = re.compile(r"\]\((?!https?://|#)([^)#\s]+)")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_lead_to_files(page: Path) -> None:
    missing = [link for link in LINK.findall(page.read_text(encoding="utf-8")) if not (page.parent / link).exists()]
    assert not missing


def test_the_readme_is_short_and_its_picture_small() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 140
    for picture in (DOCS / "images").iterdir():
        assert picture.stat().st_size < 200_000, picture.name


def test_every_page_of_results_is_listed_and_names_scripts_that_exist() -> None:
    listed = (DOCS / "results" / "index.md").read_text(encoding="utf-8")
    for page in sorted((DOCS / "results").glob("*.md")):
        assert page.name == "index.md" or f"]({page.name})" in listed
        for script in re.findall(r"`(?:benchmarks/)?(\w+\.py)", page.read_text(encoding="utf-8")):
            assert (ROOT / "benchmarks" / script).exists(), f"{page.name} names {script}"


def test_the_citation_has_the_packages_version() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["version"] == rankitect.__version__


def test_the_claim_over_uniform_width_is_qualified_wherever_it_is_made() -> None:
    pages = [page.read_text(encoding="utf-8") for page in PAGES]
    claims = [text for text in pages if re.search(r"6%?(, 10% and| to) 18%", text)]
    assert claims
    assert all("inherit weights that" in text or "inherit on sampled architectures" in text for text in claims)
