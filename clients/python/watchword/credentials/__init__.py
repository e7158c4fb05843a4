"""The caller's side: where its token comes from, where it may be sent, and how it gets into the call."""
