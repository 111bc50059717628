//! A model's config.json: what is let through can be counted with.

pub(crate) fn run(bytes: &[u8]) {
    if let Ok(config) = convert::config::Config::parse("config.json".into(), bytes.to_vec()) {
        let _ = convert::config::is_countable(&config.shape);
    }
}
