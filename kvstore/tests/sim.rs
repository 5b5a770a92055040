//! Members, network, disks and clients in one thread from one seed; what clients saw must be linearizable.
//!
//! `SIM_SEEDS=n` runs n seeds from `SIM_SEED` (or 1) on; a failure names its seed, and `SIM_SEED=s SIM_SEEDS=1` repeats it.

#[path = "../sim/checker.rs"]
mod checker;
#[path = "../sim/disk.rs"]
mod disk;
#[path = "../sim/machine.rs"]
mod machine;
#[path = "../sim/member.rs"]
mod member;
#[path = "../sim/rng.rs"]
mod rng;
#[path = "../sim/world.rs"]
mod world;

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name)
        .ok()
        .and_then(|v| v.parse().ok())
        .unwrap_or(default)
}

#[test]
fn clients_see_one_copy_whatever_fails() {
    let first = number("SIM_SEED", 1);
    let mut sum = world::Summary::default();
    for seed in first..first + number("SIM_SEEDS", 100) {
        let run = std::panic::catch_unwind(|| world::World::new(seed).run());
        match run {
            Ok(summary) => sum.add(&summary),
            Err(_) => panic!("seed {seed} fails; repeat it with SIM_SEED={seed} SIM_SEEDS=1"),
        }
    }
    println!("{sum:?}");
    assert!(
        sum.acknowledged > 0 && sum.crashes > 0 && sum.elections > 0,
        "the simulation did nothing: {sum:?}"
    );
}

#[test]
fn a_seed_gives_the_same_run_again() {
    let seed = number("SIM_SEED", 1);
    let (once, again) = (world::World::new(seed).run(), world::World::new(seed).run());
    assert_eq!(format!("{once:?}"), format!("{again:?}"));
}
