//! A gRPC answer that was encoded beforehand: the body of a large one is laid into its response in pieces.

use bytes::{BufMut, Bytes, BytesMut};
use futures::stream;
use http::{HeaderMap, HeaderValue, Response};
use http_body_util::StreamBody;
use hyper::body::Frame;
use prost::encoding::{encode_key, encode_varint, WireType};
use prost::Message;
use tonic::body::Body;

use crate::errors::StoreError;
use crate::pb::etcd::RangeResponse;

/// Bytes of a piece, about.
const PIECE_BYTES: usize = 256 << 10;
/// The field of a range's answer that holds its key-values.
const KVS: u32 = 2;

/// A message in pieces, as an extension of the response whose own message it replaces.
#[derive(Clone)]
pub struct Encoded(Vec<Bytes>);

impl Encoded {
    /// Encodes; takes long for what is large.
    ///
    /// # Errors
    /// When gRPC can't carry that much in one message.
    pub fn new(mut response: RangeResponse) -> Result<Self, StoreError> {
        let kvs = std::mem::take(&mut response.kvs);
        let mut pieces = vec![Bytes::new()];
        let mut piece = BytesMut::new();
        // Protobuf takes fields in any order, and one that repeats in any number of places.
        piece.put_slice(&response.encode_to_vec());
        for kv in kvs {
            encode_key(KVS, WireType::LengthDelimited, &mut piece);
            encode_varint(kv.encoded_len() as u64, &mut piece);
            piece.put_slice(&kv.encode_to_vec());
            if piece.len() >= PIECE_BYTES {
                pieces.push(piece.split().freeze());
            }
        }
        pieces.push(piece.freeze());
        let length = u32::try_from(pieces.iter().map(Bytes::len).sum::<usize>())
            .map_err(|_| StoreError::RequestTooLarge)?;
        let mut head = BytesMut::with_capacity(5);
        // Not compressed.
        head.put_u8(0);
        head.put_u32(length);
        pieces[0] = head.freeze();
        Ok(Self(pieces))
    }

    /// The message's length.
    pub fn bytes(&self) -> usize {
        self.0[1..].iter().map(Bytes::len).sum()
    }

    /// The message itself again.
    ///
    /// # Errors
    /// When the pieces are no message, which they always are.
    pub fn decode(self) -> Result<RangeResponse, StoreError> {
        let whole = self.0[1..].concat();
        RangeResponse::decode(whole.as_slice()).map_err(|e| StoreError::Internal(e.to_string()))
    }

    /// Lays what was encoded into its response.
    pub fn lay(mut response: Response<Body>) -> Response<Body> {
        let Some(Self(pieces)) = response.extensions_mut().remove::<Self>() else {
            return response;
        };
        let mut end = HeaderMap::new();
        end.insert(tonic::Status::GRPC_STATUS, HeaderValue::from_static("0"));
        let data = pieces.into_iter().map(Frame::data);
        let frames = data.chain([Frame::trailers(end)]);
        let frames = frames.map(Ok::<_, std::convert::Infallible>);
        *response.body_mut() = Body::new(StreamBody::new(stream::iter(frames)));
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pb::etcd::KeyValue;

    #[test]
    fn the_pieces_are_the_message() {
        let kv = |at: i64| KeyValue {
            key: format!("k{at}").into(),
            value: vec![7; 1000].into(),
            version: at,
            ..Default::default()
        };
        let response = RangeResponse {
            header: Some(Default::default()),
            kvs: (0..1000).map(kv).collect(),
            more: true,
            count: 2000,
        };
        let encoded = Encoded::new(response.clone()).unwrap();
        assert_eq!(encoded.clone().decode().unwrap(), response);
        let Encoded(pieces) = encoded;
        assert!(pieces.len() > 3);
        let whole = pieces[1..].concat();
        assert_eq!(pieces[0][1..], (whole.len() as u32).to_be_bytes());
        assert_eq!(RangeResponse::decode(whole.as_slice()).unwrap(), response);
    }
}
