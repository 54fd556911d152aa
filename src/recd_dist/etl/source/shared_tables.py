"""Features that share an embedding table must hold ids of one sort, since the hash of a text equals no integer."""

from collections.abc import Iterable, Mapping, Sequence

from recd_dist.etl.source.column_sql import is_text
from recd_dist.table.schema import Feature


def mixed_tables(features: Sequence[Feature], types: Mapping[tuple[str, str], str]) -> Iterable[str]:
    """The mistakes of features that look up one table, some by texts and some by integers, each as one line.

    Args:
        features: the features of a source.
        types: the DuckDB type of each column, by group and name; those of the samples query under any group that has
            no query of its own.
    """
    by_table: dict[str, list[Feature]] = {}
    for feature in features:
        if feature.table is not None:
            by_table.setdefault(feature.table, []).append(feature)
    for table, members in by_table.items():
        texts = [f for f in members if is_text(types[f.group, f.name].removesuffix("[]"))]
        integers = [f for f in members if f not in texts]
        if texts and integers:
            text, integer = texts[0], integers[0]
            text_type, integer_type = types[text.group, text.name], types[integer.group, integer.name]
            cast = f"{text.name}::bigint[]" if text_type.endswith("[]") else f"{text.name}::bigint"
            other = f"{integer.name}::varchar[]" if integer_type.endswith("[]") else f"{integer.name}::varchar"
            yield (
                f"table '{table}': '{text.name}' is {text_type}, whose texts are hashed, and '{integer.name}' is "
                f"{integer_type}: no id of one equals an id of the other; bring both to one type in the SQL, such as "
                f"{cast} as {text.name}, or {other} as {integer.name}"
            )
