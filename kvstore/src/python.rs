//! PyO3: translation only.

use pyo3::prelude::*;

#[pymodule]
fn _core(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<crate::python_client::NativeClient>()?;
    Ok(())
}
