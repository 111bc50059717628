//! The ground: owned tasks and their stop order, TLS, channels, tracing.
