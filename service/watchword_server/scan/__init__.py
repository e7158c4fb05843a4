"""Finds leaked tokens in files and in the history of git repositories. Needs no server."""
