//! Who may come, and who may not.

use prost::Message;

#[derive(Clone, PartialEq, Message)]
pub(in crate::record) struct Token {
    #[prost(string, tag = "1")]
    pub role: String,
    #[prost(string, tag = "2")]
    pub name: String,
    #[prost(string, tag = "3")]
    pub by: String,
    #[prost(uint64, tag = "4")]
    pub made: u64,
    #[prost(uint64, tag = "5")]
    pub expires: u64,
}

#[derive(Clone, PartialEq, Message)]
pub(in crate::record) struct Certificate {
    #[prost(string, tag = "1")]
    pub role: String,
    #[prost(string, tag = "2")]
    pub name: String,
    #[prost(uint64, tag = "3")]
    pub known: u64,
    #[prost(uint64, tag = "4")]
    pub expires: u64,
    #[prost(message, optional, tag = "5")]
    pub revoked: Option<Revocation>,
}

#[derive(Clone, PartialEq, Message)]
pub(in crate::record) struct Revocation {
    #[prost(string, tag = "1")]
    pub by: String,
    #[prost(uint64, tag = "2")]
    pub at: u64,
    #[prost(string, tag = "3")]
    pub reason: String,
}
