"""Tables of searched settings: read, merged, compared with what a record was made with."""

import json

import pytest

from nearfar.errors import NearFarError
from nearfar.runs import results, run, tuning

SEARCH = {"asked": {}, "tried": [{"settings": {"lr": 1}, "score": 0.5}, {"settings": {"lr": 2}, "score": 0.5},
                                 {"settings": {"lr": 3}, "score": 0.1}]}  # fmt: skip


def test_the_first_of_the_best(toybook):
    assert tuning.best(SEARCH)["settings"] == {"lr": 1}


def test_searches_are_kept_beside_each_other(toybook, monkeypatch):
    tuning.keep("small", "toy", "a", SEARCH)
    tuning.keep("small", "toy", "b", SEARCH)
    assert set(tuning.found("small", "toy")) == {"a", "b"} and tuning.found("smoke", "toy") == {}
    assert (toybook / "results/small/toy/tuning.json").is_file()
    monkeypatch.setenv("NEARFAR_RESULTS", str(toybook / "elsewhere"))
    tuning.keep("small", "toy", "c", SEARCH)
    assert set(tuning.found("small", "toy")) == {"a", "b", "c"}, "those committed count as well"
    assert set(json.loads((toybook / "elsewhere/small/toy/tuning.json").read_text())) == {"c"}


@pytest.mark.parametrize("text", ["{", "[]", '{"a": {}}', '{"a": {"tried": []}}'])
def test_a_broken_table_is_one_line(toybook, text):
    path = tuning.path(run.results_folder(), "small", "toy")
    path.parent.mkdir(parents=True)
    path.write_text(text)
    with pytest.raises(NearFarError, match="no readable table of settings.*delete it or restore it"):
        tuning.found("small", "toy")


def test_other_settings_make_a_record_older_than_the_code(toybook):
    tuning.keep("smoke", "toy", "a", SEARCH)
    record = {"slug": "toy", "tier": "smoke", "tuning": {"a": {"lr": 1}}}
    assert not tuning.otherwise(record) and not tuning.otherwise({"slug": "toy", "tier": "smoke"})
    assert tuning.otherwise(record | {"tuning": {"a": {"lr": 3}}}) and tuning.otherwise(record | {"tuning": {"b": {}}})
    from nearfar.chapters import notebooks

    code = notebooks.code_hash("toy", "smoke")
    record |= {"dataset": {}, "fingerprint": notebooks.fingerprint(code, [])}
    assert not results.is_stale(record)
    assert results.is_stale(record | {"tuning": {"a": {"lr": 2}}})
