"""Runs notebooks and keeps what they say: one run, many runs, records, verdicts, the pipeline."""
