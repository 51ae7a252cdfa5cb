"""The fleet's half: ingest, weigh evidence, decide, roll out, hand out retraining jobs."""
