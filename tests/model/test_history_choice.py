"""Which lists are histories, which features their candidates, and what is refused."""

import pytest
from tests.model.batches import schema_of

from recd_dist.errors import ConfigError
from recd_dist.model.history_choice import History, check_histories, find_histories

SCHEMA = schema_of(
    user="h:ids:item a:ids:act k:ids:kind u:id", page="g:ids:shop", sample="c:id:item b:id:kind x:ids:item"
)


@pytest.mark.parametrize(
    ("model", "options", "found"),
    [
        (
            "hstu",
            {},
            (History("h", (), ("c",)), History("a"), History("k", (), ("b",)), History("g")),
        ),
        ("din", {}, (History("h", (), ("c",)), History("k", (), ("b",)))),
        ("transformer", {"histories": ["g", "h"]}, (History("h", (), ("c",)), History("g"))),
        ("din", {"beside": {"h": ["a", "k"]}}, (History("h", ("a", "k"), ("c", "b")),)),
    ],
)
def test_histories(model: str, options: dict, found: tuple) -> None:
    assert find_histories(model, SCHEMA, **options) == found


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"histories": ["hh"]}, r"model.histories: no feature 'hh'; did you mean 'h'\?"),
        ({"histories": ["u"]}, r"model.histories: 'u' is no list of ids; a history is a list in a deduplicated group"),
        ({"histories": ["x"]}, r"model.histories: 'x' is a list of the samples themselves"),
        ({"histories": ["g"]}, r"model.histories: 'g' has no candidate, and model 'din' needs one: .*table=shop"),
        ({"beside": {"h": ["g"]}}, r"model.beside.h: 'g' is of group 'page', 'h' of 'user'"),
        ({"histories": ["h"], "beside": {"k": ["a"]}}, r"model.beside.k: 'k' is not among model.histories"),
        ({"histories": ["h", "a"], "beside": {"h": ["a"]}}, r"model.beside.h: 'a' is taken twice"),
        ({"times": {"h": ["b"]}}, r"model.times.h: 'b' is id of group 'sample', wanted ids of group 'user'"),
        ({"times": {"h": ["a", "u"]}}, r"model.times.h: 'u' is id of group 'user', wanted id of group 'sample'"),
        ({"times": {"h": []}}, r"model.times.h=\[\]: name the list with the events' times"),
        ({"times": {"h": ["aa"]}}, r"model.times.h: no feature 'aa'; did you mean 'a'\?"),
        ({"histories": []}, r"model 'din' needs a list feature .* this data has none that is named: use model=dlrm"),
    ],
)
def test_what_is_refused(options: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        check_histories("din", SCHEMA, options)


def test_fused_histories_have_times_all_or_none() -> None:
    with pytest.raises(ConfigError, match=r"model.times: 'k' has no times; with model.fuse=true name those of all"):
        check_histories("hstu", SCHEMA, {"histories": ["h", "k"], "times": {"h": ["a"]}, "fuse": True})


def test_other_models_are_not_asked() -> None:
    check_histories("dlrm", schema_of(user="u:id"), {"histories": ["nothing"]})
