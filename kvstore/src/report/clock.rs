//! The time of a line: local, as etcd writes it in JSON, and as `fleetd` writes it in text.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// A moment by the wall clock, in local time.
#[derive(Debug, Clone, Copy)]
pub(super) struct Moment {
    year: i32,
    month: i32,
    day: i32,
    hour: i32,
    minute: i32,
    second: i32,
    micros: u32,
    /// Minutes that the place is ahead of UTC.
    ahead: i64,
}

impl Moment {
    pub fn now() -> Self {
        Self::before(Duration::ZERO)
    }

    /// So long ago.
    pub fn before(time: Duration) -> Self {
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default()
            .saturating_sub(time);
        let seconds = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
        Self::at(seconds, now.subsec_micros())
    }

    fn at(seconds: libc::time_t, micros: u32) -> Self {
        // SAFETY: all zero is a valid `tm`; localtime_r writes only to it, and reads `seconds` only.
        let tm = unsafe {
            let mut tm = std::mem::zeroed();
            libc::localtime_r(&raw const seconds, &raw mut tm);
            tm
        };
        Self {
            year: tm.tm_year + 1900,
            month: tm.tm_mon + 1,
            day: tm.tm_mday,
            hour: tm.tm_hour,
            minute: tm.tm_min,
            second: tm.tm_sec,
            micros,
            ahead: tm.tm_gmtoff / 60,
        }
    }

    /// `2026-11-24T12:06:57.123456+0100`, with `Z` in UTC.
    pub fn zap(&self) -> String {
        let zone = match self.ahead {
            0 => "Z".to_owned(),
            ahead => {
                let sign = if ahead < 0 { '-' } else { '+' };
                let ahead = ahead.abs();
                format!("{sign}{:02}{:02}", ahead / 60, ahead % 60)
            }
        };
        let (date, time) = (self.date(), self.time());
        format!("{date}T{time}.{:06}{zone}", self.micros)
    }

    /// `2026-11-24 12:06:57,123`, as Python's `logging` has it.
    pub fn python(&self) -> String {
        let (date, time) = (self.date(), self.time());
        format!("{date} {time},{:03}", self.micros / 1000)
    }

    fn date(&self) -> String {
        format!("{:04}-{:02}-{:02}", self.year, self.month, self.day)
    }

    fn time(&self) -> String {
        format!("{:02}:{:02}:{:02}", self.hour, self.minute, self.second)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_is_written_in_both_ways() {
        let mut moment = Moment {
            year: 2026,
            month: 3,
            day: 4,
            hour: 5,
            minute: 6,
            second: 7,
            micros: 8_009,
            ahead: 0,
        };
        assert_eq!(moment.python(), "2026-03-04 05:06:07,008");
        for (ahead, text) in [
            (0, "2026-03-04T05:06:07.008009Z"),
            (90, "2026-03-04T05:06:07.008009+0130"),
            (-210, "2026-03-04T05:06:07.008009-0330"),
        ] {
            moment.ahead = ahead;
            assert_eq!(moment.zap(), text);
        }
        assert!(Moment::at(1_795_521_624, 0)
            .python()
            .starts_with("2026-11-2"));
    }
}
