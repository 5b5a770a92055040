//! Who leads, from now on: each leader, and each value that it proclaims.

use bytes::Bytes;
use futures::stream::StreamExt;
use tokio::sync::mpsc::Sender;
use tonic::Status;

use crate::contest::{going_on, oldest, Contest};
use crate::pb::etcd::event::EventType;
use crate::pb::etcd::watch_create_request::FilterType;
use crate::pb::etcd::{Event, KeyValue, ResponseHeader};
use crate::pb::v3electionpb::LeaderResponse;

type Leaders = Sender<Result<LeaderResponse, Status>>;

/// Tells leaders until nobody listens.
///
/// # Errors
/// When what it needs is refused, or fails for good.
pub async fn tell(contest: &Contest, prefix: &Bytes, leaders: &Leaders) -> Result<(), Status> {
    loop {
        let mut found = contest.get(oldest(prefix)).await?;
        let header = found.header.unwrap_or_default();
        let (header, kv) = match found.kvs.pop() {
            Some(kv) => (header, kv),
            None => first(contest, prefix, header).await?,
        };
        let (key, next) = (kv.key.clone(), header.revision + 1);
        send(leaders, header, kv).await?;
        follow(contest, key, next, leaders).await?;
    }
}

async fn send(leaders: &Leaders, header: ResponseHeader, kv: KeyValue) -> Result<(), Status> {
    let leader = LeaderResponse {
        header: Some(header),
        kv: Some(kv),
    };
    let sent = leaders.send(Ok(leader)).await;
    sent.map_err(|_| Status::cancelled("nobody listens"))
}

/// The first key that is put from this revision on.
async fn first(
    contest: &Contest,
    prefix: &Bytes,
    header: ResponseHeader,
) -> Result<(ResponseHeader, KeyValue), Status> {
    let mut events = contest.follow(
        prefix.clone(),
        true,
        header.revision,
        &[FilterType::Nodelete],
    )?;
    while let Some(response) = events.next().await {
        let response = going_on(response?)?;
        let events = response.read_events()?;
        if let Some(kv) = events.into_iter().find_map(|event| event.kv) {
            let header = ResponseHeader {
                revision: kv.mod_revision,
                ..response.header.unwrap_or_default()
            };
            return Ok((header, kv));
        }
    }
    Err(Status::unknown("the watch ended"))
}

/// Tells a leader's values until its key is deleted, or the watch was interrupted, so that it is to be looked again.
async fn follow(
    contest: &Contest,
    key: Bytes,
    revision: i64,
    leaders: &Leaders,
) -> Result<(), Status> {
    let mut events = contest.follow(key, false, revision, &[])?;
    while let Some(response) = events.next().await {
        let response = match response {
            Ok(response) => going_on(response)?,
            Err(status) if status.code() == tonic::Code::Unavailable => return Ok(()),
            Err(status) => return Err(status),
        };
        let header = response.header.unwrap_or_default();
        for event in response.read_events()? {
            match event {
                Event { kv: Some(kv), .. } if event.r#type() == EventType::Put => {
                    send(leaders, header, kv).await?;
                }
                _ => return Ok(()),
            }
        }
    }
    Ok(())
}
