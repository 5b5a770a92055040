//! The one thread: sockets, timers, the Raft turn.
