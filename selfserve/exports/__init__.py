"""A product as documents for other tools and for people: ODCS, AsyncAPI, Avro, Markdown."""
