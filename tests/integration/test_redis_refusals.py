"""What Redis refuses at the start is told in its own words with what to do, never as a server that is not there."""

from __future__ import annotations

import re
import ssl
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from string import Template

import pytest
import redis
import trustme
from pydantic import SecretStr

from deploy.local.servers import HOST, ValkeyServer
from monitor.adapters.redis_bank import RedisBankStore
from monitor.errors import StoreRefusedError, StoreUnavailableError
from monitor.ports import BankKey
from monitor.settings import RedisSettings
from schemas.errors import ConfigurationError, OperatorError, ServiceUnavailableError
from tests.redis_cluster import MASTER, RedisClusterServers, SentinelServers
from tests.tls_front import TlsFront

SECRET = "s3cret"


class WithoutScripts(ValkeyServer):
    """One whose owner has taken a command away."""

    def _arguments(self) -> list[str]:
        return [*super()._arguments(), "--rename-command", "EVAL", ""]


@dataclass(frozen=True)
class Place:
    """Servers of each kind, and what stands for them in a URL."""

    server: ValkeyServer
    names: dict[str, str]

    def url(self, template: str) -> str:
        return Template(template).substitute(self.names)


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="module")
def place(
    tmp_path_factory: pytest.TempPathFactory,
    cluster_server: RedisClusterServers,
    authority: trustme.CA,
    broker: str,
) -> Iterator[Place]:
    folder = tmp_path_factory.mktemp("refusals")
    (folder / "ca.pem").write_bytes(authority.cert_pem.bytes())
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert(HOST).configure_cert(context)
    demanding = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert(HOST).configure_cert(demanding)
    authority.configure_trust(demanding)
    demanding.verify_mode = ssl.CERT_REQUIRED
    with (
        ValkeyServer(folder / "server") as server,
        ValkeyServer(folder / "closed") as closed,
        WithoutScripts(folder / "scripts") as scriptless,
        SentinelServers(folder / "sentinels", 1, password="sentinels") as sentinels,
        TlsFront(server.port, context) as tls,
        TlsFront(server.port, demanding) as both,
    ):
        with redis.Redis(HOST, server.port) as client:
            client.acl_setuser("line", enabled=True, passwords=[f"+{SECRET}"], keys=["*"], commands=["+@all"])
            client.acl_setuser("off", enabled=False, passwords=[f"+{SECRET}"], keys=["*"], commands=["+@all"])
        with redis.Redis(HOST, closed.port) as client:
            client.config_set("requirepass", SECRET)
        yield Place(
            server,
            {
                "server": server.address,
                "closed": closed.address,
                "scriptless": scriptless.address,
                "node": cluster_server.nodes[0].address,
                "sentinel": sentinels.sentinels[0].address,
                "tls": tls.address,
                "both": both.address,
                "kafka": broker,
                "ca": str(folder / "ca.pem"),
            },
        )


@dataclass(frozen=True)
class Case:
    """A URL, and what is said of it."""

    url: str
    says: tuple[str, ...]
    more: dict[str, object] = field(default_factory=dict)


SENTINELS = {"sentinel_password": SecretStr("sentinels")}
WRONG_LOGIN = "wrong user or password, or the user is disabled"
CASES = {
    "a wrong password": Case("redis://line:wrong@$server/0", (WRONG_LOGIN, "Correct redis.password")),
    "an unknown user": Case("redis://nobody:x@$server/0", (WRONG_LOGIN,)),
    "a disabled user": Case(f"redis://off:{SECRET}@$server/0", (WRONG_LOGIN,)),
    "no password": Case("redis://$closed/0", ("asks for a password, and none is given", "PAEDID_REDIS__PASSWORD_FILE")),
    "a wrong password for a cluster": Case("redis+cluster://line:wrong@$node", (WRONG_LOGIN,)),
    "a command that is taken away": Case(
        "redis://$scriptless", ("it lacks what is needed: unknown command 'EVAL'", "no command renamed"),
    ),
    "an unknown database": Case("redis://$server/99", ("no database of this number", "0 to 15 by default")),
    "a database of a cluster": Case("redis://$node/3", ("database", "a Redis Cluster only 0")),
    "a server that is no cluster": Case("redis+cluster://$server", ("it is no Redis Cluster", "Write redis://")),
    "a server that is no Sentinel": Case(
        "redis+sentinel://$server/line", ("a server, and no Sentinel", "26379 by default"),
    ),
    "a Sentinel that is no server": Case(
        "redis://$sentinel", ("it is a Sentinel", "redis+sentinel://host:port/master"),
        {"password": SecretStr("sentinels")},
    ),
    "a Sentinel's password": Case("redis+sentinel://$sentinel/line", ("the Sentinels", "redis.sentinel_password")),
    "an unknown master": Case(
        "redis+sentinel://$sentinel/press", ("watch no master 'press'", f"They watch: {MASTER}"), SENTINELS,
    ),
    "a master's password": Case(
        f"redis+sentinel://line:wrong@$sentinel/{MASTER}", (WRONG_LOGIN,), SENTINELS,
    ),
    "a master's database": Case(f"redis+sentinel://$sentinel/{MASTER}/99", ("no database of this number",), SENTINELS),
    "TLS where there is none": Case("rediss://$server", ("it does not speak TLS", "Write redis instead")),
    "TLS where a cluster has none": Case("rediss+cluster://$node", ("it does not speak TLS", "Write redis instead")),
    "no TLS where there is": Case("redis://$tls", ("it speaks TLS", "Write rediss instead")),
    "no TLS where there is, in a cluster": Case("redis+cluster://$tls", ("it speaks TLS", "Write rediss instead")),
    "a certificate of nobody": Case("rediss://$tls", ("certificate is not trusted", "?ssl_ca_certs=/path/ca.pem")),
    "no certificate of ours": Case(
        "rediss://$both?ssl_ca_certs=$ca", ("asks for a client certificate", "ssl_certfile"),
    ),
    "a CA's file that is not there": Case("rediss://$tls?ssl_ca_certs=$ca-no", ("ssl_ca_certs names no file",)),
    "an option that is none": Case("redis://$server?passwort=x", ("an option that is none ('passwort')",)),
    "Kafka": Case("redis://$kafka", ("Redis at redis.url",)),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES.values(), ids=list(CASES))
def test_a_refusal_is_told_in_its_own_words(place: Place, case: Case) -> None:
    settings = RedisSettings(url=place.url(case.url), timeout_s=0.5).model_copy(update=case.more)
    with pytest.raises(OperatorError) as caught, closing(RedisBankStore(settings)) as store:
        store.ping()
    told = str(caught.value)
    assert "redis.url" in told
    for part in case.says:
        assert part in told
    assert isinstance(caught.value, ConfigurationError) != ("kafka" in case.url), told
    assert not re.search(rf"{SECRET}|wrong@|:x@|passwort=x", told)
    assert len(told.splitlines()) == 1
    print(told)  # noqa: T201 - shown by pytest -rP


def test_what_is_mended_works(place: Place) -> None:
    for url in ("rediss://$tls?ssl_ca_certs=$ca", f"rediss://line:{SECRET}@$tls/1?ssl_ca_certs=$ca"):
        with closing(RedisBankStore(RedisSettings(url=place.url(url)))) as store:
            store.ping()
    settings = RedisSettings(url=place.url(f"redis+sentinel://$sentinel/{MASTER}/2"))
    with closing(RedisBankStore(settings.model_copy(update=SENTINELS))) as store:
        store.ping()


def test_a_cluster_with_tls_works(place: Place, authority: trustme.CA, tmp_path: Path) -> None:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert(HOST).configure_cert(context)
    servers = RedisClusterServers(tmp_path, 1)
    with TlsFront(servers.nodes[0].port, context) as tls:
        # The node tells clients to come by TLS.
        servers.nodes[0].announce(int(tls.address.rpartition(":")[2]))
        with servers:
            for scheme in ("rediss", "rediss+cluster"):
                url = place.url(f"{scheme}://{tls.address}?ssl_ca_certs=$ca")
                with closing(RedisBankStore(RedisSettings(url=url))) as store:
                    store.ping()
                    assert store.version(BankKey("cam", "model")) is None


def test_a_password_that_is_changed_meanwhile_is_a_refusal_and_no_outage(embedded_valkey: ValkeyServer) -> None:
    settings = RedisSettings(url=f"redis://line:{SECRET}@{embedded_valkey.address}")
    with redis.Redis(HOST, embedded_valkey.port) as client, closing(RedisBankStore(settings)) as store:
        client.acl_setuser("line", enabled=True, passwords=[f"+{SECRET}"], keys=["*"], commands=["+@all"])
        store.ping()
        client.acl_setuser("line", enabled=True, reset_passwords=True, passwords=["+new"])
        # Redis leaves connections as they are.
        client.client_kill_filter(user="line")
        with pytest.raises(StoreRefusedError, match="wrong user or password"):
            store.version(BankKey("cam", "model"))
        client.acl_setuser("line", enabled=True, passwords=[f"+{SECRET}"])
        assert store.version(BankKey("cam", "model")) is None


def test_a_server_that_is_away_is_no_refusal() -> None:
    for url in ("redis://127.0.0.1:1", "redis+cluster://127.0.0.1:1", "redis+sentinel://127.0.0.1:1/line"):
        with closing(RedisBankStore(RedisSettings(url=url, timeout_s=0.5))) as store:
            with pytest.raises(ServiceUnavailableError, match="not reachable"):
                store.ping()
            with pytest.raises(StoreUnavailableError) as caught:
                store.version(BankKey("cam", "model"))
            assert not isinstance(caught.value, StoreRefusedError)
