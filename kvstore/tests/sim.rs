//! Members, network, disks and clients in one thread from one seed: what clients and watchers saw must be what one copy
//! of the store would have shown them.
//!
//! `SIM_SEEDS=n` runs n seeds, from 1 on or from `SIM_SEED`, with `SIM_FRESH=1` from one that no run had before; a failure
//! names its seed, and `SIM_SEED=s SIM_SEEDS=1` repeats it.

#[path = "../sim/mod.rs"]
mod sim;

use std::time::{SystemTime, UNIX_EPOCH};

use sim::hunt::{run, run_all};

/// Few enough for every run of the tests.
const SEEDS: u64 = 12;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

fn threads() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// Where seeds begin that were never run: no two runs begin within a microsecond of another's seeds.
fn fresh() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.map_or(1, |since| since.as_micros() as u64)
}

#[test]
fn clients_see_one_copy_whatever_fails() {
    let first = match number("SIM_FRESH") {
        Some(1) => fresh(),
        _ => number("SIM_SEED").unwrap_or(1),
    };
    let seeds = number("SIM_SEEDS").unwrap_or(SEEDS);
    println!("{seeds} seeds from {first} on");
    let began = std::time::Instant::now();
    let (sum, done, failure) = run_all(first, seeds, threads());
    println!(
        "{done} seeds in {:.1} s: {sum:?}",
        began.elapsed().as_secs_f64()
    );
    if let Some(failure) = failure {
        panic!(
            "seed {0} fails: {1}\nrepeat it: SIM_SEED={0} SIM_SEEDS=1 cargo test --release -p kvstore --test sim -- --nocapture",
            failure.seed, failure.why
        );
    }
    // What never happened proves nothing.
    for (name, count) in [
        ("elections", sum.elections),
        ("conf_changes", sum.conf_changes),
        ("snapshots", sum.snapshots),
        ("defragmentations", sum.defragmentations),
        ("compactions", sum.compactions),
        ("leases_expired", sum.leases_expired),
        ("renewals", sum.renewals),
        ("watches_denied", sum.watches_denied),
    ] {
        assert!(count > 0 || seeds < SEEDS, "no {name} in {sum:?}");
    }
}

#[test]
fn a_seed_gives_the_same_run_again() {
    let seed = number("SIM_SEED").unwrap_or(1);
    let (once, again) = (run(seed).unwrap(), run(seed).unwrap());
    assert_eq!(once, again);
}

/// Looks for every planted bug: `make sim-bugs`.
#[cfg(feature = "planted-bugs")]
#[test]
fn planted_bugs_are_found() {
    use std::sync::Mutex;

    use kvstore::planted::{plant, Bug};

    /// In so many seeds each must be found.
    const MOST_SEEDS: u64 = 1_000;
    // A unit test is there for what no seed finds.
    let wanted = Bug::ALL
        .into_iter()
        .filter(|bug| *bug != Bug::LoneVoterSpeaksEarly);
    let left: Vec<Bug> = wanted.rev().collect();
    let (left, missed) = (Mutex::new(left), Mutex::new(Vec::new()));
    let look = || loop {
        let Some(bug) = left.lock().unwrap().pop() else {
            return;
        };
        plant(Some(bug));
        let found = (1..=MOST_SEEDS).find_map(|seed| run(seed).err());
        plant(None);
        match found {
            Some(failure) => {
                let what = failure.why.lines().nth(1).unwrap_or_default();
                let what: String = what.chars().take(100).collect();
                println!("{bug:?} is found at seed {}: {what}", failure.seed);
            }
            None => missed.lock().unwrap().push(bug),
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..threads() {
            scope.spawn(look);
        }
    });
    let missed = missed.into_inner().unwrap();
    assert!(
        missed.is_empty(),
        "not found within {MOST_SEEDS} seeds: {missed:?}"
    );
}
