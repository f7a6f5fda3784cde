"""What addresses are counted by."""

import tracemalloc

import pytest

from symphony.transport.address import client_key


@pytest.mark.parametrize(
    "spelling", ["1.2.3.4", "::ffff:1.2.3.4", "::FFFF:102:304", "[::ffff:1.2.3.4]", " 1.2.3.4 "]
)
def test_one_address_has_one_key_in_every_spelling(spelling: str):
    assert client_key(spelling) == "1.2.3.4"


@pytest.mark.parametrize(
    "address", ["2001:db8::1", "2001:DB8:0:0::2", "2001:db8::ffff:ffff:ffff:ffff", "2001:db8::1%eth0"]
)
def test_the_addresses_of_one_network_are_one_client(address: str):
    assert client_key(address) == "2001:db8::/64"


@pytest.mark.parametrize("address", ["2001:db8:0:1::1", "2001:db9::1", "::1", "fe80::1"])
def test_other_networks_are_other_clients(address: str):
    assert client_key(address) != "2001:db8::/64"


@pytest.mark.parametrize("text", ["", "unknown", "_hidden", "1.2.3", "01.2.3.4", "testclient"])
def test_what_is_no_address_is_its_own_key(text: str):
    assert client_key(text) == text


@pytest.mark.within("transport.address._MAX_CACHED")
def test_the_key_of_a_short_text_is_computed_once():
    address = "1.2.3.4".rjust(64)
    assert client_key(address) is client_key(address)


@pytest.mark.beyond("transport.address._MAX_CACHED")
def test_long_texts_are_not_kept():
    address = "1.2.3.4".rjust(65)
    assert client_key(address) == client_key(address) == "1.2.3.4"
    assert client_key(address) is not client_key(address)
    tracemalloc.start()
    try:
        for number in range(1000):
            client_key(f"{number:x>10000}")
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert held < 1_000_000
