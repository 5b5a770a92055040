//! `kvstore._core`, the store and its native client for Python. PyO3: translation only.

mod client;
mod snapshot;
mod tls;
mod values;

use pyo3::exceptions::{PyRuntimeError, PyValueError};
use pyo3::prelude::*;

use kvstore::member::{self, StartError};

/// Runs a member until SIGTERM or SIGINT, without the GIL; bad settings are a ValueError, anything else a RuntimeError.
#[pyfunction]
fn serve(py: Python<'_>, config_json: &str) -> PyResult<()> {
    py.detach(|| member::run(config_json))
        .map_err(|error| match error {
            StartError::Config(_) => PyValueError::new_err(error.to_string()),
            _ => PyRuntimeError::new_err(error.to_string()),
        })
}

#[pymodule]
fn _core(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<crate::client::NativeClient>()?;
    module.add_function(wrap_pyfunction!(serve, module)?)?;
    module.add_function(wrap_pyfunction!(snapshot::snapshot_restore, module)?)?;
    module.add_function(wrap_pyfunction!(snapshot::snapshot_status, module)?)?;
    module.add_function(wrap_pyfunction!(snapshot::snapshot_save, module)?)?;
    Ok(())
}
