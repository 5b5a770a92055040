//! Who of the other members is let in.

use tonic::Status;

use super::Handle;
use crate::apply::Noted;
use crate::etcd_file::KeysHash;
use crate::peer::{Doorkeeper, PEER_VERSION, REMOVED};

impl Doorkeeper for Handle {
    fn admit(&self, hello: &crate::pb::peer::Hello) -> Result<(), Status> {
        let facts = self.facts();
        if hello.version != PEER_VERSION {
            let text = format!(
                "peers speak version {PEER_VERSION} here, not {}",
                hello.version
            );
            return Err(Status::failed_precondition(text));
        }
        if hello.cluster_id != facts.cluster_id {
            let text = format!(
                "cluster ID mismatch: {:x} here, {:x} there",
                facts.cluster_id, hello.cluster_id
            );
            return Err(Status::failed_precondition(text));
        }
        if hello.to != facts.member_id {
            let text = format!("this is member {:x}, not {:x}", facts.member_id, hello.to);
            return Err(Status::failed_precondition(text));
        }
        if self.core()?.membership.removed.contains(&hello.from) {
            return Err(Status::permission_denied(REMOVED));
        }
        Ok(())
    }

    async fn hash(&self, revision: i64) -> Result<KeysHash, Status> {
        self.hash_keys(revision).await
    }

    fn noted(&self) -> Result<Vec<Noted>, Status> {
        Ok(self.core()?.store()?.noted().to_vec())
    }

    fn members(&self) -> crate::pb::peer::MembersResponse {
        let members = self
            .core()
            .map(|core| core.membership.infos())
            .unwrap_or_default();
        crate::pb::peer::MembersResponse {
            cluster_id: self.facts().cluster_id,
            members,
        }
    }
}
