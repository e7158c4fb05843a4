"""A small orders service, its client, and a demonstration of both under Watchword."""
