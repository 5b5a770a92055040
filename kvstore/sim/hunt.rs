//! Many seeds, on all cores, until one fails.

use std::cell::{Cell, RefCell};
use std::panic::{catch_unwind, set_hook, take_hook};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, Once, PoisonError};
use std::time::{Duration, Instant};

use super::world::{Summary, World, LEAST_FAULTS, LEAST_OPERATIONS};

/// How often a long run says how far it is.
const TELL_EVERY: Duration = Duration::from_secs(10);

/// A seed that failed, and what it said.
#[derive(Debug)]
pub struct Failure {
    pub seed: u64,
    pub why: String,
}

thread_local! {
    static CATCHING: Cell<bool> = const { Cell::new(false) };
    static WHY: RefCell<String> = const { RefCell::new(String::new()) };
}

/// Has panics of a seed be kept instead of told; others are told as ever.
fn keep_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let tell = take_hook();
        set_hook(Box::new(move |info| {
            if CATCHING.get() {
                WHY.replace(info.to_string());
            } else {
                tell(info);
            }
        }));
    });
}

/// Runs one seed.
///
/// # Errors
/// What did not hold.
pub fn run(seed: u64) -> Result<Summary, Failure> {
    keep_panics();
    CATCHING.set(true);
    let result = catch_unwind(|| World::new(seed).run());
    CATCHING.set(false);
    let failed = |_| Failure {
        seed,
        why: WHY.take(),
    };
    let summary = result.map_err(failed)?;
    assert!(summary.operations >= LEAST_OPERATIONS && summary.faults >= LEAST_FAULTS);
    Ok(summary)
}

/// Runs so many seeds from `first` on, on so many threads, and tells how it goes if it takes long; what was done until
/// the first failure, if there was one.
pub fn run_all(first: u64, seeds: u64, threads: usize) -> (Summary, u64, Option<Failure>) {
    let (next, done) = (AtomicU64::new(0), AtomicU64::new(0));
    let sum = Mutex::new((Summary::default(), None::<Failure>));
    let lock = || sum.lock().unwrap_or_else(PoisonError::into_inner);
    let began = Instant::now();
    let told = Mutex::new(began);
    let work = || loop {
        let number = next.fetch_add(1, Ordering::Relaxed);
        if number >= seeds || lock().1.is_some() {
            return;
        }
        match run(first.wrapping_add(number)) {
            Ok(summary) => lock().0.add(&summary),
            Err(failure) => {
                lock().1.get_or_insert(failure);
                return;
            }
        }
        let done = done.fetch_add(1, Ordering::Relaxed) + 1;
        let mut told = told.lock().unwrap_or_else(PoisonError::into_inner);
        if told.elapsed() > TELL_EVERY {
            *told = Instant::now();
            let minutes = began.elapsed().as_secs_f64() / 60.0;
            let (operations, faults) = {
                let sum = lock();
                (sum.0.operations, sum.0.faults)
            };
            println!(
                "{done} of {seeds} seeds, {:.0} a minute; {operations} operations, {faults} faults",
                done as f64 / minutes
            );
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(work);
        }
    });
    let (summary, failure) = sum.into_inner().unwrap_or_else(PoisonError::into_inner);
    (summary, done.into_inner(), failure)
}
