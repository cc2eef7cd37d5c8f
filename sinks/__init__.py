"""Kafka to Iceberg, exactly once: loop, batch, ledger, commit, dead letters."""
