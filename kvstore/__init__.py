"""The replicated store: the server command, and an asyncio client of any etcd v3 cluster. The core is Rust (`src`)."""
