//! Mistakes planted so that the simulation proves it finds them. Only a build with the feature `planted-bugs` has them,
//! and there one is made only on a thread that chose it.

/// A mistake that could be in the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bug {
    /// Answers wait for no sync of the log.
    AckBeforeSync,
    /// The vote of a term is not on disk.
    VoteNotSaved,
    /// A leader answers reads without asking whether it still leads.
    ReadWithoutReadIndex,
    /// A read that is asked again keeps its context.
    ReusedReadContext,
    /// A torn or damaged frame of the log passes for a whole one.
    CrcSkipped,
    /// One that a thousand seeds do not find: `consensus/tests/durable.rs` is there for it.
    LoneVoterSpeaksEarly,
    /// A change of the membership is in force where it was proposed before it is committed.
    MemberBeforeCommit,
    /// A watch that begins at an earlier revision misses that one's events.
    EventDroppedAtReconnect,
    /// Progress is told while events wait.
    ProgressAheadOfEvents,
    /// A lease is renewed though its revocation is on the way.
    LeaseRevivedTwice,
    /// A leader that was deposed and leads again goes by its old deadlines.
    LeaseEndsByOldTerm,
    /// A key that has got another lease still goes with the first.
    LeaseKeepsKey,
    /// A compaction removes a live key's newest version from disk when it removes older ones.
    CompactionForgetsNewest,
    /// The applied index is saved one commit later than what it is the index of.
    AppliedSavedApart,
    /// What was applied during a defragmentation's end is not written.
    ParkedLost,
    /// A permission that is taken away is not taken from watches under way.
    WatchNotJudgedAgain,
}

impl Bug {
    /// All of them, in the order of their naming.
    pub const ALL: [Self; 16] = [
        Self::AckBeforeSync,
        Self::VoteNotSaved,
        Self::ReadWithoutReadIndex,
        Self::ReusedReadContext,
        Self::CrcSkipped,
        Self::LoneVoterSpeaksEarly,
        Self::MemberBeforeCommit,
        Self::EventDroppedAtReconnect,
        Self::ProgressAheadOfEvents,
        Self::LeaseRevivedTwice,
        Self::LeaseEndsByOldTerm,
        Self::LeaseKeepsKey,
        Self::CompactionForgetsNewest,
        Self::AppliedSavedApart,
        Self::ParkedLost,
        Self::WatchNotJudgedAgain,
    ];
}

#[cfg(feature = "planted-bugs")]
mod chosen {
    use std::cell::Cell;

    thread_local! {
        pub(super) static CHOSEN: Cell<Option<super::Bug>> = const { Cell::new(None) };
    }
}

/// Has what this thread runs make that mistake from now on, or none.
#[cfg(feature = "planted-bugs")]
pub fn plant(bug: Option<Bug>) {
    chosen::CHOSEN.set(bug);
}

/// Whether this mistake is to be made here.
#[cfg(feature = "planted-bugs")]
pub(crate) fn planted(bug: Bug) -> bool {
    chosen::CHOSEN.get() == Some(bug)
}

/// Never, in a build without the feature `planted-bugs`.
#[cfg(not(feature = "planted-bugs"))]
pub(crate) const fn planted(_: Bug) -> bool {
    false
}
