//! A snapshot from one member into a file.

use std::future::Future;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tonic::{Request, Status};

use super::login::Login;
use super::pool;
use crate::bolt::Checked;
use crate::pb::etcd::maintenance_client::MaintenanceClient;
use crate::pb::etcd::SnapshotRequest;
use crate::tls::Identity;

/// How long nothing may come: a member reads all of its state before it sends the first byte.
const SILENCE: Duration = Duration::from_secs(60);

/// Saves the state of the member at `endpoint` as `path`, whole or not at all; `progress` is told how many bytes have
/// come and how many there are, and may end it. Returns how many there were.
///
/// # Errors
/// The member's, the disk's, `progress`'s, or that what came is not whole.
pub async fn save(
    endpoint: &str,
    tls: Option<Identity>,
    login: Option<Login>,
    path: &Path,
    progress: impl FnMut(u64, u64) -> Result<(), Status>,
) -> Result<u64, Status> {
    let mut part = path.as_os_str().to_owned();
    part.push(".part");
    let part = PathBuf::from(part);
    let saved = receive(endpoint, tls, login, &part, progress)
        .await
        .and_then(|bytes| {
            std::fs::rename(&part, path).map_err(failed(path))?;
            let parent = path.parent().filter(|p| !p.as_os_str().is_empty());
            let parent = parent.unwrap_or(Path::new("."));
            std::fs::File::open(parent)
                .and_then(|dir| dir.sync_all())
                .map_err(failed(parent))?;
            Ok(bytes)
        });
    if saved.is_err() {
        // It may not be there yet.
        let _ = std::fs::remove_file(&part);
    }
    saved
}

fn failed(path: &Path) -> impl FnOnce(std::io::Error) -> Status + '_ {
    move |error| Status::data_loss(format!("{}: {error}", path.display()))
}

async fn in_time<T>(
    endpoint: &str,
    call: impl Future<Output = Result<T, Status>>,
) -> Result<T, Status> {
    tokio::time::timeout(SILENCE, call).await.map_err(|_| {
        Status::unavailable(format!(
            "{endpoint} sent nothing for {} s",
            SILENCE.as_secs()
        ))
    })?
}

async fn receive(
    endpoint: &str,
    tls: Option<Identity>,
    login: Option<Login>,
    part: &Path,
    mut progress: impl FnMut(u64, u64) -> Result<(), Status>,
) -> Result<u64, Status> {
    let tls = tls.map(pool::secure).transpose()?.map(Arc::new);
    let channel = pool::channel(endpoint, &tls)?;
    let mut request = Request::new(SnapshotRequest {});
    if let Some(login) = login {
        in_time(endpoint, login.sign(&channel, request.metadata_mut())).await?;
    }
    let mut client = MaintenanceClient::new(channel).max_decoding_message_size(usize::MAX);
    let answer = in_time(endpoint, client.snapshot(request)).await?;
    let mut messages = answer.into_inner();
    let mut file = std::fs::File::options()
        .create(true)
        .truncate(true)
        .read(true)
        .write(true)
        .open(part)
        .map_err(failed(part))?;
    let mut done = 0;
    while let Some(message) = in_time(endpoint, messages.message()).await? {
        file.write_all(&message.blob).map_err(failed(part))?;
        done += message.blob.len() as u64;
        progress(done, done + message.remaining_bytes)?;
    }
    file.sync_all().map_err(failed(part))?;
    Checked::verify(&file)
        .map_err(|e| Status::data_loss(format!("what {endpoint} sent is not whole: {e}")))?;
    Ok(done)
}
