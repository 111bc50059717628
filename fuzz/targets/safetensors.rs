//! A safetensors file: every tensor that is let through lies in the file and has its bytes to itself.
#![no_main]

use std::path::Path;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Ok(header) = convert::safetensors::Header::parse(Path::new("model.safetensors"), bytes) else { return };
    let mut end = header.length;
    for tensor in &header.tensors {
        assert_eq!(tensor.range.start, end, "{tensor:?}");
        end = tensor.range.end;
    }
    assert!(header.tensors.is_empty() || end == bytes.len());
});
