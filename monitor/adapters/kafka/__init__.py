"""Kafka: where frames come from and results go. Each client is owned by one thread."""

from monitor.adapters.kafka.connection import ensure_topics
from monitor.adapters.kafka.publisher import KafkaPublisher
from monitor.adapters.kafka.sender import FrameSender
from monitor.adapters.kafka.source import KafkaSource

__all__ = ["FrameSender", "KafkaPublisher", "KafkaSource", "ensure_topics"]
