"""Watchword's Python client library: check bearer tokens in gRPC servers, and send them from gRPC clients."""
