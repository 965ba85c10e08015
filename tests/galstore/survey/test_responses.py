from __future__ import annotations

from urllib.parse import parse_qsl, urlencode

from hypothesis import given
from hypothesis import strategies as st

from galstore.survey.responses import CutoutRequest

PARAMS = st.dictionaries(st.text(min_size=1), st.one_of(st.text(), st.floats().map(str), st.integers().map(str)))


@given(PARAMS)
def test_a_query_equals_urlencode_of_the_sorted_parameters(params: dict[str, str]) -> None:
    query = CutoutRequest(row=0, url="http://127.0.0.1", params=params).query
    assert query == urlencode(sorted(params.items()))
    assert dict(parse_qsl(query, keep_blank_values=True)) == params
