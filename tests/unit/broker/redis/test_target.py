"""URLs of brokers in Redis."""

import pytest

from symphony import ConfigurationError
from symphony.broker.engines import check, shown
from symphony.broker.redis.target import target_of


def test_a_url_says_where_the_server_is_and_who_connects() -> None:
    target = target_of("redis://ann:p%40ss@redis.example:7000/2")
    assert (target.addresses, target.database) == ((("redis.example", 7000),), 2)
    assert (target.username, target.password, target.tls) == ("ann", "p@ss", False)


def test_what_is_left_out_has_a_default() -> None:
    target = target_of("redis://")
    assert (target.addresses, target.database, target.prefix) == ((("localhost", 6379),), 0, "sym")
    assert (target.username, target.password) == (None, None)


def test_each_database_has_channels_of_its_own() -> None:
    assert target_of("redis://localhost/3").prefix == "sym-3"
    assert target_of("redis://localhost/3?prefix=app").prefix == "app-3"


def test_a_url_with_tls_names_certificates() -> None:
    target = target_of("rediss://[::1]:6380/0?ssl_ca_certs=/etc/ca.pem")
    assert (target.addresses, target.tls) == ((("::1", 6380),), True)
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
        ("redis://one:6379,two:6379/0", "several servers"),
        ("redis://localhost?sentinel_password=secret", "redis\\+sentinel"),
        ("redis+sentinel://one,two", "does not name the master"),
        ("redis+sentinel://one,two/0", "does not name the master"),
        ("redis+sentinel://one,,two/mymaster", "missing between commas"),
        ("redis+sentinel://one/mymaster/zero", "numbers"),
        ("redis+sentinel://one/mymaster/0/1", "numbers"),
        ("redis+sentinel://one/mymaster?master=a", "no option 'master'"),
        ("redis+sentinel://[::1/mymaster", r"ends with \]"),
        ("redis+sentinel://::1/mymaster", "in brackets"),
        ("redis://localhost:70000", "numbers"),
        ("redis://localhost?ack=all", "server or replica"),
        ("redis+cluster://one:1,two:two", "numbers"),
        ("redis+cluster://one,::1", "brackets"),
        ("redis+cluster://one,[::1", r"ends with \]"),
        ("redis+cluster://one/1", "no database but 0"),
        ("redis+cluster://one/mymaster", "numbers"),
        ("redis+cluster://one?ssl_ca_certs=/etc/ca.pem", "rediss://"),
        ("redis+cluster://one?sentinel_password=x", "sentinel"),
        ("redis+cluster://one?ack=replica", "not for a cluster"),
    ],
)
def test_a_wrong_url_is_an_error_without_its_password(url: str, why: str) -> None:
    with pytest.raises(ConfigurationError, match=why) as raised:
        check(url.replace("://", "://ann:secret@"))
    assert "secret" not in str(raised.value)


def test_the_url_is_shown_without_its_password() -> None:
    assert shown("rediss://ann:secret@[::1]:6380/1?ssl_ca_certs=a") == "rediss://[::1]:6380/1"


def test_sentinels_have_ports_names_and_passwords_of_their_own() -> None:
    target = target_of(
        "rediss+sentinel://ann:p%2Fss@s1,[fe80::1]:26380,s3:7/my%20master/2"
        "?sentinel_username=bob&sentinel_password=a%26b+c&ssl_ca_certs=ca.pem"
    )
    assert target.addresses == (("s1", 26379), ("fe80::1", 26380), ("s3", 7))
    assert (target.master, target.database, target.prefix) == ("my master", 2, "sym-2")
    server = target.at(("db1", 6379))
    assert (server.addresses, server.database) == ((("db1", 6379),), 2)
    assert (server.username, server.password) == ("ann", "p/ss")
    sentinel = target.sentinel(target.addresses[1])
    assert (sentinel.addresses, sentinel.database) == ((("fe80::1", 26380),), 0)
    assert (sentinel.username, sentinel.password) == ("bob", "a&b+c")
    assert target.shown == "rediss+sentinel://s1:26379,[fe80::1]:26380,s3:7/my master/2"


def test_the_name_of_the_master_is_enough() -> None:
    target = target_of("redis+sentinel://s1/mymaster")
    assert (target.master, target.database, target.sentinel_password) == ("mymaster", 0, None)


def test_a_url_of_a_cluster_names_some_of_its_servers() -> None:
    url = "rediss+cluster://ann:p%40s%2Fs@one,[::1]:7001,10.0.0.1:7002?prefix=app&ssl_ca_certs=a.pem"
    target = target_of(url)
    assert target.addresses == (("one", 6379), ("::1", 7001), ("10.0.0.1", 7002))
    assert (target.username, target.password, target.tls) == ("ann", "p@s/s", True)
    assert (target.prefix, target.database, target.cluster) == ("app", 0, True)
    assert target.shown == "rediss+cluster://one:6379,[::1]:7001,10.0.0.1:7002"
    assert target_of("redis+cluster://").addresses == (("localhost", 6379),)


@pytest.mark.parametrize("scheme", ["redis", "rediss+sentinel", "redis+cluster", "nosuch"])
@pytest.mark.parametrize("character", "@/?#:")
def test_a_password_that_is_not_encoded_is_in_no_message(scheme: str, character: str) -> None:
    """Such a URL means something else than it seems to."""
    said = ""
    try:
        check(f"{scheme}://ann:hid{character}den@localhost")
    except ConfigurationError as error:
        said = str(error)
    assert "hid" not in said
    assert "den" not in said
    assert said or scheme in ("redis", "redis+cluster")
