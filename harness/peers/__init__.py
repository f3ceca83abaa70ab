"""Our relay beside what people use instead: same manifests, same client, same backends, one run."""
