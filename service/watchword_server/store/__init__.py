"""Where tokens are kept: the contract that the answers see, and Postgres behind it."""
