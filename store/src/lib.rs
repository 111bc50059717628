//! The memory: one small trait and its makes, with records that old versions stay readable in.
