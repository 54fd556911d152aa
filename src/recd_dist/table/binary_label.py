"""What makes a label binary, in words and SQL."""


def binary_label_cure(name: str, low: float, high: float) -> str:
    """What people do about a label that is not 0 or 1, or of which all values are the same.

    Args:
        name: the name of the label.
        low: its smallest value.
        high: its largest value.

    Returns:
        A clause with a query to copy.
    """
    if low == high:
        return "bring samples of both kinds into data.samples, such as impressions without a click"
    middle = low + (high - low) / 2
    return (
        f"say in data.samples what counts as 1, such as select * replace (({name} > {middle:g})::int as {name}) "
        "from read_parquet('{path}') (read_csv or read_json for such files)"
    )
