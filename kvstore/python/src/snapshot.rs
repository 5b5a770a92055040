//! Snapshots for Python; each call blocks, without the GIL.

use std::path::PathBuf;

use pyo3::exceptions::{PyRuntimeError, PyValueError};
use pyo3::prelude::*;
use tonic::{Code, Status};

use crate::client::runtime;
use crate::tls::Tls;
use kvstore::client::login::Login;
use kvstore::config::Config;
use kvstore::member::{self, StartError};
use kvstore::{client, etcd_file};

/// Makes a member's data directory from a snapshot; bad settings are a ValueError, anything else a RuntimeError.
#[pyfunction]
pub fn snapshot_restore(
    py: Python<'_>,
    path: PathBuf,
    config_json: &str,
    skip_hash_check: bool,
) -> PyResult<PathBuf> {
    py.detach(|| {
        let config = Config::parse(config_json)?;
        member::restore(&config, &path, skip_hash_check)
    })
    .map_err(|error| match error {
        StartError::Config(_) => PyValueError::new_err(error.to_string()),
        _ => PyRuntimeError::new_err(error.to_string()),
    })
}

/// Hash, revision, records and bytes of a snapshot; a RuntimeError when it is damaged.
#[pyfunction]
pub fn snapshot_status(
    py: Python<'_>,
    path: PathBuf,
    skip_hash_check: bool,
) -> PyResult<(u32, i64, u64, u64)> {
    py.detach(|| {
        let found = etcd_file::status(&etcd_file::open(&path, skip_hash_check)?)?;
        Ok((
            found.hash,
            found.revision,
            found.total_keys,
            found.total_bytes,
        ))
    })
    .map_err(|error: etcd_file::EtcdFileError| PyRuntimeError::new_err(error.to_string()))
}

/// Saves one member's state; `progress` is called with bytes come and bytes in all, and what it raises ends it.
#[pyfunction]
#[pyo3(signature = (endpoint, path, progress, tls=None, login=None))]
pub fn snapshot_save(
    py: Python<'_>,
    endpoint: &str,
    path: PathBuf,
    progress: Py<PyAny>,
    tls: Option<Tls>,
    login: Option<(String, String)>,
) -> PyResult<u64> {
    let login = login.map(Login::of).transpose();
    let login = login.map_err(|error| PyValueError::new_err(error.message().to_owned()))?;
    let mut raised = None;
    let tell = |done: u64, all: u64| {
        Python::attach(|py| {
            py.check_signals()?;
            progress.call1(py, (done, all))?;
            Ok(())
        })
        .map_err(|error: PyErr| {
            raised = Some(error);
            Status::new(Code::Cancelled, "interrupted")
        })
    };
    let runtime = runtime()?;
    let saved = py.detach(|| {
        runtime.block_on(client::snapshot::save(
            endpoint,
            tls.map(Into::into),
            login,
            &path,
            tell,
        ))
    });
    saved.map_err(|status| {
        raised.unwrap_or_else(|| PyRuntimeError::new_err(status.message().to_owned()))
    })
}
