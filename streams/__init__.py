"""Reading a product's topic: Kafka to frames of raw messages to Arrow batches."""
