//! Calls by name: any method of the API that takes one message, with its messages as bytes, for those that have no words
//! of their own here.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use http::uri::PathAndQuery;
use tonic::client::Grpc;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::transport::Channel;
use tonic::{Request, Response, Status};

use super::Limits;

/// Messages as they are.
#[derive(Clone, Copy)]
pub struct Raw;

impl Codec for Raw {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, item: Bytes, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.put(item);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        let length = buffer.remaining();
        Ok(Some(buffer.copy_to_bytes(length)))
    }
}

/// The path of a method, say `etcdserverpb.Auth/UserAdd`.
///
/// # Errors
/// When that can't be a path.
pub fn path(method: &str) -> Result<PathAndQuery, Status> {
    PathAndQuery::try_from(format!("/{method}"))
        .map_err(|_| Status::invalid_argument(format!("{method:?} is not a method")))
}

/// A connection that takes a call.
async fn ready(channel: Channel, limits: Limits) -> Result<Grpc<Channel>, Status> {
    let mut grpc = Grpc::new(channel).max_decoding_message_size(limits.receive);
    grpc.ready()
        .await
        .map_err(|error| Status::from_error(error.into()))?;
    Ok(grpc)
}

/// One call on a connection.
pub async fn unary(
    channel: Channel,
    path: PathAndQuery,
    request: Request<Bytes>,
    limits: Limits,
) -> Result<Response<Bytes>, Status> {
    let mut grpc = ready(channel, limits).await?;
    grpc.unary(request, path, Raw).await
}

/// One call whose answer is a stream: all of its messages, one after the other, which to protobuf is their merger.
pub async fn gathered(
    channel: Channel,
    path: PathAndQuery,
    request: Request<Bytes>,
    limits: Limits,
) -> Result<Response<Bytes>, Status> {
    let mut grpc = ready(channel, limits).await?;
    let mut messages = grpc
        .server_streaming(request, path, Raw)
        .await?
        .into_inner();
    let mut all = BytesMut::new();
    while let Some(message) = messages.message().await? {
        all.extend_from_slice(&message);
    }
    Ok(Response::new(all.freeze()))
}
