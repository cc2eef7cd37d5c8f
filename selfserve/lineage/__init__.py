"""What sinks tell of themselves in OpenLineage's terms: which column comes from where, what is masked, how much."""
