//! How long clients' calls take, from the request to the end of the answer, where that is measured.

use std::time::Instant;

use super::calls::Place;
use crate::handle::Handle;
use crate::listen::UnderWay;

/// A call; it is over when this goes, be it answered or given up.
struct Timed {
    handle: Handle,
    place: Place,
    since: Instant,
}

impl Drop for Timed {
    fn drop(&mut self) {
        self.handle.calls().took(self.place, self.since.elapsed());
    }
}

/// Counts a call that begins.
pub fn begin(handle: &Handle, path: &str) -> Option<UnderWay> {
    let place = handle.calls().start(path)?;
    let handle = handle.clone();
    Some(Box::new(Timed {
        handle,
        place,
        since: Instant::now(),
    }))
}
