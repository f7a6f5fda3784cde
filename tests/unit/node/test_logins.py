from typing import Any, cast

from symphony.identity import Identity
from symphony.node.logins import Logins
from symphony.socket import Socket

ANN, BOB = Identity("ann"), Identity("bob")


def sockets(count: int) -> list[Socket[Any]]:
    """Return what stands for sockets: they are only kept and compared."""
    return [cast("Socket[Any]", object()) for _ in range(count)]


def test_a_user_has_sockets_in_the_order_in_which_they_logged_in():
    logins, (one, two, other) = Logins(), sockets(3)
    logins.add(two, ANN)
    logins.add(other, BOB)
    logins.add(one, ANN)
    assert logins.sockets("ann") == (two, one)
    assert logins.sockets("bob") == (other,)


def test_a_user_who_is_not_there_has_no_sockets():
    logins = Logins()
    assert logins.sockets("nobody") == ()
    # Asking has not made one.
    assert not logins._sockets


def test_the_id_decides_who_it_is_and_not_what_others_know_of_it():
    logins, (one, two) = Logins(), sockets(2)
    logins.add(one, Identity("ann", {"name": "Ann"}))
    logins.add(two, Identity("ann", {"name": "Anna"}))
    assert logins.sockets("ann") == (one, two)
    logins.remove(one, Identity("ann"))
    assert logins.sockets("ann") == (two,)


def test_a_socket_that_logs_in_twice_is_there_once():
    logins, (one,) = Logins(), sockets(1)
    logins.add(one, ANN)
    logins.add(one, ANN)
    assert logins.sockets("ann") == (one,)
    logins.remove(one, ANN)
    assert logins.sockets("ann") == ()


def test_nothing_is_left_of_a_user_whose_last_socket_has_gone():
    logins, (one, two) = Logins(), sockets(2)
    logins.add(one, ANN)
    logins.add(two, ANN)
    logins.remove(one, ANN)
    assert logins.sockets("ann") == (two,)
    logins.remove(two, ANN)
    assert not logins._sockets


def test_removing_what_is_not_there_changes_nothing():
    logins, (one, two) = Logins(), sockets(2)
    logins.add(one, ANN)
    logins.remove(one, None)
    logins.remove(one, BOB)
    logins.remove(two, ANN)
    assert logins.sockets("ann") == (one,)


def test_what_was_given_out_does_not_change_later():
    logins, (one, two) = Logins(), sockets(2)
    logins.add(one, ANN)
    before = logins.sockets("ann")
    logins.add(two, ANN)
    assert before == (one,)
