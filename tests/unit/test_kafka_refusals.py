"""What a broker refuses, in words, and what a topic's figures mean."""

from __future__ import annotations

import ssl

import pytest
from kafka import errors

from monitor.adapters.kafka.oauth import TokenAwayError, TokenRefusedError
from monitor.adapters.kafka.refusals import refusal
from monitor.adapters.kafka.rights import Operation, needed_rights, principal_of
from monitor.adapters.kafka.topic_checks import TopicState, misfits
from monitor.settings import KafkaSettings, LimitSettings

SETTINGS = KafkaSettings(
    bootstrap_servers="kafka-1:9093, kafka-2:9093",
    security_protocol="SASL_SSL",
    sasl_mechanism="PLAIN",
    sasl_username="line-1",
    sasl_password="hunter2",  # type: ignore[arg-type]
)
GRANT = "kafka-acls --bootstrap-server kafka-1:9093 --add --allow-principal User:line-1"


@pytest.mark.parametrize(
    ("error", "operation", "says"),
    [
        (errors.TopicAuthorizationFailedError("frames"), "Write",
         ("the right Write on the topic 'frames'", f"{GRANT} --operation Write --topic frames")),
        (errors.TopicAuthorizationFailedError({"frames.dead"}), None,
         ("the right Write on the topic 'frames.dead'.", f"{GRANT} --operation Write --topic frames.dead")),
        (errors.TopicAuthorizationFailedError({"frames"}), None,
         ("the right Read on the topic 'frames'.", f"{GRANT} --operation Read --topic frames")),
        (errors.TopicAuthorizationFailedError(), None,
         ("Read on the topic 'frames' or Write on the topic 'frames.dead' or",)),
        (errors.GroupAuthorizationFailedError("any"), None,
         ("Read on the group 'paedid-monitor'", f"{GRANT} --operation Read --group paedid-monitor")),
        (errors.ClusterAuthorizationFailedError(), None, ("IdempotentWrite on the cluster", "--cluster")),
        (errors.TransactionalIdAuthorizationFailedError(), None, ("Write on the transactional-id",)),
        (errors.SaslAuthenticationFailedError("x"), None, ("refuses user 'line-1': wrong password",)),
        (TokenRefusedError("service answered 401 (invalid_client)"), None, ("401 (invalid_client)", "oauth_client_id")),
        (errors.UnsupportedSaslMechanismError(), None, ("kafka.sasl_mechanism = 'PLAIN'", "sasl.enabled.mechanisms")),
        (errors.IllegalSaslStateError(), None, ("asks for no user at this port", "SSL")),
        (errors.FencedInstanceIdError(), None, ("kafka.group_instance_id", "an id of its own")),
        (errors.InconsistentGroupProtocolError(), None, ("another assignment protocol", "Stop all of them")),
        (errors.InvalidSessionTimeoutError(), None, ("kafka.session_timeout_ms = 6000", "group.min.session.timeout")),
        (errors.IncompatibleBrokerVersion("Fetch"), None, ("too old", "Fetch")),
        (errors.InvalidReceiveError("Invalid frame length: 352518912"), None, ("speaks TLS",)),
        (errors.KafkaConnectionError(ssl.SSLError(1, "[SSL: WRONG_VERSION_NUMBER] wrong version number")), None, ()),
    ],
)  # fmt: skip
def test_a_refusal_says_who_may_not_do_what_and_what_mends_it(
    error: Exception, operation: Operation | None, says: tuple[str, ...]
) -> None:
    refused = refusal(error, SETTINGS, operation)
    if not says:  # made up here, it has no reason; a real one is met in test_kafka_security
        assert refused is None
        return
    line = str(refused)
    assert line.startswith("Kafka at kafka.bootstrap_servers = 'kafka-1:9093, kafka-2:9093' ")
    assert all(text in line for text in says), line
    assert "hunter2" not in line
    assert "\n" not in line


@pytest.mark.parametrize(
    "error",
    [
        errors.KafkaTimeoutError("too late"),
        errors.KafkaConnectionError("socket disconnected"),
        errors.InvalidReceiveError("Invalid frame length: 1200000000"),
        errors.NotEnoughReplicasError(),
        errors.RequestTimedOutError(),
        errors.UnknownTopicOrPartitionError(),
        TokenAwayError("the service does not answer"),
        ssl.SSLEOFError(8, "EOF occurred in violation of protocol"),
        OSError("network is unreachable"),
    ],
)
def test_an_outage_is_no_refusal(error: Exception) -> None:
    assert refusal(error, SETTINGS) is None


def test_a_refusal_is_found_under_what_was_made_of_it() -> None:
    cause = errors.GroupAuthorizationFailedError("g")
    wrapped = errors.KafkaConnectionError(cause)
    outermost = RuntimeError("a client failed")
    outermost.__cause__ = wrapped
    assert "Read on the group" in str(refusal(outermost, SETTINGS))


def test_who_a_client_is_follows_from_how_it_says_so() -> None:
    assert principal_of(SETTINGS) == "User:line-1"
    assert principal_of(KafkaSettings()) == "User:ANONYMOUS"


def test_every_program_needs_the_rights_on_its_own_topics() -> None:
    renamed = KafkaSettings(frames_topic="f", dead_topic="d", inspections_topic="i", group="g")
    rights = {
        (right.operation, right.resource, right.name) for all_ in needed_rights(renamed).values() for right in all_
    }
    assert rights == {
        ("Write", "topic", "f"), ("Read", "topic", "f"), ("Read", "group", "g"),
        ("Write", "topic", "d"), ("Write", "topic", "i"), ("Read", "topic", "d"),
    }  # fmt: skip


@pytest.mark.parametrize(
    ("state", "brokers", "told"),
    [
        (TopicState("frames", 4, 1, 1), 1, []),
        (TopicState("frames", 4, 3, 3, configs={"min.insync.replicas": "2"}), 3, []),
        (TopicState("frames", 4, 1, 1), 3, ["one replica, in a cluster of 3"]),
        (TopicState("frames", 4, 3, 1, configs={"min.insync.replicas": "2"}), 3, ["now has 1 replicas in sync"]),
        (
            TopicState("frames", 4, 2, 2, configs={"min.insync.replicas": "3"}),
            3,
            ["has 2 replicas in sync and wants 3"],
        ),
        (TopicState("frames", 4, 2, 2, configs={"retention.ms": "-1", "retention.bytes": "-1"}), 2, []),
        (TopicState("frames", 4, 2, 2, configs={"cleanup.policy": "compact,delete"}), 2, ["is compacted"]),
        (TopicState("inspections", 1, 2, 2, configs={"max.message.bytes": "1048588"}), 2, []),
    ],
)
def test_what_a_topics_figures_mean(state: TopicState, brokers: int, told: list[str]) -> None:
    found = [misfit.problem for misfit in misfits(state, KafkaSettings(), LimitSettings(), brokers)]
    assert len(found) == len(told)
    assert all(text in problem for text, problem in zip(told, found, strict=True))
