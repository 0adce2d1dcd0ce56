"""Kafka: where frames come from and results go. Each client is owned by one thread."""

from monitor.adapters.kafka.dead_letters import DeadLetterTopic, KeptLetter
from monitor.adapters.kafka.publisher import KafkaPublisher, dead_id
from monitor.adapters.kafka.sender import FrameSender
from monitor.adapters.kafka.source import KafkaSource
from monitor.adapters.kafka.topics import ensure_topics, prepare_topics

__all__ = [
    "DeadLetterTopic",
    "FrameSender",
    "KafkaPublisher",
    "KafkaSource",
    "KeptLetter",
    "dead_id",
    "ensure_topics",
    "prepare_topics",
]
