//! Compiles our protobuf files without `protoc` (protox); keys and values become `Bytes`.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let root = "../proto";
    let files = [
        "kvstore/pb/auth.proto",
        "kvstore/pb/rpc.proto",
        "kvstore/pb/peer.proto",
    ];
    let set = protox::compile(files.iter().map(|f| format!("{root}/{f}")), [root])?;
    tonic_prost_build::configure().bytes(".").compile_fds(set)?;
    println!("cargo:rerun-if-changed={root}/kvstore/pb");
    Ok(())
}
