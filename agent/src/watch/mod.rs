//! What a seat's files say while it runs.

pub mod checkpoints;
pub mod engine;
pub mod evidence;
pub mod hang;
pub mod tail;
pub mod trainlog;
