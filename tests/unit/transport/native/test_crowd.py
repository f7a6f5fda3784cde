"""The count of all connections."""

import pytest

from symphony.limits import Limits
from symphony.transport.native.crowd import Crowd, capacity


def test_a_connection_within_the_limits_is_served():
    crowd, limits = Crowd(None), Limits(max_connections=2, max_connections_per_client=1)
    places = [crowd.enter("a", limits), crowd.enter("b", limits)]
    assert [place and place.crowded for place in places] == [None, None]


@pytest.mark.within("transport.native.crowd._MAX_REFUSED")
@pytest.mark.beyond("transport.native.crowd._MAX_REFUSED")
def test_a_few_beyond_a_limit_are_refused_and_the_rest_is_closed():
    crowd, limits = Crowd(None), Limits(max_connections=2)
    found = [crowd.enter("a", limits) for _ in range(100)]
    assert [place.crowded for place in found[:34] if place] == [None] * 2 + ["server"] * 32
    assert found[34:] == [None] * 66
    assert crowd.total == 34


@pytest.mark.within("transport.native.crowd._MAX_REFUSED_OF_ONE")
@pytest.mark.beyond("transport.native.crowd._MAX_REFUSED_OF_ONE")
def test_a_few_beyond_the_limit_of_an_address_are_refused_and_others_are_served():
    crowd, limits = Crowd(None), Limits(max_connections_per_client=2)
    found = [crowd.enter("a", limits) for _ in range(100)]
    assert [place.crowded for place in found[:10] if place] == [None] * 2 + ["address"] * 8
    assert found[10:] == [None] * 90
    other, proxied = crowd.enter("b", limits), crowd.enter(None, limits)
    assert other is not None
    assert proxied is not None
    assert (other.crowded, proxied.crowded) == (None, None)


def test_nothing_is_left_of_connections_that_have_ended():
    crowd, limits = Crowd(None), Limits(max_connections_per_client=1)
    for _ in range(3):
        places = [crowd.enter(key, limits) for key in ("a", "a", "b", None)]
        for place in places:
            assert place is not None
            place.leave()
            place.leave()
        assert crowd.total == 0
        assert not crowd.by_address


@pytest.mark.parametrize("descriptors", [1, 10, 64, 100, 300, 1024, 1_000_000])
def test_a_process_does_not_serve_more_than_it_has_descriptors_for(descriptors: int):
    assert 0 <= capacity(descriptors) < descriptors
    crowd = Crowd(descriptors)
    found = [crowd.enter("a", Limits()) for _ in range(2000)]
    served = [place for place in found if place is not None and place.crowded is None]
    assert len(served) == min(capacity(descriptors), 2000)


@pytest.mark.parametrize("most_of_one", [1, 2, 5])
def test_one_address_does_not_take_all_places_for_refusals_of_a_full_server(most_of_one: int):
    crowd, limits = Crowd(None), Limits(max_connections=1, max_connections_per_client=most_of_one)
    assert crowd.enter("other", limits) is not None
    found = [crowd.enter("a", limits) for _ in range(100)]
    taken = [place.crowded for place in found if place]
    assert taken == ["server"] * most_of_one + ["address"] * 8
    refused = crowd.enter("b", limits)
    assert refused is not None
    assert refused.crowded == "server"
