"""Names of suggested groups."""

from pathlib import Path

from tests.suggest.planted import features_of

from recd_dist.etl.write.group_names import name_groups


def test_names_come_from_the_config_from_common_words_or_from_the_largest_feature(tmp_path: Path) -> None:
    columns = {"user_age": [1, 1], "user_city": [2, 2], "item_id": [3, 4], "likes": [[1, 2], [3]]}
    features = {f.name: f for f in features_of(tmp_path / "t.parquet", visit=[1, 1], **columns)}
    user = [features["user_age"], features["user_city"]]
    mixed = [features["item_id"], features["likes"]]
    names = set(columns)
    assert name_groups([user, mixed, [features["item_id"]]], {}, names) == ["user", "likes", "item"]
    assert name_groups([user], {"profile": ["user_age"]}, names) == ["user"]  # half of the features is not enough
    assert name_groups([user], {"profile": ["user_age", "user_city", "likes"]}, names) == ["profile"]
    assert name_groups([user, user], {}, {*names, "user_row"}) == ["user_2", "user_3"]
