"""The streaming monitor: frames from Kafka are inspected, stored, reviewed, and the bank learns."""
