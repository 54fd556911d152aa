"""The calls of DuckDB's readers in a query: which files they read, with which options, and where they stand.

::

    select a from read_csv('x.csv', header = true) t        reader read_csv, files 'x.csv', options {header: true}
                  '----------- span -------------'
    select a from 'x.parquet'                               reader read_parquet, files 'x.parquet', no options
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass

import duckdb

from recd_dist.etl.raw.found_files import format_suffix

READERS = {
    ".parquet": "read_parquet",
    ".pq": "read_parquet",
    ".csv": "read_csv",
    ".tsv": "read_csv",
    ".json": "read_json",
    ".jsonl": "read_json",
    ".ndjson": "read_json",
}
"""The reader of each suffix."""

_SYNONYMS = {
    "parquet_scan": "read_parquet",
    "read_csv_auto": "read_csv",
    "read_json_auto": "read_json",
    "read_ndjson": "read_json",
    "read_ndjson_auto": "read_json",
}
_OPTION = re.compile(r'\s*"?([A-Za-z_]\w*)"?\s*(?:=>|:=|=)(.*)', re.DOTALL)
_TEXT = (duckdb.token_type.string_const, duckdb.token_type.identifier)


@dataclass(frozen=True)
class ReaderCall:
    """A call of a reader in a query.

    Attributes:
        span: the first byte of the call in the query, and the one after its last.
        reader: ``read_parquet``, ``read_csv`` or ``read_json``.
        files: SQL of the path, the pattern or the list of these.
        options: SQL of each option, by name in lower case.
    """

    span: tuple[int, int]
    reader: str
    files: str
    options: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class _Token:
    start: int
    end: int
    kind: object
    text: str


def find_calls(sql: str) -> list[ReaderCall]:
    """Finds the calls of readers of files in a query, and the files that it names as tables."""
    tokens = list(_tokens(sql))
    calls, end = [], 0
    for number, token in enumerate(tokens):
        following = tokens[number + 1].text if number + 1 < len(tokens) else ""
        name = token.text.lower()
        reader = _SYNONYMS.get(name, name)
        if token.start < end:
            continue
        if reader in READERS.values() and following == "(":
            call = _read_call(sql, tokens, number, reader)
            calls += [call] if call else []
            end = call.span[1] if call else end
        elif token.kind in _TEXT and number and tokens[number - 1].text.lower() in ("from", "join"):
            reader = READERS.get(format_suffix(token.text.strip("'\"")), "")
            if reader and token.text[0] in "'\"":
                literal = token.text if token.text[0] == "'" else "'" + token.text[1:-1].replace("'", "''") + "'"
                calls.append(ReaderCall((token.start, token.end), reader, literal, ()))
    return calls


def replace_calls(sql: str, replaced: dict[tuple[int, int], str]) -> str:
    """Puts other SQL in the place of calls, by their spans."""
    raw = sql.encode()
    for (start, end), text in sorted(replaced.items(), reverse=True):
        raw = raw[:start] + text.encode() + raw[end:]
    return raw.decode()


def _tokens(sql: str) -> Iterator[_Token]:
    raw, found = sql.encode(), duckdb.tokenize(sql)
    ends = [start for start, _ in found[1:]] + [len(raw)]
    for (start, kind), end in zip(found, ends, strict=True):
        text = raw[start:end].decode(errors="replace").rstrip()
        if kind != duckdb.token_type.comment:
            yield _Token(start, start + len(text.encode()), kind, text)


def _read_call(sql: str, tokens: list[_Token], number: int, reader: str) -> ReaderCall | None:
    """The call whose name is a token of the query; None where its brackets do not close."""
    raw, depth, begin = sql.encode(), 0, tokens[number + 1].end
    arguments: list[str] = []
    for token in tokens[number + 1 :]:
        depth += (token.text in ("(", "[", "{")) - (token.text in (")", "]", "}"))
        if depth == 0 or (depth == 1 and token.text == ","):
            arguments.append(raw[begin : token.start].decode().strip())
            begin = token.end
        if depth == 0:
            named = [(match[1].lower(), match[2].strip()) for a in arguments if (match := _OPTION.fullmatch(a))]
            positional = [a for a in arguments if a and not _OPTION.fullmatch(a)]
            if len(positional) != 1:
                return None
            return ReaderCall((tokens[number].start, token.end), reader, positional[0], tuple(named))
    return None
