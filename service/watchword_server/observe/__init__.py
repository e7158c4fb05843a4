"""What can be seen of a running server: metrics, logs and traces, none of which ever hold a secret."""
