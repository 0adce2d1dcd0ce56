"""Which of Redis' answers are outages, which are refusals, and what a person is to do about these."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Final

import redis
from redis.exceptions import RedisClusterException
from redis.sentinel import MasterNotFoundError

from monitor.errors import StoreRefusedError, StoreUnavailableError

KEYS: Final = "~paedid:bank:*"
WHOLE: Final = "docs/redis.md has the whole line"

OUTAGES: Final = (
    redis.ConnectionError,
    redis.TimeoutError,
    redis.exceptions.ReadOnlyError,
    redis.exceptions.ClusterError,
    redis.exceptions.TryAgainError,
    # Also a MOVED: a topology that is out of date, and is looked at anew by the next call.
    redis.exceptions.AskError,
    RedisClusterException,
)
# Answers that redis-py has no class for: the disk is full, too few replicas, another script runs.
OUTAGE_CODES: Final = ("MISCONF", "NOREPLICAS", "BUSY")

_COMMAND: Final = re.compile(r"(?:User (\S+) has )?no permissions to run the '([^']+)' command")
_USER_AND_PASSWORD: Final = "Correct redis.password and the user in redis.url: redis://user@host:port"  # noqa: S105 - no password


@dataclass(frozen=True, slots=True)
class Refusal:
    """What Redis refuses, and what a person is to do, in a sentence."""

    problem: str
    remedy: str


class RefusedError(Exception):
    """A refusal that is found out here, not said by the server in so many words."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal.problem)
        self.refusal = refusal


A_SENTINEL: Final = Refusal("it is a Sentinel", "Write redis+sentinel://host:port/master.")
A_SERVER: Final = Refusal(
    "it is a server, and no Sentinel",
    "Name the Sentinel's port, 26379 by default; for the server itself write redis://.",
)
NO_CLUSTER: Final = Refusal("it is no Redis Cluster, but one server", "Write redis:// instead of redis+cluster://.")
DATABASE_OF_A_CLUSTER: Final = Refusal(
    "it is a Redis Cluster, which has only database 0", "Leave the database out of redis.url."
)
SOCKET_OF_A_CLUSTER: Final = Refusal(
    "it is a node of a Redis Cluster, and no socket leads to the others", "Write redis+cluster://host:port."
)
TLS: Final = Refusal("it speaks TLS", "Write rediss instead of redis in redis.url.")
NO_TLS: Final = Refusal("it does not speak TLS", "Write redis instead of rediss in redis.url.")
SENTINELS_PASSWORD: Final = Refusal(
    "the Sentinels refuse the password, or ask for one",
    "Set redis.sentinel_password (PAEDID_REDIS__SENTINEL_PASSWORD_FILE); it is not redis.password.",
)


def translate(error: Exception, user: str) -> StoreUnavailableError | None:
    """Return the error as those who use the bank know it; None: it is no outage and no refusal, but a mistake."""
    if refusal := refusal_of(error, user):
        return StoreRefusedError(f"Redis refuses: {refusal.problem}. {refusal.remedy}")
    told = _told(error)
    if isinstance(error, redis.exceptions.OutOfMemoryError):
        # Redis says what is wrong, but not whose limit it is, nor that it loses nothing.
        return StoreUnavailableError(f"{told} Redis is full and refuses writes; nothing is lost. Raise its maxmemory.")
    if isinstance(error, OUTAGES) or told.startswith(OUTAGE_CODES):
        return StoreUnavailableError(told)
    return None


def refusal_of(error: BaseException, user: str) -> Refusal | None:
    """Return what is refused and what to do, if the error is a refusal and no outage."""
    if isinstance(error, RefusedError):
        return error.refusal
    for each in _causes(error):
        refusal = _right(each, user) or _login(each) or _database(each) or _encryption(each) or _protocol(each)
        if refusal is not None:
            return refusal
    return None


def right_to(commands: list[str], user: str) -> Refusal:
    """Return the refusal of commands, 'hset' or 'cluster|slots', and of the bank's keys where 'key' is among them."""
    where = ", at the Sentinels," if any(each.startswith("sentinel") for each in commands) else ""
    named = [each for each in commands if each != "key"]
    problem = (
        f"user {user}{where} may not run {', '.join(named)}" if named else f"user {user} may not use the bank's keys"
    )
    if named and len(named) < len(commands):
        problem += ", nor use the bank's keys"
    rights = " ".join([KEYS] * ("key" in commands) + [f"+{each}" for each in named])
    return Refusal(problem, f"Give it the right, on every node: ACL SETUSER {user} {rights} ({WHOLE}).")


def _causes(error: BaseException) -> Iterator[BaseException]:
    """Yield the error and, of a cluster's client, which wraps them, those that it is made of."""
    yield error
    while isinstance(error, RedisClusterException) and (cause := error.__cause__ or error.__context__):
        error = cause
        yield error


def _told(error: BaseException) -> str:
    # Of a pipeline redis-py names the command first, with the beginning of its content.
    text = " ".join(str(error).rpartition("caused error: ")[2].split())
    if isinstance(error, redis.exceptions.TryAgainError) or text.startswith("TTL exhausted"):
        return "the bank's keys are being moved to another node of the cluster"
    return text or type(error).__name__


def _right(error: BaseException, user: str) -> Refusal | None:
    told = _told(error)
    refused = isinstance(error, redis.exceptions.NoPermissionError) or "ACL failure in script" in told
    if not refused:
        return None
    if found := _COMMAND.search(told):
        return right_to([found[2]], found[1] or user)
    if "key" in told:
        return right_to(["key"], user)
    return Refusal(f"user {user} lacks a right: {told}", f"Give it to the user with ACL SETUSER ({WHOLE}).")


def _login(error: BaseException) -> Refusal | None:
    if not isinstance(error, redis.AuthenticationError | redis.exceptions.AuthenticationWrongNumberOfArgsError):
        return None
    told = _told(error)
    if "NOAUTH" in told or "Authentication required" in told:
        remedy = "Set redis.password (better a file: PAEDID_REDIS__PASSWORD_FILE), and the user in redis.url."
        return Refusal("it asks for a password, and none is given", remedy)
    if "without any password" in told or "no password is set" in told:
        remedy = "Leave redis.password out, or name the user that it belongs to: redis://user@host:port."
        return Refusal("a password is given, but its default user has none", remedy)
    return Refusal("wrong user or password, or the user is disabled", f"{_USER_AND_PASSWORD}.")


def _database(error: BaseException) -> Refusal | None:
    told = _told(error)
    if not isinstance(error, redis.ResponseError):
        return None
    if "SELECT is not allowed in cluster mode" in told:
        return DATABASE_OF_A_CLUSTER
    if "DB index is out of range" in told or "invalid DB index" in told:
        remedy = "Name one that it has, last in redis.url: 0 to 15 by default, a Redis Cluster only 0."
        return Refusal("it has no database of this number", remedy)
    return None


def _encryption(error: BaseException) -> Refusal | None:
    if not isinstance(error, redis.ConnectionError):
        return None
    told = _told(error)
    if "CERTIFICATE_VERIFY_FAILED" in told:
        reason = told.rpartition("certificate verify failed: ")[2].partition(" (_ssl")[0]
        remedy = "Name the CA that signed it: ?ssl_ca_certs=/path/ca.pem, and the host as the certificate does."
        return Refusal(f"its certificate is not trusted ({reason})", remedy)
    if "UNKNOWN_CA" in told or "BAD_CERTIFICATE" in told:
        remedy = "Name one that it trusts: ?ssl_certfile=/path/client.pem&ssl_keyfile=/path/client.key."
        return Refusal("it does not trust our client certificate", remedy)
    if "CERTIFICATE_REQUIRED" in told or "HANDSHAKE_FAILURE" in told:
        remedy = "Name ours: ?ssl_certfile=/path/client.pem&ssl_keyfile=/path/client.key."
        return Refusal("it asks for a client certificate", remedy)
    if "WRONG_VERSION_NUMBER" in told or "RECORD_LAYER_FAILURE" in told or "PACKET_LENGTH_TOO_LONG" in told:
        return NO_TLS
    return None


def _protocol(error: BaseException) -> Refusal | None:
    told = _told(error)
    if "cluster support disabled" in told:
        return NO_CLUSTER
    if told.startswith("DENIED"):
        remedy = "Give its user a password, or turn its protected-mode off."
        return Refusal("it is in protected mode and answers its own machine only", remedy)
    if isinstance(error, redis.ResponseError) and "unknown command" in told.lower() and "sentinel" in told.lower():
        return A_SERVER
    if isinstance(error, redis.ResponseError) and (
        "unknown command" in told.lower() or "Error compiling script" in told or "Unexpected engine" in told
    ):
        remedy = "It must be Redis 7, Valkey 7.2 or later, with scripts, and no command renamed."
        return Refusal(f"it lacks what is needed: {told.partition(', with args')[0]}", remedy)
    if isinstance(error, redis.InvalidResponse):
        return Refusal("what listens there is no Redis", "Correct host and port.")
    return None


def no_master(error: MasterNotFoundError, sentinels: Iterable[redis.Redis], name: str) -> Exception:
    """Return why Sentinels named no master: a refusal, if one of them refuses or knows no such name."""
    known: set[str] = set()
    for sentinel in sentinels:
        try:
            masters: Any = sentinel.sentinel_masters()
            known |= set(masters)
        except redis.AuthenticationError:
            return RefusedError(SENTINELS_PASSWORD)
        except (redis.ConnectionError, redis.TimeoutError):
            continue
        except redis.RedisError as refused:
            return refused
    if known and name not in known:
        watched = ", ".join(sorted(known))
        return RefusedError(Refusal(f"the Sentinels watch no master {name!r}", f"They watch: {watched}."))
    return error
