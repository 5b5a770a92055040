//! What is taken of others' messages, what is not let happen by them, and what of ours must not go as it is.

use raft::eraftpb::{Message, MessageType};

use super::Consensus;

impl Consensus {
    /// Whether entries and proposals that others send are dropped, as by a member that can't apply what it has; a leader sends its entries again.
    pub fn hold_entries(&mut self, hold: bool) {
        self.holds_entries = hold;
    }

    pub(super) fn refuses(&self, message: &Message) -> bool {
        match message.msg_type() {
            MessageType::MsgAppend | MessageType::MsgPropose => self.holds_entries,
            MessageType::MsgTimeoutNow => !self.may_campaign(),
            MessageType::MsgRequestVote | MessageType::MsgRequestPreVote => {
                self.may_be_without_what_was_lost(message)
            }
            _ => false,
        }
    }

    /// A late rejection must not make us send again what a member has already confirmed (raft-rs issue 557).
    pub(super) fn keep_next_after_match(&mut self, id: u64) {
        if let Some(progress) = self.node.raft.mut_prs().get_mut(id) {
            progress.next_idx = progress.next_idx.max(progress.matched + 1);
        }
    }

    /// Takes back the answer to an append that only told what is committed by now, where the same was confirmed before:
    /// one message less of each member for each write. Should the first answer be lost, then the leader asks again after
    /// its next heartbeat, with no such news.
    pub(super) fn spare_answer(&mut self, only_news: bool) {
        let Some(answer) = self.node.raft.msgs.last() else {
            return;
        };
        if answer.msg_type() != MessageType::MsgAppendResponse || answer.reject {
            return;
        }
        let confirmed = (answer.to, answer.term, answer.index);
        if only_news && self.confirmed == confirmed {
            self.node.raft.msgs.pop();
        }
        self.confirmed = confirmed;
    }

    /// An append whose entries follow the position that it names. The library batches entries into an append that
    /// waits, also into an empty one that names another position; the answer would confirm what the other has not got.
    /// And see `claim`.
    pub(super) fn sound(&self, message: Message) -> Option<Message> {
        let mut message = self.claim(message);
        let append = message.msg_type() == MessageType::MsgAppend;
        if let Some(first) = message.entries.first().filter(|_| append) {
            if first.index != message.index + 1 {
                message.index = first.index - 1;
                // Without it the message is lost, as on a network.
                message.log_term = self.term_of(message.index)?;
            }
        }
        Some(message)
    }
}
