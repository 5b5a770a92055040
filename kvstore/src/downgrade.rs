//! Going back to the release before, as the cluster agrees on it (etcd's downgrade job): what is told while it is under way.
//!
//! Only told: this program goes on as it is. With it a client that leads an etcd through a downgrade gets etcd's answers.

use std::fmt;

use crate::errors::StoreError;

/// A release without its patches, such as 3.7.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Release {
    pub major: u64,
    pub minor: u64,
}

/// The release whose API this is.
pub const CURRENT: Release = Release { major: 3, minor: 7 };

impl Release {
    /// The release that a version is of: `3.6`, `3.6.1` or `3.6.1-rc.1+build`.
    ///
    /// # Errors
    /// `WrongDowngradeVersionFormat`.
    pub fn parse(text: &str) -> Result<Self, StoreError> {
        let wrong = || StoreError::WrongDowngradeVersionFormat;
        let bare = text.split(['-', '+']).next().unwrap_or("");
        let number = |part: &str| -> Result<u64, StoreError> {
            let plain = !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
            let number = part.parse::<i64>().ok().filter(|_| plain);
            number.and_then(|n| n.try_into().ok()).ok_or_else(wrong)
        };
        let parts: Vec<&str> = bare.split('.').collect();
        match parts[..] {
            [major, minor] if bare == text => Ok(Self {
                major: number(major)?,
                minor: number(minor)?,
            }),
            [major, minor, patch] => {
                number(patch)?;
                Ok(Self {
                    major: number(major)?,
                    minor: number(minor)?,
                })
            }
            _ => Err(wrong()),
        }
    }

    /// The one that a cluster of this release may go back to.
    #[must_use]
    pub fn before(self) -> Option<Self> {
        let minor = self.minor.checked_sub(1)?;
        Some(Self { minor, ..self })
    }

    /// As a version.
    #[must_use]
    pub fn version(self) -> String {
        format!("{self}.0")
    }
}

impl fmt::Display for Release {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

/// The job that is under way, if any.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Downgrade(pub Option<Release>);

impl Downgrade {
    /// The cluster's release as it is told.
    #[must_use]
    pub fn cluster(self) -> Release {
        self.0.unwrap_or(CURRENT)
    }

    /// Says whether a job to `target` may begin.
    ///
    /// # Errors
    /// etcd's.
    pub fn check(self, target: Release) -> Result<(), StoreError> {
        if self.cluster().before() != Some(target) {
            return Err(StoreError::InvalidDowngradeTarget);
        }
        if self.0.is_some() {
            return Err(StoreError::DowngradeInProcess);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_as_etcd_reads_them() {
        let release = |major, minor| Ok(Release { major, minor });
        for (text, expected) in [
            ("3.6", release(3, 6)),
            ("3.6.0", release(3, 6)),
            ("3.6.12", release(3, 6)),
            ("3.6.1-rc.1+x", release(3, 6)),
            ("03.06.0", release(3, 6)),
        ] {
            assert_eq!(Release::parse(text), expected, "{text}");
        }
        for text in [
            "",
            "3",
            "v3.6.0",
            "3.6.x",
            "3.6.0.0",
            "-3.6.0",
            "3.-6.0",
            "3.99999999999999999999.0",
        ] {
            let refused = Err(StoreError::WrongDowngradeVersionFormat);
            assert_eq!(Release::parse(text), refused, "{text}");
        }
    }

    #[test]
    fn a_cluster_goes_back_by_one_release_at_a_time() {
        let release = |minor| Release { major: 3, minor };
        let at_rest = Downgrade::default();
        assert_eq!(at_rest.check(release(6)), Ok(()));
        for minor in [5, 7, 8] {
            let refused = Err(StoreError::InvalidDowngradeTarget);
            assert_eq!(at_rest.check(release(minor)), refused);
        }
        let under_way = Downgrade(Some(release(6)));
        assert_eq!(under_way.cluster().version(), "3.6.0");
        assert_eq!(
            under_way.check(release(5)),
            Err(StoreError::DowngradeInProcess)
        );
        assert_eq!(
            under_way.check(release(6)),
            Err(StoreError::InvalidDowngradeTarget)
        );
    }
}
