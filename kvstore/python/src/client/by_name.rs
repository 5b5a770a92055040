//! Methods that Python names, with messages that it has encoded.

use bytes::Bytes;
use pyo3::PyResult;

use super::{refused, NativeClient};
use crate::values::Answer;
use kvstore::client::{raw, Retry};

impl NativeClient {
    pub(super) fn call_raw(
        &self,
        method: &str,
        request: &[u8],
        repeats: bool,
        endpoint: Option<String>,
    ) -> PyResult<u64> {
        let path = raw::path(method).map_err(|error| refused(&error))?;
        let request = Bytes::copy_from_slice(request);
        let client = self.client.clone();
        let limits = client.limits();
        let retry = if repeats { Retry::Safe } else { Retry::Unsent };
        self.start(async move {
            limits.admit_bytes(request.len())?;
            let answer = match endpoint {
                Some(endpoint) => client.ask_raw(&endpoint, path, request).await,
                None => {
                    let call =
                        |channel, request| raw::unary(channel, path.clone(), request, limits);
                    client.call(retry, request, call).await
                }
            };
            answer.map(Answer::Raw)
        })
    }

    pub(super) fn gather_raw(&self, method: &str, request: &[u8]) -> PyResult<u64> {
        let path = raw::path(method).map_err(|error| refused(&error))?;
        let request = Bytes::copy_from_slice(request);
        let client = self.client.clone();
        let limits = client.limits();
        self.start(async move {
            limits.admit_bytes(request.len())?;
            let call = |channel, request| raw::gathered(channel, path.clone(), request, limits);
            // Not asked elsewhere meanwhile: how long all of a stream takes nobody knows.
            client
                .call(Retry::Unsent, request, call)
                .await
                .map(Answer::Raw)
        })
    }
}
