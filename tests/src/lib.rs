//! Whole stories: real binaries driven from outside.
