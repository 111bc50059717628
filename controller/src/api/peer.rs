//! The call that a request belongs to.

use tonic::{Request, Status};

use crate::access::Call;

/// The call as the gate admitted it.
pub(crate) fn call<T>(request: &Request<T>) -> Result<Call, Status> {
    let call = request.extensions().get::<Call>().cloned();
    call.ok_or_else(|| Status::unauthenticated("the call did not come through the gate"))
}

/// The caller's name: a user's, or a node's id.
pub(crate) fn name<T>(request: &Request<T>) -> Result<String, Status> {
    Ok(call(request)?.caller()?.name.clone())
}
