//! Compiles our protobuf files without `protoc` (protox); keys and values become `Bytes`.
//!
//! In a `WatchResponse` events become `Bytes`, too: on the wire a message and bytes are the same, and this way one that was
//! encoded once goes out to every watcher. `kvstore::pb` reads them.

use prost::Message;

/// `google.protobuf.FieldDescriptorProto.Type`.
const TYPE_BYTES: i32 = 12;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let root = "../proto";
    let files = [
        "kvstore/pb/auth.proto",
        "kvstore/pb/rpc.proto",
        "kvstore/pb/lock.proto",
        "kvstore/pb/election.proto",
        "kvstore/pb/health.proto",
        "kvstore/pb/peer.proto",
    ];
    let mut set = protox::compile(files.iter().map(|f| format!("{root}/{f}")), [root])?;
    // For the JSON gateway, which reads messages by their descriptions.
    let out = std::path::PathBuf::from(std::env::var("OUT_DIR")?);
    std::fs::write(out.join("api.bin"), set.encode_to_vec())?;
    let messages = set.file.iter_mut().flat_map(|file| &mut file.message_type);
    let responses = messages.filter(|message| message.name() == "WatchResponse");
    for field in responses.flat_map(|message| &mut message.field) {
        if field.name() == "events" {
            (field.r#type, field.type_name) = (Some(TYPE_BYTES), None);
        }
    }
    tonic_prost_build::configure().bytes(".").compile_fds(set)?;
    println!("cargo:rerun-if-changed={root}/kvstore/pb");
    Ok(())
}
