//! etcd's messages, and the few shapes of them that are used.

#[allow(missing_debug_implementations, unreachable_pub, clippy::all, clippy::pedantic)]
mod generated {
    tonic::include_proto!("etcdserverpb");
}

pub(super) use generated::*;

use compare::{CompareResult, CompareTarget, TargetUnion};
use request_op::Request;
use response_op::Response;

/// Holds while `key` was last written at `revision`; 0 = while it is not there.
pub(super) fn unchanged(key: &[u8], revision: i64) -> Compare {
    Compare {
        result: CompareResult::Equal.into(),
        target: CompareTarget::Mod.into(),
        key: key.to_vec().into(),
        target_union: Some(TargetUnion::ModRevision(revision)),
    }
}

pub(super) fn put(key: &[u8], value: Vec<u8>) -> RequestOp {
    put_leased(key, value, 0)
}

pub(super) fn put_leased(key: &[u8], value: Vec<u8>, lease: i64) -> RequestOp {
    let put = PutRequest { key: key.to_vec().into(), value: value.into(), lease };
    RequestOp { request: Some(Request::RequestPut(put)) }
}

pub(super) fn delete(key: &[u8]) -> RequestOp {
    delete_range(key.to_vec(), Vec::new())
}

/// Everything from `from` up to, but without, `to`.
pub(super) fn delete_range(from: Vec<u8>, to: Vec<u8>) -> RequestOp {
    let range = DeleteRangeRequest { key: from.into(), range_end: to.into() };
    RequestOp { request: Some(Request::RequestDeleteRange(range)) }
}

pub(super) fn get(key: &[u8]) -> RequestOp {
    let range = RangeRequest { key: key.to_vec().into(), ..RangeRequest::default() };
    RequestOp { request: Some(Request::RequestRange(range)) }
}

/// The entry that each [`get`] of a transaction found, in their order; other answers are passed over.
pub(super) fn found(answer: &mut TxnResponse) -> Vec<Option<KeyValue>> {
    let ranges = std::mem::take(&mut answer.responses).into_iter().filter_map(|one| match one.response? {
        Response::ResponseRange(range) => Some(range),
        Response::ResponsePut(_) | Response::ResponseDeleteRange(_) => None,
    });
    ranges.map(|range| range.kvs.into_iter().next()).collect()
}

/// The end of the range of all keys that begin with `prefix`; empty bytes of it never occur here.
pub(super) fn prefix_end(prefix: &[u8]) -> Vec<u8> {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if last < 0xff {
            end.push(last + 1);
            return end;
        }
    }
    // All keys.
    vec![0]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_ends_where_the_next_one_begins() {
        assert_eq!(prefix_end(b"a/"), b"a0");
        assert_eq!(prefix_end(b"a\xff\xff"), b"b");
        assert_eq!(prefix_end(b"\xff"), b"\0");
    }
}
