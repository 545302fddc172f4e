"""What mkdocs does beside rendering: the repository's own pages on the site, and links that lead out of docs/."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[1]
# Pages that stay where a repository has them.
OUTSIDE = {
    "ARCHITECTURE.md": "architecture.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
}
# docs/index.md is about the index: the site's first page is another.
PLACES = {"start.md": "index.html", "index.md": "search/index.html"}


def on_files(files: Files, config: Any) -> Files:
    """Adds the pages of the repository's root, and puts two pages at other addresses."""
    for source, target in OUTSIDE.items():
        text = (ROOT / source).read_text("utf-8")
        text = re.sub(r"\]\(docs/", "](", text)
        files.append(File.generated(config, target, content=text))
    for name, place in PLACES.items():
        file: Any = files.get_file_from_path(name)
        file.dest_uri = place
        file.url = place.removesuffix("index.html") or "./"
        file.abs_dest_path = str(Path(config["site_dir"], place))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Files) -> str:
    """Rewrites links to files outside docs/."""
    generated = page.file.src_uri in OUTSIDE.values()
    folder = ROOT if generated else (ROOT / "docs" / page.file.src_uri).parent

    def replace(match: re.Match[str]) -> str:
        text, target, anchor = match[1], match[2], match[3] or ""
        path = (folder / target).resolve()
        if not path.is_relative_to(ROOT) or path.is_relative_to(ROOT / "docs") or re.match(r"\w+:", target):
            return match[0]
        if generated and not path.exists():  # a page of docs/, whose folder is cut off already
            return match[0]
        relative = path.relative_to(ROOT).as_posix()
        if relative in OUTSIDE:
            return f"[{text}]({'../' * page.file.src_uri.count('/')}{OUTSIDE[relative]}{anchor})"
        if config["repo_url"]:
            return f"[{text}]({config['repo_url'].rstrip('/')}/blob/main/{relative})"
        return f"{text} (`{relative}`)" if text.strip("`") != relative else f"`{relative}`"

    return re.sub(r"(?<!!)\[([^\]]+)\]\(([^)#\s]+)(#[^)\s]*)?\)", replace, markdown)
