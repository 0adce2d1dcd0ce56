"""What redis.url names, and what is said of one that names nothing."""

from __future__ import annotations

import pytest

from monitor.redis_address import Kind, RedisAddress, parse_redis_url, safe_address
from monitor.settings import load_settings
from schemas.errors import ConfigurationError

SECRET = "hush"


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("redis://host", RedisAddress(Kind.SERVER, (("host", 6379),))),
        ("redis://host:7/3?x=1", RedisAddress(Kind.SERVER, (("host", 7),), database=3, options="x=1")),
        (
            "rediss://u:a%2Fb%40@[::1]:7/",
            RedisAddress(Kind.SERVER, (("::1", 7),), tls=True, username="u", password="a/b@"),
        ),
        ("redis://:pw@host", RedisAddress(Kind.SERVER, (("host", 6379),), password="pw")),
        ("redis+cluster://a:1,b", RedisAddress(Kind.CLUSTER, (("a", 1), ("b", 6379)))),
        ("rediss+cluster://u@a/0", RedisAddress(Kind.CLUSTER, (("a", 6379),), tls=True, username="u")),
        ("redis+sentinel://a,b:2/line", RedisAddress(Kind.SENTINEL, (("a", 26379), ("b", 2)), master="line")),
        (
            "rediss+sentinel://u:p@a/line/2?ssl_ca_certs=/ca",
            RedisAddress(
                Kind.SENTINEL,
                (("a", 26379),),
                tls=True,
                username="u",
                password="p",
                database=2,
                master="line",
                options="ssl_ca_certs=/ca",
            ),
        ),
        ("unix:///run/redis.sock?db=1", RedisAddress(Kind.SERVER)),
    ],
)
def test_a_url_names_a_server_a_cluster_or_a_master(url: str, address: RedisAddress) -> None:
    assert parse_redis_url(url) == address


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        (f"http://:{SECRET}@host", "not a redis://"),
        (f"redis://:{SECRET}@", "not host:port"),
        (f"redis://:{SECRET}@host:port", "not host:port"),
        (f"redis://:{SECRET}@host:99999", "not host:port"),
        (f"redis://:{SECRET}/more@host", "not host:port"),
        (f"redis://:{SECRET}@a,b", "several servers"),
        (f"redis://:{SECRET}@host/zero", "not a number"),
        (f"redis+cluster://:{SECRET}@a/1", "only database 0"),
        (f"redis+cluster://:{SECRET}@a,,b", "not host:port"),
        (f"redis+sentinel://:{SECRET}@a", "the master's name is missing"),
        (f"redis+sentinel://:{SECRET}@a/line/x", "not a number"),
        (f"redis+ring://:{SECRET}@a", "not a redis://"),
    ],
)
def test_a_url_that_names_nothing_is_told_without_its_secret(url: str, problem: str) -> None:
    with pytest.raises(ConfigurationError, match=r"redis\.url") as caught:
        load_settings(environment={"PAEDID_REDIS__URL": url})
    assert problem in str(caught.value)
    assert SECRET not in str(caught.value)


def test_an_address_keeps_what_helps_and_drops_what_is_secret() -> None:
    assert safe_address("rediss://:pw@host:6379/2?password=pw") == "rediss://:***@host:6379/2"
    assert safe_address("redis://127.0.0.1:6379/0") == "redis://127.0.0.1:6379/0"
    assert safe_address("redis+sentinel://u:pw@a:1,b:2/line/0") == "redis+sentinel://u:***@a:1,b:2/line/0"
