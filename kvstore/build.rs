//! Compiles our protobuf files without `protoc` (protox); keys and values become `Bytes`.

use prost::Message;

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
    let set = protox::compile(files.iter().map(|f| format!("{root}/{f}")), [root])?;
    // For the JSON gateway, which reads messages by their descriptions.
    let out = std::path::PathBuf::from(std::env::var("OUT_DIR")?);
    std::fs::write(out.join("api.bin"), set.encode_to_vec())?;
    tonic_prost_build::configure().bytes(".").compile_fds(set)?;
    println!("cargo:rerun-if-changed={root}/kvstore/pb");
    Ok(())
}
