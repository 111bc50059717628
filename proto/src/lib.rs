//! The wire: generated code, and the one door between it and the model.
//!
//! Knows no socket and no certificate: only what messages mean.

pub mod codec;
pub mod convert;

/// Generated from `qctl/v1/*.proto`.
#[allow(missing_debug_implementations, unreachable_pub, clippy::all, clippy::pedantic)]
pub mod v1 {
    tonic::include_proto!("qctl.v1");
}

/// The compiled descriptors, for the reflection service.
pub const DESCRIPTOR: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/qctl_descriptor.bin"));
