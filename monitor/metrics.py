"""Every metric name once. Seconds are seconds, shares are 0 to 1; labels have few values (cameras are the most)."""

from __future__ import annotations

from prometheus_client import Counter, Gauge, Histogram

_STAGE_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_LATENCY_BUCKETS = (0.01, 0.025, 0.05, 0.1, 0.2, 0.3, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 300.0, 3600.0)
_SIZE_BUCKETS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)

# Frames the database has, by what became of them: normal, defect, uninspected, dead. Counted after the transaction.
FRAMES = Counter("paedid_frames", "Frames stored, by outcome", ["outcome"])

# Of these, the uninspected by reason: deadline, skipped, unregistered, inspection_failed.
UNINSPECTED = Counter("paedid_uninspected_frames", "Frames stored without a verdict", ["reason", "camera"])

# Of these, frames that had been stored before (Kafka delivered them again); nothing was stored twice.
REPEATS = Counter("paedid_repeated_frames", "Redelivered frames recognised as stored")

# Frames in a batch; always 1 means that batch.max_age_s is short for the line's rate.
BATCH_FRAMES = Histogram("paedid_batch_frames", "Frames per batch", buckets=_SIZE_BUCKETS)

# decode: one frame, in a decode thread. inspect: one batch, on the device; shadow: the same by the models that look on.
# store: one batch, outages included.
STAGE_SECONDS = Histogram("paedid_stage_seconds", "Duration of a stage", ["stage"], buckets=_STAGE_BUCKETS)

# From the camera's capture time to the stored result: what a rejector downstream has to wait for. Needs clocks in step.
LATENCY_SECONDS = Histogram("paedid_latency_seconds", "From capture to stored result", buckets=_LATENCY_BUCKETS)

# The version each camera's frames are inspected with; workers that differ for long have lost Redis.
BANK_VERSION = Gauge("paedid_bank_version", "Memory bank version in use", ["camera"])

# The model that each camera's frames are inspected with: 1, and the one before it is gone.
MODEL_IN_USE = Gauge("paedid_model_in_use", "1 for the model that inspects a camera's frames", ["camera", "model"])

# How far a camera's scores have moved away from its bank: 0 as the training normals' are, 1 at the control limit.
DRIFT_RATIO = Gauge("paedid_drift_ratio", "EWMA of the scores, relative to its control limit", ["camera"])

# Whether it is beyond, in its score or in a quarter of its locations; and in how many locations.
DRIFTING = Gauge("paedid_drifting", "1 while the line has moved away from its bank", ["camera"])
DRIFT_LOCATIONS = Gauge("paedid_drifting_locations", "Locations beyond their control limit", ["camera"])

# Messages waiting in Kafka for this worker, as far as the broker says.
LAG = Gauge("paedid_lag_frames", "Frames waiting in Kafka")

# Partitions of the frames topic that this worker reads. 0 for long: it stands by, or the group cannot be joined.
PARTITIONS = Gauge("paedid_assigned_partitions", "Partitions that this worker reads")

# 1 while the worker can do its work: it has partitions, or stands by because others have them all.
READY = Gauge("paedid_ready", "1 while the worker can work")

# Messages that retention deleted before any worker of the group had read them: rows of log_gaps.
LOST = Counter("paedid_lost_frames", "Messages deleted by retention before they were read", ["topic", "partition"])

# Frames whose image should have been kept and was not, for the image store's disk is full (images.reserve_mb).
IMAGES_DROPPED = Counter("paedid_dropped_images", "Images not kept because the disk is full")

# Outages lived through, by what was away: database, image store, dead letters, bank, outbox.
OUTAGES = Counter("paedid_outages", "Outages of a server while running", ["service"])

# Results stored but not yet published, as of the relay's last look; it looks at no more than 500 at once.
OUTBOX_BACKLOG = Gauge("paedid_outbox_backlog", "Outbox messages not yet published")
