"""What one server process is to the fleet: its membership, the verifiers attached to it, what it knows of others.

`ledger`, `stream` and `observer` hold the protocol and no I/O, so that the model of the tests drives the real thing.
"""
