"""What several tests share: a running cluster, small meshes on it, and another engine that reads the result."""
