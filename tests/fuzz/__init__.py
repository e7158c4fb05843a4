"""What anybody may send to us, held against a second, slower way to the same answer."""
