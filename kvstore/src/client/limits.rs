//! The largest messages that a client sends and takes, and the words of gRPC's other implementations for one that is
//! larger.

use prost::Message;
use tonic::{Code, Status};

/// Bytes of one message. The default is no limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    pub send: usize,
    pub receive: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            send: usize::MAX,
            receive: usize::MAX,
        }
    }
}

impl Limits {
    /// Whether a message may be sent.
    ///
    /// # Errors
    /// ResourceExhausted when it is larger.
    pub fn admit(&self, message: &impl Message) -> Result<(), Status> {
        self.admit_bytes(message.encoded_len())
    }

    /// The same for one that is encoded.
    ///
    /// # Errors
    /// ResourceExhausted when it is larger.
    pub fn admit_bytes(&self, bytes: usize) -> Result<(), Status> {
        if bytes <= self.send {
            return Ok(());
        }
        Err(Status::resource_exhausted(format!(
            "trying to send message larger than max ({bytes} vs. {})",
            self.send
        )))
    }
}

/// What the transport says of an answer that is larger than the limit, which it does not read.
const RECEIVED: &str = "Error, decoded message length too large: found ";
const BETWEEN: &str = " bytes, the limit is: ";

/// The error of such an answer; None for any other error.
pub(super) fn too_large(status: &Status) -> Option<Status> {
    let numbers = status.message().strip_prefix(RECEIVED)?;
    let (found, limit) = numbers.strip_suffix(" bytes")?.split_once(BETWEEN)?;
    (status.code() == Code::OutOfRange).then(|| {
        Status::resource_exhausted(format!(
            "grpc: received message larger than max ({found} vs. {limit})"
        ))
    })
}
