//! `kvstore._core`, the store and its native client for Python. PyO3: translation only.

mod client;
mod snapshot;
mod tls;
mod values;

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

use kvstore::member;
use kvstore::report;

/// Runs a member until SIGTERM or SIGINT, without the GIL, and returns the exit code; its log says why it is not 0.
/// Settings that can't be read or make no sense are a ValueError, a sentence for whoever gave them.
#[pyfunction]
fn serve(py: Python<'_>, config_json: &str, warnings: Vec<String>) -> PyResult<u8> {
    py.detach(|| member::run(config_json, &warnings))
        .map_err(|error| PyValueError::new_err(error.to_string()))
}

#[pymodule]
fn _core(module: &Bound<'_, PyModule>) -> PyResult<()> {
    // Of what a client says too: it has no settings for it.
    report::attend("kvstore");
    module.add_class::<crate::client::NativeClient>()?;
    module.add_function(wrap_pyfunction!(serve, module)?)?;
    module.add_function(wrap_pyfunction!(snapshot::snapshot_restore, module)?)?;
    module.add_function(wrap_pyfunction!(snapshot::snapshot_status, module)?)?;
    module.add_function(wrap_pyfunction!(snapshot::snapshot_save, module)?)?;
    Ok(())
}
