"""What all parts agree on: contracts, Avro, types, masks, registry, errors. Mostly pure."""
