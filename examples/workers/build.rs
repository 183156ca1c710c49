//! Compiles the protocol of stockade-reapi, without protoc.

use std::error::Error;

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=proto");
    let files = ["execution.proto", "workers.proto", "bytestream.proto", "operations.proto", "rpc.proto"];
    let files = protox::compile(files, ["proto"])?;
    // Servers are for tests, which have no server to install.
    tonic_prost_build::configure().bytes(".google.bytestream").compile_fds(files)?;
    Ok(())
}
