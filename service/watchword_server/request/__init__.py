"""From bytes to a use case and back: statuses, authentication, permits, decoding, encoding."""
