//! A model's config.json: what is let through can be counted with.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(config) = convert::config::Config::parse("config.json".into(), bytes.to_vec()) {
        let _ = convert::config::is_countable(&config.shape);
    }
});
