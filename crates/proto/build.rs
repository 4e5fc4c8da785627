//! Compiles the `.proto` files with `protox`, so that building needs no `protoc`.

use std::error::Error;

const FILES: [&str; 3] = ["etcd/kv.proto", "etcd/rpc.proto", "kvraft/v1/session.proto"];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=proto");
    let descriptors = protox::compile(FILES, ["proto"])?;
    tonic_prost_build::configure().bytes(".").compile_fds(descriptors)?;
    Ok(())
}
