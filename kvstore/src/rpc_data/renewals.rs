//! A stream of renewals, as it is counted: once, when it has ended.

use tonic::Code;

use super::Door;
use crate::handle::Handle;

const SERVICE: &str = "Lease";
const METHOD: &str = "LeaseKeepAlive";

/// Counts its stream when it is dropped: as canceled, unless it ended otherwise. What members pass on is no call.
pub(super) struct Renewals(Option<Handle>, Code);

impl Renewals {
    pub fn begin(handle: &Handle, door: Door) -> Self {
        let counted = (door == Door::Clients).then(|| handle.clone());
        Self(counted, Code::Cancelled)
    }

    pub fn asked(&self) {
        let handle = self.0.iter();
        handle.for_each(|handle| handle.calls().receive(SERVICE, METHOD));
    }

    pub fn answered(&self) {
        let handle = self.0.iter();
        handle.for_each(|handle| handle.calls().send(SERVICE, METHOD));
    }

    pub fn end(&mut self, code: Code) {
        self.1 = code;
    }
}

impl Drop for Renewals {
    fn drop(&mut self) {
        if let Some(handle) = &self.0 {
            handle.calls().count(SERVICE, METHOD, self.1);
        }
    }
}
