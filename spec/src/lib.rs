//! The user's file: YAML or JSON in, a checked spec and exact command lines out.
