//! Runs a schedule to its end, and finds the smallest part of one that still breaks a law.

use crate::control::MAX_TASKS;
use crate::laws;
use crate::schedule::{self, Move};
use crate::world::World;
use ecs_core::model::Timestamp;
use std::hash::{DefaultHasher, Hash, Hasher};

/// The largest number of turns of a healed world, more than any world needs.
const MAX_TURNS: u32 = 6_000;

/// How a run ended.
#[derive(Debug)]
pub(crate) struct End {
    pub(crate) steps: u64,
    pub(crate) broken: Option<String>,
    trace: Vec<String>,
}

impl End {
    pub(crate) fn hash(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        self.trace.hash(&mut hasher);
        hasher.finish()
    }
}

pub(crate) fn run(seed: u64, moves: &[Move], traced: bool) -> End {
    let mut world = World::new(seed);
    world.trace = traced.then(Vec::new);
    for &step in moves {
        world.make(step);
        if world.broken.is_some() {
            break;
        }
    }
    world.heal();
    quiesce(&mut world, 1_000);
    if world.broken.is_none() {
        laws::settled(&mut world);
    }
    if world.broken.is_none() && laws::waiting(&world).is_some() {
        // No task runs for ever: a waiting task gets its share when earlier ones have ended. Each round admits at least one.
        for _ in 0..MAX_TASKS {
            // A restarted container ends at once, too soon for another restart.
            for _ in 0..2 {
                world.end_all();
                quiesce(&mut world, 0);
            }
            quiesce(&mut world, 200);
        }
        laws::everybody_had_a_share(&mut world);
    }
    world.ecs.stop_all();
    quiesce(&mut world, 2_500);
    if world.broken.is_none() {
        laws::settled(&mut world);
        laws::all_gone(&mut world);
    }
    End { steps: world.steps, broken: world.broken, trace: world.trace.unwrap_or_default() }
}

/// Without faults, everything on the way arrives, and this many seconds pass.
pub(crate) fn quiesce(world: &mut World, secs: u64) {
    let until = Timestamp(world.now.0 + secs * 1_000);
    for _ in 0..MAX_TURNS {
        if world.broken.is_some() {
            return;
        }
        if world.drain_one() {
            continue;
        }
        if world.now >= until {
            return;
        }
        world.advance();
    }
    world.breaks("a healed world comes to rest", || "it does not".to_owned());
}

/// The text that explains to a person why a seed fails: the law, the shrunk moves and the trace.
pub(crate) fn explain(seed: u64) -> String {
    let moves = schedule::draw(seed);
    // Without shrinking, a failure is found faster.
    let is_wanted = std::env::var_os("SIM_SHRINK").is_none_or(|text| text != "0");
    let moves = if is_wanted { shrink(seed, moves) } else { moves };
    let end = run(seed, &moves, true);
    format!(
        "seed {seed}\nlaw broken: {}\nmoves: {moves:?}\ntrace:\n{}",
        end.broken.unwrap_or_default(),
        end.trace.join("\n")
    )
}

/// Leaves out moves as long as the same law is broken: first halves, then quarters, …, at last single moves.
fn shrink(seed: u64, mut moves: Vec<Move>) -> Vec<Move> {
    let law = |broken: Option<String>| broken.map(|text| text.split(':').next().unwrap_or_default().to_owned());
    let wanted = law(run(seed, &moves, false).broken);
    let mut size = moves.len().div_ceil(2).max(1);
    loop {
        let mut at = 0;
        while at < moves.len() {
            let mut fewer = moves.clone();
            fewer.drain(at..(at + size).min(moves.len()));
            if law(run(seed, &fewer, false).broken) == wanted {
                moves = fewer;
            } else {
                at += size;
            }
        }
        if size == 1 {
            return moves;
        }
        size /= 2;
    }
}
