//! Compaction by itself, for as long as the member runs.

use std::time::Duration;

use tracing::{info, warn};

use crate::command::Command;
use crate::compactor::{Compactor, Retention};
use crate::errors::StoreError;
use crate::handle::Handle;

/// Compacts when it is time and this member leads; what fails is tried again.
pub(super) async fn run(handle: Handle, retention: Retention) {
    let mut compactor = Compactor::new(retention, handle.now_ms(), handle.header(0).revision);
    loop {
        let wait = compactor.next_ms().saturating_sub(handle.now_ms());
        tokio::time::sleep(Duration::from_millis(wait)).await;
        let revision = handle.header(0).revision;
        let Some(end) = compactor.look(handle.now_ms(), revision, handle.is_leader()) else {
            continue;
        };
        match handle.propose(Command::Compact(end)).await {
            Err(status) if status.message() != StoreError::Compacted.to_string() => warn!(
                revision = end,
                error = status.message(),
                "a compaction failed and is tried again"
            ),
            _ => {
                info!(revision = end, "compacted by itself");
                compactor.compacted(end, handle.now_ms());
            }
        }
    }
}
