//! A member that has confirmed entries and has them no more: somebody damaged the end of its log, or its disk lied.
//!
//! Its leader goes by what was confirmed, so it would never send those entries again, and the library panics at a commit
//! beyond the log. Such a member asks for the whole state instead, and until it has that it neither stands for leader
//! nor votes for whoever may lack the same. (Once it is started again it knows of no loss until a leader tells it.)

use raft::eraftpb::{Message, MessageType};

use super::{Consensus, Loss};

impl Consensus {
    /// Looks whether a heartbeat tells of a commit beyond this log: a leader tells only of what was confirmed to it.
    pub(super) fn notice_loss(&mut self, message: &mut Message) {
        let raft = &mut self.node.raft;
        let last_index = raft.raft_log.last_index();
        let beyond = message.msg_type() == MessageType::MsgHeartbeat && message.commit > last_index;
        if !beyond || message.term < raft.term {
            return;
        }
        let confirmed = message.commit;
        message.commit = raft.raft_log.committed;
        self.confirmed_and_lost = (message.term, confirmed);
        if raft.pending_request_snapshot == raft::INVALID_INDEX {
            // The library sends the request by itself from now on, instead of answers, until the state is here.
            raft.pending_request_snapshot = last_index;
            self.loss = Some(Loss {
                last_index,
                confirmed,
            });
        }
    }

    /// Whether this member lacks what it has confirmed, and waits for the state.
    pub(super) fn has_lost(&self) -> bool {
        self.node.raft.pending_request_snapshot != raft::INVALID_INDEX
    }

    /// Whether a candidate may lack what this member has lost: then it could win with this member's vote though nobody
    /// of those who vote for it has that.
    pub(super) fn may_be_without_what_was_lost(&self, candidate: &Message) -> bool {
        self.has_lost() && (candidate.log_term, candidate.index) < self.confirmed_and_lost
    }

    /// A request for the state names what was confirmed: a leader takes one that names less for an old message.
    pub(super) fn claim(&self, mut message: Message) -> Message {
        if message.request_snapshot != raft::INVALID_INDEX {
            message.index = message.index.max(self.confirmed_and_lost.1);
        }
        message
    }
}
