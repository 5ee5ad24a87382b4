"""Print the configuration of the site with a complete menu: `docs/zensical.toml` names a folder's
further pages by a pattern, so that a new method or task needs no line of its own.

    python docs/site_menu.py > build/site/zensical.toml
"""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
CONFIGURATION = Path(__file__).parent / "zensical.toml"
_PATTERN = re.compile(r'^(?P<indent> *)\{ "\*" = "(?P<pattern>[\w/*.-]+)" \},$', re.MULTILINE)


def complete_menu() -> str:
    """The configuration, with the pages of each pattern that it does not name."""
    text = CONFIGURATION.read_text(encoding="utf-8")

    def expand(match: re.Match[str]) -> str:
        pages = sorted(ROOT.glob(match["pattern"]))
        names = [page.relative_to(ROOT).as_posix() for page in pages]
        lines = [
            f'{match["indent"]}{{ "{read_title(ROOT / name)}" = "{name}" }},'
            for name in names
            if f'"{name}"' not in text
        ]
        return "\n".join(lines)

    return _PATTERN.sub(expand, text)


def read_title(page: Path) -> str:
    """The first heading of a page, up to a colon and without marks of code."""
    heading = page.read_text(encoding="utf-8").partition("\n")[0].removeprefix("# ")
    return heading.partition(":")[0].replace("`", "").replace('"', "'")


if __name__ == "__main__":
    print(complete_menu(), end="")
