//! Compiles the .proto files in pure Rust, and keeps their descriptor for reflection.

use std::error::Error;
use std::path::PathBuf;

use prost::Message as _;

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=qctl");
    let set = protox::compile(["qctl/v1/agents.proto", "qctl/v1/jobs.proto"], ["."])?;
    let out = PathBuf::from(std::env::var("OUT_DIR")?).join("qctl_descriptor.bin");
    std::fs::write(out, set.encode_to_vec())?;
    tonic_prost_build::configure()
        .bytes(".qctl.v1.LogChunk.data")
        .bytes(".qctl.v1.LogBatch.data")
        .codec_path("crate::codec::Small")
        .compile_fds(set)?;
    Ok(())
}
