//! Deterministic simulation of the core: no clock, no socket, no thread inside a schedule.
//!
//! A seed gives a schedule (`schedule`), a world interprets the agent's effects (`world` and its parts, `docker`, `control`),
//! and laws judge every turn and the end (`laws`). A failure prints the seed, the shrunk schedule and its trace. `README.md`
//! says how to use the simulator.

mod control;
mod docker;
mod fetcher;
mod heal;
mod laws;
mod life;
mod moves;
mod network;
mod outcome;
mod planted;
mod recovery;
mod run;
mod schedule;
mod soak;
mod turn;
mod world;

use std::sync::atomic::{AtomicU64, Ordering};

/// The number of schedules in a default run.
const DEFAULT_SEEDS: u64 = 20_000;

fn seeds_wanted() -> u64 {
    std::env::var("SIM_SEEDS").ok().and_then(|text| text.parse().ok()).unwrap_or(DEFAULT_SEEDS)
}

/// The first seed: `SIM_FIRST` selects other schedules.
fn first_seed() -> u64 {
    std::env::var("SIM_FIRST").ok().and_then(|text| text.parse().ok()).unwrap_or(0)
}

#[test]
fn every_schedule_obeys_the_laws() {
    let (first, count) = (first_seed(), seeds_wanted());
    let (next, steps, failed) = (AtomicU64::new(first), AtomicU64::new(0), AtomicU64::new(u64::MAX));
    let begin = std::time::Instant::now();
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let from = next.fetch_add(64, Ordering::Relaxed);
                    if from >= first + count || failed.load(Ordering::Relaxed) < from {
                        return;
                    }
                    if (from - first) % 100_000 < 64 && from > first {
                        println!("{} schedules in {:.0} s", from - first, begin.elapsed().as_secs_f64());
                    }
                    for seed in from..(from + 64).min(first + count) {
                        let end = run::run(seed, &schedule::draw(seed), false);
                        steps.fetch_add(end.steps, Ordering::Relaxed);
                        if end.broken.is_some() {
                            failed.fetch_min(seed, Ordering::Relaxed);
                            return;
                        }
                    }
                }
            });
        }
    });
    let (seed, steps, took) = (failed.into_inner(), steps.into_inner(), begin.elapsed().as_secs_f64());
    if seed != u64::MAX {
        panic!("after {} schedules:\n{}", seed - first + 1, run::explain(seed));
    }
    println!("{count} schedules, {steps} steps in {took:.1} s: {:.0} schedules/s", count as f64 / took);
}

#[test]
fn seeds_that_failed_once_still_pass() {
    for line in include_str!("seeds.txt").lines() {
        let Some(seed) = line.split_whitespace().next().filter(|word| !word.starts_with('#')) else { continue };
        let seed = seed.parse().expect("a line of seeds.txt begins with a number");
        let end = run::run(seed, &schedule::draw(seed), false);
        assert!(end.broken.is_none(), "{}", run::explain(seed));
    }
}

#[test]
fn the_same_seed_gives_the_same_run() {
    for seed in (0..2_000).step_by(20) {
        let (first, second) =
            (run::run(seed, &schedule::draw(seed), true), run::run(seed, &schedule::draw(seed), true));
        assert_eq!(first.hash(), second.hash(), "seed {seed}");
    }
}
