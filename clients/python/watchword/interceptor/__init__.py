"""The server interceptors: a call comes in, is judged, and goes on or is answered here."""
