//! A schedule: a list of moves drawn from a seed.
//!
//! A move selects its object by a number, such as "the k-th pending effect", modulo the number of such objects. So any part of a
//! schedule is a schedule too, which makes shrinking possible. A move that finds no object has no effect.

/// splitmix64: small, fast, the same everywhere.
#[derive(Clone, Debug)]
pub(crate) struct Rng(pub(crate) u64);

impl Rng {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }

    pub(crate) fn percent(&mut self, chance: u64) -> bool {
        self.below(100) < chance
    }
}

/// How a pending effect ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum How {
    /// Done and answered.
    Works,
    /// Done; the answer is on the way.
    AnswersLater,
    /// Not done; a repetition may succeed.
    FailsForNow,
    /// Not done, with a permanent failure.
    Fails,
    /// Not done, with a permanent failure; a container that was to be started is left behind as ended, with an error.
    Refuses,
    /// Done, but answered with an error. An inventory is answered without the details of inspections.
    FailsDone,
    /// Timed out, and never done.
    TimesOut,
    /// Timed out, but was done.
    TimesOutDone,
    /// Timed out, and is done later.
    TimesOutLate,
}

/// The delivery of an event of Docker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Delivery {
    Once,
    Twice,
    Lost,
}

/// The point of the next turn at which the agent dies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Point {
    BeforeCommit,
    AfterCommit,
    /// After this many effects have been started.
    AmongEffects(usize),
}

/// One thing that happens in the world.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Move {
    /// ECS sends one or two new tasks, drawn from this number.
    Send(u64),
    /// ECS decides to stop a task and sends the stop.
    Stop(usize),
    /// ECS decides to stop a task, and only its next manifest shows it.
    StopSilently(usize),
    /// ECS stops a task that the agent does not know.
    StopUnknown,
    /// ECS sends a task that the agent cannot run.
    Refuse,
    /// A message that is not acknowledged yet arrives, perhaps again.
    Deliver(usize),
    /// A message arrives once more or late, whether or not it was acknowledged.
    Again(usize),
    /// ECS sends a manifest of the tasks that should run.
    Manifest,
    /// ECS sends a manifest that does not arrive yet.
    LateManifest,
    /// One of the manifests arrives, perhaps again.
    OldManifest(usize),
    /// ECS confirms which of the tasks missing in a manifest must stop, perhaps once more.
    Confirm(usize),
    /// Credentials arrive, perhaps under a new id.
    Credentials(usize, bool),
    /// This many acknowledgements get lost.
    LoseAcks(u8),
    /// A pending effect ends.
    Do(usize, How),
    /// An outcome without an owner arrives.
    Stale(u64),
    /// An event of Docker arrives.
    Fact(usize, Delivery),
    /// The event stream breaks.
    BreakStream,
    /// An operation that timed out is done now.
    Land(usize),
    /// A container ends by itself.
    Exit(usize, i32),
    /// A container ends because it used too much memory.
    Oom(usize),
    /// A health check has a result.
    Health(usize, bool),
    /// A person starts a stopped container.
    HandStart(usize),
    /// A person removes a container.
    HandRemove(usize),
    /// A person gives a container another name.
    HandRename(usize),
    /// A foreign container takes the name of a container of ours.
    TakeName(usize),
    /// Docker restarts; the bits decide which containers live on.
    RestartDocker(u64),
    /// An image is removed from the host.
    LoseImage(usize),
    /// Docker hangs: this many creates and starts get no answer and are not done.
    Jam(u8),
    /// Docker cannot be reached: this many operations fail temporarily.
    Down(u8),
    /// The next events arrive in one burst, with one commit.
    Hold(u8),
    /// Time passes until something is due.
    Advance,
    /// Time passes, or the clock is set ahead.
    Wait(u64),
    /// The agent is killed and restarted. The bits decide about the pending effects, and whether the clock is set back or the
    /// capacity of the host changes meanwhile.
    Crash(u64),
    /// The agent is killed and restarted with an empty disk.
    LoseState(u64),
    /// The agent is killed at this point of its next turn, and restarted.
    CrashAt(Point, u64),
    /// ECS announces an attachment, perhaps again.
    Attach(usize, u64),
    /// A device appears; true: the agent is shown that.
    Plug(usize, bool),
    /// A device goes.
    Unplug(usize),
    /// The agent is shown all devices.
    ShowLinks,
}

/// The schedule of a seed.
pub(crate) fn draw(seed: u64) -> Vec<Move> {
    let mut rng = Rng(seed ^ 0x005e_ed0f_5c4e_d01e);
    // Each schedule has a few kinds of faults of its own, so that rare combinations become common in some schedules.
    let fault_chance = rng.below(60);
    // Kinds with neighbouring numbers are related.
    let (first, count) = (rng.below(FAULT_KINDS), 2 + rng.below(15));
    let kinds: Vec<u64> = match rng.below(2) {
        0 => (0..count).map(|_| rng.below(FAULT_KINDS)).collect(),
        _ => (first..first + count).map(|kind| kind % FAULT_KINDS).collect(),
    };
    let length = 15 + rng.below(55);
    let mut moves = vec![Move::Send(rng.next()), Move::Deliver(0)];
    for _ in 0..length {
        let drawn = if rng.percent(fault_chance) {
            let kind = kinds[rng.below(kinds.len() as u64) as usize];
            fault(&mut rng, kind)
        } else {
            ordinary(&mut rng)
        };
        moves.push(drawn);
    }
    add_network_moves(seed, &mut moves);
    moves
}

/// Adds what happens to devices and attachments. The other moves of a seed are as they were before there were networks.
fn add_network_moves(seed: u64, moves: &mut Vec<Move>) {
    let mut rng = Rng(seed ^ 0x0e7_7e57);
    for _ in 0..rng.below(14) {
        let drawn = match rng.below(10) {
            0..5 => Move::Attach(pick(&mut rng), rng.next()),
            5..8 => Move::Plug(pick(&mut rng), rng.percent(70)),
            8 => Move::ShowLinks,
            _ if rng.percent(30) => Move::Unplug(pick(&mut rng)),
            _ => Move::Advance,
        };
        let at = 1 + rng.below(moves.len() as u64) as usize;
        moves.insert(at, drawn);
    }
}

fn pick(rng: &mut Rng) -> usize {
    (rng.next() >> 40) as usize
}

fn ordinary(rng: &mut Rng) -> Move {
    match rng.below(100) {
        0..50 => Move::Do(pick(rng), How::Works),
        50..68 => Move::Fact(pick(rng), Delivery::Once),
        68..78 => Move::Advance,
        78..82 => Move::Deliver(pick(rng)),
        82..86 => Move::Send(rng.next()),
        86..88 => Move::Stop(pick(rng)),
        88..93 => Move::Exit(pick(rng), if rng.percent(60) { 0 } else { 1 + rng.below(3) as i32 }),
        93..97 => Move::Health(pick(rng), rng.percent(80)),
        97..98 => Move::Credentials(pick(rng), false),
        _ => Move::Wait(rng.below(20_000)),
    }
}

/// The number of kinds of faults.
const FAULT_KINDS: u64 = 48;

fn fault(rng: &mut Rng, kind: u64) -> Move {
    match kind {
        0 | 1 => Move::Do(pick(rng), How::AnswersLater),
        2 | 3 => Move::Do(pick(rng), How::FailsForNow),
        4 => Move::Do(pick(rng), How::Fails),
        5 => Move::Do(pick(rng), How::TimesOut),
        6 | 7 => Move::Do(pick(rng), How::TimesOutDone),
        8 | 9 => Move::Do(pick(rng), How::TimesOutLate),
        10 => Move::Do(pick(rng), How::Refuses),
        11 | 12 => Move::Do(pick(rng), How::FailsDone),
        13..22 => delivery_fault(rng, kind),
        22..33 => engine_fault(rng, kind),
        33 | 34 => Move::Hold(1 + rng.below(5) as u8),
        35 => Move::Crash(rng.next()),
        36 => Move::CrashAt(Point::BeforeCommit, rng.next()),
        37 => Move::CrashAt(Point::AfterCommit, rng.next()),
        38 => Move::CrashAt(Point::AmongEffects(rng.below(3) as usize), rng.next()),
        39 => Move::Wait(rng.below(2_000_000)),
        40 => Move::Wait(rng.below(10_000_000_000)),
        _ => ecs_fault(rng, kind),
    }
}

/// Events and outcomes arrive late, twice or never.
fn delivery_fault(rng: &mut Rng, kind: u64) -> Move {
    match kind {
        13 => Move::Stale(rng.below(40)),
        14 | 15 => Move::Fact(pick(rng), Delivery::Twice),
        16..19 => Move::Fact(pick(rng), Delivery::Lost),
        19 => Move::BreakStream,
        _ => Move::Land(pick(rng)),
    }
}

/// Faults of Docker, and people who change its containers.
fn engine_fault(rng: &mut Rng, kind: u64) -> Move {
    match kind {
        22 | 23 => Move::HandStart(pick(rng)),
        24 => Move::HandRemove(pick(rng)),
        25 => Move::HandRename(pick(rng)),
        26 => Move::TakeName(pick(rng)),
        27 => Move::RestartDocker(rng.next()),
        28 => Move::LoseImage(pick(rng)),
        29 => Move::Jam(3 + rng.below(3) as u8),
        30 => Move::Down(1 + rng.below(12) as u8),
        _ => Move::Oom(pick(rng)),
    }
}

/// Faults of ECS and of the connection to it.
fn ecs_fault(rng: &mut Rng, kind: u64) -> Move {
    match kind {
        41 => Move::LoseAcks(1 + rng.below(2) as u8),
        42 => Move::StopSilently(pick(rng)),
        43 => Move::Manifest,
        44 => match rng.below(2) {
            0 => Move::LateManifest,
            _ => Move::OldManifest(pick(rng)),
        },
        45 => match rng.below(2) {
            0 => Move::Confirm(pick(rng)),
            _ => Move::Credentials(pick(rng), true),
        },
        46 => match rng.below(4) {
            0 => Move::StopUnknown,
            1 => Move::Refuse,
            2 => Move::LoseState(rng.next()),
            _ => Move::Deliver(pick(rng)),
        },
        _ => Move::Again(pick(rng)),
    }
}
