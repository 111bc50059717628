//! The wire: the .proto files, the generated code, and the one door between it and the model.
