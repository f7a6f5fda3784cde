from typing import Any, cast

from symphony.identity import Identity
from symphony.node.users import Users
from symphony.socket import Socket

ANN, BOB = Identity("ann"), Identity("bob")


def sockets(count: int) -> list[Socket[Any]]:
    """Return what stands for sockets: they are only kept and compared."""
    return [cast("Socket[Any]", object()) for _ in range(count)]


def test_a_user_has_sockets_in_the_order_in_which_they_logged_in():
    users, (one, two, other) = Users(), sockets(3)
    users.add(two, ANN)
    users.add(other, BOB)
    users.add(one, ANN)
    assert users.sockets("ann") == (two, one)
    assert users.sockets("bob") == (other,)


def test_a_user_who_is_not_there_has_no_sockets():
    users = Users()
    assert users.sockets("nobody") == ()
    # Asking has not made one.
    assert not users._sockets


def test_the_id_decides_who_it_is_and_not_what_others_know_of_it():
    users, (one, two) = Users(), sockets(2)
    users.add(one, Identity("ann", {"name": "Ann"}))
    users.add(two, Identity("ann", {"name": "Anna"}))
    assert users.sockets("ann") == (one, two)
    users.remove(one, Identity("ann"))
    assert users.sockets("ann") == (two,)


def test_a_socket_that_logs_in_twice_is_there_once():
    users, (one,) = Users(), sockets(1)
    users.add(one, ANN)
    users.add(one, ANN)
    assert users.sockets("ann") == (one,)
    users.remove(one, ANN)
    assert users.sockets("ann") == ()


def test_nothing_is_left_of_a_user_whose_last_socket_has_gone():
    users, (one, two) = Users(), sockets(2)
    users.add(one, ANN)
    users.add(two, ANN)
    users.remove(one, ANN)
    assert users.sockets("ann") == (two,)
    users.remove(two, ANN)
    assert not users._sockets


def test_removing_what_is_not_there_changes_nothing():
    users, (one, two) = Users(), sockets(2)
    users.add(one, ANN)
    users.remove(one, None)
    users.remove(one, BOB)
    users.remove(two, ANN)
    assert users.sockets("ann") == (one,)


def test_what_was_given_out_does_not_change_later():
    users, (one, two) = Users(), sockets(2)
    users.add(one, ANN)
    before = users.sockets("ann")
    users.add(two, ANN)
    assert before == (one,)
