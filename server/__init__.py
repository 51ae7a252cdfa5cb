"""The fleet server: ingests telemetry, detects drift, rolls out releases and hands out retraining jobs."""
