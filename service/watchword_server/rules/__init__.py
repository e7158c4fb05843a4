"""What a token is, who may issue what, and when a token is good: standard library only, no I/O, no clock."""
