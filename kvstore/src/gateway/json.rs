//! Messages as JSON: protobuf's own mapping, with fields named as in the `.proto` files, and defaults left out.

use bytes::Bytes;
use prost::Message;
use prost_reflect::{DeserializeOptions, DynamicMessage, MessageDescriptor, SerializeOptions};
use tonic::Status;

/// Messages from this size on are worked on aside: they would hold up everyone else on the reactor's thread.
const LARGE_BYTES: usize = 64 << 10;

/// A message from its JSON, what follows that is not looked at; nothing but spaces is the message without fields.
///
/// # Errors
/// `INVALID_ARGUMENT`, when it is not JSON, or of another kind. Fields that are not known are no error.
pub async fn decode(kind: MessageDescriptor, json: Bytes) -> Result<Bytes, Status> {
    if json.trim_ascii().is_empty() {
        return Ok(Bytes::new());
    }
    let bytes = json.len();
    aside(bytes, move || {
        let mut reader = serde_json::Deserializer::from_slice(&json);
        let options = DeserializeOptions::new().deny_unknown_fields(false);
        let message = DynamicMessage::deserialize_with_options(kind, &mut reader, &options);
        let message = message.map_err(|error| {
            Status::invalid_argument(if error.is_eof() {
                "unexpected EOF".to_owned()
            } else {
                format!("proto: {error}")
            })
        })?;
        Ok(message.encode_to_vec().into())
    })
    .await
}

/// A message's JSON, between `before` and `after`.
///
/// # Errors
/// `INTERNAL`, when it is no such message.
pub async fn encode(
    kind: MessageDescriptor,
    message: Bytes,
    before: &'static str,
    after: &'static str,
) -> Result<Bytes, Status> {
    let bytes = message.len();
    aside(bytes, move || {
        let internal = |error: &dyn std::fmt::Display| Status::internal(error.to_string());
        let message = DynamicMessage::decode(kind, message).map_err(|e| internal(&e))?;
        let mut json = Vec::with_capacity(2 * bytes + before.len() + after.len());
        json.extend_from_slice(before.as_bytes());
        let options = SerializeOptions::new()
            .use_proto_field_name(true)
            .skip_default_fields(true);
        let mut writer = serde_json::Serializer::new(&mut json);
        message
            .serialize_with_options(&mut writer, &options)
            .map_err(|e| internal(&e))?;
        json.extend_from_slice(after.as_bytes());
        Ok(json.into())
    })
    .await
}

/// A status as the gateway tells it.
pub fn error(status: &Status) -> String {
    let code = status.code() as i32;
    if status.message().is_empty() {
        return format!("{{\"code\":{code}}}");
    }
    let message = serde_json::Value::from(status.message());
    format!("{{\"code\":{code},\"message\":{message}}}")
}

async fn aside<T: Send + 'static>(
    bytes: usize,
    work: impl FnOnce() -> Result<T, Status> + Send + 'static,
) -> Result<T, Status> {
    if bytes < LARGE_BYTES {
        return work();
    }
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|error| Err(Status::internal(error.to_string())))
}
