"""The edges: Kafka, SQL, Redis, images, model bundles, cameras."""
