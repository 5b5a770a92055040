//! Channels to the other members, with what this one shows them.

use std::sync::Arc;
use std::time::Duration;

use hyper_util::rt::TokioIo;
use tonic::transport::Channel;
use tonic::{Request, Status};

use super::MAX_FRAME_BYTES;
use crate::address::Address;
use crate::apply::Noted;
use crate::dial;
use crate::etcd_file::KeysHash;
use crate::pb::peer::peer_client::PeerClient;
use crate::pb::peer::{
    HashRequest, MembersRequest, MembersResponse, NotedHash, NotedHashesRequest,
};
use crate::tls::Connector;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
const PING_EVERY: Duration = Duration::from_secs(2);
const PING_TIMEOUT: Duration = Duration::from_secs(3);

/// Dials peer URLs; without TLS only those that want none.
#[derive(Debug, Clone, Default)]
pub struct Dialer {
    tls: Option<Arc<Connector>>,
}

impl Dialer {
    pub fn new(tls: Option<Connector>) -> Self {
        Self {
            tls: tls.map(Arc::new),
        }
    }

    /// Opens a channel to a peer URL, lazily.
    pub fn channel(&self, url: &str) -> Result<Channel, Status> {
        let no =
            |why: String| Status::invalid_argument(format!("peer URL {url} is not one: {why}"));
        let address = Address::parse(url).map_err(|e| no(e.to_string()))?;
        let endpoint = dial::endpoint(&address).ok_or_else(|| no("no such host".to_owned()))?;
        let (address, tls) = (Arc::new(address), self.tls.clone());
        let open = tower::service_fn(move |_| {
            let (address, tls) = (address.clone(), tls.clone());
            async move {
                let socket = dial::connect(&address).await?;
                dial::secure(&address, tls.as_deref(), socket)
                    .await
                    .map(TokioIo::new)
            }
        });
        Ok(endpoint
            .connect_timeout(CONNECT_TIMEOUT)
            .http2_keep_alive_interval(PING_EVERY)
            .keep_alive_timeout(PING_TIMEOUT)
            .keep_alive_while_idle(true)
            .initial_stream_window_size(Some(4 << 20))
            .initial_connection_window_size(Some(8 << 20))
            .connect_with_connector_lazy(open))
    }

    pub(super) fn client(&self, url: &str) -> Result<PeerClient<Channel>, Status> {
        Ok(PeerClient::new(self.channel(url)?).max_decoding_message_size(MAX_FRAME_BYTES))
    }

    /// Asks a member for the membership.
    pub async fn ask_members(&self, url: &str, cluster_id: u64) -> Result<MembersResponse, Status> {
        let mut request = Request::new(MembersRequest { cluster_id });
        request.set_timeout(CONNECT_TIMEOUT);
        Ok(self.client(url)?.members(request).await?.into_inner())
    }

    /// Asks a member for the sum of its keys up to a revision.
    pub async fn ask_hash(
        &self,
        url: &str,
        cluster_id: u64,
        revision: i64,
    ) -> Result<KeysHash, Status> {
        let request = HashRequest {
            cluster_id,
            revision,
        };
        let answer = self.client(url)?.hash(request).await?.into_inner();
        Ok(KeysHash {
            hash: answer.hash,
            revision: answer.revision,
            compacted: answer.compacted,
            current: answer.current,
        })
    }

    /// Asks a member for what it noted at its newest compactions.
    pub async fn ask_noted(&self, url: &str, cluster_id: u64) -> Result<Vec<Noted>, Status> {
        let mut request = Request::new(NotedHashesRequest { cluster_id });
        request.set_timeout(CONNECT_TIMEOUT);
        let answer = self.client(url)?.noted_hashes(request).await?.into_inner();
        let read = |NotedHash { revision, hash }| Noted { revision, hash };
        Ok(answer.noted.into_iter().map(read).collect())
    }
}
