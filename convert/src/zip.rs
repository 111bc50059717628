//! The part of the zip format that torch checkpoints use: stored entries only.
//!
//! Format: PKWARE's APPNOTE 6.3; alignment and descriptors as torch's writer has them.

pub mod read;
pub mod write;

pub use read::Archive;
pub use write::Writer;

const LOCAL: u32 = 0x0403_4b50;
const CENTRAL: u32 = 0x0201_4b50;
const DESCRIPTOR: u32 = 0x0807_4b50;
const END: u32 = 0x0605_4b50;
const END64: u32 = 0x0606_4b50;
const LOCATOR64: u32 = 0x0706_4b50;

/// Values from here on need the 64-bit records.
const LARGE: u64 = 0xffff_ffff;
