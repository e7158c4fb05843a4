"""The use cases: what each RPC does, in terms of rules and store, knowing nothing of protobuf, gRPC or Postgres."""
