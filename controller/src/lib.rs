//! The server: gRPC in, planner, store, effects out.
//!
//! Knows who is connected and what was said; what should happen is the
//! planner's choice, and what is remembered the store's.

mod access;
pub mod api;
mod assignment;
mod audit;
pub mod changes;
pub mod compile;
pub mod driver;
mod ids;
mod lines;
pub mod lock;
pub mod logs;
pub mod memory;
mod renewal;
pub mod server;
pub mod sessions;
#[cfg(test)]
mod testing;
mod view;
