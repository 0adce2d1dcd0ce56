"""The topics: made where they are absent, and looked at where they are there."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

import structlog
import tenacity
from kafka.admin import ConfigResource, KafkaAdminClient
from kafka.errors import (
    AuthorizationError,
    KafkaConnectionError,
    KafkaError,
    NoError,
    TopicAlreadyExistsError,
    TopicAuthorizationFailedError,
    UnknownTopicOrPartitionError,
    for_code,
)

from monitor.adapters.kafka import listeners
from monitor.adapters.kafka.connection import reaching_broker
from monitor.adapters.kafka.library_security import Broker
from monitor.adapters.kafka.refusals import SERVICE, address, refusal
from monitor.adapters.kafka.rights import Operation
from monitor.adapters.kafka.topic_checks import (
    CHECKED,
    MAX_MESSAGE,
    MESSAGE_OVERHEAD_BYTES,
    TopicState,
    create_topic,
    misfits,
)
from monitor.settings import KafkaSettings, LimitSettings
from schemas.errors import ServiceRefusedError

ABSENT: Final = UnknownTopicOrPartitionError.errno

T = TypeVar("T")

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class PreparedTopics:
    """What was found and done.

    Attributes:
        created: the topics that were absent.
        max_message_bytes: how large a message each topic takes, where the brokers tell this client.
    """

    created: Sequence[str] = ()
    max_message_bytes: Mapping[str, int] = field(default_factory=dict)


def ensure_topics(
    settings: KafkaSettings, limits: LimitSettings, uses: Mapping[str, Operation] | None = None
) -> list[str]:
    """Create the topics that are absent; one that exists stays as it is. See :func:`prepare_topics`.

    Returns:
        The names of those created.
    """
    return list(prepare_topics(settings, limits, uses).created)


def prepare_topics(
    settings: KafkaSettings, limits: LimitSettings, uses: Mapping[str, Operation] | None = None
) -> PreparedTopics:
    """Create the topics that are absent, and tell of those that do not fit, each with the command that mends it.

    Args:
        settings: the broker and the topics.
        limits: how large frames may be.
        uses: which topics, and what this program does with each; default: all three, as a worker uses them.

    Raises:
        ServiceUnavailableError: the broker does not answer.
        ServiceRefusedError: this user may not use a topic, or may not create one that is absent; or a broker that leads
            one cannot be reached.
    """
    uses = uses or {
        settings.frames_topic: "Read",
        settings.dead_topic: "Write",
        settings.inspections_topic: "Write",
    }
    with reaching_broker(settings) as options:
        admin = KafkaAdminClient(**options)
        try:
            return _Topics(admin, settings, limits).prepare(uses)
        finally:
            admin.close()


def require_rights(settings: KafkaSettings, uses: Mapping[str, Operation]) -> None:
    """Make sure that this user may use topics; one that is absent is no matter.

    Raises:
        ServiceUnavailableError: the broker does not answer.
        ServiceRefusedError: a right is missing.
    """
    with reaching_broker(settings) as options:
        admin = KafkaAdminClient(**options)
        try:
            _Topics(admin, settings, LimitSettings()).find(uses)
        finally:
            admin.close()


class _Topics:
    """One look at the topics, with a client that lives as long."""

    def __init__(self, admin: KafkaAdminClient, settings: KafkaSettings, limits: LimitSettings) -> None:
        self._admin = admin
        self._settings = settings
        self._limits = limits
        # Of several brokers, one that cannot be reached fails what it happens to be asked; the next try asks another.
        self._retrying = tenacity.Retrying(
            retry=tenacity.retry_if_exception_type(KafkaConnectionError),
            stop=tenacity.stop_after_delay(settings.connect_timeout_s),
            wait=tenacity.wait_fixed(0.1),
            reraise=True,
        )

    def prepare(self, uses: Mapping[str, Operation]) -> PreparedTopics:
        """See :func:`prepare_topics`."""
        found = self.find(uses)
        created = [name for name in uses if found[name]["error_code"] == ABSENT and self._create(name)]
        self._admin.wait_for_topics(list(uses))
        if created:
            log.info("topics created", topics=created, partitions=self._settings.partitions)
        states = self._look(uses)
        self._tell(states)
        limits = {state.name: state.number(MAX_MESSAGE) for state in states}
        return PreparedTopics(created, {name: limit for name, limit in limits.items() if limit is not None})

    def find(self, uses: Mapping[str, Operation]) -> Mapping[str, Mapping[str, Any]]:
        """Return what the brokers say of each topic, all of which may be used.

        Raises:
            ServiceRefusedError: a right is missing.
        """
        found = {topic["name"]: topic for topic in self._ask(lambda: self._admin.describe_topics(list(uses)))}
        for name, operation in uses.items():
            self._require_allowed(found[name], operation)
        return found

    def _require_allowed(self, topic: Mapping[str, Any], operation: Operation) -> None:
        code, allowed = topic["error_code"], topic["authorized_operations"]
        # Brokers that know no rights tell of none.
        lacks = bool(allowed) and not {operation.upper(), "ALL"} & set(allowed)
        if code == TopicAuthorizationFailedError.errno or (code == 0 and lacks):
            error = TopicAuthorizationFailedError(topic["name"])
            raise refusal(error, self._settings, operation) or error

    def _create(self, name: str) -> bool:
        """Create a topic; return False if another program was faster.

        Raises:
            ServiceRefusedError: the broker does not do it.
        """
        # Kafka refuses messages over 1 MB unless the topic says otherwise.
        configs = {MAX_MESSAGE: str(self._limits.max_frame_bytes + MESSAGE_OVERHEAD_BYTES)}
        # Replicas: as many as the broker's default says.
        new = {name: {"num_partitions": self._settings.partitions, "configs": configs}}
        (answer,) = self._ask(lambda: self._admin.create_topics(new, raise_errors=False))["topics"]
        error = for_code(answer["error_code"])
        if error in {NoError, TopicAlreadyExistsError}:
            return error is NoError
        why = "this user may not create it" if issubclass(error, AuthorizationError) else answer["error_message"]
        problem = f"has no topic {name!r}, and does not let it be made: {why or error.__name__}"
        remedy = f"Have it made: {create_topic(self._settings, self._limits, name)}"
        raise ServiceRefusedError(SERVICE, address(self._settings), problem, remedy)

    def _look(self, names: Collection[str]) -> list[TopicState]:
        topics = self._ask(lambda: self._admin.describe_topics(list(names)))
        configs = self._configs(names)
        return [
            TopicState(
                name=topic["name"],
                partitions=len(topic["partitions"]),
                replicas=min(len(partition["replica_nodes"]) for partition in topic["partitions"]),
                in_sync=min(len(partition["isr_nodes"]) for partition in topic["partitions"]),
                leaders=frozenset(partition["leader_id"] for partition in topic["partitions"]),
                configs=configs.get(topic["name"], {}),
            )
            for topic in topics
        ]

    def _configs(self, names: Collection[str]) -> Mapping[str, Mapping[str, str]]:
        wanted = [ConfigResource("TOPIC", name, dict.fromkeys(CHECKED)) for name in names]
        try:
            answer = self._admin.describe_configs(wanted, config_filter="all").get("topic", {})
        except KafkaError:  # the embedded broker hangs up on this question
            return {}
        if not all(answer.get(name) for name in names):
            log.info("The topics' limits are not known: no right to see them (DescribeConfigs)", topics=list(names))
        return {
            name: {key: config["value"] for key, config in found.items() if config["value"] is not None}
            for name, found in answer.items()
        }

    def _tell(self, states: Sequence[TopicState]) -> None:
        """Tell what does not fit.

        Raises:
            ServiceRefusedError: a broker that leads a partition has an address that means nothing here.
        """
        cluster = self._ask(self._admin.describe_cluster)["brokers"]
        needed = frozenset[int]().union(*(state.leaders for state in states))
        brokers = [Broker(each["broker_id"], each["host"], each["port"]) for each in cluster]
        lost = listeners.unreachable([broker for broker in brokers if broker.number in needed])
        for broker, problem in lost.items():
            if listeners.is_unknown(problem):
                told = f"answers, but a broker that leads partitions is told of as {listeners.told(broker, problem)}"
                raise ServiceRefusedError(SERVICE, address(self._settings), told, listeners.REMEDY)
        for state in states:
            for misfit in misfits(state, self._settings, self._limits, len(brokers)):
                line = f"Topic {state.name} {misfit.problem}"
                log.warning(line, mend=misfit.command)

    def _ask(self, question: Callable[[], T]) -> T:
        return self._retrying(question)
