"""URLs of brokers in Redis."""

import pytest

from symphony import ConfigurationError
from symphony.broker.engines import check, shown
from symphony.broker.redis.target import target_of


def test_a_url_says_where_the_server_is_and_who_connects() -> None:
    target = target_of("redis://ann:p%40ss@redis.example:7000/2")
    assert (target.host, target.port, target.database) == ("redis.example", 7000, 2)
    assert (target.username, target.password, target.tls) == ("ann", "p@ss", False)


def test_what_is_left_out_has_a_default() -> None:
    target = target_of("redis://")
    assert (target.host, target.port, target.database, target.prefix) == ("localhost", 6379, 0, "sym")
    assert (target.username, target.password) == (None, None)


def test_each_database_has_channels_of_its_own() -> None:
    assert target_of("redis://localhost/3").prefix == "sym-3"
    assert target_of("redis://localhost/3?prefix=app").prefix == "app-3"


def test_a_url_with_tls_names_certificates() -> None:
    target = target_of("rediss://[::1]:6380/0?ssl_ca_certs=/etc/ca.pem")
    assert (target.host, target.tls) == ("::1", True)
    assert target.certificates == {"ssl_ca_certs": "/etc/ca.pem"}


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("redis://localhost:port/0", "numbers"),
        ("redis://localhost/zero", "numbers"),
        ("redis://localhost?prefx=a", "no option 'prefx'"),
        ("redis://localhost?prefix=a:b", "letters"),
        ("redis://localhost?prefix=", "letters"),
        ("redis://localhost?allow_eviction=yes", "0 or 1"),
        ("redis://localhost?ssl_ca_certs=/etc/ca.pem", "rediss://"),
    ],
)
def test_a_wrong_url_is_an_error_without_its_password(url: str, why: str) -> None:
    with pytest.raises(ConfigurationError, match=why) as raised:
        check(url.replace("://", "://ann:secret@"))
    assert "secret" not in str(raised.value)


def test_the_url_is_shown_without_its_password() -> None:
    assert shown("rediss://ann:secret@[::1]:6380/1?ssl_ca_certs=a") == "rediss://[::1]:6380/1"
