"""What the pages say can be typed: commands in code blocks, overrides and options in the text."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGES = (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md")))
CONFIGS = sorted((ROOT / "configs").rglob("*.yaml"))
ELSEWHERE = (
    *("make", "docker", "git", "source", "pip", "python3", ".venv", "sudo", "spark-submit", "duckdb", "PYTHON=", "df"),
    *("torchx run -s slurm", "torchx run -s kubernetes", "export", "for ", "mkdir", "ssh", "cp", "rsync"),
)
"""How lines begin that these tests leave alone: clusters, make, and what is not ours."""

_BLOCK = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
_SPAN = re.compile(r"`([^`\n]+)`")
_OVERRIDE = re.compile(r"""'?[+~]*[a-z_]+(\.("[^"]+"|\w+))*=\S*( [^,;]*)?'?""")
_NAME = re.compile(r"[a-z_]+(\.[a-z_]+)+")
_PLACEHOLDER = re.compile(r"\.\.\.|COMMAND|\bRUN\b|\bNAME\b|\bN$|PARTITION|HOSTSxRANKS|\[--|[:=]$|--help")
_COMMAND = re.compile(r"(recd [a-z]+|torchx run) (?=.*[=/])")
"""A command that does something; the others are names of commands in a text."""


def blocks(page: Path) -> list[tuple[str, str]]:
    """The code blocks of a page: language and text."""
    return _BLOCK.findall(page.read_text())


def commands(text: str) -> Iterator[str]:
    """The command lines of a code block; in a transcript those behind ``$`` that are not refused."""
    lines = re.sub(r" *\\\n\s*", " ", text).splitlines()
    transcript = any(line.startswith("$ ") for line in lines)
    for line, after in zip(lines, [*lines[1:], ""], strict=True):
        typed = line.removeprefix("$ ") if transcript else line.strip()
        if transcript != line.startswith("$ ") or not _COMMAND.match(typed) or after.startswith("recd: error:"):
            continue
        yield from (part.strip() for part in typed.split("; ") if not _PLACEHOLDER.search(part))


def is_ours(line: str) -> bool:
    """Whether a line is a command that can be tried on this machine."""
    return not line.startswith(ELSEWHERE)


def all_commands(page: Path) -> list[str]:
    """Every command of a page that can be tried, in code blocks and in the text."""
    found = [line for _, text in blocks(page) for line in commands(text)]
    found += [line for span in _SPAN.findall(_BLOCK.sub("", page.read_text())) for line in commands(span)]
    return [line for line in dict.fromkeys(found) if is_ours(line)]


def config_commands(path: Path) -> list[str]:
    """The commands in the comments of a shipped config."""
    comments = [line.partition("#")[2].strip() for line in path.read_text().splitlines() if "#" in line]
    return [line for text in comments for line in commands(text.partition(", then ")[0].rstrip("."))]


def overrides(text: str) -> list[str]:
    """The overrides that a page names by themselves, as a shell hands them on."""
    spans = [span for span in _SPAN.findall(_BLOCK.sub("", text)) if _OVERRIDE.fullmatch(span)]
    spans = [span for span in spans if "{" in span or ": " not in span]  # what a message says of an option
    return [shlex.split(span)[0] for span in dict.fromkeys(spans) if not _PLACEHOLDER.search(span)]


def option_names(text: str) -> list[str]:
    """The dotted names that a page writes as code."""
    return list(dict.fromkeys(span for span in _SPAN.findall(text) if _NAME.fullmatch(span)))


def shell_words(line: str) -> list[str]:
    """The arguments of a command, without what a shell does beside it."""
    words = shlex.split(line, comments=True)
    ends = [at for at, word in enumerate(words) if word in ("|", ">", "&&", "&")]
    return words[: ends[0]] if ends else words


def own_configs(folder: Path) -> None:
    """Writes the configs of one's own that the pages show, below a directory."""
    for page in PAGES:
        for language, text in blocks(page):
            name = re.match(r"# (\S+\.yaml)", text)
            if language == "yaml" and name and not (folder / name[1]).exists():
                (folder / name[1]).parent.mkdir(parents=True, exist_ok=True)
                (folder / name[1]).write_text(text)
