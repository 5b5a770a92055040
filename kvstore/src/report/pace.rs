//! How often a line is written that others can bring about at will: so many in a stretch of time, and the first of the
//! next stretch tells how many were left out.

use std::sync::Mutex;
use std::time::{Duration, Instant};

/// Lines in a stretch.
const LINES: u32 = 10;
const STRETCH: Duration = Duration::from_secs(10);

/// The pace of one kind of lines.
#[derive(Debug)]
pub struct Pace(Mutex<State>);

#[derive(Debug)]
struct State {
    since: Option<Instant>,
    written: u32,
    left_out: u64,
}

impl Default for Pace {
    fn default() -> Self {
        Self::new()
    }
}

impl Pace {
    #[must_use]
    pub const fn new() -> Self {
        Self(Mutex::new(State {
            since: None,
            written: 0,
            left_out: 0,
        }))
    }

    /// Whether a line may be written now, and how many were left out since the last one.
    pub fn turn(&self) -> Option<u64> {
        self.turn_at(Instant::now())
    }

    fn turn_at(&self, now: Instant) -> Option<u64> {
        let mut state = self.0.lock().ok()?;
        let over = |since: Instant| now.duration_since(since) >= STRETCH;
        if state.since.is_none_or(over) {
            state.since = Some(now);
            state.written = 0;
        }
        if state.written == LINES {
            state.left_out += 1;
            return None;
        }
        state.written += 1;
        Some(std::mem::take(&mut state.left_out))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stretch_has_so_many_lines_and_the_next_tells_what_was_left_out() {
        let (pace, began) = (Pace::new(), Instant::now());
        let in_first = || {
            (0..1000)
                .filter_map(|_| pace.turn_at(began))
                .collect::<Vec<_>>()
        };
        assert_eq!(in_first(), [0; LINES as usize]);
        assert_eq!(pace.turn_at(began + STRETCH / 2), None);
        assert_eq!(pace.turn_at(began + STRETCH), Some(991));
        assert_eq!(pace.turn_at(began + STRETCH), Some(0));
    }
}
