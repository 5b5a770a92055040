//! Lines for the log: standard error, each behind the wall-clock time as `fleetd` writes it, so that both can be read
//! side by side.

use std::fmt;
use std::time::{SystemTime, UNIX_EPOCH};

/// Writes one line for the log; takes what `format!` takes.
#[macro_export]
macro_rules! report {
    ($($what:tt)*) => { $crate::report::line(format_args!($($what)*)) };
}

/// Writes `text` behind the time now. A log that can't be written stops nobody.
pub fn line(text: fmt::Arguments<'_>) {
    use std::io::Write;
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    let seconds = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
    let _ = writeln!(
        std::io::stderr(),
        "{},{:03} {text}",
        local(seconds),
        now.subsec_millis()
    );
}

/// Local time, `2026-11-24 12:06:57`.
fn local(seconds: libc::time_t) -> String {
    // SAFETY: all zero is a valid `tm`; localtime_r writes only to it, and reads `seconds` only.
    let tm = unsafe {
        let mut tm = std::mem::zeroed();
        libc::localtime_r(&raw const seconds, &raw mut tm);
        tm
    };
    let (year, month) = (tm.tm_year + 1900, tm.tm_mon + 1);
    format!(
        "{year:04}-{month:02}-{:02} {:02}:{:02}:{:02}",
        tm.tm_mday, tm.tm_hour, tm.tm_min, tm.tm_sec
    )
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_time_is_written_as_python_does() {
        let text = super::local(1_795_521_624);
        let shape: String = text
            .chars()
            .map(|c| if c.is_ascii_digit() { '0' } else { c })
            .collect();
        assert_eq!(shape, "0000-00-00 00:00:00");
        assert!(text.starts_with("2026-11-2"), "{text}");
    }
}
